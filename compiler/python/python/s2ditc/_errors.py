"""What s2ditc raises."""

from __future__ import annotations

from ._native import Error

__all__ = ["Error", "UnknownInputError"]

Error.kind = "work"


class UnknownInputError(Error, KeyError):
    """An input that the model does not have. coremltools raises ``KeyError`` for it, and this is one."""

    __str__ = Error.__base__.__str__
    kind = "input"


def failure(kind: str, message: str) -> Error:
    """An error of a kind."""
    error = Error(message)
    error.kind = kind
    return error

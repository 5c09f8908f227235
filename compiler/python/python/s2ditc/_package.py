"""Packages that predict, with the interface of coremltools' ``MLModel``."""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple, Optional, Sequence, Union, overload

import numpy.typing as npt

from . import _isolated, _native
from ._arrays import given, made
from ._errors import UnknownInputError

Array = npt.NDArray[Any]


class Port(NamedTuple):
    """An input, an output or a state of a function."""

    name: str
    dtype: Optional[str]
    """Element type, such as ``f32``; ``None`` if the model leaves it open."""
    shape: Optional[tuple[int, ...]]
    """Extents, -1 for one that is open; ``None`` if the model does not say them."""


class State:
    """The states of a model between predictions; :meth:`Package.make_state` makes it. As coremltools' ``MLState``."""

    def __init__(self, native: Union[_native.State, _isolated.State]) -> None:
        self._native = native

    @property
    def names(self) -> list[str]:
        """Names of the states."""
        return self._native.names()

    def read_state(self, name: str) -> Array:
        """A copy of a state, in its own element type.

        Raises:
            Error: No state of this name.
        """
        return made(self._native.read(name))

    def write_state(self, name: str, value: npt.ArrayLike) -> None:
        """Replaces a state; the numbers are rounded to its element type.

        Raises:
            Error: No state of this name; a value of another shape.
        """
        self._native.write(name, given(name, value))


class Package:
    """A Core ML package (``.mlpackage``) or an ONNX file (``.onnx``), of any tool, open to predict on this machine.

    ``predict`` and ``make_state`` are those of ``coremltools.models.MLModel``. Models run with ONNX Runtime and in fp32, in this process unless they are isolated;
    predictions of one package come one after the other, and the interpreter is free meanwhile.

    Args:
        path: The package or file.
        function_name: The function of a package with several; the default one without it.
        fp16: Round every fp16 result to fp16, as the Neural Engine stores it.
        threads: Threads of one operation; all cores without it.
        low_memory: Leave weights in their file, mapped. Else they are copied into memory in the type that is computed in, which is faster.
        keep_float16: Return fp16 outputs as float16. Else they are float32, as coremltools returns them.
        isolated: Run the model in a child process, so that a crash of ONNX Runtime on a file that is made to harm is an error. Arrays are then sent through
            a pipe.

    Raises:
        Error: Nothing there, a damaged package, no function of this name.
    """

    def __init__(
        self,
        path: Union[str, os.PathLike[str]],
        function_name: Optional[str] = None,
        *,
        fp16: bool = False,
        threads: Optional[int] = None,
        low_memory: bool = False,
        keep_float16: bool = False,
        isolated: bool = False,
    ) -> None:
        native: Any = _isolated.Predictor if isolated else _native.Predictor
        self._native = native(path, fp16, low_memory, threads or 0)
        ports = json.loads(self._native.ports(function_name))
        self._inputs, self._outputs, self._states = (_ports(ports[what]) for what in ("inputs", "outputs", "states"))
        self._names = {port.name for port in self._inputs}
        self._path = os.fspath(path)
        self.function_name = function_name
        self.fp16 = fp16
        self.keep_float16 = keep_float16

    @property
    def functions(self) -> list[str]:
        """Names of the functions, the default one first; an ONNX file has none."""
        functions: list[str] = self._native.functions()
        return functions

    @property
    def inputs(self) -> list[Port]:
        """What :meth:`predict` takes."""
        return list(self._inputs)

    @property
    def outputs(self) -> list[Port]:
        """What :meth:`predict` returns."""
        return list(self._outputs)

    @property
    def states(self) -> list[Port]:
        """The states of :meth:`make_state`."""
        return list(self._states)

    def make_state(self) -> State:
        """States before the first prediction: zeros."""
        return State(self._native.new_state(self.function_name))

    @overload
    def predict(self, data: dict[str, Any], state: Optional[State] = None) -> dict[str, Array]: ...

    @overload
    def predict(self, data: list[dict[str, Any]], state: None = None) -> list[dict[str, Array]]: ...

    def predict(self, data: Any, state: Optional[State] = None) -> Any:
        """Predicts.

        Args:
            data: Values by the names of the inputs: arrays, tensors of PyTorch, lists, numbers, pictures of PIL for image inputs. Floats are rounded to the
                type that the input has. With a list of such dictionaries, a prediction for each.
            state: What :meth:`make_state` gave, for a model with states; the prediction writes it.

        Returns:
            Arrays by the names of the outputs, or a list of such dictionaries.

        Raises:
            TypeError: ``data`` is neither.
            UnknownInputError: A name that is no input; it is a ``KeyError``.
            Error: An input that is missing or does not fit; an operation that s2ditc does not run.
        """
        if type(data) not in (list, dict):
            raise TypeError(f'"data" parameter must be either a dict or list of dict, but got {type(data)}.')
        if isinstance(data, dict):
            return self._predict(data, state)
        if not all(type(each) is dict for each in data):
            raise TypeError('"data" list must contain only dictionaries')
        if state is not None:
            raise AssertionError("State can only be used for unbatched predictions")
        return [self._predict(each, None) for each in data]

    def _predict(self, data: dict[str, Any], state: Optional[State]) -> dict[str, Array]:
        for name in data:
            if name not in self._names:
                raise UnknownInputError(
                    f'Provided key "{name}", in the input dict, does not match any of the model input name(s), which are: {self._names}'
                )
        inputs = [(name, given(name, value)) for name, value in data.items()]
        native = None if state is None else state._native
        found = dict(self._native.predict(self.function_name, inputs, native))
        return {port.name: made(found[port.name], self.keep_float16) for port in self._outputs}

    def __repr__(self) -> str:
        function = f", function_name={self.function_name!r}" if self.function_name else ""
        return f"Package({self._path!r}{function})"


def _ports(listed: Sequence[dict[str, Any]]) -> list[Port]:
    return [Port(each["name"], each["dtype"], None if each["shape"] is None else tuple(each["shape"])) for each in listed]

"""Core ML packages predict on any machine, and the commands of s2ditc are functions.

``Package`` opens a package or an ONNX file to predict, as coremltools' ``MLModel`` does on a Mac; ``Kernel`` makes video chunk by chunk, and ``Pipeline`` from
a prompt. ``compile``, ``verify``, ``lint``, ``quantize`` and the others are the commands of the command line: keyword arguments are its flags, and reports come
back as dictionaries. What fails raises ``Error``.
"""

from __future__ import annotations

from . import _library, _native
from ._command import Progress
from ._commands import *  # noqa: F403
from ._commands import __all__ as _functions
from ._errors import Error, UnknownInputError
from ._kernel import Kernel
from ._native import __version__
from ._package import Package, Port, State
from ._pipeline import Pipeline

__all__ = ["Error", "Kernel", "Package", "Pipeline", "Port", "Progress", "State", "UnknownInputError", "__version__"]
__all__ += _functions

_found = _library.find()
if _found is not None:
    _native.use_library(_found)
del _found

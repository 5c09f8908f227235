"""A predictor in a child process, for packages that may crash ONNX Runtime. Arrays and states travel through pipes."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import weakref
from typing import Any, Optional, Sequence, Union

from . import _native
from ._errors import Error, failure
from ._process import again, ended


class State:
    """``_native.State`` by value."""

    def __init__(self, arrays: dict[str, Any]) -> None:
        self.arrays = arrays

    def names(self) -> list[str]:
        return list(self.arrays)

    def read(self, name: str) -> Any:
        dtype, shape, data = self._known(name)
        return dtype, shape, data.copy()

    def write(self, name: str, value: Any) -> None:
        dtype, shape, _ = self._known(name)
        # The native state judges the shape and rounds to the element type.
        self.arrays[name] = value if value[:2] == (dtype, tuple(shape)) else _rounded(name, value, (dtype, shape))

    def _known(self, name: str) -> Any:
        if name not in self.arrays:
            raise failure("state", f"found no state `{name}`; the states are: {', '.join(self.arrays) or 'none'}")
        return self.arrays[name]


def _rounded(name: str, value: Any, wanted: Any) -> Any:
    from ._arrays import DTYPES, given, made

    dtype, shape = wanted
    if tuple(value[1]) != tuple(shape):
        found, expected = (f"{ty}{list(extents)}" for ty, extents in (value[:2], wanted))
        raise failure("state", f"state `{name}`: found {found}, expected {expected}")
    return given(name, made(value).astype(DTYPES[dtype]))


class Predictor:
    """``_native.Predictor`` in a child process, which ends with this object."""

    def __init__(self, path: Union[str, os.PathLike[str]], fp16: bool, mapped: bool, threads: int) -> None:
        self._subject = os.fspath(path)
        self._lock = threading.Lock()
        self._child = subprocess.Popen(again("s2ditc._isolated"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._end = weakref.finalize(self, stop, self._child)
        self._ask("open", self._subject, fp16, mapped, threads)

    def functions(self) -> list[str]:
        found: list[str] = self._ask("functions")
        return found

    def ports(self, function: Optional[str] = None) -> str:
        found: str = self._ask("ports", function)
        return found

    def new_state(self, function: Optional[str] = None) -> State:
        return State(self._ask("new_state", function))

    def predict(self, function: Optional[str], inputs: Sequence[Any], state: Optional[State]) -> Any:
        outputs, states = self._ask("predict", function, inputs, None if state is None else state.arrays)
        if state is not None:
            state.arrays = states
        return outputs

    def _ask(self, *request: Any) -> Any:
        child = self._child
        assert child.stdin is not None and child.stdout is not None
        with self._lock:
            try:
                pickle.dump(request, child.stdin, protocol=5)
                child.stdin.flush()
                kind, answer = pickle.load(child.stdout)
            except (OSError, EOFError):
                raise failure("engine", ended(self._subject, child.wait())) from None
            except BaseException:
                # The answer would be taken for that of the next request.
                child.kill()
                raise
        if kind:
            raise failure(kind, answer)
        return answer


def stop(child: subprocess.Popen[bytes]) -> None:
    """Ends a child that has nothing to do."""
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:
                # What was not sent need not be.
                pass


class Served:
    """The child's side."""

    def open(self, *how: Any) -> None:
        self.native = _native.Predictor(*how)

    def functions(self) -> list[str]:
        return self.native.functions()

    def ports(self, function: Optional[str]) -> str:
        return self.native.ports(function)

    def new_state(self, function: Optional[str]) -> dict[str, Any]:
        return arrays_of(self.native.new_state(function))

    def predict(self, function: Optional[str], inputs: Sequence[Any], states: Optional[dict[str, Any]]) -> Any:
        state = None if states is None else self.native.new_state(function)
        if state is not None and states is not None:
            for name, value in states.items():
                state.write(name, value)
        outputs = self.native.predict(function, inputs, state)
        return outputs, None if state is None else arrays_of(state)


def arrays_of(state: _native.State) -> dict[str, Any]:
    """The arrays of a native state."""
    return {name: state.read(name) for name in state.names()}


def main() -> int:
    """Answers requests until the parent is gone."""
    # Ctrl-C is for the parent, which ends this process if it must.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    served = Served()
    while True:
        try:
            name, *rest = pickle.load(requests)
        except EOFError:
            return 0
        try:
            answer = ("", getattr(served, name)(*rest))
        except Error as error:
            answer = (error.kind, str(error))
        pickle.dump(answer, answers, protocol=5)
        answers.flush()

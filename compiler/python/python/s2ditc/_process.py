"""Child processes: commands that run models do so in one, so that a crash of ONNX Runtime on a damaged file is an error."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
from typing import Any, Callable, Optional, Sequence

from . import _native
from ._errors import Error, failure


def again(module: str) -> list[str]:
    """What starts Python with ``main`` of a module of this package, from where this package lies."""
    root = str(pathlib.Path(__file__).resolve().parent.parent)
    # The first place is the current folder, where another module may have this one's name.
    code = f"import sys; sys.path[0] = {root!r}; from {module} import main; sys.exit(main())"
    return [sys.executable or "python3", "-c", code]


def main() -> int:
    """The child's side of :func:`call`: a line of JSON for each thing that happens."""
    _native.end_cleanly()
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # Whatever else is printed must not stand among the lines.
    os.dup2(2, 1)

    def say(**what: Any) -> None:
        lines.write(json.dumps(what) + "\n")
        lines.flush()

    try:
        printed, passed = _native.call(
            sys.argv[1:],
            lambda done, total, text: say(done=done, total=total, text=text),
            lambda text: say(note=text),
        )
        say(printed=printed, passed=passed)
    except Error as error:
        say(error=str(error), kind=error.kind)
    return 0


def call(
    args: Sequence[str],
    progress: Optional[Callable[[int, int, str], Any]],
    note: Optional[Callable[[str], Any]],
    subject: str,
) -> tuple[str, bool]:
    """``_native.call`` in a child process."""
    command = [*again("s2ditc._process"), *args]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    answer: Optional[dict[str, Any]] = None
    try:
        assert child.stdout is not None
        for line in child.stdout:
            said = json.loads(line)
            if "done" in said:
                if progress:
                    progress(said["done"], said["total"], said["text"])
            elif "note" in said:
                if note:
                    note(said["note"])
            else:
                answer = said
        code = child.wait()
    except BaseException:
        child.terminate()
        child.wait()
        raise
    finally:
        if child.stdout is not None:
            child.stdout.close()
    if answer is None:
        raise failure("engine", ended(subject, code))
    if "error" in answer:
        raise failure(answer["kind"], answer["error"])
    return answer["printed"], answer["passed"]


def ended(subject: str, code: int) -> str:
    """What is said of a child that ended without an answer."""
    if code == -getattr(signal, "SIGKILL", 9):
        return f"`{subject}`: the process that ran it was killed from outside (signal {-code}), as systems do when memory runs out"
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"`{subject}`: the process that ran it crashed ({how}): the file is damaged, or ONNX Runtime cannot do what it asks for"

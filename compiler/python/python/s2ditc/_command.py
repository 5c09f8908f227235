"""Commands as functions: keyword arguments become flags, and reports come back as Python has them."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Any, Callable, Iterable, NamedTuple, Optional, Sequence, Union

from . import _native, _process

Path = Union[str, "os.PathLike[str]"]

LOG = logging.getLogger("s2ditc")


class Progress(NamedTuple):
    """How far a command is."""

    done: int
    """Bytes or calls that are done."""
    total: int
    """Bytes or calls in all."""
    text: str
    """What is being done."""


Watch = Union[bool, None, Callable[[Progress], Any]]


def many(values: Any) -> list[Any]:
    """The values of a flag that may be given several times: none, one, or several."""
    if values is None:
        return []
    return [values] if isinstance(values, (str, os.PathLike)) else list(values)


def sides(value: Any) -> Any:
    """A size as the command line has it: ``(3, 36, 64)`` is ``3x36x64``."""
    return value if value is None or isinstance(value, str) else "x".join(str(int(side)) for side in value)


def words(flags: Iterable[tuple[str, Any]]) -> list[str]:
    """The flags as they are typed."""
    typed = []
    for flag, value in flags:
        for one in value if isinstance(value, list) else [value]:
            if one is True:
                typed.append(flag)
            elif one is not None and one is not False:
                typed.append(f"{flag}={os.fspath(one) if isinstance(one, os.PathLike) else one}")
    return typed


def command(name: str, subjects: Sequence[Optional[Path]], flags: dict[str, Any], progress: Watch) -> Any:
    """Runs a command. Returns its report, or the text that it prints if that is no JSON."""
    given = [os.fspath(subject) for subject in subjects if subject is not None]
    args = [name, *words(flags.items())]
    if progress is False:
        args.append("--quiet")
    args += ["--", *given]
    shown = watcher(progress)

    def tell(done: int, total: int, text: str) -> None:
        if shown is not None:
            shown(Progress(done, total, text))

    try:
        if _native.runs_models(args):
            printed, passed = _process.call(args, tell if shown else None, note, given[0] if given else name)
        else:
            printed, passed = _native.call(args, tell if shown else None, note)
    finally:
        if isinstance(shown, Line):
            shown.end()
    try:
        report = json.loads(printed)
    except ValueError:
        return printed.rstrip("\n")
    if isinstance(report, dict) and name == "verify":
        report.setdefault("passed", passed)
    return report


def note(text: str) -> None:
    """Passes on what a command says beside its report."""
    LOG.log(logging.WARNING if text.startswith("warning") else logging.INFO, "%s", text)


def watcher(progress: Watch) -> Optional[Callable[[Progress], Any]]:
    """Who hears of progress."""
    if callable(progress):
        return progress
    if progress or (progress is None and (is_terminal() or "ipykernel" in sys.modules)):
        return Line()
    return None


def is_terminal() -> bool:
    """Whether standard error is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


class Line:
    """A line on standard error that is written again and again, which terminals and notebooks show as one."""

    WIDTH = 32

    def __init__(self) -> None:
        self.length = 0

    def __call__(self, at: Progress) -> None:
        filled = self.WIDTH * at.done // max(at.total, 1)
        text = f"[{'━' * filled}{' ' * (self.WIDTH - filled)}] {100 * at.done // max(at.total, 1):3} % {at.text}"
        self.write(text)
        self.length = len(text)

    def write(self, text: str) -> None:
        sys.stderr.write("\r" + text.ljust(self.length))
        sys.stderr.flush()

    def end(self) -> None:
        """Removes the line."""
        if self.length:
            self.write("")
            sys.stderr.write("\r")
            sys.stderr.flush()

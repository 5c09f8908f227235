"""Compiled pipelines: a video from a prompt."""

from __future__ import annotations

import json
import operator
import os
import queue
import threading
from typing import Any, Callable, Iterable, Iterator, Mapping, Optional, Sequence, Union

import numpy as np
import numpy.typing as npt

from . import _native
from ._arrays import given, made
from ._command import LOG, Line, Progress, Watch, watcher
from ._errors import failure

Array = npt.NDArray[Any]
Path = Union[str, "os.PathLike[str]"]
Guidance = Union[float, Sequence[float]]


class Pipeline:
    """A video from a prompt: the folder that ``compile(PIPELINE, size=…)`` makes, with its tokenizer, text encoder, transformer and decoder.

    The files that ship are run as they lie in the folder, in this process. The parts are loaded when a video is made, one after the other, so that the memory is
    that of the largest of them. ``s2ditc.generate`` makes the same frames and writes them to a file.

    Args:
        path: The folder.
        fp16: Round every fp16 result to fp16, as the Neural Engine stores it.
        threads: Threads of one operation; all cores without it.

    Raises:
        Error: Not the folder of a compiled pipeline; files that are missing or of another compile.
    """

    def __init__(self, path: Path, *, fp16: bool = False, threads: Optional[int] = None) -> None:
        self._native = _native.Pipeline(path, fp16, threads or 0)
        self._path = os.fspath(path)
        self._contract: dict[str, Any] = json.loads(self._native.contract())

    @property
    def contract(self) -> dict[str, Any]:
        """The contract of the pipeline, ``pipeline.json``: sizes, text, scheduler, what a video is made with unless somebody says otherwise."""
        return json.loads(json.dumps(self._contract))  # type: ignore[no-any-return]

    @property
    def mode(self) -> str:
        """``clip`` for a video of :attr:`shape`, ``stream`` for one of any length."""
        return str(self._contract["mode"])

    @property
    def shape(self) -> tuple[Optional[int], int, int, int]:
        """Extents of a video, ``(frames, rows, columns, 3)``; ``None`` for the frames of a stream."""
        video = self._contract["video"]
        return video.get("frames"), video["rows"], video["cols"], 3

    @property
    def fps(self) -> float:
        """Frames of a video in a second."""
        return float(self._contract["video"]["fps"])

    def __call__(
        self,
        prompt: str,
        *,
        negative: Optional[str] = None,
        prompt_at: Optional[Mapping[int, str]] = None,
        seed: Optional[int] = None,
        noise: Optional[npt.ArrayLike] = None,
        chunks: Optional[int] = None,
        steps: Optional[int] = None,
        guidance: Optional[Guidance] = None,
        dtype: npt.DTypeLike = np.uint8,
        progress: Watch = None,
    ) -> Array:
        """Makes a video.

        Args:
            prompt: What the video shows.
            negative: What it does not show, for a clip with guidance; without it the pipeline's.
            prompt_at: From these chunks of a stream on other prompts: ``{6: "a storm"}``.
            seed: Seed of the noise; without it 0. The same seed makes the same frames.
            noise: Noise in place of a seed, ``[1, C, F, H, W]``, or ``[chunks, steps, 1, C, F, H, W]`` of a stream: what diffusers takes as ``latents``.
            chunks: Chunks of a stream; without it those of ``noise``, or five seconds.
            steps: Steps of a clip; without it the pipeline's.
            guidance: Strength of guidance of a clip, a pair for two transformers; 1 is none. Without it the pipeline's.
            dtype: ``uint8`` for pixels from 0 to 255, ``float32`` for the decoder's numbers from −1 to 1.
            progress: Called with each step of the work; True shows a line, False shows nothing, and without it a line is shown in a terminal or a notebook.

        Returns:
            The frames, ``[T, H, W, 3]``. What was left out of a long prompt goes to the logger ``s2ditc``.

        Raises:
            Error: A request that the pipeline cannot serve; a part that is missing or damaged; a failing engine.
            TypeError: Noise and a seed; another ``dtype``.
        """
        frames: Optional[Array] = None
        at = 0

        def push(pushed: Any, total: int) -> None:
            nonlocal frames, at
            new = made(pushed)
            if len(new) == total:
                frames = new
                return
            if frames is None:
                frames = np.empty((total, *new.shape[1:]), new.dtype)
            frames[at : at + len(new)] = new
            at += len(new)

        self._generate(push, prompt, negative, prompt_at, seed, noise, chunks, steps, guidance, dtype, progress)
        assert frames is not None
        return frames

    def stream(
        self,
        prompt: str,
        *,
        negative: Optional[str] = None,
        prompt_at: Optional[Mapping[int, str]] = None,
        seed: Optional[int] = None,
        noise: Optional[npt.ArrayLike] = None,
        chunks: Optional[int] = None,
        steps: Optional[int] = None,
        guidance: Optional[Guidance] = None,
        dtype: npt.DTypeLike = np.uint8,
        progress: Watch = None,
    ) -> Iterator[Array]:
        """Makes a video and yields its frames as the decoder makes them, ``[T, H, W, 3]`` at a time.

        Of a stream these are the frames of each chunk, so that a video of any length takes the memory of a few chunks; the next chunk is made while the caller
        looks at one. Of a clip they come after its last step. The arguments and errors are those of a call. An iterator that is dropped before its end stops
        the work.
        """
        # One chunk waits here, and one is in the making.
        waiting: queue.Queue[Any] = queue.Queue(maxsize=1)
        stopped = threading.Event()

        def put(what: Any) -> None:
            while not stopped.is_set():
                try:
                    return waiting.put(what, timeout=0.05)
                except queue.Full:
                    continue
            raise Stopped

        def check() -> None:
            if stopped.is_set():
                raise Stopped

        def work() -> None:
            args = (prompt, negative, prompt_at, seed, noise, chunks, steps, guidance, dtype, progress)
            try:
                self._generate(lambda pushed, _: put(made(pushed)), *args, check=check)
                put(None)
            except Stopped:
                pass
            except BaseException as error:  # noqa: BLE001
                try:
                    put(error)
                except Stopped:
                    pass

        worker = threading.Thread(target=work, name="s2ditc-pipeline", daemon=True)
        worker.start()
        try:
            while (new := waiting.get()) is not None:
                if isinstance(new, BaseException):
                    raise new
                yield new
        finally:
            stopped.set()
            worker.join()

    def _generate(
        self,
        push: Any,
        prompt: str,
        negative: Optional[str],
        prompt_at: Optional[Mapping[int, str]],
        seed: Optional[int],
        noise: Optional[npt.ArrayLike],
        chunks: Optional[int],
        steps: Optional[int],
        guidance: Optional[Guidance],
        dtype: npt.DTypeLike,
        progress: Watch,
        *,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        for what, text in [("prompt", prompt), ("negative", negative or "")]:
            if not isinstance(text, str):
                raise TypeError(f"{what}: found {type(text).__name__}, expected a str")
        kind = np.dtype(dtype)
        if kind not in (np.dtype(np.uint8), np.dtype(np.float32)):
            raise TypeError(f"dtype: found {kind}, expected uint8 or float32")
        if seed is not None and noise is not None:
            raise TypeError("found noise and a seed, expected one of them")
        shown = watcher(progress)

        def tell(done: int, total: int, part: str) -> None:
            check()
            if shown is not None:
                shown(Progress(done, total, f"{part}: {f'{done}/{total}' if done else 'loading'}"))

        try:
            report = self._native.generate(
                prompt,
                negative,
                sorted((whole("prompt_at", chunk), text) for chunk, text in (prompt_at or {}).items()),
                whole("seed", seed) or 0,
                None if noise is None else given("noise", noise),
                whole("chunks", chunks),
                whole("steps", steps),
                None if guidance is None else strengths(guidance),
                kind == np.float32,
                push,
                tell,
            )
        finally:
            if isinstance(shown, Line):
                shown.end()
        for note in json.loads(report)["notes"]:
            LOG.warning("%s", note)

    def __repr__(self) -> str:
        return f"Pipeline({self._path!r})"


class Stopped(Exception):
    """Nobody takes the frames any more."""


def whole(name: str, value: Any) -> Any:
    """A number from 0 on, or ``None``."""
    if value is None:
        return None
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: found {value!r}, expected a whole number") from None
    if not 0 <= number < 1 << 64:
        raise failure("input", f"{name}: found {number}, expected a whole number from 0 on, below 2^64")
    return number


def strengths(guidance: Guidance) -> tuple[float, Optional[float]]:
    """The strength of guidance, and that of the second of two transformers."""
    found = [float(each) for each in (guidance if isinstance(guidance, Iterable) else [guidance])]
    if len(found) not in (1, 2):
        raise TypeError(f"guidance: found {len(found)} numbers, expected one, or two for two transformers")
    return found[0], found[1] if len(found) == 2 else None

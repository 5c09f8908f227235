"""Kernels: video chunk by chunk, in constant memory."""

from __future__ import annotations

import json
import os
from typing import Any, Iterator, Optional, Union

import numpy as np
import numpy.typing as npt

from . import _native
from ._arrays import given, made
from ._errors import failure

Array = npt.NDArray[Any]
Path = Union[str, "os.PathLike[str]"]


class Kernel:
    """A stream: the folder that ``compile(…, mode="stream")`` makes, with its states and its sampler.

    Noise comes from the seed, the same for a chunk wherever the stream started, or from the caller.

    Args:
        path: The kernel folder.
        fp16: Round every fp16 result to fp16, as the Neural Engine stores it.
        threads: Threads of one operation; all cores without it.
        seed: Seed of the noise.

    Raises:
        Error: Not a kernel folder; artifacts that do not fit its contract.
    """

    def __init__(self, path: Path, *, fp16: bool = False, threads: Optional[int] = None, seed: int = 0) -> None:
        self._native = _native.Stream(path, fp16, threads or 0, seed)
        self._path = os.fspath(path)

    @property
    def contract(self) -> dict[str, Any]:
        """The contract of the kernel: functions, states, host inputs, sampler."""
        contract: dict[str, Any] = json.loads(self._native.contract())
        return contract

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Extents of a chunk, ``[1, C, F, H, W]``."""
        return tuple(self._native.chunk_shape())

    @property
    def text_shape(self) -> tuple[int, ...]:
        """Extents of a prompt, ``[1, L, text_dim]``."""
        return tuple(self._native.text_shape())

    @property
    def mask_shape(self) -> Optional[tuple[int, ...]]:
        """Extents of a prompt's mask, ``[1, L]``; ``None`` if the kernel takes the text alone."""
        shape = self._native.mask_shape()
        return None if shape is None else tuple(shape)

    @property
    def steps(self) -> int:
        """Steps of the sampler for a chunk."""
        return self._native.steps()

    @property
    def chunks(self) -> int:
        """Chunks made so far."""
        return self._native.chunks()

    @property
    def seed(self) -> Optional[int]:
        """Seed of the noise; ``None`` after noise that was given."""
        return self._native.seed()

    @property
    def states(self) -> dict[str, Array]:
        """Copies of the states after the last chunk."""
        return {name: made(state) for name, state in self._native.states()}

    def set_prompt(
        self, text: Optional[npt.ArrayLike] = None, mask: Optional[npt.ArrayLike] = None, *, seed: Optional[int] = None
    ) -> None:
        """Sets the prompt of the chunks that follow, mid-stream too: what the text encoder made, or a random one of a seed for trials.

        Args:
            text: Embeddings of the shape :attr:`text_shape`.
            mask: For a kernel that takes one, of the shape :attr:`mask_shape`: 1 where a token counts, 0 where it is padding.
            seed: Of a random prompt.

        Raises:
            Error: A text of another shape than :attr:`text_shape`; a mask that is missing, or that the kernel does not take.
            TypeError: Both a text and a seed, or neither; a mask beside a seed.
        """
        if (text is None) == (seed is None) or (seed is not None and mask is not None):
            raise TypeError("set_prompt takes the text and, where the kernel takes it, its mask; or a seed")
        if seed is not None:
            self._native.set_seeded_prompt(seed)
        else:
            self._native.set_prompt(given("text", text), None if mask is None else given("mask", mask))

    def next_chunk(self, noise: Optional[npt.ArrayLike] = None) -> Array:
        """Makes the next chunk, ``[1, C, F, H, W]``, and writes its states.

        Args:
            noise: Noise of each step, ``[steps, 1, C, F, H, W]``; without it that of the seed.

        Raises:
            Error: No prompt; noise that does not fit. The stream is then where it was before.
        """
        if noise is None:
            if self.seed is None:
                raise failure("input", "noise: found none, expected some: the chunks before were made of noise that was given")
            return made(self._native.next_chunk())
        steps = np.asarray(noise)
        return made(self._native.next_chunk([given("noise", each) for each in (steps if steps.ndim else [steps])]))

    def stream(self, chunks: int) -> Iterator[Array]:
        """Makes so many chunks, one after the other."""
        for _ in range(chunks):
            yield self.next_chunk()

    def save(self, path: Path, *, force: bool = False) -> None:
        """Writes the stream as it stands to a file, which ``s2ditc stream --state-in`` reads too.

        Args:
            path: A safetensors file.
            force: Replace a file that s2ditc did not make.
        """
        self._native.save(path, force)

    def restore(self, path: Path) -> None:
        """Goes on where the stream in a file stood; bit for bit as if it had never stopped."""
        self._native.restore(path)

    def __repr__(self) -> str:
        return f"Kernel({self._path!r}, chunks={self.chunks})"

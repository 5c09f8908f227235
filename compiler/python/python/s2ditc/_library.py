"""The shared library in the package ``onnxruntime``."""

from __future__ import annotations

import importlib.util
import pathlib
from typing import Optional


def find() -> Optional[pathlib.Path]:
    """The library, without importing the package; ``None`` if there is none."""
    spec = importlib.util.find_spec("onnxruntime")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for pattern in ("libonnxruntime.so*", "libonnxruntime.*dylib", "onnxruntime.dll"):
            for path in sorted(pathlib.Path(folder, "capi").glob(pattern)):
                return path
    return None

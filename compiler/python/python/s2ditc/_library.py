"""The shared library in the package ``onnxruntime``."""

from __future__ import annotations

import importlib.util
import pathlib
import re
from typing import Optional

# The first release that has the functions that s2ditc calls; pyproject.toml asks for it where there are wheels of it.
OLDEST = (1, 24)


def find() -> Optional[pathlib.Path]:
    """The library, without importing the package; ``None`` if there is none, or an older one than s2ditc can load."""
    try:
        spec = importlib.util.find_spec("onnxruntime")
    except (ImportError, ValueError):
        return None
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if not is_new_enough(pathlib.Path(folder)):
            continue
        for pattern in ("libonnxruntime.so*", "libonnxruntime.*dylib", "onnxruntime.dll"):
            for path in sorted(pathlib.Path(folder, "capi").glob(pattern)):
                return path
    return None


def is_new_enough(folder: pathlib.Path) -> bool:
    """Whether the package in a folder says a version from :data:`OLDEST` on, or none."""
    try:
        text = (folder / "__init__.py").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return True
    version = re.search(r"""^__version__ = ["'](\d+)\.(\d+)""", text, re.MULTILINE)
    return version is None or (int(version[1]), int(version[2])) >= OLDEST

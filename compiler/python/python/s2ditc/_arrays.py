"""NumPy's arrays as the native half takes and gives them: element type, extents, bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ._errors import failure

# Element types by the names that s2ditc gives them.
DTYPES: dict[str, "np.dtype[Any]"] = {
    "f64": np.dtype(np.float64),
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "i64": np.dtype(np.int64),
    "i32": np.dtype(np.int32),
    "i16": np.dtype(np.int16),
    "i8": np.dtype(np.int8),
    "u32": np.dtype(np.uint32),
    "u16": np.dtype(np.uint16),
    "u8": np.dtype(np.uint8),
    "bool": np.dtype(np.bool_),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def array_of(value: Any) -> npt.NDArray[Any]:
    """A value as an array: NumPy's and what NumPy reads, a tensor of PyTorch, a picture of PIL as ``[1, channels, rows, columns]``."""
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        value = value.detach().cpu()
        # NumPy has no bfloat16.
        return np.asarray(value.float() if str(value.dtype) == "torch.bfloat16" else value)
    if hasattr(value, "getbands"):
        pixels = np.asarray(value)
        pixels = pixels[None] if pixels.ndim == 2 else pixels[..., :3].transpose(2, 0, 1)
        return np.ascontiguousarray(pixels[None]).astype(np.float32)
    return np.asarray(value)


def given(name: str, value: Any) -> Any:
    """An array on its way in."""
    array = array_of(value)
    dtype = array.dtype.newbyteorder("=")
    if dtype == np.uint64:
        dtype = np.dtype(np.int64)
    if dtype not in NAMES:
        raise failure("input", f"`{name}`: found an array of {array.dtype}, expected numbers")
    # A scalar has no extents, and NumPy gives it one here.
    return NAMES[dtype], array.shape, np.ascontiguousarray(array, dtype=dtype).reshape(-1).view(np.uint8)


def made(value: Any, keep_float16: bool = True) -> npt.NDArray[Any]:
    """An array on its way out."""
    name, shape, data = value
    array: npt.NDArray[Any]
    if name == "bf16":
        wide = data.view(np.uint16).astype(np.uint32) << 16
        array = wide.view(np.float32).reshape(shape)
        return array
    array = data.view(DTYPES[name]).reshape(shape)
    return array if keep_float16 or name != "f16" else array.astype(np.float32)

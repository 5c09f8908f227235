"""Weights that coremltools stores in few bits: palettes (scalar, grouped along any axis, of vectors) and blockwise integers."""

import numpy as np
from coremltools.converters.mil.mil import Builder as mb
from coremltools.converters.mil.mil import types

from mil_cases import case, noise

UINT = {
    1: types.np_uint1_dtype,
    2: types.np_uint2_dtype,
    3: types.np_uint3_dtype,
    4: types.np_uint4_dtype,
    6: types.np_uint6_dtype,
    8: np.dtype(np.uint8),
}
INT = {
    "int8": np.dtype(np.int8),
    "uint8": np.dtype(np.uint8),
    "int4": types.np_int4_dtype,
    "uint4": types.np_uint4_dtype,
}


def integers(name, shape, low, high):
    return np.floor(noise(name, shape, low, high + 1)).clip(low, high)


def spread(parts, shape):
    """Parts an axis repeated until they have this shape."""
    for axis, n in enumerate(shape):
        parts = np.repeat(parts, n // parts.shape[axis], axis)
    return parts


def palettized(name, bits, shape, groups, vector_axis=None, vector=1):
    """A linear layer whose weight is a palette's; `shape` is that of the indices."""
    indices = integers(name, shape, 0, 2**bits - 1).astype(np.uint8)
    table = noise(f"{name} lut", (*groups, 2**bits, vector))
    parts = np.arange(np.prod(groups)).reshape(groups)
    wide = list(shape)
    if vector_axis is not None:
        wide[vector_axis] *= vector

    def build(i, _):
        extra = {} if vector_axis is None else {"vector_axis": vector_axis}
        lut = table.astype(i.T)
        weight = mb.constexpr_lut_to_dense(indices=indices.astype(UINT[bits]), lut=lut, **extra)
        return mb.linear(x=i.x, weight=weight)

    def ref(i, _):
        lut = table.astype(i.T).astype(np.float64).reshape(-1, 2**bits, vector)
        dense = lut[spread(parts, shape), indices]
        if vector_axis is not None:
            # The elements of an entry lie one after the other along the axis.
            dense = np.moveaxis(dense, -1, vector_axis + 1)
        return i.x @ dense.reshape(wide).T

    case(name, {"x": (2, wide[1])}, build, ref)


for bits in UINT:
    palettized(f"palette_{bits}", bits, (4, 5), (1, 1))
    palettized(f"palette_{bits}_groups", bits, (6, 3), (3, 1))
palettized("palette_4_inputs", 4, (3, 6), (1, 2))
palettized("palette_2_both", 2, (4, 6), (2, 3))
palettized("palette_4_vectors_of_outputs", 4, (2, 5), (1, 1), 0, 2)
palettized("palette_2_vectors_of_inputs", 2, (4, 3), (2, 1), 1, 4)


def blockwise(name, kind, shape, parts, offset):
    low, high = {"int8": (-128, 127), "uint8": (0, 255), "int4": (-8, 7), "uint4": (0, 15)}[kind]
    data = integers(name, shape, low, high).astype(np.uint8 if kind.startswith("u") else np.int8)
    scale = noise(f"{name} scale", parts, 0.01, 0.2)
    shift = integers(f"{name} offset", parts, low, high).astype(data.dtype) if offset else None

    def build(i, _):
        extra = {} if shift is None else {"offset": shift.astype(INT[kind])}
        weight = mb.constexpr_blockwise_shift_scale(data=data.astype(INT[kind]), scale=scale.astype(i.T), **extra)
        return mb.linear(x=i.x, weight=weight) if len(shape) == 2 else mb.conv(x=i.x, weight=weight)

    def ref(i, _):
        steps = data.astype(np.float64) - (0 if shift is None else spread(shift.astype(np.float64), shape))
        weight = (spread(scale.astype(i.T).astype(np.float64), shape) * steps).astype(i.T).astype(np.float64)
        if len(shape) == 2:
            return i.x @ weight.T
        return np.stack([np.einsum("oct,nct->no", weight, i.x[:, :, t : t + 2]) for t in range(3)], -1)

    case(name, {"x": (2, shape[1]) if len(shape) == 2 else (2, shape[1], 4)}, build, ref)


for kind in INT:
    for offset in [False, True]:
        suffix = "_offset" if offset else ""
        blockwise(f"scale_{kind}{suffix}", kind, (4, 6), (4, 1), offset)
        blockwise(f"scale_{kind}_blocks{suffix}", kind, (4, 6), (4, 3), offset)
blockwise("scale_int4_kernel", "int4", (3, 4, 2), (3, 2, 1), False)
blockwise("scale_int8_tensor", "int8", (3, 5), (1, 1), False)


def affine(name, kind, axis, scales, zeros):
    """The form of iOS 16: a number, or one for each place along an axis."""
    shape = (3, 5)
    low, high = {"int8": (-128, 127), "uint8": (0, 255)}[kind]
    data = integers(name, shape, low, high).astype(INT[kind])
    scale = noise(f"{name} scale", (scales,), 0.01, 0.2)
    zero = integers(f"{name} zero", (zeros,), low, high).astype(INT[kind])

    def build(i, _):
        given = [x[0] if len(x) == 1 else x for x in (scale.astype(i.T), zero)]
        weight = mb.constexpr_affine_dequantize(quantized_data=data, scale=given[0], zero_point=given[1], axis=axis)
        return mb.linear(x=i.x, weight=weight)

    def ref(i, _):
        along = [-1, 1] if axis in (0, -2) else [1, -1]
        steps = data.astype(np.float64) - zero.astype(np.float64).reshape(along)
        weight = (scale.astype(i.T).astype(np.float64).reshape(along) * steps).astype(i.T).astype(np.float64)
        return i.x @ weight.T

    case(name, {"x": (2, 5)}, build, ref)


affine("affine_numbers", "int8", 0, 1, 1)
affine("affine_scales", "uint8", 0, 3, 1)
affine("affine_zeros", "int8", -1, 1, 5)
affine("affine_both", "uint8", -2, 3, 3)


def scaled_palette(i, _):
    lut = mb.constexpr_blockwise_shift_scale(data=CODES, scale=np.full((1, 1, 1, 1), 0.25, i.T))
    return mb.linear(x=i.x, weight=mb.constexpr_lut_to_dense(indices=INDICES.astype(UINT[2]), lut=lut))


# An int8 palette whose entries are scaled first, as coremltools writes it for iOS 18.
CODES = np.array([-100, -3, 7, 90], np.int8).reshape(1, 1, 4, 1)
INDICES = integers("scaled palette", (3, 5), 0, 3).astype(np.uint8)
case("palette_scaled", {"x": (2, 5)}, scaled_palette, lambda i, _: i.x @ (CODES.ravel() * 0.25)[INDICES].T)

"""Ops that move elements."""

import coremltools as ct
import numpy as np
from coremltools.converters.mil.mil import Builder as mb

from mil_cases import case, noise

X = {"x": (2, 3, 4)}

for shape, result in [((6, 4), (6, 4)), ((-1, 2), (12, 2)), ((2, 0, -1), (2, 3, 4)), ((1, 2, 0, 4), (1, 2, 3, 4)), ((24,), (24,))]:
    name = "reshape_" + "_".join(map(str, shape))
    case(name, X, lambda i, w, s=shape: mb.reshape(x=i.x, shape=s), lambda i, w, r=result: i.x.reshape(r))
for opset in ["iOS15", "iOS16"]:
    case(
        f"reshape_0_{opset}",
        X,
        lambda i, w: mb.reshape(x=i.x, shape=(0, -1, 1)),
        lambda i, w: i.x.reshape(2, 12, 1),
        dtypes=["fp32"],
        opset=getattr(ct.target, opset),
    )
for perm in [(0, 2, 1), (2, 0, 1), (-1, 0, 1)]:
    name = "transpose_" + "_".join(map(str, perm))
    case(name, X, lambda i, w, p=perm: mb.transpose(x=i.x, perm=p), lambda i, w, p=perm: np.transpose(i.x, [a % 3 for a in p]))
for axes in [(0,), (-1,), (1, 3), (0, -1), (3, 0)]:
    name = "expand_dims_" + "_".join(map(str, axes))
    case(name, X, lambda i, w, a=axes: mb.expand_dims(x=i.x, axes=a), lambda i, w, a=axes: np.expand_dims(i.x, a))
for axes in [(0,), (-1,), (0, 2), None]:
    name = f"squeeze_{'all' if axes is None else '_'.join(map(str, axes))}"
    build = lambda i, w, a=axes: mb.squeeze(x=i.x, **({} if a is None else {"axes": a}))
    case(name, {"x": (1, 3, 1, 4, 1)}, build, lambda i, w, a=axes: np.squeeze(i.x, a))

for axis in [0, 1, -1]:
    two = {"x": (2, 3, 4), "y": (2, 3, 4)}
    case(f"concat_{axis}", two, lambda i, w, a=axis: mb.concat(values=(i.x, i.y, i.x), axis=a), lambda i, w, a=axis: np.concatenate([i.x, i.y, i.x], a))
    case(f"stack_{axis}", two, lambda i, w, a=axis: mb.stack(values=(i.x, i.y), axis=a), lambda i, w, a=axis: np.stack([i.x, i.y], a))
case(
    "concat_const",
    {"x": (2, 3)},
    lambda i, w: mb.concat(values=(w.c, i.x), axis=1),
    lambda i, w: np.concatenate([w.c, i.x], 1),
    weights={"c": (2, 1)},
)
case(
    "concat_interleave",
    {"x": (1, 3, 2), "y": (1, 3, 2)},
    lambda i, w: mb.concat(values=(i.x, i.y), axis=1, interleave=True),
    lambda i, w: np.stack([i.x, i.y], 2).reshape(1, 6, 2),
)

case("split", {"x": (2, 6)}, lambda i, w: mb.split(x=i.x, num_splits=3, axis=1), lambda i, w: np.split(i.x, 3, 1))
case("split_sizes", {"x": (6, 2)}, lambda i, w: mb.split(x=i.x, split_sizes=[1, 3, 2], axis=-2), lambda i, w: np.split(i.x, [1, 4], 0))
case("split_one", {"x": (2, 6)}, lambda i, w: mb.split(x=i.x, split_sizes=[6], axis=1), lambda i, w: [i.x])

SLICES = {
    "plain": (np.s_[0:1, 1:3, 0:4], dict(begin=[0, 1, 0], end=[1, 3, 4])),
    "negative": (np.s_[-1:2, 0:-1, -3:-1], dict(begin=[-1, 0, -3], end=[2, -1, -1])),
    "stride": (np.s_[0:2, 0:3:2, 1:4:2], dict(begin=[0, 0, 1], end=[2, 3, 4], stride=[1, 2, 2])),
    "masks": (np.s_[:, :2, 1:], dict(begin=[1, 2, 1], end=[1, 2, 2], begin_mask=[True, True, False], end_mask=[True, False, True])),
    "squeeze": (np.s_[1, :, -1], dict(begin=[1, 0, -1], end=[2, 3, 4], squeeze_mask=[True, False, True])),
    "squeeze_only": (np.s_[0, 2, 3], dict(begin=[0, 2, 3], end=[0, 0, 0], squeeze_mask=[True] * 3)),
    "clamped": (np.s_[0:9, 1:99, 0:4], dict(begin=[0, 1, 0], end=[9, 99, 4])),
    "reversed": (
        np.s_[:, ::-1, 3:0:-2],
        dict(begin=[0, 0, 3], end=[2, 0, 0], stride=[1, -1, -2], begin_mask=[False, True, False], end_mask=[False, True, False]),
    ),
    "reversed_negative": (np.s_[:, :, -1:-4:-1], dict(begin=[0, 0, -1], end=[2, 3, -4], stride=[1, 1, -1])),
}
for name, (index, given) in SLICES.items():
    case(f"slice_{name}", X, lambda i, w, g=given: mb.slice_by_index(x=i.x, **g), lambda i, w, s=index: i.x[s])
case("slice_by_size", X, lambda i, w: mb.slice_by_size(x=i.x, begin=[0, 1, 1], size=[2, 1, -1]), lambda i, w: i.x[:, 1:2, 1:])

UPDATES = {
    "plain": (np.s_[0:1, 1:3, 0:4], dict(begin=[0, 1, 0], end=[1, 3, 4]), (1, 2, 4)),
    "stride": (np.s_[0:2, 0:3:2, 1:4], dict(begin=[0, 0, 1], end=[2, 3, 4], stride=[1, 2, 1]), (2, 2, 3)),
    "masks": (np.s_[:, -1:, :2], dict(begin=[0, -1, 0], end=[0, 0, 2], begin_mask=[True, False, False], end_mask=[True, True, False]), (2, 1, 2)),
}


def updated(x, index, u):
    y = x.copy()
    y[index] = u
    return y


for name, (index, given, shape) in UPDATES.items():
    case(
        f"slice_update_{name}",
        {"x": (2, 3, 4), "u": shape},
        lambda i, w, g=given: mb.slice_update(x=i.x, update=i.u, **g),
        lambda i, w, s=index: updated(i.x, s, i.u),
    )

case("tile", {"x": (2, 1, 3)}, lambda i, w: mb.tile(x=i.x, reps=[1, 4, 2]), lambda i, w: np.tile(i.x, (1, 4, 2)))
case("tile_once", {"x": (2, 1, 3)}, lambda i, w: mb.tile(x=i.x, reps=[1, 1, 1]), lambda i, w: i.x)
case("pad", X, lambda i, w: mb.pad(x=i.x, pad=[1, 0, 0, 2], constant_val=i.T(1.5)), lambda i, w: np.pad(i.x, [(0, 0), (1, 0), (0, 2)], constant_values=1.5))
case("pad_all", {"x": (2, 3)}, lambda i, w: mb.pad(x=i.x, pad=[0, 1, 2, 0], mode="constant"), lambda i, w: np.pad(i.x, [(0, 1), (2, 0)]))
for mode, numpy_mode in {"reflect": "reflect", "replicate": "edge"}.items():
    build = lambda i, w, m=mode: mb.pad(x=i.x, pad=[1, 2, 2, 1], mode=m)
    case(f"pad_{mode}", {"x": (1, 2, 4, 5)}, build, lambda i, w, m=numpy_mode: np.pad(i.x, [(0, 0), (0, 0), (1, 2), (2, 1)], mode=m))
case("reverse", X, lambda i, w: mb.reverse(x=i.x, axes=[0, 2]), lambda i, w: i.x[::-1, :, ::-1])

for axis in [0, 1, -1]:
    index = np.array([1, 0, 1, 1], np.int32)
    case(f"gather_{axis}", X, lambda i, w, a=axis: mb.gather(x=i.x, indices=index, axis=a), lambda i, w, a=axis: np.take(i.x, index, a))
case("gather_scalar", X, lambda i, w: mb.gather(x=i.x, indices=np.int32(2), axis=1), lambda i, w: i.x[:, 2])
GRID = np.array([[0, 2, 1], [1, 1, 3]], np.int32)
case("gather_grid", X, lambda i, w: mb.gather(x=i.x, indices=GRID, axis=2), lambda i, w: np.take(i.x, GRID, 2))
LONG = np.arange(20, dtype=np.int32) % 3
case("gather_stored", X, lambda i, w: mb.gather(x=i.x, indices=LONG, axis=1), lambda i, w: np.take(i.x, LONG, 1))

COND = np.array([[True, False, True, False], [False, True, True, True], [True, True, False, False]])
case(
    "select",
    {"a": (3, 4), "b": (3, 4)},
    lambda i, w: mb.select(cond=COND, a=i.a, b=i.b),
    lambda i, w: np.where(COND, i.a, i.b),
)
case(
    "select_fill",
    {"a": (3, 4)},
    lambda i, w: mb.select(cond=COND, a=i.a, b=w.low),
    lambda i, w: np.where(COND, i.a, -np.inf),
    weights={"low": np.full((3, 4), -np.inf)},
)
case("select_all", {"a": (3, 4), "b": (3, 4)}, lambda i, w: mb.select(cond=True, a=i.a, b=i.b), lambda i, w: i.a)


def shuffle(x, f):
    n, c, h, w = x.shape
    return x.reshape(n, c // f**2, f, f, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, c // f**2, h * f, w * f)


def unshuffle(x, f):
    n, c, h, w = x.shape
    return x.reshape(n, c, h // f, f, w // f, f).transpose(0, 1, 3, 5, 2, 4).reshape(n, c * f**2, h // f, w // f)


def to_depth(x, b):
    n, c, h, w = x.shape
    return x.reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)


def to_space(x, b):
    n, c, h, w = x.shape
    return x.reshape(n, b, b, c // b**2, h, w).transpose(0, 3, 4, 1, 5, 2).reshape(n, c // b**2, h * b, w * b)


case("pixel_shuffle", {"x": (2, 8, 3, 2)}, lambda i, w: mb.pixel_shuffle(x=i.x, upscale_factor=2), lambda i, w: shuffle(i.x, 2))
case("pixel_unshuffle", {"x": (2, 2, 6, 4)}, lambda i, w: mb.pixel_unshuffle(x=i.x, downscale_factor=np.uint32(2)), lambda i, w: unshuffle(i.x, 2))
case("pixel_unshuffle_3", {"x": (1, 2, 6, 9)}, lambda i, w: mb.pixel_unshuffle(x=i.x, downscale_factor=np.uint32(3)), lambda i, w: unshuffle(i.x, 3))
case("space_to_depth", {"x": (2, 3, 4, 6)}, lambda i, w: mb.space_to_depth(x=i.x, block_size=2), lambda i, w: to_depth(i.x, 2))
case("depth_to_space", {"x": (2, 12, 2, 3)}, lambda i, w: mb.depth_to_space(x=i.x, block_size=2), lambda i, w: to_space(i.x, 2))
case(
    "upsample_nearest_neighbor", {"x": (2, 3, 4, 5)},
    lambda i, w: mb.upsample_nearest_neighbor(x=i.x, scale_factor_height=2, scale_factor_width=2),
    lambda i, w: i.x.repeat(2, axis=2).repeat(2, axis=3),
)
case(
    "upsample_nearest_neighbor_of_floats", {"x": (3, 4, 5)},
    lambda i, w: mb.upsample_nearest_neighbor(x=i.x, scale_factor_height=np.float32(3), scale_factor_width=np.float32(2)),
    lambda i, w: i.x.repeat(3, axis=1).repeat(2, axis=2),
)
case(
    "constants_of_integers",
    {"x": (2, 3)},
    lambda i, w: mb.mul(x=i.x, y=mb.cast(x=np.array([[1], [-2]], np.int32), dtype="fp16" if i.T is np.float16 else "fp32")),
    lambda i, w: i.x * np.array([[1], [-2]]),
)
case(
    "integers",
    {"x": noise("integers", (2, 3), -9, 9)},
    lambda i, w: mb.cast(x=mb.add(x=mb.mul(x=mb.cast(x=i.x, dtype="int32"), y=np.int32(3)), y=np.array([1, 2, 3], np.int32)), dtype="fp32"),
    lambda i, w: np.trunc(i.x) * 3 + np.array([1, 2, 3]),
)

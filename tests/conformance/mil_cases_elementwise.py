"""Elementwise ops, casts, reductions and norms."""

import coremltools as ct
import numpy as np
from coremltools.converters.mil.mil import Builder as mb

from mil_cases import case, erf, noise, sigmoid, softmax

SHAPE = (2, 3, 4)
POSITIVE = noise("positive", SHAPE, 0.1, 3.0)
# Halves test the rounding of ties, tens the overflow of careless formulas.
EDGES = np.array([-30.0, -2.5, -1.5, -0.5, 0.0, 0.5, 1.5, 2.5, 30.0, 0.3, -0.7, 1.0])

for op, f in {
    "abs": np.abs,
    "cos": np.cos,
    "erf": erf,
    "exp2": np.exp2,
    "floor": np.floor,
    "relu": lambda x: np.maximum(x, 0),
    "round": np.round,
    "sigmoid": sigmoid,
    "silu": lambda x: x * sigmoid(x),
    "sin": np.sin,
    "softplus": lambda x: np.logaddexp(0, x),
    "square": np.square,
    "tanh": np.tanh,
    "identity": lambda x: x,
}.items():
    x = EDGES if op != "exp2" else EDGES / 8
    case(op, {"x": x}, lambda i, w, op=op: getattr(mb, op)(x=i.x), lambda i, w, f=f: f(i.x))
case("exp", {"x": SHAPE}, lambda i, w: mb.exp(x=i.x), lambda i, w: np.exp(i.x))
case("sqrt", {"x": POSITIVE}, lambda i, w: mb.sqrt(x=i.x), lambda i, w: np.sqrt(i.x))

for op, f, default in [
    ("rsqrt", lambda x: 1 / np.sqrt(x), 1e-12),
    ("log", np.log, 0.0),
    ("inverse", lambda x: 1 / x, 1e-4),
]:
    for epsilon in [None, 0.5, 0.0]:
        given = {} if epsilon is None else {"epsilon": epsilon}
        case(
            f"{op}_{epsilon}",
            {"x": POSITIVE},
            lambda i, w, op=op, g=given: getattr(mb, op)(x=i.x, **{k: i.T(v) for k, v in g.items()}),
            lambda i, w, f=f, e=default if epsilon is None else epsilon: f(i.x + float(i.T(e))),
        )

for mode, f in {
    "EXACT": lambda x: x / 2 * (1 + erf(x / np.sqrt(2))),
    "TANH_APPROXIMATION": lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "SIGMOID_APPROXIMATION": lambda x: x * sigmoid(1.702 * x),
}.items():
    # The factor of the sigmoid form is a constant of the dtype here.
    bar = 1e-3 if mode.startswith("SIGMOID") else 1e-6
    case(f"gelu_{mode}", {"x": EDGES}, lambda i, w, m=mode: mb.gelu(x=i.x, mode=m), lambda i, w, f=f: f(i.x), bar=bar)

case("clip", {"x": EDGES}, lambda i, w: mb.clip(x=i.x, alpha=i.T(-1), beta=i.T(1.5)), lambda i, w: np.clip(i.x, -1, 1.5))
case(
    "clip_below",
    {"x": EDGES},
    lambda i, w: mb.clip(x=i.x, alpha=i.T(-1), beta=i.T(np.inf)),
    lambda i, w: np.maximum(i.x, -1),
)

for op, f in {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "real_div": np.divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "floor_div": lambda x, y: np.floor(x / y),
    "mod": lambda x, y: x - y * np.floor(x / y),
}.items():
    build = lambda i, w, op=op: getattr(mb, op)(x=i.x, y=i.y)
    case(op, {"x": (2, 3, 4), "y": (3, 1)}, build, lambda i, w, f=f: f(i.x, i.y))
    case(f"{op}_scalar", {"x": SHAPE}, lambda i, w, op=op: getattr(mb, op)(x=i.x, y=i.T(1.5)), lambda i, w, f=f: f(i.x, 1.5))
    case(f"{op}_left", {"x": SHAPE}, lambda i, w, op=op: getattr(mb, op)(x=i.T(1.5), y=i.x), lambda i, w, f=f: f(1.5, i.x))
    build = lambda i, w, op=op: getattr(mb, op)(x=i.x, y=w.c)
    case(f"{op}_const", {"x": (2, 3, 4)}, build, lambda i, w, f=f: f(i.x, w.c), weights={"c": (2, 1, 4)})
case("pow", {"x": POSITIVE, "y": (3, 4)}, lambda i, w: mb.pow(x=i.x, y=i.y), lambda i, w: i.x**i.y)

INFINITE = np.array([0.0, -np.inf, 1.0, np.inf])
case("add_infinite", {"x": (2, 4)}, lambda i, w: mb.add(x=i.x, y=w.c), lambda i, w: i.x + w.c, weights={"c": INFINITE})
case(
    "softmax_masked",
    {"x": (3, 4)},
    lambda i, w: mb.softmax(x=mb.add(x=i.x, y=w.c), axis=-1),
    lambda i, w: softmax(i.x + w.c),
    weights={"c": np.array([0.0, -np.inf, 0.0, 0.0])},
)

for to, f in {
    "int32": np.trunc,
    "fp16": lambda x: x.astype(np.float16),
    "fp32": lambda x: x.astype(np.float32),
    "bool": lambda x: x != 0,
    "int8": np.trunc,
}.items():
    build = lambda i, w, to=to: mb.cast(x=mb.cast(x=i.x, dtype=to), dtype="fp32")
    case(f"cast_{to}", {"x": EDGES}, build, lambda i, w, f=f: f(i.x))

for opset in ["iOS15", "iOS16", "iOS17", "iOS18"]:
    case(
        f"opset_{opset}",
        {"x": (2, 3)},
        lambda i, w: mb.gelu(x=mb.linear(x=i.x, weight=w.w, bias=w.b), mode="EXACT"),
        lambda i, w: (lambda y: y / 2 * (1 + erf(y / np.sqrt(2))))(i.x @ w.w.T + w.b),
        dtypes=["fp32"] if opset == "iOS15" else ["fp32", "fp16"],
        weights={"w": (4, 3), "b": (4,)},
        opset=getattr(ct.target, opset),
    )

REDUCTIONS = {
    "sum": np.sum,
    "mean": np.mean,
    "max": np.max,
    "min": np.min,
    "sum_square": lambda x, **k: np.sum(x * x, **k),
    "l2_norm": lambda x, **k: np.sqrt(np.sum(x * x, **k)),
    "log_sum_exp": lambda x, **k: np.log(np.sum(np.exp(x), **k)),
}
for kind, f in REDUCTIONS.items():
    for axes, keep in [([1], True), ([-1], False), ([0, -1], True), ([2, 0], False), (None, True)]:
        given = {} if axes is None else {"axes": axes}
        case(
            f"reduce_{kind}_{axes}_{keep}".replace(" ", ""),
            {"x": (2, 3, 4)},
            lambda i, w, k=kind, g=given, keep=keep: getattr(mb, f"reduce_{k}")(x=i.x, keep_dims=keep, **g),
            lambda i, w, f=f, a=axes, keep=keep: f(i.x, axis=None if a is None else tuple(a), keepdims=keep),
            dtypes=["fp32"],
        )
# A rank-0 value in the middle of a program.
case(
    "reduce_to_scalar",
    {"x": (2, 3)},
    lambda i, w: mb.mul(x=i.x, y=mb.reduce_sum(x=i.x, keep_dims=False)),
    lambda i, w: i.x * i.x.sum(),
)

for axis in [0, 1, -1]:
    case(f"softmax_{axis}", {"x": (2, 3, 4)}, lambda i, w, a=axis: mb.softmax(x=i.x, axis=a), lambda i, w, a=axis: softmax(i.x, a))


def normalise(x, axes, eps):
    centred = x - x.mean(axis=axes, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=axes, keepdims=True) + eps)


# beta alone is left out: coremltools cannot build it.
for axes, affine in [([-1], "none"), ([-1], "both"), ([1], "both"), ([1, 2], "both"), ([2], "gamma"), ([-2, -1], "both")]:
    extents = tuple((2, 3, 4)[a] for a in axes)
    wide = [1, 1, 1]
    for a in axes:
        wide[a] = (2, 3, 4)[a]

    def build(i, w, axes=axes, affine=affine):
        given = {k: getattr(w, k) for k in ["gamma", "beta"] if affine in (k, "both")}
        return mb.layer_norm(x=i.x, axes=axes, epsilon=i.T(1e-3), **given)

    def ref(i, w, axes=axes, affine=affine, wide=wide):
        y = normalise(i.x, tuple(axes), float(i.T(1e-3)))
        y = y * w.gamma.reshape(wide) if affine != "none" else y
        return y + w.beta.reshape(wide) if affine == "both" else y

    name = f"layer_norm_{axes}_{affine}".replace(" ", "")
    case(name, {"x": (2, 3, 4)}, build, ref, weights={"gamma": extents, "beta": extents})
case(
    "layer_norm_default_epsilon",
    {"x": noise("small", (2, 5), -0.01, 0.01)},
    lambda i, w: mb.layer_norm(x=i.x, axes=[-1]),
    # A default that coremltools writes as fp32 whatever x is.
    lambda i, w: normalise(i.x, (-1,), 1e-5),
)

for rank in [3, 4, 5]:
    shape = (2, 3, 4, 2, 2)[:rank]
    wide = (1, 3) + (1,) * (rank - 2)
    vector = lambda v, wide=wide: v.reshape(wide)
    stats = {"mean": (3,), "gamma": (3,), "beta": (3,), "variance": noise("variance", (3,), 0.2, 2.0)}
    case(
        f"batch_norm_{rank}",
        {"x": shape},
        lambda i, w: mb.batch_norm(x=i.x, mean=w.mean, variance=w.variance, gamma=w.gamma, beta=w.beta, epsilon=i.T(1e-2)),
        lambda i, w, v=vector: (i.x - v(w.mean)) / np.sqrt(v(w.variance) + float(i.T(1e-2))) * v(w.gamma) + v(w.beta),
        weights=stats,
    )
    if rank < 5:
        axes = tuple(range(2, rank))
        case(
            f"instance_norm_{rank}",
            {"x": shape},
            lambda i, w: mb.instance_norm(x=i.x, gamma=w.gamma, beta=w.beta, epsilon=i.T(1e-2)),
            lambda i, w, v=vector, a=axes: normalise(i.x, a, float(i.T(1e-2))) * v(w.gamma) + v(w.beta),
            weights={"gamma": (3,), "beta": (3,)},
        )
case(
    "batch_norm_plain",
    {"x": (2, 3, 4)},
    lambda i, w: mb.batch_norm(x=i.x, mean=w.mean, variance=w.variance),
    lambda i, w: (i.x - w.mean.reshape(1, 3, 1)) / np.sqrt(w.variance.reshape(1, 3, 1) + float(i.T(1e-5))),
    weights={"mean": (3,), "variance": noise("variance", (3,), 0.2, 2.0)},
)
case(
    "instance_norm_plain",
    {"x": (2, 3, 4)},
    lambda i, w: mb.instance_norm(x=i.x),
    lambda i, w: normalise(i.x, (2,), float(i.T(1e-5))),
)
case(
    "l2_norm",
    {"x": (2, 3, 4, 2)},
    lambda i, w: mb.l2_norm(x=i.x, epsilon=i.T(1e-2)),
    lambda i, w: i.x / np.sqrt((i.x**2).sum(axis=(-3, -2, -1), keepdims=True) + float(i.T(1e-2))),
)

for scale in [0.03125, 0.5]:

    def quantized(i, w, s=scale):
        integers = mb.quantize(input=i.x, scale=i.T(s), output_dtype="int8")
        return mb.dequantize(input=integers, scale=i.T(s))

    case(f"int8_{scale}", {"x": EDGES}, quantized, lambda i, w, s=scale: np.clip(np.round(i.x / s), -128, 127) * s)
case(
    "int8_zero_point",
    {"x": EDGES},
    lambda i, w: mb.dequantize(
        input=mb.quantize(input=i.x, scale=i.T(0.25), zero_point=np.int8(0), output_dtype="int8"),
        scale=i.T(0.25),
        zero_point=np.int8(0),
    ),
    lambda i, w: np.clip(np.round(i.x / 0.25), -128, 127) * 0.25,
)

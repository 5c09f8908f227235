"""Linear layers, matrix products, convolutions, attention."""

import itertools

import numpy as np
from coremltools.converters.mil.mil import Builder as mb

from mil_cases import case, noise, softmax

for lead in [(), (2,), (2, 3)]:
    build = lambda i, w: mb.linear(x=i.x, weight=w.w, bias=w.b)
    case(f"linear_{len(lead) + 1}", {"x": (*lead, 5)}, build, lambda i, w: i.x @ w.w.T + w.b, weights={"w": (4, 5), "b": (4,)})
case("linear_plain", {"x": (2, 5)}, lambda i, w: mb.linear(x=i.x, weight=w.w), lambda i, w: i.x @ w.w.T, weights={"w": (4, 5)})

# Since iOS 17, parameters may be fp32 beside fp16 values, and the reverse.
for op, shape in {"linear": (2, 5), "conv": (2, 5, 4)}.items():
    w = noise("mixed", (3, 5) if op == "linear" else (3, 5, 2))
    for dtype, other in [("fp32", np.float16), ("fp16", np.float32)]:
        w = w.astype(other)
        case(
            f"{op}_mixed",
            {"x": shape},
            lambda i, _, op=op, w=w: getattr(mb, op)(x=i.x, weight=w),
            lambda i, _, op=op, w=w: i.x @ w.T.astype(float) if op == "linear" else convolve(i.x, w, [1], [(0, 0)], [1], 1),
            dtypes=[dtype],
            # The result is rounded once to the dtype of x.
            bar=1e-6 if dtype == "fp32" else 5e-4,
        )

T = lambda a, on: np.swapaxes(a, -1, -2) if on else a
for tx, ty in itertools.product([False, True], repeat=2):
    for x, y in [((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((2, 1, 2, 3), (3, 3, 4))]:
        flip = lambda s, on: (*s[:-2], s[-1], s[-2]) if on else s
        inputs = {"x": flip(x, tx), "y": flip(y, ty)}
        build = lambda i, w, tx=tx, ty=ty: mb.matmul(x=i.x, y=i.y, transpose_x=tx, transpose_y=ty)
        ref = lambda i, w, tx=tx, ty=ty: T(i.x, tx) @ T(i.y, ty)
        case(f"matmul_{len(x)}{len(y)}_{tx:d}{ty:d}", inputs, build, ref)
case("matmul_const", {"x": (2, 3)}, lambda i, w: mb.matmul(x=i.x, y=w.y), lambda i, w: i.x @ w.y, weights={"y": (3, 4)})


def convolve(x, w, strides, pads, dilations, groups):
    """Cross-correlation by its definition."""
    x = np.pad(x, [(0, 0), (0, 0), *pads])
    kernel = w.shape[2:]
    out = [(x.shape[2 + i] - (k - 1) * d - 1) // s + 1 for i, (k, s, d) in enumerate(zip(kernel, strides, dilations))]
    result = np.zeros((x.shape[0], w.shape[0], *out))
    cin, cout = w.shape[1], w.shape[0] // groups
    for tap in itertools.product(*map(range, kernel)):
        at = tuple(slice(t * d, t * d + (n - 1) * s + 1, s) for t, d, n, s in zip(tap, dilations, out, strides))
        seen = x[(slice(None), slice(None), *at)]
        for g in range(groups):
            part = w[(slice(g * cout, (g + 1) * cout), slice(None), *tap)]
            result[:, g * cout : (g + 1) * cout] += np.einsum("oc,nc...->no...", part, seen[:, g * cin : (g + 1) * cin])
    return result


def same(extents, kernel, strides, dilations, lower):
    """As many results as ceil(extent / stride); what is odd goes after, for `lower` before."""
    pads = []
    for n, k, s, d in zip(extents, kernel, strides, dilations):
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        pads.append((total - total // 2, total // 2) if lower else (total // 2, total - total // 2))
    return pads


CONVS = [
    # name, extents, kernel, options
    ("1d", (7,), (3,), {}),
    ("1d_custom", (7,), (3,), {"pad_type": "custom", "pad": [2, 1], "strides": [2]}),
    ("1d_dilated", (9,), (3,), {"pad_type": "custom", "pad": [2, 0], "dilations": [2]}),
    ("2d", (5, 6), (3, 2), {}),
    ("2d_strides", (5, 6), (3, 2), {"strides": [2, 1]}),
    ("2d_custom", (5, 6), (3, 2), {"pad_type": "custom", "pad": [1, 2, 0, 1], "strides": [1, 2]}),
    ("2d_same", (5, 6), (2, 3), {"pad_type": "same"}),
    ("2d_same_strides", (5, 6), (4, 3), {"pad_type": "same", "strides": [2, 2]}),
    ("2d_same_lower", (5, 6), (4, 2), {"pad_type": "same_lower", "strides": [2, 1]}),
    ("2d_dilated", (7, 8), (3, 2), {"dilations": [2, 3]}),
    ("2d_same_dilated", (7, 8), (2, 2), {"pad_type": "same", "dilations": [3, 1]}),
    ("2d_grouped", (4, 4), (3, 3), {"groups": 2}),
    ("2d_depthwise", (4, 4), (3, 3), {"groups": 4, "pad_type": "custom", "pad": [1, 1, 1, 1]}),
    ("3d", (3, 4, 5), (2, 3, 3), {}),
    ("3d_custom", (3, 4, 4), (3, 3, 3), {"pad_type": "custom", "pad": [2, 0, 1, 1, 1, 1], "strides": [1, 2, 2]}),
    ("3d_depthwise", (3, 4, 4), (3, 3, 3), {"groups": 4, "pad_type": "custom", "pad": [2, 0, 1, 1, 1, 1]}),
    ("1x1", (1, 6), (1, 1), {}),
]
for name, extents, kernel, options in CONVS:
    n, groups = len(extents), options.get("groups", 1)
    cin, cout = 4, 4 if groups > 1 else 3
    strides, dilations = options.get("strides", [1] * n), options.get("dilations", [1] * n)
    kind = options.get("pad_type", "valid")
    if kind == "custom":
        pads = list(zip(options["pad"][::2], options["pad"][1::2]))
    elif kind == "valid":
        pads = [(0, 0)] * n
    else:
        pads = same(extents, kernel, strides, dilations, kind == "same_lower")
    for bias in [False, True]:
        case(
            f"conv_{name}_{'bias' if bias else 'plain'}",
            {"x": (2, cin, *extents)},
            lambda i, w, o=options, bias=bias: mb.conv(x=i.x, weight=w.w, **o, **({"bias": w.b} if bias else {})),
            lambda i, w, a=(strides, pads, dilations, groups), n=n, bias=bias: convolve(i.x, w.w, *a)
            + (w.b.reshape(1, -1, *[1] * n) if bias else 0),
            weights={"w": (cout, cin // groups, *kernel), "b": (cout,)},
        )
# A kernel that is computed.
case(
    "conv_computed_weight",
    {"x": (1, 2, 5, 5), "w": (3, 2, 3, 3)},
    lambda i, w: mb.conv(x=i.x, weight=i.w),
    lambda i, w: convolve(i.x, i.w, [1, 1], [(0, 0)] * 2, [1, 1], 1),
)

case(
    "einsum_4",
    {"x": (2, 3, 4, 5), "y": (2, 5, 4, 6)},
    lambda i, w: mb.einsum(values=(i.x, i.y), equation="nchw,nwhu->nchu"),
    lambda i, w: np.einsum("nchw,nwhu->nchu", i.x, i.y),
)
case(
    "einsum_3",
    {"x": (3, 4, 5), "y": (5, 4, 6)},
    lambda i, w: mb.einsum(values=(i.x, i.y), equation="chw,whr->chr"),
    lambda i, w: np.einsum("chw,whr->chr", i.x, i.y),
)
case(
    "einsum_letters",
    {"q": (2, 3, 1, 5), "k": (2, 7, 1, 3)},
    lambda i, w: mb.einsum(values=(i.k, i.q), equation="bkhc,bchq->bkhq"),
    lambda i, w: np.einsum("bchq,bkhc->bkhq", i.q, i.k),
)


def attend(q, k, v, mask=0.0):
    return softmax(q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1]) + mask) @ v


QKV = {"q": (2, 3, 4, 8), "k": (2, 3, 5, 8), "v": (2, 3, 5, 6)}
case(
    "attention",
    QKV,
    lambda i, w: mb.scaled_dot_product_attention(query=i.q, key=i.k, value=i.v),
    lambda i, w: attend(i.q, i.k, i.v),
)
case(
    "attention_rank_3",
    {k: s[1:] for k, s in QKV.items()},
    lambda i, w: mb.scaled_dot_product_attention(query=i.q, key=i.k, value=i.v),
    lambda i, w: attend(i.q, i.k, i.v),
)
case(
    "attention_mask",
    {**QKV, "m": (2, 1, 4, 5)},
    lambda i, w: mb.scaled_dot_product_attention(query=i.q, key=i.k, value=i.v, attn_mask=i.m),
    lambda i, w: attend(i.q, i.k, i.v, i.m),
)
KEEP = np.tril(np.ones((4, 5), bool), 1)
case(
    "attention_bool_mask",
    QKV,
    lambda i, w: mb.scaled_dot_product_attention(query=i.q, key=i.k, value=i.v, attn_mask=KEEP),
    lambda i, w: attend(i.q, i.k, i.v, np.where(KEEP, 0.0, -np.inf)),
)

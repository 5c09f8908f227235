"""S2DiT (Streaming Sandwich Diffusion Transformer, arXiv 2601.12719) in plain PyTorch.

The reading of the paper that `s2ditc` compiles, written to be read: module names are the checkpoint's tensor names, and
every step states its shapes. It runs in float64, float32 and float16; float64 makes the goldens.

Letters: B batch, C latent channels, F latent frames, H rows, W columns; h = H/ph, w = W/pw the token grid, N = F*h*w tokens
in (frame, row, column) order; D hidden size, A heads, d = D/A; L text tokens.
"""

import json
import math
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load_file


KINDS = ("lcha", "ssa", "full", "linear", "local", "kv_compressed")
QK_NORMS = ("rms_norm_across_heads", "rms_norm_per_head")


@dataclass
class Config:
    in_channels: int
    out_channels: int
    patch_size: list
    num_attention_heads: int
    attention_head_dim: int
    ffn_dim: int
    text_dim: int
    text_len: int
    layout: list  # a kind of KINDS for each block
    freq_dim: int = 256
    ssa_stride: int = 2
    kv_stride: int = 2
    conv_kernel: list = field(default_factory=lambda: [3, 3, 3])
    linear_head_dim: int | None = None  # of linear attention alone
    feature_map: str = "softplus"  # or "relu"
    fusion: str = "gate"  # or "sum"
    rope_theta: float = 10000.0
    rope_in_kernel: str = "pre"  # or "post"
    qk_norm: str = "rms_norm_across_heads"  # or "rms_norm_per_head"
    eps: float = 1e-6
    chunk_frames: int | None = 3
    window_frames: int = 6
    sink_frames: int = 0
    state_write: str = "commit"  # or "last_step"
    sample_steps: list | int = field(default_factory=lambda: [1000, 750, 500, 250])
    flow_shift: float = 5.0

    def __post_init__(self):
        rules = [
            ("patch_size", len(self.patch_size) == 3 and self.patch_size[0] == 1, "3 sizes, the first 1: a token spans one frame"),
            ("conv_kernel", len(self.conv_kernel) == 3 and all(k % 2 for k in self.conv_kernel), "3 odd sizes"),
            ("attention_head_dim", self.attention_head_dim >= 6 and self.attention_head_dim % 2 == 0, "even, at least 6"),
            ("freq_dim", self.freq_dim % 2 == 0, "even: cosines, then sines"),
            ("layout", set(KINDS) >= set(self.layout) > set(), "one of " + ", ".join(KINDS) + " for each block"),
            ("feature_map", self.feature_map in ("softplus", "relu"), '"softplus" or "relu"'),
            ("fusion", self.fusion in ("gate", "sum"), '"gate" or "sum"'),
            ("state_write", self.state_write in ("commit", "last_step"), '"commit" or "last_step"'),
            ("rope_in_kernel", self.rope_in_kernel in ("pre", "post"), '"pre" or "post"'),
            ("qk_norm", self.qk_norm in QK_NORMS, " or ".join(QK_NORMS)),
        ]
        bad = [f"{name} is {getattr(self, name)!r}, expected {expected}" for name, holds, expected in rules if not holds]
        if bad:
            raise ValueError("config.json: " + "; ".join(bad))

    @property
    def dim(self):
        return self.num_attention_heads * self.attention_head_dim

    @property
    def linear_heads(self):
        """Heads of linear attention and their width."""
        width = self.linear_head_dim or self.attention_head_dim
        return self.dim // width, width

    @property
    def stages(self):
        """Maximal runs of "ssa" blocks: [(first block, one past the last)]."""
        stages = []
        for i, kind in enumerate(self.layout):
            if kind == "ssa":
                if stages and stages[-1][1] == i:
                    stages[-1] = (stages[-1][0], i + 1)
                else:
                    stages.append((i, i + 1))
        return stages

    @classmethod
    def load(cls, folder):
        """Names that start with "_" are metadata of whoever wrote the file; any other unknown name is an error."""
        values = json.loads((Path(folder) / "config.json").read_text())
        return cls(**{k: v for k, v in values.items() if not k.startswith("_")})

    def to_json(self):
        values = {"_class_name": "S2DiTTransformer3DModel"} | {f.name: getattr(self, f.name) for f in fields(self)}
        return json.dumps(values, indent=2) + "\n"


def low_grid(config, grid):
    """The grid inside a stage: the stride takes whole rows and columns of what is padded to a multiple of it."""
    frames, rows, cols = grid
    return frames, -(-rows // config.ssa_stride), -(-cols // config.ssa_stride)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis."""

    def __init__(self, dim, eps):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


def rope_table(config, frames, rows, cols, start=0, d=None):
    """Angles [N, d/2] in float64: axes (frame, row, column), angle = position * theta^(-2i/d_axis). `start`: the first frame's index."""
    d = d or config.attention_head_dim
    d_space = 2 * (d // 6)
    angles = []
    for axis, first, size in zip((d - 2 * d_space, d_space, d_space), (start, 0, 0), (frames, rows, cols)):
        i = torch.arange(axis // 2, dtype=torch.float64)
        positions = torch.arange(first, first + size, dtype=torch.float64)
        angles.append(torch.outer(positions, config.rope_theta ** (-2 * i / axis)))
    t, r, c = (a.shape[1] for a in angles)
    grid = torch.cat(
        [
            angles[0].view(frames, 1, 1, t).expand(frames, rows, cols, t),
            angles[1].view(1, rows, 1, r).expand(frames, rows, cols, r),
            angles[2].view(1, 1, cols, c).expand(frames, rows, cols, c),
        ],
        dim=-1,
    )
    return grid.reshape(frames * rows * cols, d // 2)


def apply_rope(x, angles):
    """Rotates the pairs (0,1), (2,3), ... of x [B, A, N, d]."""
    cos, sin = angles.cos().to(x), angles.sin().to(x)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


def softmax_attention(q, k, v):
    """q [B, A, N, d], k and v [B, A, M, d] -> [B, A, N, d]"""
    return (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1) @ v


def linear_sums(k, k_rot, v):
    """What linear attention keeps of its keys and values: S [B, A, d, d] for the numerator, z [B, A, 1, d] for the normaliser."""
    return k_rot.transpose(-1, -2) @ v, k.sum(-2, keepdim=True)


def read_sums(q, q_rot, S, z):
    """y_i = q_i S / (q_i . z + 1e-6)"""
    return q_rot @ S / (q @ z.transpose(-1, -2) + 1e-6)


def linear_attention(q, k, q_rot, k_rot, v):
    """y_i = q_i (sum_j k_j v_j^T) / (q_i . sum_j k_j + 1e-6): the numerator by q_rot and k_rot, the normaliser by q and k."""
    return read_sums(q, q_rot, *linear_sums(k, k_rot, v))


class Attention(nn.Module):
    """Projections, query/key norms and heads; softmax attention (SSA, full, cross-attention)."""

    def __init__(self, config, heads=None, head_dim=None):
        super().__init__()
        self.config = config
        self.count, head_dim = heads or config.num_attention_heads, head_dim or config.attention_head_dim
        dim = config.dim
        self.to_q, self.to_k, self.to_v = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        width = dim if config.qk_norm == "rms_norm_across_heads" else head_dim
        self.norm_q, self.norm_k = RMSNorm(width, config.eps), RMSNorm(width, config.eps)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])

    def heads(self, x):
        """[B, N, D] -> [B, A, N, d]"""
        return x.unflatten(-1, (self.count, -1)).transpose(1, 2)

    def qkv(self, x, context):
        """Normed and split into heads."""
        q, k, v = self.to_q(x), self.to_k(context), self.to_v(context)
        if self.config.qk_norm == "rms_norm_across_heads":
            return self.heads(self.norm_q(q)), self.heads(self.norm_k(k)), self.heads(v)
        return self.norm_q(self.heads(q)), self.norm_k(self.heads(k)), self.heads(v)

    def forward(self, x, context=None, rope=None, past=None):
        q, k, v = self.qkv(x, x if context is None else context)
        if rope is not None:
            q, k = apply_rope(q, rope), apply_rope(k, rope)
        y = (past.softmax_attention if past else softmax_attention)(q, k, v)
        return self.to_out[0](y.transpose(1, 2).flatten(-2))


class FeatureMap(nn.Module):
    """phi(x) = softplus(W x + b), head by head; one map for queries and keys."""

    def __init__(self, heads, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, dim, dim))
        self.bias = nn.Parameter(torch.empty(heads, dim))

    def forward(self, x):
        return F.softplus(torch.einsum("aed,band->bane", self.weight, x) + self.bias[:, None])


class KvCompressed(Attention):
    """Softmax attention over fewer keys and values (PixArt-Sigma, arXiv 2403.04692): one depthwise convolution joins s x s of each."""

    def __init__(self, config):
        super().__init__(config)
        s = config.kv_stride
        self.kv_conv = nn.Conv2d(config.dim, config.dim, s, s, groups=config.dim)

    def compressed(self, x, grid):
        """[B, A, F*h*w, d] -> [B, A, F*h/s*w/s, d], frame by frame."""
        frames, rows, cols = grid
        b = x.shape[0]
        x = x.transpose(1, 2).reshape(b * frames, rows, cols, -1).permute(0, 3, 1, 2)
        return self.heads(self.kv_conv(x).permute(0, 2, 3, 1).reshape(b, -1, self.config.dim))

    def forward(self, u, rope, grid, past=None):
        q, k, v = self.qkv(u, u)
        q, k = apply_rope(q, rope), apply_rope(k, rope)
        k, v = self.compressed(k, grid), self.compressed(v, grid)
        y = (past.softmax_attention if past else softmax_attention)(q, k, v)
        return self.to_out[0](y.transpose(1, 2).flatten(-2))


class Relu(nn.Module):
    """phi(x) = max(x, 0): a feature map without weights."""

    def forward(self, x):
        return F.relu(x)


class LCHA(Attention):
    """LinConv Hybrid Attention: linear attention and a causal depthwise convolution, mixed by a learned gate, or added.

    A block of kind "linear" has the first of the two paths alone.
    """

    def __init__(self, config, kind="lcha"):
        super().__init__(config, *config.linear_heads)
        dim, kernel = config.dim, config.conv_kernel
        softplus = config.feature_map == "softplus"
        self.kernel = FeatureMap(*config.linear_heads) if softplus else Relu()
        self.kind = kind
        if kind == "lcha":
            self.local_conv = nn.Conv3d(dim, dim, kernel, groups=dim)
            self.local_mix = nn.Linear(dim, dim)
            if config.fusion == "gate":
                self.fusion_gate = nn.Parameter(torch.zeros(dim))

    def features(self, q, k, rope):
        """Queries and keys behind the feature map: for the normaliser, and for the numerator."""
        if self.config.rope_in_kernel == "pre":
            q, k = self.kernel(apply_rope(q, rope)), self.kernel(apply_rope(k, rope))
            return q, k, q, k
        q, k = self.kernel(q), self.kernel(k)
        return q, k, apply_rope(q, rope), apply_rope(k, rope)

    def forward(self, u, rope, grid, past=None):
        q, k, v = self.qkv(u, u)
        y = (past.linear_attention if past else linear_attention)(*self.features(q, k, rope), v)
        y = self.to_out[0](y.transpose(1, 2).flatten(-2))
        if self.kind == "linear":
            return y
        local = local_path(self, u, grid, past)
        if self.config.fusion == "sum":
            return y + local
        alpha = self.fusion_gate.sigmoid()
        return alpha * y + (1 - alpha) * local


def local_path(attention, u, grid, past):
    """The depthwise convolution of u [B, N, D] on its grid, causal in time, and the mixing of its channels."""
    kt, kh, kw = attention.config.conv_kernel
    x = u.transpose(1, 2).unflatten(-1, grid)  # [B, D, F, h, w]
    before = kt - 1
    if past:
        x, before = past.frames_before(x), 0
    x = F.pad(x, (kw // 2, kw // 2, kh // 2, kh // 2, before, 0))
    return attention.local_mix(attention.local_conv(x).flatten(2).transpose(1, 2))


class Local(nn.Module):
    """LCHA's convolution alone."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.local_conv = nn.Conv3d(config.dim, config.dim, config.conv_kernel, groups=config.dim)
        self.local_mix = nn.Linear(config.dim, config.dim)

    def forward(self, u, rope, grid, past=None):
        return local_path(self, u, grid, past)


def self_attention(config, kind):
    """`attn1` of a block of this kind."""
    if kind in ("lcha", "linear"):
        return LCHA(config, kind)
    return {"local": Local, "kv_compressed": KvCompressed}.get(kind, Attention)(config)


class GELUProjection(nn.Module):
    def __init__(self, dim, inner):
        super().__init__()
        self.proj = nn.Linear(dim, inner)

    def forward(self, x):
        return F.gelu(self.proj(x), approximate="tanh")


class FeedForward(nn.Module):
    def __init__(self, dim, inner):
        super().__init__()
        self.net = nn.ModuleList([GELUProjection(dim, inner), nn.Identity(), nn.Linear(inner, dim)])

    def forward(self, x):
        return self.net[2](self.net[0](x))


class Block(nn.Module):
    def __init__(self, config, kind):
        super().__init__()
        self.eps = config.eps
        self.scale_shift_table = nn.Parameter(torch.zeros(1, 6, config.dim))
        self.attn1 = self_attention(config, kind)
        self.norm2 = nn.LayerNorm(config.dim, eps=config.eps)
        self.attn2 = Attention(config)
        self.ffn = FeedForward(config.dim, config.ffn_dim)

    def forward(self, x, tproj, text, rope, grid, past=None):
        """x [B, N, D], tproj [B, 6, D], text [B, L, D]."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.scale_shift_table + tproj).chunk(6, dim=1)
        u = layer_norm(x, self.eps) * (1 + scale1) + shift1
        plain = type(self.attn1) is Attention
        x = x + gate1 * (self.attn1(u, rope=rope, past=past) if plain else self.attn1(u, rope, grid, past))
        x = x + self.attn2(self.norm2(x), text)
        u = layer_norm(x, self.eps) * (1 + scale2) + shift2
        return x + gate2 * self.ffn(u)


class Stage(nn.Module):
    """Into the low resolution of a run of SSA blocks, and back.

    Where the stride does not divide the grid, it is padded with zeros at the bottom and right on the way in, and cut on the way out.
    """

    def __init__(self, dim, stride):
        super().__init__()
        self.stride = stride
        self.down = nn.Conv2d(dim, dim, stride, stride)
        self.up = nn.Linear(dim, stride * stride * dim)

    def enter(self, x, grid):
        """[B, F*h*w, D] -> [B, F*ceil(h/s)*ceil(w/s), D], frame by frame."""
        frames, rows, cols = grid
        b, _, dim = x.shape
        x = x.reshape(b * frames, rows, cols, dim).permute(0, 3, 1, 2)
        x = F.pad(x, (0, -cols % self.stride, 0, -rows % self.stride))
        return self.down(x).permute(0, 2, 3, 1).reshape(b, -1, dim)

    def leave(self, x, x_hi, grid):
        """x_hi + PixelShuffle(up(x)); the channels of `up` are in (row, column, D) order. A stage that ends the network has no x_hi."""
        frames, rows, cols = grid
        b, _, dim = x.shape
        s = self.stride
        y = self.up(x).reshape(b, frames, -(-rows // s), -(-cols // s), s, s, dim)
        y = y.permute(0, 1, 2, 4, 3, 5, 6).flatten(4, 5).flatten(2, 3)  # [B, F, rows, columns, D], to whole strides
        y = y[:, :, :rows, :cols].reshape(b, -1, dim)
        return y if x_hi is None else x_hi + y


class TwoLayers(nn.Module):
    def __init__(self, inner, outer, activation):
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(inner, outer), nn.Linear(outer, outer)
        self.activation = activation

    def forward(self, x):
        return self.linear_2(self.activation(self.linear_1(x)))


class Conditioning(nn.Module):
    def __init__(self, config):
        super().__init__()
        dim = config.dim
        self.freq_dim = config.freq_dim
        self.time_embedder = TwoLayers(config.freq_dim, dim, F.silu)
        self.time_proj = nn.Linear(dim, 6 * dim)
        self.text_embedder = TwoLayers(config.text_dim, dim, lambda x: F.gelu(x, approximate="tanh"))

    def time(self, t):
        """t [B] -> temb [B, D], tproj [B, 6, D]. The sinusoid is computed in float64: its phase is up to 1000."""
        half = self.freq_dim // 2
        omega = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
        angle = torch.outer(t.to(torch.float64), omega)
        e = torch.cat([angle.cos(), angle.sin()], dim=-1).to(self.time_proj.weight)
        temb = self.time_embedder(e)
        return temb, self.time_proj(F.silu(temb)).unflatten(-1, (6, -1))


def layer_norm(x, eps):
    return F.layer_norm(x, x.shape[-1:], eps=eps)


class S2DiTTransformer3DModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        dim, patch = config.dim, config.patch_size
        self.patch_embedding = nn.Conv3d(config.in_channels, dim, patch, patch)
        self.condition_embedder = Conditioning(config)
        self.blocks = nn.ModuleList([Block(config, kind) for kind in config.layout])
        self.stages = nn.ModuleList([Stage(dim, config.ssa_stride) for _ in config.stages])
        self.scale_shift_table = nn.Parameter(torch.zeros(1, 2, dim))
        self.proj_out = nn.Linear(dim, math.prod(patch) * config.out_channels)

    def forward(self, x, t, text, return_blocks=False, start=0, pasts=None):
        """x [B, C, F, H, W], t [B] in [0, 1000], text [B, L, text_dim] -> velocity [B, C, F, H, W].

        With `return_blocks`, (velocity, [x after each block]): `[B, N, D]` at the resolution that the block runs at.
        A chunk of a stream (stream.py) has the index of its first frame as `start`, and what came before, block by block, in `pasts`.
        """
        config, (_, ph, pw) = self.config, self.config.patch_size
        if x.shape[3] % ph or x.shape[4] % pw:
            raise ValueError(f"a latent of {x.shape[3]}x{x.shape[4]}: expected multiples of {ph}x{pw}")
        grid = (x.shape[2], x.shape[3] // ph, x.shape[4] // pw)
        low = low_grid(config, grid)

        x = self.patch_embedding(x).flatten(2).transpose(1, 2)
        temb, tproj = self.condition_embedder.time(t)
        text = self.condition_embedder.text_embedder(text)
        rope_high, rope_low = rope_table(config, *grid, start), rope_table(config, *low, start)
        rope_linear = rope_table(config, *grid, start, config.linear_heads[1])

        outputs = []
        starts, ends = [a for a, _ in config.stages], [b for _, b in config.stages]
        for i, (block, kind) in enumerate(zip(self.blocks, config.layout)):
            if i in starts:
                x_hi, x = x, self.stages[starts.index(i)].enter(x, grid)
            ssa = kind == "ssa"
            past = pasts[i] if pasts else None
            rope = rope_low if ssa else rope_linear if kind in ("lcha", "linear") else rope_high
            x = block(x, tproj, text, rope, low if ssa else grid, past)
            outputs.append(x)
            if i + 1 in ends:
                last = i + 1 == len(config.layout)
                x = self.stages[ends.index(i + 1)].leave(x, None if last else x_hi, grid)

        shift, scale = (self.scale_shift_table + temb[:, None]).chunk(2, dim=1)
        x = self.proj_out(layer_norm(x, config.eps) * (1 + scale) + shift)
        x = x.unflatten(1, grid).unflatten(-1, (ph, pw, config.out_channels))
        x = x.permute(0, 6, 1, 2, 4, 3, 5)  # [B, C, F, h, ph, w, pw]
        velocity = x.flatten(5, 6).flatten(3, 4)
        return (velocity, outputs) if return_blocks else velocity


def load(folder, dtype=torch.float64):
    """The model of a checkpoint folder in diffusers layout, one file or shards; every tensor must be there and no other."""
    folder = Path(folder)
    model = S2DiTTransformer3DModel(Config.load(folder))
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    files = ["diffusion_pytorch_model.safetensors"]
    if index.exists():
        files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    state = {}
    for file in files:
        state |= load_file(folder / file)
    model = model.to(dtype)
    model.load_state_dict(state, strict=True)
    return model.eval()


def from_random(config, seed):
    """A model with seeded weights under which no part is idle, in float32."""
    model = S2DiTTransformer3DModel(config).eval()
    g = torch.Generator().manual_seed(seed)
    dim, d = model.config.dim, model.config.attention_head_dim
    for name, p in sorted(model.state_dict().items()):
        n = torch.randn(p.shape, generator=g, dtype=torch.float64)
        if name.endswith("scale_shift_table"):
            n /= math.sqrt(dim)
        elif name.endswith("kernel.weight"):
            n /= math.sqrt(d)
        elif "norm" in name and name.endswith("weight"):
            n = 1 + 0.1 * n
        elif name.endswith("bias"):
            n *= 0.02 if "norm" not in name else 0.1
        elif not name.endswith("fusion_gate"):
            n /= math.sqrt(math.prod(p.shape[1:]))
        p.copy_(n)
    return model

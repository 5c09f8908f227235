"""Makes the goldens of imported graphs, `tests/goldens/import`: models that `torch.export` wrote, and what they compute in float64.

    python3 -m venv venv && venv/bin/pip install torch==2.7.1 diffusers==0.42.1 transformers==5.24.0 accelerate numpy safetensors
    venv/bin/python examples/reference/import_goldens.py [CASE ...]

A case is a model with seeded weights (seed 900 + i; inputs 950 + i), exported in float32 twice: `CASE.raw.pt2` as `torch.export.export` has it, and
`CASE.dec.pt2` after `run_decompositions()`. `CASE.safetensors` has the inputs by the names of the model's arguments, and the results, which PyTorch
computed in float64 and which are stored in float32, as `output` or `output_0`, `output_1`, …. Where diffusers narrows to float32 whatever the dtype, it computes in float64 here.

To keep the files small the program's JSON is compressed, and of each call's metadata the module path alone is kept; nothing else is edited.
`variant_geglu.torch210.pt2` and `variant_geglu.torch215.pt2` are that case's program as torch 2.10.0 and 2.15.0 write it.
Models that the compiler has a frontend for: S2DiT's reference, diffusers' Wan, LTX-Video and SANA-Video. Others: CLIP's and umT5's text encoders,
Wan's VAE decoder, and six variants of LCHA that no frontend knows (`variant_…`). Then what the format has: symbolic sizes (`dynamic`), storages that tensors share
(`shared`), writes to views (`writes`), buffers that are written to (`stateful`), ops that are not read (`unread`), and many ops (`ops_…`). Then what users brought: blocks that call a module of the root (`shared_rotation`).
"""

import argparse
import copy
import io
import json
import tempfile
import zipfile
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import save_file

import s2dit
from wan_goldens import float64

GOLDENS = Path(__file__).resolve().parents[2] / "tests/goldens/import"


def s2dit_reference():
    config = s2dit.Config(
        in_channels=4, out_channels=4, patch_size=[1, 2, 2], num_attention_heads=2, attention_head_dim=8, ffn_dim=32, text_dim=12, text_len=5,
        layout=["lcha", "ssa", "ssa", "full", "lcha"], freq_dim=16,
    )
    inputs = dict(x=torch.randn(1, 4, 3, 6, 8), t=torch.tensor([637.5]), text=torch.randn(1, 5, 12))
    return s2dit.S2DiTTransformer3DModel(config), inputs, {}


def wan():
    from diffusers import WanTransformer3DModel

    model = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=12, freq_dim=16, ffn_dim=32,
        num_layers=2, rope_max_seq_len=16,
    )
    inputs = dict(hidden_states=torch.randn(1, 4, 3, 6, 8), timestep=torch.tensor([637.5]), encoder_hidden_states=torch.randn(1, 5, 12))
    return model, inputs, dict(return_dict=False)


def ltx():
    from diffusers import LTXVideoTransformer3DModel

    model = LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16, num_layers=2, caption_channels=12,
    )
    mask = torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.0]])
    inputs = dict(
        hidden_states=torch.randn(1, 12, 8), encoder_hidden_states=torch.randn(1, 5, 12), timestep=torch.tensor([637.5]), encoder_attention_mask=mask,
    )
    return model, inputs, dict(num_frames=3, height=2, width=2, rope_interpolation_scale=(0.5, 2.0, 2.0), return_dict=False)


def sana():
    from diffusers import SanaVideoTransformer3DModel

    model = SanaVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=12, num_layers=2, num_cross_attention_heads=2,
        cross_attention_head_dim=12, cross_attention_dim=24, caption_channels=12, mlp_ratio=2.0, sample_size=8, patch_size=(1, 2, 2),
        qk_norm="rms_norm_across_heads", rope_max_seq_len=16,
    )
    mask = torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.0]])
    inputs = dict(
        hidden_states=torch.randn(1, 4, 3, 6, 8), encoder_hidden_states=torch.randn(1, 5, 12), timestep=torch.tensor([637.5]), encoder_attention_mask=mask,
    )
    return model, inputs, dict(return_dict=False)


def clip():
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=7, eos_token_id=49,
        bos_token_id=48, pad_token_id=0,
    )
    return CLIPTextModel(config), dict(input_ids=torch.tensor([[48, 3, 17, 5, 49, 0, 0]])), {}


def umt5():
    from transformers import UMT5Config, UMT5EncoderModel

    model = UMT5EncoderModel(UMT5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2))
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]])
    return model, dict(input_ids=torch.tensor([[3, 14, 15, 1, 0, 0]]), attention_mask=mask), {}


class Decoder(nn.Module):
    """The decoder of a VAE as one model."""

    def __init__(self, vae):
        super().__init__()
        self.post_quant_conv, self.decoder = vae.post_quant_conv, vae.decoder
        object.__setattr__(self, "whole", vae)

    def forward(self, z):
        return self.whole.decode(z, return_dict=False)[0]


def vae():
    from diffusers import AutoencoderKLWan

    model = AutoencoderKLWan(base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True])
    return Decoder(model), dict(z=torch.randn(1, 4, 2, 2, 2)), {}


class Variant(nn.Module):
    """A block of linear attention beside a causal convolution, mixed by a gate, and a feed-forward layer; `kind` is what no frontend knows."""

    def __init__(self, kind, dim=16, heads=4, inner=24):
        super().__init__()
        self.kind, self.heads, bias = kind, heads, kind != "no_bias"
        kv = dim // 2 if kind == "grouped_queries" else dim
        self.norm = nn.LayerNorm(dim)
        self.to_q, self.to_k, self.to_v = nn.Linear(dim, dim, bias), nn.Linear(dim, kv, bias), nn.Linear(dim, kv, bias)
        self.norm_q, self.norm_k = s2dit.RMSNorm(dim, 1e-6), s2dit.RMSNorm(kv, 1e-6)
        self.to_out = nn.Linear(dim, dim, bias)
        self.kernel = s2dit.FeatureMap(heads, dim // heads)
        nn.init.normal_(self.kernel.weight)
        nn.init.normal_(self.kernel.bias)
        self.local_conv, self.local_mix = nn.Conv3d(dim, dim, 3, groups=dim, bias=bias), nn.Linear(dim, dim, bias)
        self.fusion_gate = nn.Linear(dim, 1) if kind == "per_token_gate" else nn.Parameter(torch.randn(dim))
        self.up = nn.Linear(dim, 2 * inner if kind == "geglu" else inner, bias)
        self.down = nn.Linear(inner, dim, bias)

    def split(self, x):
        return x.unflatten(-1, (-1, x.shape[-1] // (self.heads // 2 if x.shape[-1] < self.to_q.out_features else self.heads))).transpose(1, 2)

    def forward(self, x, grid):
        u = self.norm(x)
        q, k, v = self.split(self.norm_q(self.to_q(u))), self.split(self.norm_k(self.to_k(u))), self.split(self.to_v(u))
        if self.kind == "grouped_queries":
            k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        if self.kind == "l2_keys":
            k = F.normalize(k, dim=-1)
        q, k = (F.relu(q), F.relu(k)) if self.kind == "relu_kernel" else (self.kernel(q), self.kernel(k))
        y = q @ (k.transpose(-1, -2) @ v) / (q @ k.sum(-2, keepdim=True).transpose(-1, -2) + 1e-6)
        y = self.to_out(y.transpose(1, 2).flatten(-2))
        local = F.pad(u.transpose(1, 2).unflatten(-1, grid), (1, 1, 1, 1, 2, 0))
        local = self.local_mix(self.local_conv(local).flatten(2).transpose(1, 2))
        alpha = self.fusion_gate(u).sigmoid() if self.kind == "per_token_gate" else self.fusion_gate.sigmoid()
        x = x + alpha * y + (1 - alpha) * local
        h = self.up(self.norm(x))
        if self.kind == "geglu":
            a, b = h.chunk(2, dim=-1)
            return x + self.down(F.gelu(a) * b)
        return x + self.down(F.gelu(h, approximate="tanh"))


class Variants(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.patch = nn.Conv3d(4, 16, (1, 2, 2), (1, 2, 2))
        self.blocks = nn.ModuleList([Variant(kind), Variant(kind)])
        self.proj_out = nn.Linear(16, 16)

    def forward(self, latent):
        grid = (latent.shape[2], latent.shape[3] // 2, latent.shape[4] // 2)
        x = self.patch(latent).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x, grid)
        x = self.proj_out(x).unflatten(1, grid).unflatten(-1, (2, 2, 4))
        return x.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)


def variant(kind):
    return lambda: (Variants(kind), dict(latent=torch.randn(1, 4, 3, 4, 6)), {})


class Dynamic(nn.Module):
    """A sequence of any even length, whose length is computed with."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 4)

    def forward(self, text):
        length = text.shape[1]
        pairs = text.reshape(1, length // 2, 2 * text.shape[2])
        return self.inner(pairs.reshape(1, length, -1)) * length + torch.arange(length)[:, None]


class Shared(nn.Module):
    """Weights in bfloat16 that share a storage, a buffer with strides, a constant."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(12, 8)
        self.head = nn.Linear(8, 12, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("window", torch.arange(24.0).view(3, 8).t()[:, 1:] / 8)

    def forward(self, input_ids):
        x = self.embedding(input_ids) @ self.window
        return self.head(F.pad(x, (0, 6))) * torch.tensor([0.5, 2.0, 1.5]).repeat(4)


class Writes(nn.Module):
    """Tensors that are written to, through views and views of views."""

    def forward(self, x):
        y = torch.zeros_like(x)
        y[:, ::2] = x[:, ::2] * 2
        y[:, 1::2].add_(x[:, 1::2])
        flat = y.view(-1)
        flat[2:5].mul_(3.0)
        y[1, 0].fill_(7.0)
        y.transpose(0, 1)[2] += 0.5
        out = torch.empty_like(x)
        out[..., 0::2], out[..., 1::2] = y[..., 1::2], x[..., 0::2].clone().clamp_(-1, 1)
        x = x + out
        x.masked_fill_(torch.eye(4, 6) > 0, -2.0)
        return x + flat.view_as(x)


class Stateful(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x):
        self.seen.add_(x)
        return x * self.seen


class Unread(nn.Module):
    """Ops that no compiler of static graphs can read, in modules with paths."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.ModuleDict({"fft": Fourier()}) for _ in range(2)])

    def forward(self, x):
        for block in self.blocks:
            x = block["fft"](x)
        return torch.sort(x, -1).values


class Fourier(nn.Module):
    def forward(self, x):
        return torch.fft.fft(x).abs() + x


def linear_algebra(x):
    """x [4, 6]"""
    a, b = x[:, None], x.t().expand(2, 6, 4)
    return [
        x @ x.t(), torch.mv(x, x[0]), torch.outer(x[0], x[1]), torch.dot(x[0], x[1]), torch.addmm(x[0, :4], x, x.t(), beta=0.5, alpha=2.0),
        torch.baddbmm(a[:2, :, :4] * 0 + 1.0, x.expand(2, 4, 6), b), x.expand(3, 4, 6) @ x[0], x[0] @ b[0],
        torch.einsum("ij,kj->ik", x, x), torch.einsum("ij->ji", x), torch.einsum("bij,bkj->bik", x.expand(2, 4, 6), x.expand(2, 4, 6) * 2),
        torch.einsum("aed,band->bane", x.view(2, 2, 6), x.view(1, 2, 2, 6)), torch.einsum("ij,ij->", x, x), torch.einsum("ij,j->i", x, x[0]),
        torch.einsum("bhid,bhjd->bhij", x.view(1, 2, 2, 6), x.view(1, 2, 2, 6)), torch.einsum("abc,dc,d->ab", x.view(2, 2, 6), x, x[:, 0]),
        torch.einsum("i,j->ij", x[0], x[1]), torch.einsum("bnd,hde->bhne", x.view(1, 4, 6), torch.stack([x[:, :3].repeat(2, 1)[:6]] * 2)),
        F.linear(x, x), F.linear(x[0], x, x[:, 0]), F.scaled_dot_product_attention(a, a, a, is_causal=True),
        F.scaled_dot_product_attention(x[None, None], x[None, None], x[None, None], is_causal=True),
        F.scaled_dot_product_attention(x[None, None], x[None, None], x[None, None], attn_mask=torch.ones(4, 4).tril().bool(), scale=0.3),
        F.scaled_dot_product_attention(x.view(1, 2, 2, 6), x.view(1, 2, 2, 6)[:, :1], x.view(1, 2, 2, 6)[:, 1:], enable_gqa=True),
    ]


def elements(x):
    p = x.abs() + 0.5
    return [
        x.abs(), x.cos(), x.erf(), x.exp(), p.log(), -x, x.relu(), p.rsqrt(), x.sigmoid(), F.silu(x), x.sin(), p.sqrt(), x.tanh(),
        x.square(), p.reciprocal(), p.log1p(), x.expm1(), F.gelu(x), F.gelu(x, approximate="tanh"), F.softplus(x), F.softplus(x, 2.0, 30.0), x.clamp(-0.5, 0.25),
        x.clamp_min(0.1), x.clamp_max(0.1), F.hardtanh(x), F.leaky_relu(x, 0.2), F.elu(x), F.hardsigmoid(x), F.hardswish(x), F.mish(x), x**2, x**3, p**0.5, p**-0.5,
        p**-1, p**1.7, 2.0**x, p**x, torch.add(x, p, alpha=3), torch.sub(x, p, alpha=2), 1 - x, torch.rsub(x, p, alpha=0.5), x / p, torch.div(x, 0.3, rounding_mode="floor"),
        torch.maximum(x, p - 0.7), torch.minimum(x, p - 0.7), torch.addcmul(x, x, p, value=0.5), torch.lerp(x, p, 0.3), F.glu(x), (x * 4).round(), (x * 4).floor(), (x * 4).ceil(),
        torch.where(x > p - 0.6, x, p - 0.6), torch.where(x > 20, x, x.exp().log1p()),
    ]


def shapes(x):
    y = x.view(2, 2, 6)
    return [
        x.reshape(3, -1), y.flatten(1), y.unflatten(2, (3, -1)), y[:, None].squeeze(1), y.permute(2, 0, 1), y.transpose(-1, 0), x.t(), y.movedim(0, -1), x[:1].expand(3, -1),
        x.repeat(2, 3), y.repeat_interleave(2, 1), y[:, 1], y[..., -1], y[:, :, 1:5:2], y.narrow(2, 1, 3), torch.cat([x, x[:2]]), torch.stack([x, x * 2], -1), *y.split(4, -1),
        *y.split([1, 5], 2), *x.chunk(3, 1), *y.unbind(0), F.pad(x, (1, 2, 0, 1), value=0.5), F.pad(x, (-1, 2)), F.pad(y, (2, 1), mode="replicate"), x.roll(1, 0), x.roll((2, -1), (0, 1)),
        x.flip(0, 1), x.tril(), x.triu(1), F.pixel_shuffle(x.reshape(1, 4, 2, 3), 2), F.pixel_unshuffle(x.reshape(1, 1, 4, 6), 2), F.channel_shuffle(x.reshape(1, 4, 2, 3), 2),
        F.interpolate(x[None, None], scale_factor=2.0), F.interpolate(x[None], scale_factor=3.0), F.interpolate(x.view(1, 1, 2, 2, 6), scale_factor=2.0, mode="nearest-exact"),
        torch.arange(6) * x, torch.linspace(0, 1, 6) + x, torch.full((4, 6), 2.5) * x, torch.eye(4, dtype=x.dtype) @ x, x.new_ones(4, 1) + x, *torch.meshgrid(x[0], x[:, 0], indexing="ij"),
        x[torch.tensor([2, 0])], x[:, torch.tensor([[5, 1], [0, 3]])], x[torch.tensor([0, 3]), torch.tensor([5, 2])], x.index_select(1, torch.tensor([1, 4])),
        x.gather(1, torch.tensor([[2, 0]]).expand(4, 2)), x.view(1, 2, 1, 2, 2, 3).permute(0, 5, 1, 4, 3, 2).reshape(3, 8),
    ]


def reductions(x):
    y = x.view(2, 2, 6)
    batch = x.view(1, 4, 2, 3)
    return [
        x.sum(), y.sum((0, 2)), y.sum(-1, keepdim=True), x.mean(), y.mean(1), x.amax(1), x.amin(0), x.max(), x.min(), x.max(1).values, x.var(1), x.std(0, unbiased=False), x.cumsum(1), x.logsumexp(1),
        x.softmax(0), x.norm(dim=1), torch.linalg.vector_norm(x, 1, 0), torch.linalg.vector_norm(x, float("inf"), 1), F.normalize(x, dim=0), F.layer_norm(x, (6,)), F.layer_norm(y, (2, 6), y[0], y[1], 1e-3),
        F.rms_norm(x, (6,), x[0]), F.rms_norm(x, (6,), eps=0.1), F.group_norm(batch, 2, x[:, 0], x[:, 1]), F.instance_norm(batch), F.batch_norm(batch, x[:, 0], x[:, 1].abs(), x[:, 2], x[:, 3]),
        F.conv1d(x[None], x[:, None, :3], padding=1, groups=4), F.conv2d(batch, x[:, :4, None, None]), F.conv2d(batch[0], x.view(3, 4, 2, 1), x[:3, 0], padding=(1, 0), stride=(2, 1), dilation=(2, 1)),
        F.conv3d(x.view(1, 2, 2, 2, 3), x.view(2, 1, 1, 3, 4)[..., :1], groups=2, padding="same"),
    ]


def masks(x):
    ids = torch.tensor([3, 0, 5, 3, 1, 0])
    holds = (x > 0).logical_not() if False else torch.ones(4, 6).triu().bool()
    rounded = (x * 2).round()
    return [
        torch.where(holds, x, 0.5), x.masked_fill(holds, -1.0), torch.where(holds & ~holds.flip(1), x, -x), (ids == 3) * x, x * (ids != 0).float(), torch.where(rounded == 1, x, 0.0), torch.where(rounded >= 0, x, -x),
        torch.where(rounded < 1, x, 2 * x), (rounded == 1).any(1).float(), (rounded > -9).all(0).float(), (rounded > 0).sum(1).float(), rounded.argmax(1).float(), rounded.sign(), x.masked_fill(holds, float("-inf")).softmax(0)[:, 1],
        torch.where(torch.isinf(x), 1.0, x), torch.logical_or(rounded == 1, holds).float(), (rounded % 3), torch.floor_divide(torch.arange(6), 4) * x, x * (torch.arange(6) % 4 == 1),
        # A mask that the model computes, behind a view.
        F.scaled_dot_product_attention(x[None, None], x[None, None], x[None, None], attn_mask=((rounded[:, :4] > 0) | torch.eye(4).bool())[None, None]),
    ]


class Rotation(nn.Module):
    def __init__(self, width, tokens):
        super().__init__()
        angles = torch.arange(tokens)[:, None] * 0.5 ** torch.arange(width // 2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, x):
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack((a * self.cos - b * self.sin, a * self.sin + b * self.cos), -1).flatten(-2)


class Rotated(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.qkv, self.out, self.shift = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), nn.Linear(dim, 6 * dim)

    def forward(self, x, time, text, rotation):
        s1, c1, g1, s2, c2, g2 = self.shift(time)[:, None].chunk(6, -1)
        q, k, v = (self.norm(x) * (1 + c1) + s1).matmul(self.qkv.weight.T).unflatten(-1, (6, -1)).transpose(1, 2).split(2, 1)
        x = x + g1 * self.out(F.scaled_dot_product_attention(rotation(q), rotation(k), v).transpose(1, 2).flatten(2))
        return x + g2 * torch.tanh((self.norm(x) * (1 + c2) + s2) * text)


class SharedRotation(nn.Module):
    """Layers that call one module of the root, modulation in six parts, and parts that are wide: lengths are no shape."""

    def __init__(self, dim=16, tokens=32):
        super().__init__()
        self.rotation = Rotation(dim // 2, tokens)
        self.patch, self.time, self.text, self.head = nn.Linear(4, dim), nn.Linear(1, dim), nn.Linear(12, dim), nn.Linear(dim, 4)
        self.layers = nn.ModuleList(Rotated(dim) for _ in range(3))

    def forward(self, latent, sigma, text):
        x, time = self.patch(latent.flatten(2).transpose(1, 2)), self.time(sigma[:, None])
        text = self.text(text).mean(1, keepdim=True)
        for layer in self.layers:
            x = layer(x, time, text, self.rotation)
        wide = time.repeat(1, 48).split([128] * 6, -1)
        return self.head(x + sum(part[:, :16] * i for i, part in enumerate(wide))[:, None] / 15).transpose(1, 2).view_as(latent)


class Ops(nn.Module):
    """Many ops of one tensor, a result each."""

    def __init__(self, ops):
        super().__init__()
        self.ops = ops

    def forward(self, x):
        return tuple(self.ops(x))


def ops_of(ops):
    return lambda: (Ops(ops), dict(x=torch.randn(4, 6)), {})


EXTRA = {
    "dynamic": lambda: (Dynamic(), dict(text=torch.randn(1, 6, 6)), dict(dynamic=dict(text={1: 2 * torch.export.Dim("half", max=64)}))),
    "shared": lambda: (Shared().to(torch.bfloat16), dict(input_ids=torch.tensor([[3, 11, 0, 7]])), {}),
    "writes": lambda: (Writes(), dict(x=torch.randn(4, 6)), {}),
    "stateful": lambda: (Stateful(), dict(x=torch.randn(4)), {}),
    "unread": lambda: (Unread(), dict(x=torch.randn(2, 6)[:, :4]), {}),
} | {f"ops_{ops.__name__}": ops_of(ops) for ops in [elements, linear_algebra, shapes, reductions, masks]}

KINDS = ["relu_kernel", "no_bias", "geglu", "per_token_gate", "grouped_queries", "l2_keys"]
LATER = {
    "shared_rotation": lambda: (SharedRotation(), dict(latent=torch.randn(1, 4, 2, 4, 4), sigma=torch.tensor([0.71]), text=torch.randn(1, 6, 12)), {}),
}
CASES = {f.__name__: f for f in [s2dit_reference, wan, ltx, sana, clip, umt5, vae]} | {f"variant_{kind}": variant(kind) for kind in KINDS} | EXTRA | LATER


def draw(model):
    """Seeded weights with which every part of the model matters."""
    for name, tensor in model.named_parameters():
        if tensor.dim() >= 2 and "table" not in name:
            nn.init.normal_(tensor, std=(tensor[0].numel() or 1) ** -0.5)
        elif name.endswith("bias"):
            nn.init.normal_(tensor, std=0.1)
        elif "gate" in name or "table" in name:
            nn.init.normal_(tensor, std=0.5)
        else:
            nn.init.normal_(tensor, mean=1.0, std=0.1)


def written(program):
    """The bytes of `torch.export.save`, with small JSON."""
    with tempfile.NamedTemporaryFile(suffix=".pt2") as file:
        torch.export.save(program, file.name)
        whole = zipfile.ZipFile(file.name)
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as small:
            for info in whole.infolist():
                data, how = whole.read(info), zipfile.ZIP_STORED
                if "example_inputs" in info.filename or "sample_inputs" in info.filename:
                    continue
                if info.filename.endswith("program.json") or "/models/" in info.filename:
                    text = json.loads(data)
                    for node in text["graph_module"]["graph"]["nodes"]:
                        node["metadata"] = {k: v for k, v in node["metadata"].items() if k == "nn_module_stack"}
                    text["graph_module"].pop("module_call_graph", None)
                    data, how = json.dumps(text).encode(), zipfile.ZIP_DEFLATED
                entry = zipfile.ZipInfo(info.filename, (1980, 1, 1, 0, 0, 0))
                entry.compress_type = how
                small.writestr(entry, data)
        return out.getvalue()


def in_newer_layout(older, program):
    """The same program laid out as torch 2.8 and later do: raw storages, which tensors share, and where each tensor lies in them.

    Written here from the description of the format, since torch 2.7 writes the older layout alone.
    """
    numbers = {torch.float32: 7, torch.bfloat16: 13, torch.float16: 6, torch.int64: 5, torch.bool: 12}
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(older)) as source, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        def put(name, data):
            archive.writestr(zipfile.ZipInfo(f"shared/{name}", (1980, 1, 1, 0, 0, 0)), data)

        put("archive_format", "pt2")
        put("archive_version", "0")
        put("byteorder", "little")
        put("models/model.json", source.read("serialized_exported_program.json"))
        for folder, prefix, tensors in [("weights", "weight_", program.state_dict), ("constants", "tensor_", program.constants)]:
            config, storages = {}, {}
            for name, tensor in tensors.items():
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in storages:
                    storages[storage.data_ptr()] = f"{prefix}{len(storages)}"
                    put(f"data/{folder}/{storages[storage.data_ptr()]}", bytes(storage))
                config[name] = dict(
                    path_name=storages[storage.data_ptr()], is_param=isinstance(tensor, nn.Parameter), use_pickle=False,
                    tensor_meta=dict(
                        dtype=numbers[tensor.dtype], sizes=[dict(as_int=n) for n in tensor.shape], strides=[dict(as_int=n) for n in tensor.stride()],
                        storage_offset=dict(as_int=tensor.storage_offset()), requires_grad=tensor.requires_grad, device=dict(type="cpu", index=None), layout=7,
                    ),
                )
            put(f"data/{folder}/model_{folder}_config.json", json.dumps(dict(config=config)))
    return out.getvalue()


def tensors_in(output):
    if isinstance(output, torch.Tensor):
        return [output]
    values = output.values() if isinstance(output, dict) or hasattr(output, "values") else output
    return [t for value in values for t in tensors_in(value)]


def make(index, name):
    torch.manual_seed(900 + index)
    model, _, _ = CASES[name]()
    model = model.eval()
    draw(model)
    torch.manual_seed(950 + index)
    _, inputs, options = CASES[name]()
    torch.manual_seed(950 + index)
    inputs = {k: torch.randn_like(v) if v.dtype == torch.float32 and v.dim() > 2 else v for k, v in inputs.items()}
    dynamic = options.pop("dynamic", None)
    with torch.no_grad():
        plain = tensors_in(copy.deepcopy(model)(**inputs, **options))
        exported = torch.export.export(model, (), inputs | options, dynamic_shapes=dynamic)
        for form, program in [("raw", exported), ("dec", exported.run_decompositions())]:
            (GOLDENS / f"{name}.{form}.pt2").write_bytes(written(program))
        if name == "shared":
            (GOLDENS / f"{name}.new.pt2").write_bytes(in_newer_layout((GOLDENS / f"{name}.raw.pt2").read_bytes(), exported))
        wide = copy.deepcopy(model).double()
        if name == "vae":
            object.__setattr__(wide, "whole", copy.deepcopy(model.whole).double())
        doubles = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
        with float64():
            outputs = tensors_in(wide(**doubles, **options))
    names = ["output"] if len(outputs) == 1 else [f"output_{i}" for i in range(len(outputs))]
    golden = {k: v.float() for k, v in inputs.items()} | {k: v.double() for k, v in zip(names, outputs)}
    save_file({k: v.contiguous().float() for k, v in golden.items()}, GOLDENS / f"{name}.safetensors")
    error = [((a.double() - b).norm() / b.norm()).item() for a, b in zip(plain, outputs)]
    sizes = [(GOLDENS / f"{name}.{form}").stat().st_size for form in ("raw.pt2", "dec.pt2", "safetensors")]
    print(f"{name:26} PyTorch's float32: {max(error):.1e}; std {outputs[0].std():.2f}; {sizes} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    chosen = parser.parse_args().cases
    GOLDENS.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(CASES):
        if not chosen or name in chosen:
            make(index, name)


if __name__ == "__main__":
    main()

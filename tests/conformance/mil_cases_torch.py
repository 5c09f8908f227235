"""Modules that coremltools converts from PyTorch with all its passes; the module itself in float64 says what they mean."""

import coremltools as ct
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from mil_cases import convert, noise


class Norms(nn.Module):
    shapes = {"x": (2, 8, 6, 6)}

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.batch, self.group, self.instance = nn.BatchNorm2d(8), nn.GroupNorm(2, 8), nn.InstanceNorm2d(8, affine=True)
        self.batch.running_mean.normal_()
        self.batch.running_var.uniform_(0.5, 2)

    def forward(self, x):
        return self.instance(F.silu(self.group(F.relu(self.batch(self.conv(x))))))


class Upsampler(nn.Module):
    shapes = {"x": (1, 4, 6, 4)}

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv2d(16, 12, 3, padding=1), nn.Conv2d(12, 8, 3, padding=1, padding_mode="replicate")

    def forward(self, x):
        return F.pixel_shuffle(self.up(F.gelu(self.down(F.pixel_unshuffle(x, 2)), approximate="tanh")), 2)


class Block(nn.Module):
    """A transformer block with rotary embedding, per-head norms and adaptive modulation."""

    shapes = {"x": (2, 10, 32), "t": (2, 16), "text": (2, 5, 32)}

    def __init__(self, causal=False):
        super().__init__()
        self.causal, self.heads = causal, 4
        self.modulation = nn.Linear(16, 6 * 32)
        self.norm1, self.norm2 = nn.LayerNorm(32, elementwise_affine=False), nn.LayerNorm(32)
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
        self.q2, self.kv2, self.out2 = nn.Linear(32, 32), nn.Linear(32, 64), nn.Linear(32, 32)
        self.gain = nn.Parameter(torch.rand(8) + 0.5)
        self.ffn = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))
        angles = torch.arange(10)[:, None] * 10000 ** (-torch.arange(4) / 4)
        self.register_buffer("cos", angles.cos().repeat(1, 2))
        self.register_buffer("sin", angles.sin().repeat(1, 2))

    def split(self, x):
        return x.unflatten(-1, (self.heads, 8)).transpose(1, 2)

    def rms(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.gain

    def rotate(self, x):
        a, b = x.chunk(2, dim=-1)
        return x * self.cos + torch.cat([-b, a], dim=-1) * self.sin

    def forward(self, x, t, text):
        s1, k1, g1, s2, k2, g2 = self.modulation(F.silu(t)).unsqueeze(1).chunk(6, dim=-1)
        q, k, v = (self.split(y) for y in self.qkv(self.norm1(x) * (1 + k1) + s1).chunk(3, dim=-1))
        q, k = self.rotate(self.rms(q)), self.rotate(self.rms(k))
        a = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + g1 * self.out(a.transpose(1, 2).flatten(2))
        k, v = (self.split(y) for y in self.kv2(text).chunk(2, dim=-1))
        a = torch.softmax(self.split(self.q2(x)) @ k.transpose(-1, -2) * 8**-0.5, dim=-1) @ v
        x = x + self.out2(a.transpose(1, 2).flatten(2))
        return x + g2 * self.ffn(self.norm2(x) * (1 + k2) + s2)


class Shapes(nn.Module):
    shapes = {"x": (2, 3, 4, 6)}

    def forward(self, x):
        y = torch.stack(x.split([2, 4], dim=3)[1].unbind(1), dim=-1)
        y = F.pad(y, (1, 2, 0, 1), value=0.25).permute(0, 3, 1, 2)
        z = torch.flip(x, dims=[1])[:, :, 1::2, -3:].mean(dim=(2, 3), keepdim=True).expand(-1, -1, 2, 2)
        z = z.repeat(1, 2, 1, 3).reshape(2, -1).clamp(-0.5, 0.5)
        index = torch.tensor([3, 1, 1])
        return y.flatten(1)[:, ::3], z.index_select(1, index), x.amax(dim=1).squeeze(), F.pad(x, (2, 1, 1, 1), mode="reflect")


class Timestep(nn.Module):
    shapes = {"t": (3,)}

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, t):
        angles = t[:, None] * torch.exp(torch.arange(8) * (-np.log(100.0) / 8))[None]
        return torch.sigmoid(self.down(F.softplus(self.up(torch.cat([angles.cos(), angles.sin()], -1)))))


class Masked(nn.Module):
    shapes = {"x": (1, 2, 6, 8)}

    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.ones(6, 6).tril().bool())

    def forward(self, x):
        scores = torch.einsum("bhqd,bhkd->bhqk", x, x).masked_fill(~self.mask, float("-inf"))
        weights = scores.softmax(-1)
        masked = F.scaled_dot_product_attention(x, x, x, attn_mask=self.mask)
        return weights @ x, masked, torch.where(self.mask.expand(1, 2, 6, 6), x[..., :6], x[..., 2:])


class Video(nn.Module):
    shapes = {"x": (1, 4, 3, 6, 6)}

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv3d(4, 4, 3, padding=(0, 1, 1), groups=4)
        self.conv1 = nn.Conv1d(4, 6, 3, stride=2, dilation=2, padding=2)

    def forward(self, x):
        y = self.mix(F.pad(x, (0, 0, 0, 0, 2, 0)))
        y = y.permute(0, 2, 1, 3, 4).reshape(3, 4, 6, 6)
        y = F.instance_norm(y).reshape(1, 3, 4, 36).permute(0, 2, 1, 3).reshape(1, 4, 108)
        return torch.tanh(self.conv1(y)), torch.log(x.abs() + 1).sqrt(), torch.linalg.vector_norm(x, dim=1)


class Stateful(nn.Module):
    """A cache of which the oldest entries are overwritten in place."""

    shapes = {"x": (1, 2, 8)}

    def __init__(self):
        super().__init__()
        self.register_buffer("cache", torch.zeros(1, 6, 8))

    def forward(self, x):
        self.cache[:, 2:4] = x
        return self.cache.sum(1) + x.mean(1)


class Torch:
    function = None

    def __init__(self, name, module, precision):
        torch.manual_seed(0)
        self.name, self.precision = f"torch_{name}.{precision.name.lower()}", precision
        self.module = module().eval()
        self.inputs = {k: noise(k, s).astype(np.float32) for k, s in module.shapes.items()}
        self.bar = 2e-6 if precision is ct.precision.FLOAT32 else 1e-2

    def feeds(self):
        return {k: v.astype(np.float64) for k, v in self.inputs.items()}

    def save(self, path):
        with torch.no_grad():
            traced = torch.jit.trace(self.module, [torch.from_numpy(v) for v in self.inputs.values()], check_trace=False)
        for name, buffer in self.states():
            buffer.zero_()
            dict(traced.named_buffers())[name].zero_()
        dtype = np.float16 if dict(self.states()) else np.float32
        count = len(self.run(torch.float32)[0])
        convert(
            traced,
            path,
            ct.target.iOS18,
            pipeline=ct.PassPipeline.DEFAULT,
            compute_precision=self.precision,
            inputs=[ct.TensorType(name=k, shape=v.shape, dtype=dtype) for k, v in self.inputs.items()],
            outputs=[ct.TensorType(name=f"r{i}", dtype=dtype) for i in range(count)],
            states=[ct.StateType(ct.TensorType(shape=b.shape, dtype=np.float16), name=n) for n, b in self.states()] or None,
        )

    def states(self):
        return [(n, b) for n, b in self.module.named_buffers() if n == "cache"]

    def run(self, dtype):
        """Results and states afterwards, from states of zero."""
        module = self.module.to(dtype)
        for _, buffer in self.states():
            buffer.zero_()
        with torch.no_grad():
            out = module(*[torch.from_numpy(v).to(dtype) for v in self.inputs.values()])
        states = {n: b.clone() for n, b in self.states()}
        for _, buffer in self.states():
            buffer.zero_()
        self.module.to(torch.float32)
        return (out if isinstance(out, tuple) else (out,)), states

    def expected(self):
        out, states = self.run(torch.float64)
        return {k: v.double().numpy() for k, v in [*((f"r{i}", v) for i, v in enumerate(out)), *states.items()]}


CASES = []
for name, module in {
    "norms": Norms,
    "upsampler": Upsampler,
    "block": Block,
    "block_causal": type("Causal", (Block,), {"__init__": lambda self: Block.__init__(self, True)}),
    "shapes": Shapes,
    "timestep": Timestep,
    "masked": Masked,
    "video": Video,
}.items():
    CASES += [Torch(name, module, p) for p in [ct.precision.FLOAT32, ct.precision.FLOAT16]]
CASES.append(Torch("stateful", Stateful, ct.precision.FLOAT16))

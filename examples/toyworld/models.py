"""The transformers of the toy world, and how they sample.

The networks are those of `examples/reference/s2dit.py`, imported from there. Two of its operations are replaced by others that compute the same and train faster on CPUs.
"""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load_file

from latents import CHANNELS
from text import LENGTH
from training import DATA, HERE, WEIGHTS, bf16, needed, write_weights

sys.path.insert(0, str(HERE.parent / "reference"))
import s2dit  # noqa: E402
from s2dit import Config, S2DiTTransformer3DModel  # noqa: E402

SHIFT = 3.0  # of the noise levels, in training and in sampling of clips
STUDENT = Config(
    in_channels=CHANNELS, out_channels=CHANNELS, patch_size=[1, 2, 2], num_attention_heads=3, attention_head_dim=32, ffn_dim=288, text_dim=64, text_len=LENGTH, freq_dim=64,
    layout=["lcha", "ssa", "ssa", "lcha", "ssa", "ssa", "lcha"], rope_in_kernel="post", chunk_frames=None, sample_steps=16, flow_shift=SHIFT,
)
TEACHER = replace(STUDENT, num_attention_heads=4, ffn_dim=384, layout=["full"] * 6)
STREAM = replace(STUDENT, chunk_frames=3, window_frames=6, state_write="last_step", sample_steps=[1000, 750, 500, 250], flow_shift=2.0)
CONFIGS = {"pretrained": STUDENT, "teacher": TEACHER, "kd": STUDENT, "ar": STREAM}
# The transformer of the pipeline folder is that of the stream; the others lie beside it, but for the teacher, which does not ship.
FOLDERS = {"pretrained": WEIGHTS / "pretrained", "teacher": DATA / "teacher", "kd": WEIGHTS / "kd", "ar": WEIGHTS / "toyworld" / "transformer"}


def depthwise(conv, x):
    """A depthwise Conv3d without padding as a sum of Conv2d over the frames of its kernel: PyTorch has no fast kernel for the former."""
    b, c, f, h, w = x.shape
    kt = conv.weight.shape[2]
    planes = x.transpose(1, 2).reshape(b * f, c, h, w)
    frames = f - kt + 1
    y = 0
    for k in range(kt):
        y = y + F.conv2d(planes.view(b, f, c, h, w)[:, k : k + frames].reshape(b * frames, c, h, w), conv.weight[:, :, k], None, groups=c)
    y = y + conv.bias.view(1, -1, 1, 1)
    return y.view(b, frames, c, *y.shape[2:]).transpose(1, 2)


class Depthwise(nn.Conv3d):
    def forward(self, x):
        return depthwise(self, x)


def quick(model):
    """The same model with the fast depthwise convolution."""
    for module in model.modules():
        if type(module) is nn.Conv3d and module.groups > 1:
            module.__class__ = Depthwise
    return model


def initial(config, seed):
    """Weights to train from: every block is the identity at first, as its gates are 0."""
    torch.manual_seed(seed)
    model = S2DiTTransformer3DModel(config)
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.Conv3d)):
            if not name.endswith("local_conv"):
                nn.init.xavier_uniform_(module.weight.view(module.weight.shape[0], -1))
            nn.init.zeros_(module.bias)
        elif isinstance(module, s2dit.FeatureMap):
            with torch.no_grad():
                d = module.weight.shape[-1]
                module.weight.copy_(torch.eye(d) + 0.02 * torch.randn_like(module.weight))
                module.bias.zero_()
    for zero in [model.proj_out, *(s.up for s in model.stages), *(b.attn2.to_out[0] for b in model.blocks)]:
        nn.init.zeros_(zero.weight)
    nn.init.normal_(model.condition_embedder.time_proj.weight, std=0.01)
    with torch.no_grad():
        for block in model.blocks:  # gates that are open a little
            block.scale_shift_table[:, 2].fill_(0.3)
            block.scale_shift_table[:, 5].fill_(0.3)
    return quick(model)


def load(name):
    """A transformer as it ships, in float32."""
    folder = needed(FOLDERS[name], "train_ar.py" if name == "ar" else f"train_dit.py {name}")
    model = S2DiTTransformer3DModel(Config.load(folder))
    model.load_state_dict(load_file(folder / "diffusion_pytorch_model.safetensors"), strict=True)
    return quick(model.float())


def save(model, name, config=None):
    folder = FOLDERS[name]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text((config or model.config).to_json())
    write_weights(bf16(model), folder)


def shifted(u, s=SHIFT):
    return s * u / (1 + (s - 1) * u)


def velocity(model, x, sigma, text, empty=None, guidance=1.0):
    """At noise level sigma [B] or a number; guided by the difference from an empty caption."""
    b = len(x)
    t = 1000 * torch.as_tensor(sigma, dtype=torch.float64).expand(b)
    if guidance == 1.0:
        return model(x, t, text)
    with_text, without = model(torch.cat([x, x]), torch.cat([t, t]), torch.cat([text, empty.expand(b, -1, -1)])).chunk(2)
    return without + guidance * (with_text - without)


@torch.no_grad()
def sample(model, text, empty, noise, guidance=1.0, steps=None):
    """Euler steps from noise [B, C, F, H, W], as a compiled clip makes them."""
    steps = steps or model.config.sample_steps
    levels = [shifted(1 - i / steps, model.config.flow_shift) for i in range(steps)] + [0.0]
    x = noise
    for sigma, after in zip(levels, levels[1:]):
        x = x + (after - sigma) * velocity(model, x, sigma, text, empty, guidance)
    return x

"""Makes the LongSANA goldens of `tests/goldens`: the project's own causal SANA-Video and its own sampler in float64.

    git clone https://github.com/NVlabs/Sana
    python3 -m venv venv && venv/bin/pip install torch==2.7.1 diffusers==0.42.1 transformers==5.24.0 accelerate numpy einops
    venv/bin/python examples/reference/longsana_goldens.py --source Sana [CASE ...]            # makes them
    venv/bin/python examples/reference/longsana_goldens.py --source Sana [CASE ...] --report   # writes nothing

A case is a folder with `checkpoint/` and `golden.safetensors`. The checkpoint is as the project publishes it: `longsana.pth`, written by `torch.save`,
has `state_dict` with the names of the project's model; or `diffusion_pytorch_model.safetensors` has the names that its script
`convert_sana_video_to_diffusers.py` gives. `config.json` is that of a `SanaVideoCausalTransformer3DModel`. The golden has `stream.noise [chunks, steps, 1, C, F, H, W]`, `text [1, L, caption_channels]`, `text_mask [1, L]` and
`stream.latents [chunks, 1, C, F, H, W]`, what `LongLiveFlowEuler.sample` makes. Case i has seed 1300 + i for its weights and 1400 + i for its
inputs; the same version of torch gives the same bytes.

The model (`SanaMSVideo` with `cachedcausal` attention and `CachedGLUMBConvTemp`) and the sampler are run as they are. Packages that only the other
models of the project need are left out, and its noise is the golden's. In float64 every operation is watched for a narrower result. Commit
5498e5b of the project was used.

Prints, for each case, how far the same code is from the golden in float32 and in float16, chunk by chunk.
"""

import argparse
import contextlib
import functools
import io
import json
import os
import sys
import types
from pathlib import Path
from unittest.mock import patch

import torch
from safetensors.torch import load_file
from torch import nn

from make_goldens import GOLDENS, compare, snr, write_tensors
from wan_goldens import NothingNarrower, float64

METADATA = {"reference": "LongSANA's own model and sampler in float64"}
OF_DIFFUSERS, OF_PROJECT = "diffusion_pytorch_model.safetensors", "longsana.pth"
TINY = dict(
    in_channels=4, out_channels=4, patch_size=[1, 2, 2], num_attention_heads=2, attention_head_dim=24, num_layers=2,
    num_cross_attention_heads=2, cross_attention_head_dim=24, cross_attention_dim=48, caption_channels=32, mlp_ratio=3.0, text_len=10,
    num_frame_per_block=3, num_cached_blocks=-1, denoising_step_list=[1000, 960, 889, 727], flow_shift=7.0,
)

# name: (configuration, file of the weights, their dtype, latent H x W, chunks, text tokens that count)
CASES = {
    "longsana_tiny": (TINY, OF_DIFFUSERS, torch.bfloat16, (4, 6), 4, 7),
    # Patches of one pixel; 22 mod 6 is 4; an odd hidden width; chunks of one frame, all of whose past comes from states.
    "longsana_frames": (
        TINY | dict(
            patch_size=[1, 1, 1], num_attention_heads=3, attention_head_dim=22, num_cross_attention_heads=3, cross_attention_head_dim=22,
            cross_attention_dim=66, mlp_ratio=2.3, num_frame_per_block=1, denoising_step_list=[1000, 889],
        ),
        OF_PROJECT, torch.float16, (5, 3), 6, 10,
    ),
}


def stub(name, **attributes):
    module = types.ModuleType(name)
    vars(module).update(attributes)
    sys.modules[name] = module


class Attention(nn.Module):
    """The layers that the project takes from timm's class of this name."""

    def __init__(self, dim, num_heads=8, qkv_bias=False, **_):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)


class Mlp(nn.Module):
    """timm's class of this name."""

    def __init__(self, in_features, hidden_features, out_features=None, act_layer=nn.GELU, drop=0.0):
        super().__init__()
        self.fc1 = nn.Linear(in_features, hidden_features)
        self.act = act_layer()
        self.fc2 = nn.Linear(hidden_features, out_features or in_features)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


class Registry:
    """mmcv's class of this name: a decorator here."""

    def __init__(self, *_, **__):
        pass

    def register_module(self, *_, **__):
        return lambda x: x


@functools.cache
def project(source):
    """The project's model and sampler, without the packages that only its other models need."""
    source = Path(source)
    if not (source / "diffusion" / "scheduler" / "longlive_flow_euler_sampler.py").is_file():
        raise SystemExit(
            f"{source}: found no diffusion/scheduler/longlive_flow_euler_sampler.py, expected a clone of https://github.com/NVlabs/Sana"
        )
    os.environ["DISABLE_XFORMERS"] = "1"
    for package in (
        "diffusion", "diffusion.model", "diffusion.model.nets", "diffusion.utils", "diffusion.scheduler", "diffusion.distributed",
        "diffusion.distributed.context_parallel",
    ):
        stub(package, __path__=[str(source.joinpath(*package.split(".")))])
    stub("timm")
    stub("timm.models")
    stub("timm.models.layers", DropPath=None)
    stub("timm.models.vision_transformer", Attention=Attention, Mlp=Mlp)
    stub("termcolor", colored=lambda text, *_, **__: text)
    stub("mmcv", Registry=Registry)
    stub("diffusion.model.builder", MODELS=Registry())
    stub("diffusion.model.wan", __path__=[])
    stub("diffusion.model.wan.model", BlockHook=None)
    stub("diffusion.utils.dist_utils", get_rank=lambda: 0)
    stub("diffusion.utils.logger", get_root_logger=lambda *_, **__: types.SimpleNamespace(info=print, warning=print))
    stub("diffusion.utils.import_utils", is_triton_module_available=lambda: False, is_xformers_available=lambda: False)
    from diffusion.model.nets.sana_multi_scale_video import SanaMSVideo
    from diffusion.scheduler.longlive_flow_euler_sampler import LongLiveFlowEuler

    return SanaMSVideo, LongLiveFlowEuler


def build(source, config):
    """The project's model, with what its configuration `Sana_2000M_480px_adamW_fsdp_longsana.yaml` says."""
    model_class, _ = project(source)
    with contextlib.redirect_stdout(io.StringIO()):
        return model_class(
            depth=config["num_layers"], hidden_size=config["cross_attention_dim"], patch_size=tuple(config["patch_size"]),
            num_heads=config["num_attention_heads"], linear_head_dim=config["attention_head_dim"], in_channels=config["in_channels"],
            mlp_ratio=config["mlp_ratio"], caption_channels=config["caption_channels"], model_max_length=config["text_len"],
            attn_type="cachedcausal", ffn_type="CachedGLUMBConvTemp", t_kernel_size=3, mlp_acts=("silu", "silu", None), use_pe=True,
            pos_embed_type="casual_wan_rope", qk_norm=True, cross_norm=True, y_norm=True, y_norm_scale_factor=0.01, learn_sigma=False,
            pred_sigma=False,
        ).eval()


# What the names of diffusers are in the project's model. The weights of queries, keys and values lie one below the other there.
LAYERS = {
    "patch_embedding": "x_embedder.proj", "caption_projection.linear_1": "y_embedder.y_proj.fc1",
    "caption_projection.linear_2": "y_embedder.y_proj.fc2", "time_embed.emb.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_embed.emb.timestep_embedder.linear_2": "t_embedder.mlp.2", "time_embed.linear": "t_block.1", "caption_norm": "attention_y_norm",
    "proj_out": "final_layer.linear", "scale_shift_table": "final_layer.scale_shift_table",
}
BLOCK = {
    "scale_shift_table": "scale_shift_table", "attn1.norm_q": "attn.q_norm", "attn1.norm_k": "attn.k_norm", "attn1.to_out.0": "attn.proj",
    "attn2.to_q": "cross_attn.q_linear", "attn2.norm_q": "cross_attn.q_norm", "attn2.norm_k": "cross_attn.k_norm",
    "attn2.to_out.0": "cross_attn.proj", "ff.conv_inverted": "mlp.inverted_conv.conv", "ff.conv_depth": "mlp.depth_conv.conv",
    "ff.conv_point": "mlp.point_conv.conv", "ff.conv_temp": "mlp.t_conv",
}
JOINED = {"attn.qkv": ["attn1.to_q", "attn1.to_k", "attn1.to_v"], "cross_attn.kv_linear": ["attn2.to_k", "attn2.to_v"]}


def as_diffusers(state, layers):
    """A state dictionary of the project's model with the names of diffusers."""
    table = {theirs: name for name, theirs in LAYERS.items()}
    for i in range(layers):
        table |= {f"blocks.{i}.{theirs}": f"transformer_blocks.{i}.{name}" for name, theirs in BLOCK.items()}
    made = {}
    for key, x in state.items():
        layer, _, kind = key.rpartition(".")
        if key in table:
            made[table[key]] = x
        elif layer in table:
            made[f"{table[layer]}.{kind}"] = x
        else:
            at, joined = next((layer[: -len(j)], names) for j, names in JOINED.items() if layer.endswith(j))
            block = at.replace("blocks", "transformer_blocks")
            made |= {f"{block}{name}.{kind}": part for name, part in zip(joined, x.chunk(len(joined)), strict=True)}
    return made


def as_theirs(made, model):
    """The other way."""
    layers = len(model.blocks)
    theirs = {key: x for key, x in model.state_dict().items() if key not in IDLE}
    place = as_diffusers({k: torch.arange(x.numel()).reshape(x.shape) for k, x in theirs.items()}, layers)
    assert place.keys() == made.keys(), place.keys() ^ made.keys()
    state = {}
    for key, x in theirs.items():
        parts = as_diffusers({key: x}, layers)
        state[key] = torch.cat([made[name] for name in parts]).reshape(x.shape)
    return state


# What is in a state dictionary of the project and no part of the network.
IDLE = {"pos_embed", "y_embedder.y_embedding"}


def write(source, config, made, file):
    """The weights as the project publishes them: `made` has the names of diffusers."""
    if file.name == OF_DIFFUSERS:
        return write_tensors(file, made, {"format": "pt"})
    model = build(source, config)
    dtype = next(iter(made.values())).dtype
    idle = {key: torch.zeros_like(model.state_dict()[key], dtype=dtype) for key in sorted(IDLE)}
    torch.save({"state_dict": {key: x.to(dtype) for key, x in as_theirs(made, model).items()} | idle}, file)


def read(config, file):
    """The weights under the names of diffusers."""
    if file.name == OF_DIFFUSERS:
        return load_file(file)
    state = torch.load(file, weights_only=True)["state_dict"]
    return as_diffusers({key: x for key, x in state.items() if key not in IDLE}, config["num_layers"])


def run(source, config, made, golden, dtype):
    """The latents of every chunk."""
    _, sampler_class = project(source)
    # What the project builds from Python numbers has the default dtype: its scheduler in float32, here in the golden's.
    torch.set_default_dtype(torch.float64 if dtype == torch.float64 else torch.float32)
    noise = golden["stream.noise"].to(dtype)
    chunks, steps, _, channels, frames, rows, cols = noise.shape
    model = build(source, config)
    found = nn.Module.load_state_dict(model, as_theirs(made, model), strict=False)
    if found.unexpected_keys or not set(found.missing_keys) <= IDLE:
        raise SystemExit(f"the checkpoint is not the model's: {found}")
    model = model.to(dtype)
    sampler = sampler_class(
        model, condition=golden["text"].to(dtype), model_kwargs={"mask": golden["text_mask"].to(torch.int64)}, flow_shift=config["flow_shift"],
        base_chunk_frames=frames, num_cached_blocks=config["num_cached_blocks"], denoising_step_list=list(config["denoising_step_list"]),
    )
    # [chunks, 1, C, F, H, W] at a step -> [1, C, frames, H, W].
    start = torch.cat([noise[chunk, 0] for chunk in range(chunks)], dim=2)
    fresh = iter([noise[chunk, step, 0].transpose(0, 1) for chunk in range(chunks) for step in range(1, steps)])
    exact = contextlib.ExitStack()
    if dtype == torch.float64:
        exact.enter_context(float64())
        exact.enter_context(NothingNarrower())
    with exact, patch.object(torch, "randn_like", lambda x: next(fresh).reshape(x.shape)):
        latents = sampler.sample(start)
    torch.set_default_dtype(torch.float32)
    if next(fresh, None) is not None:
        raise SystemExit("the sampler did not take all the noise")
    return latents[0].unflatten(1, (chunks, frames)).transpose(0, 1).unsqueeze(1).contiguous()


def random_state(source, config, seed):
    """Seeded weights under which no part is idle, by the names of diffusers."""
    model = build(source, config)
    state = as_diffusers({key: x for key, x in model.state_dict().items() if key not in IDLE}, config["num_layers"])
    g = torch.Generator().manual_seed(seed)
    made = {}
    for name, p in sorted(state.items()):
        n = torch.randn(p.shape, generator=g, dtype=torch.float64)
        if name.endswith("scale_shift_table"):
            n /= p.shape[-1] ** 0.5
        elif "norm" in name and name.endswith("weight"):
            n = 1 + 0.1 * n
        elif name.endswith("bias"):
            n *= 0.02
        else:
            n /= p[0].numel() ** 0.5
        made[name] = n
    return made


def draw(config, size, chunks, words, seed):
    """Gemma gives padding embeddings too: only the mask says what counts."""
    g = torch.Generator().manual_seed(seed)
    steps, frames, tokens = len(config["denoising_step_list"]), config["num_frame_per_block"], config["text_len"]
    mask = torch.ones(1, tokens)
    mask[:, words:] = 0
    return {
        "stream.noise": torch.randn(chunks, steps, 1, config["in_channels"], frames, *size, generator=g),
        "text": torch.randn(1, tokens, config["caption_channels"], generator=g),
        "text_mask": mask,
    }


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="a clone of the project")
    parser.add_argument("cases", nargs="*", default=list(CASES), help=", ".join(CASES))
    parser.add_argument("--report", action="store_true", help="checks the goldens that are there; writes nothing")
    args = parser.parse_args()
    if unknown := set(args.cases) - CASES.keys():
        parser.error(f"no case {', '.join(sorted(unknown))}: expected any of {', '.join(CASES)}")
    torch.set_num_threads(1)
    for i, (name, (config, weights, dtype, size, chunks, words)) in enumerate(CASES.items()):
        if name not in args.cases:
            continue
        folder = GOLDENS / name
        file = folder / "checkpoint" / weights
        config = {"_class_name": "SanaVideoCausalTransformer3DModel"} | config
        if not args.report:
            file.parent.mkdir(parents=True, exist_ok=True)
            made = {k: v.to(dtype).contiguous() for k, v in random_state(args.source, config, 1300 + i).items()}
            write(args.source, config, made, file)
            (file.parent / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        made = read(config, file)
        if args.report:
            golden = load_file(folder / "golden.safetensors")
        else:
            golden = draw(config, size, chunks, words, 1400 + i)
        exact = run(args.source, config, {k: v.double() for k, v in made.items()}, golden, torch.float64)
        if args.report:
            compare(name, golden, {"stream.latents": exact}, {"stream.noise", "text", "text_mask"})
        else:
            write_tensors(folder / "golden.safetensors", golden | {"stream.latents": exact.float().contiguous()}, METADATA)
        print(f"{name}: std of the latents {exact.std():.3f}, {file.stat().st_size} bytes of weights")
        for kind in (torch.float32, torch.float16):
            narrow = {k: v.to(kind) for k, v in made.items()}
            found = run(args.source, config, narrow, golden, kind).double()
            print(f"  {kind}:", ", ".join(snr(x, y) for x, y in zip(found, exact, strict=True)))


if __name__ == "__main__":
    main()

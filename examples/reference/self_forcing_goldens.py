"""Makes the Self-Forcing goldens of `tests/goldens`: the project's own causal model and its own inference pipeline in float64.

    git clone https://github.com/guandeh17/Self-Forcing
    python3 -m venv venv && venv/bin/pip install torch==2.7.1 diffusers==0.42.1 accelerate numpy einops
    venv/bin/python examples/reference/self_forcing_goldens.py --source Self-Forcing [CASE ...]            # makes them
    venv/bin/python examples/reference/self_forcing_goldens.py --source Self-Forcing [CASE ...] --report   # writes nothing

A case is a folder with `checkpoint/` and `golden.safetensors`. The checkpoint is what the project publishes: `self_forcing.pt`, written by
`torch.save`, has `generator` and `generator_ema`, state dictionaries with the names of Wan's own repository under the prefix `model.`; and
`config.json` is that of a `CausalWanModel`. The golden has `stream.noise [chunks, steps, 1, C, F, H, W]`, `text [1, L, text_dim]` and
`stream.latents [chunks, 1, C, F, H, W]`, what `CausalInferencePipeline.inference` makes of `generator_ema`. Case i has seed 700 + i for its
weights and 800 + i for its inputs; the same version of torch gives the same bytes.

The pipeline is run as it is, but for what it fixes to 1.3B: its cache has the case's heads and tokens, its model the case's blocks. Text encoder
and decoder are left out, its noise is the golden's, attention is PyTorch's in float64 in the place of flash attention in bfloat16, and every
operation is watched for a result that is narrower than float64. Commit 33593df of the project was used.

Prints, for each case, how far the same code is from the golden in float32 and in float16, chunk by chunk.
"""

import argparse
import contextlib
import functools
import io
import json
import sys
import types
from pathlib import Path
from unittest.mock import patch

import torch
from safetensors.torch import load_file

from make_goldens import GOLDENS, compare, snr, write_tensors
from wan_goldens import NothingNarrower, float64

METADATA = {"reference": "Self-Forcing's own model and pipeline in float64"}
STEPS = dict(denoising_step_list=[1000, 750, 500, 250], timestep_shift=5.0, context_noise=0)
TINY = dict(
    model_type="t2v", text_len=10, in_dim=4, dim=48, ffn_dim=96, freq_dim=32, text_dim=24, out_dim=4, num_heads=2, num_layers=2,
    local_attn_size=-1, sink_size=0, cross_attn_norm=True, eps=1e-6, num_frame_per_block=3,
)

# name: (configuration, dtype of the weights, latent H x W, chunks, text tokens that are no padding)
CASES = {
    # The whole past, within the 21 frames of training.
    "self_forcing_tiny": (TINY | STEPS, torch.bfloat16, (4, 6), 4, 7),
    # A window that slides, with a sink: 6 frames at most, of which the first never leaves.
    "self_forcing_window": (
        TINY | STEPS | dict(dim=44, local_attn_size=6, sink_size=1, num_frame_per_block=2, num_layers=3), torch.float32, (6, 4), 5, 10,
    ),
}


def stub(name, **attributes):
    module = types.ModuleType(name)
    vars(module).update(attributes)
    sys.modules[name] = module
    return module


@functools.cache
def project(source):
    """The project's model, wrapper and pipeline, without the packages that only its text encoder, decoder and GPU code need."""
    source = Path(source)
    if not (source / "wan" / "modules" / "causal_model.py").is_file():
        raise SystemExit(f"{source}: found no wan/modules/causal_model.py, expected a clone of https://github.com/guandeh17/Self-Forcing")
    for package in ("wan", "wan.modules", "utils", "pipeline"):
        stub(package, __path__=[str(source.joinpath(*package.split(".")))])
    stub("wan.modules.tokenizers", HuggingfaceTokenizer=None)
    stub("wan.modules.vae", _video_vae=None)
    stub("wan.modules.t5", umt5_xxl=None)
    stub("demo_utils", __path__=[])
    names = "gpu get_cuda_free_memory_gb DynamicSwapInstaller move_model_to_device_with_memory_preservation".split()
    stub("demo_utils.memory", **dict.fromkeys(names))
    from pipeline import causal_inference
    from utils import wan_wrapper
    from wan.modules import causal_model, model

    def attention(q, k, v, **_):
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)

    causal_model.attention = model.flash_attention = attention
    return causal_model.CausalWanModel, wan_wrapper, causal_inference.CausalInferencePipeline


def build(source, config, state, dtype):
    """The project's pipeline around its model with these weights."""
    model_class, wan_wrapper, pipeline_class = project(source)
    own = {k: v for k, v in config.items() if k not in STEPS and k not in ("num_frame_per_block", "_class_name")}
    model = model_class(**own).to(dtype).eval()
    wrapper = wan_wrapper.WanDiffusionWrapper.__new__(wan_wrapper.WanDiffusionWrapper)
    torch.nn.Module.__init__(wrapper)
    wrapper.model, wrapper.uniform_timestep = model, False
    wrapper.scheduler = wan_wrapper.FlowMatchScheduler(shift=config["timestep_shift"], sigma_min=0.0, extra_one_step=True)
    wrapper.scheduler.set_timesteps(1000, training=True)
    wrapper.seq_len = 32760
    wrapper.load_state_dict(state)
    args = types.SimpleNamespace(
        denoising_step_list=config["denoising_step_list"], warp_denoising_step=True, independent_first_frame=False,
        num_frame_per_block=config["num_frame_per_block"], context_noise=config["context_noise"],
    )
    decoder = types.SimpleNamespace(decode_to_pixel=lambda latents, use_cache: latents)
    pipeline = pipeline_class(args, "cpu", generator=wrapper.to(dtype), text_encoder=lambda text_prompts: text_prompts, vae=decoder)
    return pipeline


def run(source, config, state, golden, dtype):
    """The latents of every chunk."""
    # What the project builds from Python numbers has the default dtype: its scheduler in float32, here in the golden's.
    torch.set_default_dtype(torch.float64 if dtype == torch.float64 else torch.float32)
    noise = golden["stream.noise"].to(dtype)
    chunks, steps, _, channels, frames, rows, cols = noise.shape
    pipeline = build(source, config, state, dtype)
    heads, width = config["num_heads"], config["dim"] // config["num_heads"]
    tokens = (rows // 2) * (cols // 2)
    held = config["local_attn_size"] if config["local_attn_size"] != -1 else 21
    pipeline.num_transformer_blocks, pipeline.frame_seq_length = config["num_layers"], tokens

    def caches(batch_size, dtype, device):
        empty = lambda: torch.zeros(1, held * tokens, heads, width, dtype=dtype)
        index = lambda: torch.tensor([0])
        pipeline.kv_cache1 = [
            {"k": empty(), "v": empty(), "global_end_index": index(), "local_end_index": index()} for _ in range(config["num_layers"])
        ]

    pipeline._initialize_kv_cache = caches
    for block in pipeline.generator.model.blocks:
        block.self_attn.max_attention_size = held * tokens
    # [chunks, 1, C, F, H, W] at a step -> [1, frames, C, H, W], as the pipeline has its noise.
    at = lambda step: noise[:, step, 0].transpose(1, 2).flatten(0, 1).unsqueeze(0)
    fresh = iter([noise[chunk, step, 0].transpose(0, 1) for chunk in range(chunks) for step in range(1, steps)])
    text = {"prompt_embeds": golden["text"].to(dtype)}
    exact = contextlib.ExitStack()
    if dtype == torch.float64:
        exact.enter_context(float64())
        exact.enter_context(NothingNarrower())
    with exact, patch.object(torch, "randn_like", lambda x: next(fresh).reshape(x.shape)), contextlib.redirect_stdout(io.StringIO()):
        _, latents = pipeline.inference(at(0), text, return_latents=True)
    torch.set_default_dtype(torch.float32)
    if next(fresh, None) is not None:
        raise SystemExit("the pipeline did not take all the noise")
    return latents[0].unflatten(0, (chunks, frames)).transpose(1, 2).unsqueeze(1).contiguous()


def random_state(source, config, seed):
    """Seeded weights under which no part is idle, by the names of the project's wrapper."""
    model_class, _, _ = project(source)
    own = {k: v for k, v in config.items() if k not in STEPS and k not in ("num_frame_per_block", "_class_name")}
    g, state = torch.Generator().manual_seed(seed), {}
    for name, p in sorted(model_class(**own).state_dict().items()):
        n = torch.randn(p.shape, generator=g, dtype=torch.float64)
        if name.endswith("modulation"):
            n /= p.shape[-1] ** 0.5
        elif "norm" in name and name.endswith("weight"):
            n = 1 + 0.1 * n
        elif name.endswith("bias"):
            n *= 0.02 if "norm" not in name else 0.1
        else:
            n /= p[0].numel() ** 0.5
        state[f"model.{name}"] = n
    return state


def draw(config, size, chunks, words, seed):
    g = torch.Generator().manual_seed(seed)
    steps, frames = len(config["denoising_step_list"]), config["num_frame_per_block"]
    inputs = {
        "stream.noise": torch.randn(chunks, steps, 1, config["in_dim"], frames, *size, generator=g),
        "text": torch.randn(1, config["text_len"], config["text_dim"], generator=g),
    }
    inputs["text"][:, words:] = 0
    return inputs


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="a clone of the project")
    parser.add_argument("cases", nargs="*", default=list(CASES), help=", ".join(CASES))
    parser.add_argument("--report", action="store_true", help="checks the goldens that are there; writes nothing")
    args = parser.parse_args()
    sys.path.insert(0, str(args.source))
    for i, (name, (config, dtype, size, chunks, words)) in enumerate(CASES.items()):
        if name not in args.cases:
            continue
        folder = GOLDENS / name
        file = folder / "checkpoint" / "self_forcing.pt"
        config = {"_class_name": "CausalWanModel"} | config
        if not args.report:
            file.parent.mkdir(parents=True, exist_ok=True)
            state = {k: v.to(dtype) for k, v in random_state(args.source, config, 700 + i).items()}
            # The moving average is the model that is published; the other is there to be told apart.
            other = {k: torch.zeros_like(v) for k, v in list(state.items())[:2]}
            torch.save({"generator": other, "generator_ema": state}, file)
            (file.parent / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        state = torch.load(file, weights_only=True)["generator_ema"]
        if args.report:
            golden = load_file(folder / "golden.safetensors")
        else:
            golden = draw(config, size, chunks, words, 800 + i)
        wide = {k: v.double() for k, v in state.items()}
        exact = run(args.source, config, wide, golden, torch.float64)
        if args.report:
            compare(name, golden, {"stream.latents": exact}, {"stream.noise", "text"})
        else:
            write_tensors(folder / "golden.safetensors", golden | {"stream.latents": exact.float().contiguous()}, METADATA)
        print(f"{name}: std of the latents {exact.std():.3f}, {file.stat().st_size} bytes of weights")
        for kind in (torch.float32, torch.float16):
            narrow = {k: v.to(kind) for k, v in state.items()}
            found = run(args.source, config, narrow, golden, kind).double()
            print(f"  {kind}:", ", ".join(snr(x, y) for x, y in zip(found, exact, strict=True)))


if __name__ == "__main__":
    main()

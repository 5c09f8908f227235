"""Makes the Open-Sora 2.0 goldens of `tests/goldens`: the project's own `MMDiTModel` in float64, on checkpoints with its own tensor names.

    git clone https://github.com/hpcaitech/Open-Sora
    python3 -m venv venv && venv/bin/pip install torch==2.7.1 diffusers==0.42.1 transformers accelerate numpy einops
    venv/bin/python examples/reference/open_sora_goldens.py --source Open-Sora [CASE ...]            # makes them
    venv/bin/python examples/reference/open_sora_goldens.py --source Open-Sora [CASE ...] --report   # writes nothing

A case is a folder with `checkpoint/` and `golden.safetensors`. The checkpoint is one safetensors file, as the project publishes it under
another name, and a `config.json` with the fields of the project's `MMDiTConfig`, which it keeps in Python. The golden is laid out as by `make_goldens.py`, with
`pooled [1, vec_in_dim]` besides and, where `guidance_embed` is true, `guidance [1]`. The latent is not packed; where `cond_embed` is true it has
the noise, the mask and what is given, one behind the other on the axis of channels, `[1, 2·C + 1, F, H, W]` for a velocity of C channels. The output
of a double block is that of the video, `[1, N, D]`, of a single block text and video, `[1, L + N, D]`. Case i has seed 900 + i
for its weights and 1000 + i for its inputs; the same version of torch gives the same bytes.

The project's functions pack the latent, make the positions and unpack the velocity (`opensora/utils/sampling.py`). Its model is run as it is, but for
code that only runs on a GPU: attention is PyTorch's in the place of flash attention; the RMS norm is the project's own in the place of Liger's kernel;
the rotation is that of transformers' Llama in the place of Liger's kernel, which computes the same, and the project's own rotation of interleaved
pairs is compared with it. For a golden all of it computes in float64, and every operation is watched for a narrower result. Commit 7ad6a96 of the
project was used.

Prints how far from a golden the same model is, in relative L2 of velocity, as rows of: case, latent, text tokens, timestep, std of velocity; in float32,
in float16, and in float16 but for the sinusoids and the RoPE tables, with the blocks of the last.
"""

import argparse
import contextlib
import enum
import functools
import json
import sys
import types
from pathlib import Path
from unittest.mock import patch

import torch
from safetensors.torch import load_file
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from make_goldens import GOLDENS, compare, snr, write_tensors
from wan_goldens import NothingNarrower, float64

WEIGHTS = "diffusion_pytorch_model.safetensors"

TINY = dict(
    in_channels=16, vec_in_dim=20, context_in_dim=24, hidden_size=32, mlp_ratio=4.0, num_heads=2, depth=2, depth_single_blocks=2,
    axes_dim=[4, 6, 6], theta=10000, qkv_bias=True, guidance_embed=False, cond_embed=True, fused_qkv=False, use_liger_rope=True, patch_size=2,
)

# name: (config, dtype of the weights, latent F x H x W, timestep, guidance, text tokens)
CASES = {
    # As Open-Sora 2.0 is published: halves are rotated, a condition beside the noise, no guidance. Rows and columns of the grid are 3 and 5.
    "open_sora_tiny": (TINY, torch.bfloat16, (2, 6, 10), 637.5, None, 9),
    # As its image model, with a patch of one position, as with the high-compression autoencoder. Pairs are interleaved, weights fused.
    "open_sora_guided": (
        TINY | dict(
            in_channels=6, vec_in_dim=12, context_in_dim=20, hidden_size=36, mlp_ratio=2.5, num_heads=3, axes_dim=[2, 4, 6], theta=500,
            qkv_bias=False, guidance_embed=True, cond_embed=False, fused_qkv=True, use_liger_rope=False, patch_size=1,
        ),
        torch.float32, (3, 3, 5), 961.5, 4.25, 6,
    ),
}


def stub(name, **attributes):
    module = types.ModuleType(name)
    vars(module).update(attributes)
    sys.modules[name] = module
    return module


def rotated(q, k, cos, sin):
    """What Liger's kernel computes: it holds tables in float32 and writes the dtype of its operands."""
    return tuple(x.to(q.dtype) for x in apply_rotary_pos_emb(q, k, cos, sin))


def attention(q, k, v):
    """flash attention takes `[B, L, H, D]`."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)


@functools.cache
def project(source):
    """The project's model and its sampling, without the packages that other code of it needs."""
    source = Path(source)
    if not (source / "opensora" / "models" / "mmdit" / "model.py").is_file():
        raise SystemExit(f"{source}: found no opensora/models/mmdit/model.py, expected a clone of https://github.com/hpcaitech/Open-Sora")
    for package in ("opensora", "opensora.models", "opensora.models.mmdit", "opensora.utils"):
        stub(package, __path__=[str(source.joinpath(*package.split(".")))])
    stub("opensora.acceleration", __path__=[])
    stub("opensora.acceleration.checkpoint", auto_grad_checkpoint=lambda module, *args: module(*args))
    stub("opensora.registry", MODELS=types.SimpleNamespace(register_module=lambda name: lambda made: made), build_module=None)
    stub("opensora.utils.ckpt", load_checkpoint=None)
    stub("opensora.datasets", __path__=[])
    stub("opensora.datasets.aspect", get_image_size=None)
    stub("opensora.models.text", __path__=[])
    stub("opensora.models.text.conditioner", HFEmbedder=object)
    method = enum.Enum("SamplingMethod", {"I2V": "i2v", "DISTILLED": "distill"})
    stub("opensora.utils.inference", SamplingMethod=method, collect_references_batch=None, prepare_inference_condition=None)
    stub("mmengine", __path__=[])
    stub("mmengine.config", Config=object)
    stub("peft", PeftModel=object)
    stub("flash_attn", flash_attn_func=attention)
    for package in ("liger_kernel", "liger_kernel.ops"):
        stub(package, __path__=[])
    stub("liger_kernel.ops.rms_norm", LigerRMSNormFunction=None)
    stub("liger_kernel.ops.rope", LigerRopeFunction=types.SimpleNamespace(apply=rotated))
    with patch.object(torch, "compile", lambda **_: lambda function: function):
        from opensora.models.mmdit import layers, math, model
    from opensora.utils import sampling

    layers.FusedRMSNorm.forward = layers.RMSNorm.forward
    return model, math, sampling


def rotations_agree(source):
    """The rotation of halves is the project's rotation of interleaved pairs, its elements in the order that the project's own functions give them."""
    _, math, _ = project(source)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, 2, 5, 8, generator=g, dtype=torch.float64)
    position = torch.arange(5, dtype=torch.float64)[None]
    with float64():
        pairs, _ = math.apply_rope(x, x, math.rope(position, 8, 100).unsqueeze(1))
        cos, sin = (table.repeat(1, 1, 2) for table in math.liger_rope(position, 8, 100))
    halves, _ = rotated(math.rearrange_tensor(x), math.rearrange_tensor(x), cos, sin)
    if not torch.allclose(math.reverse_rearrange_tensor(halves), pairs, rtol=0, atol=1e-12):
        raise SystemExit("the rotation of halves is not that of interleaved pairs")


def random_state(source, config, seed):
    """Seeded weights under which no part is idle."""
    model, _, _ = project(source)
    g, state = torch.Generator().manual_seed(seed), {}
    for name, p in sorted(model.MMDiTModel(model.MMDiTConfig(from_pretrained="", cache_dir="", **config)).state_dict().items()):
        n = torch.randn(p.shape, generator=g, dtype=torch.float64)
        if name.endswith("scale"):
            n = 1 + 0.1 * n
        elif name.endswith("bias"):
            n *= 0.02
        else:
            n /= p[0].numel() ** 0.5
        state[name] = n
    return state


def draw(config, latent, timestep, guidance, tokens, seed):
    g = torch.Generator().manual_seed(seed)
    channels = config["in_channels"] // config["patch_size"] ** 2
    inputs = {
        "latent": torch.randn(1, channels, *latent, generator=g),
        "timestep": torch.tensor([timestep]),
        "text": torch.randn(1, tokens, config["context_in_dim"], generator=g),
        "pooled": torch.randn(1, config["vec_in_dim"], generator=g),
    }
    if config["cond_embed"]:
        # As for image to video: the first frame is given, and the mask says so.
        mask = torch.zeros(1, 1, *latent)
        mask[:, :, 0] = 1
        inputs["latent"] = torch.cat([inputs["latent"], mask, mask * torch.randn(1, channels, *latent, generator=g)], 1)
    if config["guidance_embed"]:
        inputs["guidance"] = torch.tensor([guidance])
    return inputs


def embedded_in_float64(model, dtype):
    """Sinusoids and RoPE tables in float64, and then of the model's dtype."""
    def embedding(t, dim, narrow=model.timestep_embedding):
        with float64():
            return narrow(t.double(), dim).to(dtype)

    return patch.object(model, "timestep_embedding", embedding)


def run(source, config, state, inputs, dtype, wide=False):
    model, _, sampling = project(source)
    torch.set_default_dtype(torch.float64 if dtype == torch.float64 else torch.float32)
    network = model.MMDiTModel(model.MMDiTConfig(from_pretrained="", cache_dir="", **config))
    network.load_state_dict(state, strict=True)
    network = network.to(dtype).eval()
    blocks, hooks = {}, []
    for i, block in enumerate([*network.double_blocks, *network.single_blocks]):
        def keep(_, __, y, name=f"block{i}"):
            blocks[name] = y[0] if isinstance(y, tuple) else y

        hooks.append(block.register_forward_hook(keep))
    patch_size, channels = config["patch_size"], config["in_channels"] // config["patch_size"] ** 2
    latent = inputs["latent"].to(dtype)
    frames, rows, cols = latent.shape[2:]
    with contextlib.ExitStack() as exact:
        if dtype == torch.float64:
            exact.enter_context(float64())
            exact.enter_context(NothingNarrower())
        if wide:
            exact.enter_context(embedded_in_float64(model, dtype))
            tables = network.pe_embedder.forward

            def in_float64(ids):
                with float64():
                    pe = tables(ids.double())
                return tuple(x.to(dtype) for x in pe) if isinstance(pe, tuple) else pe

            network.pe_embedder.forward = in_float64
        given = {}
        if config["cond_embed"]:
            given["cond"] = sampling.pack(latent[:, channels:], patch_size)
        time = torch.float64 if wide else dtype
        if config["guidance_embed"]:
            given["guidance"] = inputs["guidance"].to(time)
        prepared = sampling.prepare(
            lambda prompt, **_: inputs["text"].to(dtype), lambda prompt: inputs["pooled"].to(dtype), latent[:, :channels], "", patch_size=patch_size,
        )
        velocity = network(**prepared, **given, timesteps=(inputs["timestep"].double() / 1000).to(time))
        # `unpack` takes pixels, 16 of which are a token.
        velocity = sampling.unpack(velocity, 16 * rows // patch_size, 16 * cols // patch_size, frames, patch_size)
    torch.set_default_dtype(torch.float32)
    return {"velocity": velocity} | blocks


def report(source, name, config, state, inputs, exact):
    def error(dtype, key, **how):
        found = run(source, config, {k: v.to(dtype) for k, v in state.items()}, inputs, dtype, **how)
        return snr(found[key], exact[key])

    cells = [error(torch.float32, "velocity"), error(torch.float16, "velocity"), error(torch.float16, "velocity", wide=True)]
    blocks = ", ".join(error(torch.float16, key, wide=True) for key in exact if key != "velocity")
    latent = "x".join(map(str, inputs["latent"].shape[2:]))
    print(f"| {name} | {latent} | {inputs['text'].shape[1]} | {inputs['timestep'].item()} | {exact['velocity'].std():.2f} | {' | '.join(cells)} |")
    print(f"  blocks in float16: {blocks}")


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="a clone of the project")
    parser.add_argument("cases", nargs="*", help=f"any of {', '.join(CASES)} (default: all)")
    parser.add_argument("--report", action="store_true", help="checks the goldens that are there; writes nothing")
    args = parser.parse_args()
    if unknown := set(args.cases) - CASES.keys():
        parser.error(f"no case {', '.join(sorted(unknown))}: expected any of {', '.join(CASES)}")
    torch.set_num_threads(1)
    rotations_agree(args.source)
    for i, (name, (config, dtype, latent, timestep, guidance, tokens)) in enumerate(CASES.items()):
        if args.cases and name not in args.cases:
            continue
        folder = GOLDENS / name
        file = folder / "checkpoint" / WEIGHTS
        if not args.report:
            file.parent.mkdir(parents=True, exist_ok=True)
            state = {k: v.to(dtype).contiguous() for k, v in random_state(args.source, config, 900 + i).items()}
            write_tensors(file, state, {"format": "pt"})
            fields = {"_class_name": "OpenSoraMMDiTModel"} | config
            (file.parent / "config.json").write_text(json.dumps(fields, indent=2) + "\n")
        state = load_file(file)
        golden = load_file(folder / "golden.safetensors") if args.report else draw(config, latent, timestep, guidance, tokens, 1000 + i)
        inputs = {"latent", "timestep", "text", "pooled", "guidance"} & golden.keys()
        wide = {k: golden[k].double() for k in inputs}
        exact = run(args.source, config, {k: v.double() for k, v in state.items()}, wide, torch.float64)
        assert all(v.isfinite().all() for v in exact.values()), name
        if args.report:
            compare(name, golden, exact, inputs)
        else:
            metadata = {
                "generator": "examples/reference/open_sora_goldens.py", "seed": str(1000 + i), "dtype": "float64",
                "torch": torch.__version__.split("+")[0],
            }
            write_tensors(folder / "golden.safetensors", golden | {k: v.float().contiguous() for k, v in exact.items()}, metadata)
        report(args.source, name, config, state, {k: golden[k] for k in inputs}, exact)
        for made in (file, folder / "golden.safetensors"):
            print(f"{made.stat().st_size:9} {made.relative_to(GOLDENS)}")


if __name__ == "__main__":
    main()

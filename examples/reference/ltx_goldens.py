"""Makes the LTX-Video goldens of `tests/goldens`: diffusers' own `LTXVideoTransformer3DModel` in float64, on checkpoints as `save_pretrained` writes them.

    python3 -m venv venv && venv/bin/pip install torch==2.7.1 diffusers==0.42.1 transformers accelerate numpy
    venv/bin/python examples/reference/ltx_goldens.py [CASE ...]            # makes them
    venv/bin/python examples/reference/ltx_goldens.py [CASE ...] --report   # writes nothing

A case is a folder with `checkpoint/` (nothing in it is edited by hand) and `golden.safetensors`, laid out as by `make_goldens.py`, with
`text_mask [1,L]` besides: 1 where a text token counts, 0 where it is padding. Case i has seed 700 + i for its weights and 800 + i for its inputs;
the same versions of torch and diffusers give the same bytes.

The class takes packed tokens. The functions of diffusers' pipelines pack the latent, unpack the velocity and make the coordinates of the tokens: those
of `LTXConditionPipeline` where positions in time are causal (0.9.5 and later), of `LTXPipeline` where they are not.

diffusers narrows to float32 in places whatever the dtype of the model: the sinusoid of the timestep, the RoPE tables and the rotation, and the mean
squares of RMS norms without a gain. For a golden all of these compute in float64 (`float64()`), and every operation is watched for a narrower result.

Prints how far from a golden the class as released is, in relative L2 of velocity, as rows of: case, latent, text tokens, timestep, std of
velocity; in float64, and so but for the sinusoid and the RoPE tables; in float32, and so but for them; in float16 and in bfloat16, the same way. Then the
sizes of the files. With `--report`, for the goldens that are there: it fails if one is not what the class makes.
"""

import argparse

import diffusers
import torch
from diffusers import LTXConditionPipeline, LTXPipeline, LTXVideoTransformer3DModel
from safetensors.torch import load_file

from make_goldens import GOLDENS, compare, snr, write_tensors
from wan_goldens import NothingNarrower, float64, random_weights, stored

TINY = dict(
    in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=24, cross_attention_dim=48, num_layers=3, caption_channels=32,
)

# The autoencoder's compression: frames, rows, columns.
COMPRESSION = (8, 32, 32)

# name: (config, dtype of the weights, latent F x H x W, timestep, text tokens, how many of them are padding, size of a shard, frames a second,
# whether positions in time are causal)
CASES = {
    "ltx_tiny": (TINY, torch.bfloat16, (3, 4, 6), 637.5, 16, 5, "10GB", 25, True),
    # The width of 44 leaves a pair that is not rotated. Positions of 0.9.0 and 0.9.1, of another frame rate.
    "ltx_uneven": (
        TINY | dict(in_channels=6, out_channels=5, attention_head_dim=22, cross_attention_dim=44, num_layers=2, caption_channels=24),
        torch.float32, (2, 5, 7), 1000.0, 11, 7, "10GB", 30, False,
    ),
    # The width of 40 leaves two pairs. Gains of norms, no biases in attention. A wrong eps shows.
    "ltx_sharded": (
        TINY | dict(
            num_attention_heads=4, attention_head_dim=10, cross_attention_dim=40, num_layers=2, norm_elementwise_affine=True, norm_eps=1e-4,
            attention_bias=False, attention_out_bias=False,
        ),
        torch.float16, (4, 3, 5), 23.4375, 9, 0, "60KB", 24, True,
    ),
}


def draw_inputs(config, latent, timestep, tokens, padding, seed):
    """T5 gives padding embeddings too: only the mask says what counts."""
    g = torch.Generator().manual_seed(seed)
    mask = torch.ones(1, tokens)
    mask[:, tokens - padding :] = 0
    return {
        "latent": torch.randn(1, config["in_channels"], *latent, generator=g),
        "timestep": torch.tensor([timestep], dtype=torch.float32),
        "text": torch.randn(1, tokens, config["caption_channels"], generator=g),
        "text_mask": mask,
    }


def positions(grid, rate, causal):
    """The arguments by which a pipeline tells the class where tokens are."""
    if not causal:
        time, rows, cols = COMPRESSION
        return dict(zip(("num_frames", "height", "width"), grid)) | dict(rope_interpolation_scale=(time / rate, rows, cols))
    ids = LTXConditionPipeline._prepare_video_ids(1, *grid)
    coords = LTXConditionPipeline._scale_video_ids(ids, scale_factor=COMPRESSION[1], scale_factor_t=COMPRESSION[0]).float()
    coords[:, 0] = coords[:, 0] * (1.0 / rate)
    return dict(video_coords=coords)


def class_of(folder, dtype):
    """The class with every weight in one dtype."""
    model = LTXVideoTransformer3DModel.from_config(LTXVideoTransformer3DModel.load_config(folder))
    model.load_state_dict(stored(folder), strict=True)
    return model.to(dtype).eval()


def run(model, inputs, dtype, positions):
    blocks, hooks = {}, []
    for i, block in enumerate(model.transformer_blocks):
        hooks.append(block.register_forward_hook(lambda _, __, y, name=f"block{i}": blocks.update({name: y})))
    grid = inputs["latent"].shape[2:]
    velocity = model(
        hidden_states=LTXPipeline._pack_latents(inputs["latent"].to(dtype)), timestep=inputs["timestep"],
        encoder_hidden_states=inputs["text"].to(dtype), encoder_attention_mask=inputs["text_mask"], **positions,
    ).sample
    for hook in hooks:
        hook.remove()
    return {"velocity": LTXPipeline._unpack_latents(velocity, *grid)} | blocks


def run_exact(folder, inputs, where):
    """The class in float64."""
    model, inputs = class_of(folder, torch.float64), {k: x.double() for k, x in inputs.items()}
    with float64(), NothingNarrower():
        return run(model, inputs, torch.float64, positions(inputs["latent"].shape[2:], *where))


def tables_in_float64(model):
    """The class as released, but for the sinusoid of the timestep and the RoPE tables."""
    for part in (model.time_embed.emb.time_proj, model.rope):
        def wide(*args, narrow=part.forward):
            with float64():
                return narrow(*args)

        part.forward = wide
    return model


def report(name, folder, inputs, exact, where):
    exact = exact["velocity"]
    grid = inputs["latent"].shape[2:]
    with float64():
        wide = positions(grid, *where)
    cells = []
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        released, in_float64 = class_of(folder, dtype), tables_in_float64(class_of(folder, dtype))
        for model, at in ((released, positions(grid, *where)), (in_float64, wide)):
            error = snr(run(model, inputs, dtype, at)["velocity"], exact)
            cells.append(error if dtype.itemsize == 2 else error.split()[0])
    latent = "x".join(map(str, inputs["latent"].shape[2:]))
    mask = inputs["text_mask"]
    tokens = f"{mask.shape[1]}, {int(mask.sum())} of them count"
    print(f"| {name} | {latent} | {tokens} | {inputs['timestep'].item()} | {exact.std():.2f} | {' | '.join(cells)} |")


def make(name, config, dtype, latent, timestep, tokens, padding, shard, rate, causal, seed):
    folder = GOLDENS / name
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir(parents=True, exist_ok=True)
    for old in checkpoint.iterdir():
        old.unlink()
    model = LTXVideoTransformer3DModel(**config)
    random_weights(model, seed)
    model.to(dtype).save_pretrained(checkpoint, max_shard_size=shard)

    inputs = draw_inputs(config, latent, timestep, tokens, padding, seed + 100)
    exact = run_exact(checkpoint, inputs, (rate, causal))
    assert all(v.isfinite().all() for v in exact.values()), name
    metadata = {
        "generator": "examples/reference/ltx_goldens.py", "seed": str(seed + 100), "dtype": "float64",
        "torch": torch.__version__.split("+")[0], "diffusers": diffusers.__version__,
    }
    write_tensors(folder / "golden.safetensors", inputs | {k: v.float().contiguous() for k, v in exact.items()}, metadata)
    report(name, checkpoint, inputs, exact, (rate, causal))


def check(name, rate, causal):
    """Reports on a golden as it is on disk."""
    checkpoint = GOLDENS / name / "checkpoint"
    golden = load_file(GOLDENS / name / "golden.safetensors")
    inputs = {"latent", "timestep", "text", "text_mask"}
    exact = run_exact(checkpoint, {k: golden[k] for k in inputs}, (rate, causal))
    compare(name, golden, exact, inputs)
    report(name, checkpoint, golden, exact, (rate, causal))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"any of {', '.join(CASES)} (default: all)")
    parser.add_argument("--report", action="store_true", help="reports on the goldens that are there, and writes nothing")
    args = parser.parse_args()
    if unknown := set(args.cases) - CASES.keys():
        parser.error(f"no case {', '.join(sorted(unknown))}: expected any of {', '.join(CASES)}")
    diffusers.logging.set_verbosity_error()
    diffusers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    names = args.cases or list(CASES)
    with torch.no_grad():
        for i, (name, case) in enumerate(CASES.items()):
            if name in names:
                check(name, *case[-2:]) if args.report else make(name, *case, seed=700 + i)
    for name in names:
        sizes = {str(f.relative_to(GOLDENS)): f.stat().st_size for f in sorted((GOLDENS / name).rglob("*")) if f.is_file()}
        for file, size in sizes.items():
            print(f"{size:9} {file}")
        print(f"{sum(sizes.values()):9} {name}")


if __name__ == "__main__":
    main()

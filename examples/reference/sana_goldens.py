"""Makes the SANA-Video goldens of `tests/goldens`: diffusers' own `SanaVideoTransformer3DModel` in float64, on checkpoints as `save_pretrained` writes them.

    python3 -m venv venv && venv/bin/pip install torch==2.7.1 diffusers==0.42.1 accelerate numpy
    venv/bin/python examples/reference/sana_goldens.py [CASE ...]            # makes them
    venv/bin/python examples/reference/sana_goldens.py [CASE ...] --report   # writes nothing

A case is a folder with `checkpoint/` (nothing in it is edited by hand) and `golden.safetensors`, laid out as by `make_goldens.py`, with
`text_mask [1,L]` besides: 1 where a text token counts, 0 where it is padding. Case i has seed 900 + i for its weights and 1000 + i for its inputs;
the same versions of torch and diffusers give the same bytes.

diffusers narrows to float32 in places whatever the dtype of the model: the sinusoid of the timestep, the RoPE tables, the mean squares of RMS
norms, and the sums of linear attention. For a golden all of these compute in float64 (`float64()`), and every operation is watched for a narrower
result. `attention`, written from the formula with a loop over tokens, must make the same of the first block's linear attention within 1e-12.

Prints how far from a golden the class as released is, in relative L2 of velocity, as rows of: case, latent, text tokens, timestep, std of
velocity; in float64, and so but for the sinusoid; in float32, and so but for the sinusoid; in float16 and in bfloat16 as `from_pretrained` loads
it. Then what each block reaches in float16, and the sizes of the files. With `--report`, for the goldens that are there: it fails if one is not what the class makes.
"""

import argparse
from contextlib import nullcontext

import diffusers
import torch
from diffusers import SanaVideoTransformer3DModel
from safetensors.torch import load_file

from make_goldens import GOLDENS, compare, snr, write_tensors
from wan_goldens import NothingNarrower, float64, random_weights, stored

TINY = dict(
    in_channels=4, out_channels=4, patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=24, num_layers=3,
    num_cross_attention_heads=2, cross_attention_head_dim=24, cross_attention_dim=48, caption_channels=32, mlp_ratio=3.0, sample_size=8,
)

# name: (config, dtype of the weights, latent F x H x W, timestep, text tokens, how many of them are padding, size of a shard)
CASES = {
    "sana_tiny": (TINY, torch.bfloat16, (3, 6, 10), 637.5, 16, 5, "10GB"),
    # Patches of one pixel with more channels, as at 720p. 22 mod 6 is 4: RoPE has 10 columns for frames and 6 each for rows and columns. A
    # ratio of 2.3 makes a hidden width of 151, which is odd. Biases of the queries, keys and values of self-attention.
    "sana_uneven": (
        TINY | dict(
            in_channels=10, out_channels=9, patch_size=(1, 1, 1), num_attention_heads=3, attention_head_dim=22, num_layers=2,
            num_cross_attention_heads=3, cross_attention_head_dim=22, cross_attention_dim=66, caption_channels=24, mlp_ratio=2.3,
            attention_bias=True,
        ),
        torch.float32, (2, 5, 7), 1000.0, 11, 7, "10GB",
    ),
    # Heads of 10: RoPE has 8 columns for frames and 2 each for rows and columns. Gain and bias of the norm before the feed-forward. A wrong eps shows.
    "sana_sharded": (
        TINY | dict(
            num_attention_heads=4, attention_head_dim=10, num_layers=2, num_cross_attention_heads=4, cross_attention_head_dim=10,
            cross_attention_dim=40, norm_elementwise_affine=True, norm_eps=1e-4,
        ),
        torch.float16, (4, 10, 6), 23.4375, 9, 0, "60KB",
    ),
}


def draw_inputs(config, latent, timestep, tokens, padding, seed):
    """Gemma gives padding embeddings too: only the mask says what counts."""
    g = torch.Generator().manual_seed(seed)
    mask = torch.ones(1, tokens)
    mask[:, tokens - padding :] = 0
    return {
        "latent": torch.randn(1, config["in_channels"], *latent, generator=g),
        "timestep": torch.tensor([timestep], dtype=torch.float32),
        "text": torch.randn(1, tokens, config["caption_channels"], generator=g),
        "text_mask": mask,
    }


def class_of(folder, dtype, building=nullcontext):
    """The class with every weight in one dtype. It makes its RoPE tables as it is built."""
    config = SanaVideoTransformer3DModel.load_config(folder)
    with building():
        model = SanaVideoTransformer3DModel.from_config(config)
    model.load_state_dict(stored(folder), strict=True)
    return model.to(dtype).eval()


def run(model, inputs, dtype):
    blocks, hooks = {}, []
    for i, block in enumerate(model.transformer_blocks):
        hooks.append(block.register_forward_hook(lambda _, __, y, name=f"block{i}": blocks.update({name: y})))
    velocity = model(
        hidden_states=inputs["latent"].to(dtype), timestep=inputs["timestep"], encoder_hidden_states=inputs["text"].to(dtype),
        encoder_attention_mask=inputs["text_mask"],
    ).sample
    for hook in hooks:
        hook.remove()
    return {"velocity": velocity} | blocks


def attention(attn, x, cos, sin):
    """Linear attention by its formula (arXiv 2509.24695): features are positive parts, and RoPE turns those of the numerator alone."""
    norm = lambda y, gain: gain * y / (y.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    heads = lambda y: y.reshape(y.shape[0], attn.heads, -1)
    q = heads(norm(attn.to_q(x[0]), attn.norm_q.weight)).clamp(min=0)
    k = heads(norm(attn.to_k(x[0]), attn.norm_k.weight)).clamp(min=0)
    v = heads(attn.to_v(x[0]))
    angle = torch.complex(cos[0, :, :, ::2], sin[0, :, :, ::2])
    turn = lambda y: torch.view_as_real(torch.view_as_complex(y.reshape(*y.shape[:2], -1, 2)) * angle).flatten(2)
    turned_q, turned_k = turn(q), turn(k)
    out = torch.zeros_like(v)
    for i in range(x.shape[1]):
        weights = (turned_q[i] * turned_k).sum(-1)
        out[i] = (weights[:, :, None] * v).sum(0) / ((q[i] * k).sum(-1).sum(0)[:, None] + 1e-15)
    return attn.to_out[0](out.flatten(1))[None]


def run_exact(name, folder, inputs):
    """The class in float64; the first block's self-attention by its formula as well."""
    model, inputs = class_of(folder, torch.float64, building=float64), {k: x.double() for k, x in inputs.items()}
    seen = {}
    attn = model.transformer_blocks[0].attn1
    hook = attn.register_forward_hook(lambda _, args, kwargs, y: seen.update(x=args[0], rope=kwargs["rotary_emb"], y=y), with_kwargs=True)
    with float64(), NothingNarrower():
        exact = run(model, inputs, torch.float64)
    hook.remove()
    error = (attention(attn, seen["x"], *seen["rope"]) - seen["y"]).norm() / seen["y"].norm()
    if not error < 1e-12:
        raise SystemExit(f"{name}: linear attention differs from its formula by {error:.1e} in float64, expected below 1e-12")
    return exact


def sinusoid_in_float64(model):
    """The class as released, but for the sinusoid of the timestep."""
    narrow = model.time_embed.emb.time_proj.forward

    def wide(timesteps):
        with float64():
            return narrow(timesteps)

    model.time_embed.emb.time_proj.forward = wide
    return model


def report(name, folder, inputs, all_exact):
    exact = all_exact["velocity"]
    cells, blocks = [], []
    for dtype in (torch.float64, torch.float32):
        for model in (class_of(folder, dtype), sinusoid_in_float64(class_of(folder, dtype))):
            error = (run(model, inputs, dtype)["velocity"].double() - exact).norm() / exact.norm()
            cells.append(f"{error:.1e}")
    for dtype in (torch.float16, torch.bfloat16):
        made = run(SanaVideoTransformer3DModel.from_pretrained(folder, torch_dtype=dtype), inputs, dtype)
        cells.append(snr(made["velocity"], exact))
        if dtype == torch.float16:
            blocks = [f"{key} {snr(made[key], x)}" for key, x in all_exact.items() if key != "velocity"]
    latent = "x".join(map(str, inputs["latent"].shape[2:]))
    mask = inputs["text_mask"]
    tokens = f"{mask.shape[1]}, {int(mask.sum())} of them count"
    print(f"| {name} | {latent} | {tokens} | {inputs['timestep'].item()} | {exact.std():.2f} | {' | '.join(cells)} |")
    print(f"  float16: {', '.join(blocks)}")


def make(name, config, dtype, latent, timestep, tokens, padding, shard, seed):
    folder = GOLDENS / name
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir(parents=True, exist_ok=True)
    for old in checkpoint.iterdir():
        old.unlink()
    model = SanaVideoTransformer3DModel(**config)
    random_weights(model, seed)
    model.to(dtype).save_pretrained(checkpoint, max_shard_size=shard)

    inputs = draw_inputs(config, latent, timestep, tokens, padding, seed + 100)
    exact = run_exact(name, checkpoint, inputs)
    assert all(v.isfinite().all() for v in exact.values()), name
    metadata = {
        "generator": "examples/reference/sana_goldens.py", "seed": str(seed + 100), "dtype": "float64",
        "torch": torch.__version__.split("+")[0], "diffusers": diffusers.__version__,
    }
    write_tensors(folder / "golden.safetensors", inputs | {k: v.float().contiguous() for k, v in exact.items()}, metadata)
    report(name, checkpoint, inputs, exact)


def check(name):
    """Reports on a golden as it is on disk."""
    checkpoint = GOLDENS / name / "checkpoint"
    golden = load_file(GOLDENS / name / "golden.safetensors")
    inputs = {"latent", "timestep", "text", "text_mask"}
    exact = run_exact(name, checkpoint, {k: golden[k] for k in inputs})
    compare(name, golden, exact, inputs)
    report(name, checkpoint, golden, exact)


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
                check(name) if args.report else make(name, *case, seed=900 + i)
    for name in names:
        sizes = {str(f.relative_to(GOLDENS)): f.stat().st_size for f in sorted((GOLDENS / name).rglob("*")) if f.is_file()}
        for file, size in sizes.items():
            print(f"{size:9} {file}")
        print(f"{sum(sizes.values()):9} {name}")


if __name__ == "__main__":
    main()

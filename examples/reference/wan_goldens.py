"""Makes the Wan goldens of `tests/goldens`: diffusers' own `WanTransformer3DModel` in float64, on checkpoints as `save_pretrained` writes them.

    python3 -m venv venv && venv/bin/pip install torch==2.7.1 diffusers==0.42.1 accelerate numpy
    venv/bin/python examples/reference/wan_goldens.py [CASE ...]            # makes them
    venv/bin/python examples/reference/wan_goldens.py [CASE ...] --report   # writes nothing

A case is a folder with `checkpoint/` (nothing in it is edited by hand) and `golden.safetensors`, laid out as by `make_goldens.py`. Case i has
seed 500 + i for its weights and 600 + i for its inputs; the same versions of torch and diffusers give the same bytes.

diffusers narrows to float32 in places whatever the dtype of the model: the sinusoid of the timestep, the RoPE tables, layer norms, the
modulations, and the stream itself where a residual is added. For a golden all of these compute in float64 (`float64()`), every operation is
watched for a narrower result, and `s2dit.py`, which shares no code with diffusers, must make the same of the checkpoint within 1e-12. It knows
neither images nor a timestep for each token: there the class must make nothing of an image whose values are zero, and the same of equal
timesteps as of one (`second_look`).

Prints how far from a golden the class as released is, in relative L2 of velocity, as rows of: case, latent, text tokens, timestep, std of
velocity; in float64, and so but for the sinusoid; in float32, and so but for the sinusoid; in float16 and in bfloat16 as `from_pretrained` loads
it. Then what each block reaches in float16, and the sizes of the files. With `--report`, for the goldens that are there: it fails if one is not what the class makes.
"""

import argparse
import json
from contextlib import contextmanager, nullcontext
from unittest.mock import patch

import diffusers
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from make_goldens import GOLDENS, compare, snr, write_tensors
from s2dit import Config, S2DiTTransformer3DModel

TINY = dict(
    in_channels=4, out_channels=4, patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=24, num_layers=3, ffn_dim=128,
    text_dim=32, freq_dim=32, cross_attn_norm=True, qk_norm="rms_norm_across_heads", eps=1e-6,
)

# Image to video: the latent is noise, a mask and a condition; the class takes the last 512 tokens of its context for text.
IMAGE = TINY | dict(in_channels=9, num_layers=2, text_dim=12, image_dim=20, added_kv_proj_dim=48)
# Image tokens of one picture, as CLIP's ViT-H makes them.
PICTURE = 257
PER_TOKEN = "per token"

# name: (config, dtype of the weights, latent F x H x W, timestep, text tokens, how many of them are padding, size of a shard)
CASES = {
    "wan_tiny": (TINY, torch.bfloat16, (3, 8, 8), 637.5, 16, 0, "10GB"),
    # 22 mod 6 is 4: RoPE has 10 columns for frames and 6 each for rows and columns. No norm before cross-attention.
    "wan_uneven": (
        TINY | dict(
            num_attention_heads=3, attention_head_dim=22, num_layers=2, ffn_dim=100, text_dim=24, freq_dim=20, out_channels=3,
            cross_attn_norm=False,
        ),
        torch.float32, (2, 12, 8), 1000.0, 12, 4, "10GB",
    ),
    # 40 mod 6 is 4 too: 16, 12 and 12. A wrong eps shows.
    "wan_sharded": (
        TINY | dict(attention_head_dim=40, num_layers=2, ffn_dim=160, eps=1e-4), torch.float16, (4, 6, 10), 23.4375, 8, 0, "160KB",
    ),
    # Wan 2.1 image to video.
    "wan_i2v": (IMAGE, torch.bfloat16, (3, 8, 8), 816.0, 512, 500, "10GB"),
    # The same with a first and a last picture, whose tokens have positions.
    "wan_flf2v": (IMAGE | dict(pos_embed_seq_len=2 * PICTURE), torch.float16, (2, 8, 6), 333.25, 512, 505, "10GB"),
    # Wan 2.2 TI2V: a timestep for each token. The first frame is given: its timesteps are zero.
    "wan_ti2v": (TINY | dict(in_channels=6, out_channels=6), torch.bfloat16, (3, 8, 12), PER_TOKEN, 16, 4, "10GB"),
}


@contextmanager
def float64():
    """Inside, diffusers' code computes in float64 wherever it says `.float()` or `torch.float32`."""
    with patch.object(torch.Tensor, "float", torch.Tensor.double), patch.object(torch, "float32", torch.float64):
        yield


class NothingNarrower(TorchDispatchMode):
    """Fails at an operation whose result is of a floating-point type other than float64."""

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        out = op(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(x, torch.Tensor) and x.is_floating_point() and x.dtype != torch.float64:
                raise SystemExit(f"{op} made {x.dtype}, expected float64: diffusers {diffusers.__version__} narrows where float64() does not reach")
        return out


def random_weights(model, seed):
    """Seeded weights under which no part is idle: those of `s2dit.from_random`."""
    g = torch.Generator().manual_seed(seed)
    for name, p in sorted(model.state_dict().items()):
        n = torch.randn(p.shape, generator=g, dtype=torch.float64)
        if name.endswith("scale_shift_table"):
            n /= p.shape[-1] ** 0.5
        elif "norm" in name and name.endswith("weight"):
            n = 1 + 0.1 * n
        elif name.endswith("pos_embed"):
            n *= 0.5
        elif name.endswith("bias"):
            n *= 0.02 if "norm" not in name else 0.1
        else:
            n /= p[0].numel() ** 0.5
        p.copy_(n)


def draw_inputs(config, latent, timestep, tokens, padding, seed):
    g = torch.Generator().manual_seed(seed)
    inputs = {
        "latent": torch.randn(1, config["in_channels"], *latent, generator=g),
        "timestep": per_token(config, latent, g) if timestep == PER_TOKEN else torch.tensor([timestep], dtype=torch.float32),
        "text": torch.randn(1, tokens, config["text_dim"], generator=g),
    }
    inputs["text"][:, tokens - padding :] = 0
    if "image_dim" in config:
        # Small, so that the ε of the embedder's first norm shows.
        inputs["image"] = 0.1 * torch.randn(1, config.get("pos_embed_seq_len", PICTURE), config["image_dim"], generator=g)
    return inputs


def per_token(config, latent, generator):
    """A timestep for each token, those of the first frame 0."""
    frames, rows, cols = (side // patch for side, patch in zip(latent, config["patch_size"]))
    timesteps = 1000 * torch.rand(1, frames * rows * cols, generator=generator)
    timesteps[:, : rows * cols] = 0
    return timesteps


def stored(folder):
    """The tensors of a checkpoint."""
    return {k: v for file in sorted(folder.glob("*.safetensors")) for k, v in load_file(file).items()}


def class_of(folder, dtype, building=nullcontext):
    """The class with every weight in one dtype. It makes its RoPE tables as it is built."""
    config = WanTransformer3DModel.load_config(folder)
    with building():
        model = WanTransformer3DModel.from_config(config)
    model.load_state_dict(stored(folder), strict=True)
    return model.to(dtype).eval()


def run(model, inputs, dtype):
    blocks, hooks = {}, []
    for i, block in enumerate(model.blocks):
        hooks.append(block.register_forward_hook(lambda _, __, y, name=f"block{i}": blocks.update({name: y})))
    latent, text, image = inputs["latent"].to(dtype), inputs["text"].to(dtype), inputs.get("image")
    if image is not None:
        # A batch of pictures, which the class joins where they have positions.
        image = image.to(dtype).reshape(-1, PICTURE, image.shape[2])
    velocity = model(latent, inputs["timestep"], text, encoder_hidden_states_image=image).sample
    for hook in hooks:
        hook.remove()
    return {"velocity": velocity} | blocks


def run_exact(name, folder, inputs):
    """The class in float64, and the same by `s2dit.py`."""
    model = class_of(folder, torch.float64, building=float64)
    inputs = {k: x.double() for k, x in inputs.items()}
    with float64(), NothingNarrower():
        exact = run(model, inputs, torch.float64)
    if "image" in inputs or inputs["timestep"].ndim > 1:
        second_look(name, model, folder, inputs)
    else:
        velocity, blocks = second_opinion(folder)(*(inputs[k] for k in ("latent", "timestep", "text")), return_blocks=True)
        same(name, "s2dit.py and diffusers", {"velocity": velocity} | {f"block{i}": x for i, x in enumerate(blocks)}, exact)
    return exact


def same(name, what, found, expected):
    """Fails unless two sets of results are equal within 1e-12."""
    for key, x in expected.items():
        error = (found[key] - x).norm() / x.norm()
        if not error < 1e-12:
            raise SystemExit(f"{name}: {key}: {what} differ by {error:.1e} in float64, expected below 1e-12")


def second_look(name, model, folder, inputs):
    """What `s2dit.py` does not know is compared with what it does know: without image values, and at one timestep."""
    inputs = dict(inputs)
    if "image" in inputs:
        # Of values that are zero the second attention makes zero, and the class is the one without an image.
        for block in model.blocks:
            for p in block.attn2.add_v_proj.parameters():
                p.zero_()
    if inputs["timestep"].ndim > 1:
        inputs["timestep"] = torch.full_like(inputs["timestep"], 637.5)
    with float64(), NothingNarrower():
        found = run(model, inputs, torch.float64)
    timestep = inputs["timestep"].reshape(-1)[:1]
    velocity, blocks = second_opinion(folder)(inputs["latent"], timestep, inputs["text"], return_blocks=True)
    same(name, "s2dit.py and diffusers", {"velocity": velocity} | {f"block{i}": x for i, x in enumerate(blocks)}, found)


def second_opinion(folder):
    """`s2dit.py` with every block `full`, in float64."""
    values = json.loads((folder / "config.json").read_text())
    same = "in_channels out_channels patch_size num_attention_heads attention_head_dim ffn_dim text_dim freq_dim eps".split()
    config = Config(**{k: values[k] for k in same}, text_len=0, layout=["full"] * values["num_layers"])
    model = S2DiTTransformer3DModel(config)
    if not values["cross_attn_norm"]:
        for block in model.blocks:
            block.norm2 = torch.nn.Identity()
    of_images = ("image_embedder", "add_k_proj", "add_v_proj", "norm_added_k")
    weights = {k: v for k, v in stored(folder).items() if not any(part in k for part in of_images)}
    model.load_state_dict(weights, strict=True)
    return model.double().eval()


def sinusoid_in_float64(model):
    """The class as released, but for the sinusoid of the timestep."""
    narrow = model.condition_embedder.timesteps_proj.forward

    def wide(timesteps):
        with float64():
            return narrow(timesteps)

    model.condition_embedder.timesteps_proj.forward = wide
    return model


def report(name, folder, inputs, all_exact):
    exact = all_exact["velocity"]
    cells, blocks = [], []
    for dtype in (torch.float64, torch.float32):
        for model in (class_of(folder, dtype), sinusoid_in_float64(class_of(folder, dtype))):
            error = (run(model, inputs, dtype)["velocity"].double() - exact).norm() / exact.norm()
            cells.append(f"{error:.1e}")
    for dtype in (torch.float16, torch.bfloat16):  # as diffusers loads it: norms and the time embedding stay in float32
        model = WanTransformer3DModel.from_pretrained(folder, torch_dtype=dtype)
        made = run(model, inputs, dtype)
        cells.append(snr(made["velocity"], exact))
        if dtype == torch.float16:
            blocks = [f"{key} {snr(made[key], x)}" for key, x in all_exact.items() if key != "velocity"]
    latent = "x".join(map(str, inputs["latent"].shape[2:]))
    times = inputs["timestep"]
    timestep = times.item() if times.numel() == 1 else f"{times.min():.0f} to {times.max():.1f}"
    shape = f"{name} | {latent} | {inputs['text'].shape[1]} | {timestep} | {exact.std():.2f}"
    print(f"| {shape} | {' | '.join(cells)} |")
    print(f"  float16: {', '.join(blocks)}")


def make(name, config, dtype, latent, timestep, tokens, padding, shard, seed):
    folder = GOLDENS / name
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir(parents=True, exist_ok=True)
    for old in checkpoint.iterdir():
        old.unlink()
    model = WanTransformer3DModel(**config)
    random_weights(model, seed)
    model.to(dtype).save_pretrained(checkpoint, max_shard_size=shard)

    inputs = draw_inputs(config, latent, timestep, tokens, padding, seed + 100)
    exact = run_exact(name, checkpoint, inputs)
    assert all(v.isfinite().all() for v in exact.values()), name
    metadata = {
        "generator": "examples/reference/wan_goldens.py", "seed": str(seed + 100), "dtype": "float64",
        "torch": torch.__version__.split("+")[0], "diffusers": diffusers.__version__,
    }
    write_tensors(folder / "golden.safetensors", inputs | {k: v.float().contiguous() for k, v in exact.items()}, metadata)
    report(name, checkpoint, inputs, exact)


def check(name):
    """Reports on a golden as it is on disk."""
    checkpoint = GOLDENS / name / "checkpoint"
    golden = load_file(GOLDENS / name / "golden.safetensors")
    exact = run_exact(name, checkpoint, golden)
    compare(name, golden, exact, {"latent", "timestep", "text", "image"} & golden.keys())
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
                check(name) if args.report else make(name, *case, seed=500 + i)
    for name in names:
        sizes = {str(f.relative_to(GOLDENS)): f.stat().st_size for f in sorted((GOLDENS / name).rglob("*")) if f.is_file()}
        for file, size in sizes.items():
            print(f"{size:9} {file}")
        print(f"{sum(sizes.values()):9} {name}")


if __name__ == "__main__":
    main()

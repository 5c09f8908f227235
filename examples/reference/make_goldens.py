"""Makes the goldens of `tests/goldens`: inputs and outputs of the reference in float64, on the weights as stored.

    python make_goldens.py [CASE ...] [--report] [--small-checkpoint DIR]

A case is a folder with `checkpoint/` (committed: it is small) and `golden.safetensors`: float32 tensors `latent`, `timestep`,
`text`, `velocity`, and `block0`, `block1`, ... The same seed and torch version give the same bytes. The checkpoint of `small` is
not committed; it is made by `s2ditc init --preset small --seed 7 --dtype bf16 -o DIR`.

Prints what PyTorch itself reaches in float32 and float16 against float64, as the rows of the table in `tests/goldens/README.md`;
with `--report`, for the goldens that are there: it writes nothing, and fails if one is not what the reference makes.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from s2dit import Config, from_random, load

GOLDENS = Path(__file__).resolve().parents[2] / "tests" / "goldens"

TINY = dict(
    in_channels=4, out_channels=4, patch_size=[1, 2, 2], num_attention_heads=2, attention_head_dim=24, ffn_dim=128,
    text_dim=32, text_len=8, freq_dim=32, layout=["lcha", "ssa", "ssa", "lcha"], window_frames=7,
)

# name: (config, dtype of the weights, latent F x H x W, timestep, shards)
CASES = {
    "tiny": (TINY, torch.float32, (3, 8, 8), 731.25, 1),
    "odd": (
        TINY | dict(
            num_attention_heads=3, attention_head_dim=20, conv_kernel=[3, 5, 3], ffn_dim=96, text_len=5,
            layout=["ssa", "full", "lcha", "ssa", "full", "ssa"],
        ),
        torch.bfloat16, (2, 12, 8), 1000.0, 1,
    ),
    "post": (TINY | dict(rope_in_kernel="post", layout=["lcha", "ssa", "lcha"]), torch.float32, (4, 8, 4), 961.54, 1),
    "per_head": (TINY | dict(qk_norm="rms_norm_per_head", out_channels=3), torch.float16, (1, 12, 8), 0.0, 1),
    "sharded": (TINY | dict(chunk_frames=None, sample_steps=40), torch.bfloat16, (5, 4, 8), 500.0, 3),
    "stride3": (
        TINY | dict(
            ssa_stride=3, patch_size=[1, 1, 2], text_len=7, conv_kernel=[1, 3, 5], rope_theta=256.0, eps=1e-5,
            num_attention_heads=4, attention_head_dim=10, layout=["full", "ssa", "lcha"],
        ),
        torch.float32, (2, 6, 12), 17.3, 1,
    ),
}
SMALL = ((3, 16, 24), 731.25)


def write_tensors(path, tensors, metadata):
    """A safetensors file whose header has its metadata in order: the library's order changes from run to run."""
    data = save(tensors)
    size = int.from_bytes(data[:8], "little")
    header = json.dumps({"__metadata__": metadata} | json.loads(data[8 : 8 + size]), separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors stay aligned
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + size :])


def write_checkpoint(model, dtype, shards, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    (folder / "config.json").write_text(model.config.to_json())
    state = {k: v.to(dtype).contiguous() for k, v in sorted(model.state_dict().items())}
    if shards == 1:
        write_tensors(folder / "diffusion_pytorch_model.safetensors", state, {"format": "pt"})
        return
    names = list(state)
    weight_map = {}
    for s in range(shards):
        file = f"diffusion_pytorch_model-{s + 1:05}-of-{shards:05}.safetensors"
        part = names[s::shards]
        write_tensors(folder / file, {k: state[k] for k in part}, {"format": "pt"})
        weight_map |= {k: file for k in part}
    total = sum(v.numel() * v.element_size() for v in state.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def run(folder, inputs, dtype):
    latent, timestep, text = (inputs[k] for k in ("latent", "timestep", "text"))
    with torch.no_grad():
        velocity, blocks = load(folder, dtype)(latent.to(dtype), timestep, text.to(dtype), return_blocks=True)
    return {"velocity": velocity} | {f"block{i}": x for i, x in enumerate(blocks)}


def snr(x, reference):
    error = (x.double() - reference).norm() / reference.norm()
    return f"{error:.1e} ({-20 * torch.log10(error):.1f} dB)"


def make(name, checkpoint, latent, timestep, seed, keep_blocks):
    config = Config.load(checkpoint)
    g = torch.Generator().manual_seed(seed)
    inputs = {
        "latent": torch.randn(1, config.in_channels, *latent, generator=g),
        "timestep": torch.tensor([timestep], dtype=torch.float32),
        "text": torch.randn(1, config.text_len, config.text_dim, generator=g),
    }
    inputs["text"][:, config.text_len * 3 // 4 :] = 0  # padding
    exact = run(checkpoint, inputs, torch.float64)
    assert all(v.isfinite().all() for v in exact.values()), name
    golden = inputs | {k: v.float().contiguous() for k, v in exact.items() if keep_blocks or k == "velocity"}
    metadata = {
        "generator": "examples/reference/make_goldens.py", "seed": str(seed), "dtype": "float64",
        "torch": torch.__version__.split("+")[0],
    }
    folder = GOLDENS / name
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "golden.safetensors", golden, metadata)
    report(name, checkpoint, inputs, exact)


def check(name, checkpoint):
    """Reports on a golden as it is on disk."""
    golden = load_file(GOLDENS / name / "golden.safetensors")
    exact = run(checkpoint, golden, torch.float64)
    for key in golden.keys() - {"latent", "timestep", "text"}:
        error = (golden[key].double() - exact[key]).norm() / exact[key].norm()
        if not error < 1e-7:  # a float32 rounding
            raise SystemExit(f"{name}: golden.safetensors: {key}: relative L2 error {error:.1e}, expected below 1e-7")
    report(name, checkpoint, golden, exact)


def report(name, checkpoint, inputs, exact):
    row = [snr(run(checkpoint, inputs, dtype)["velocity"], exact["velocity"]) for dtype in (torch.float32, torch.float16)]
    latent = "x".join(map(str, inputs["latent"].shape[2:]))
    print(f"| {name} | {latent} | {round(inputs['timestep'].item(), 4)} | {exact['velocity'].std():.2f} | {row[0]} | {row[1]} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"any of {', '.join(CASES)} (default: all)")
    parser.add_argument("--small-checkpoint", type=Path, help="makes the case `small` from this checkpoint")
    parser.add_argument("--report", action="store_true", help="reports on the goldens that are there, and writes nothing")
    args = parser.parse_args()
    if args.small_checkpoint and args.report:
        check("small", args.small_checkpoint)
    elif args.small_checkpoint:
        make("small", args.small_checkpoint, *SMALL, seed=7, keep_blocks=False)
    for i, (name, (config, dtype, latent, timestep, shards)) in enumerate(CASES.items()):
        if args.cases and name not in args.cases or args.small_checkpoint and not args.cases:
            continue
        checkpoint = GOLDENS / name / "checkpoint"
        if args.report:
            check(name, checkpoint)
            continue
        model = from_random(Config(**config), seed=100 + i)
        write_checkpoint(model, dtype, shards, checkpoint)
        make(name, checkpoint, latent, timestep, seed=200 + i, keep_blocks=True)


if __name__ == "__main__":
    main()

"""Makes the goldens of `tests/goldens`: inputs and outputs of the reference in float64, on the weights as stored.

    python make_goldens.py [CASE ...] [--report] [--small-checkpoint DIR]

A case is a folder with `checkpoint/` (committed: it is small) and `golden.safetensors`: float32 tensors `latent`, `timestep`,
`text`, `velocity`, and `block0`, `block1`, ... A `stream_...` case has `stream.noise [chunks, steps, 1, C, F, H, W]`, `text` and
`stream.latents [chunks, 1, C, F, H, W]`. The same seed and torch version give the same bytes. The checkpoint of `small` and `stream_small` is
not committed; it is made by `s2ditc init --preset small --seed 7 --dtype bf16 -o DIR`.

Prints what PyTorch itself reaches in float32 and float16 against float64, as the rows of the tables in `tests/goldens/README.md`;
with `--report`, for the goldens that are there: it writes nothing, and fails if one is not what the reference makes.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from s2dit import Config, from_random, load
from stream import stream

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
    # Both sides of the grid are odd, as the 9x16 of 256x144 is; stages begin, divide and end the network.
    "padded": (
        TINY | dict(attention_head_dim=12, ffn_dim=64, text_dim=24, layout=["ssa", "lcha", "ssa", "full", "ssa", "ssa"]),
        torch.float32, (2, 10, 14), 881.7, 1,
    ),
    # One path of LCHA alone, heads of linear attention that are narrower than the others, and fewer keys; the two paths of LCHA are added.
    "paths": (
        TINY | dict(linear_head_dim=16, fusion="sum", layout=["linear", "kv_compressed", "local", "ssa", "lcha"]),
        torch.float32, (2, 8, 12), 402.5, 1,
    ),
    "relu": (TINY | dict(feature_map="relu", layout=["lcha", "ssa", "linear"]), torch.float32, (3, 8, 8), 731.25, 1),
}

SLIM = TINY | dict(attention_head_dim=12, ffn_dim=64, text_dim=24)

# name: (config, dtype of the weights, latent H x W, chunks)
STREAMS = {
    # The window is no multiple of the chunk; three windows long.
    "stream_tiny": (SLIM | dict(chunk_frames=3, window_frames=7), torch.float32, (8, 8), 7),
    # The convolution's past is two chunks long, and t is no round number.
    "stream_post": (
        SLIM | dict(
            rope_in_kernel="post", layout=["lcha", "ssa", "lcha"], conv_kernel=[5, 3, 3], num_attention_heads=3,
            attention_head_dim=10, chunk_frames=2, window_frames=4, sample_steps=[1000, 500],
        ),
        torch.bfloat16, (8, 4), 7,
    ),
    "stream_full": (
        SLIM | dict(
            layout=["full", "lcha", "ssa"], qk_norm="rms_norm_per_head", attention_head_dim=16, chunk_frames=1, window_frames=3,
            sample_steps=[1000, 750, 500], flow_shift=3.0,
        ),
        torch.float16, (4, 8), 8,
    ),
    # The chunk is longer than the window, and the convolution has no past.
    "stream_wide": (
        SLIM | dict(
            layout=["ssa", "lcha", "full"], conv_kernel=[1, 3, 5], patch_size=[1, 1, 2], ssa_stride=3, num_attention_heads=4,
            attention_head_dim=6, in_channels=3, out_channels=3, text_len=5, chunk_frames=3, window_frames=2,
            sample_steps=[1000, 500], flow_shift=1.0,
        ),
        torch.float32, (6, 6), 6,
    ),
    # Two chunks fill the sinks, which leave the window one and two at a time.
    "stream_sink": (
        SLIM | dict(layout=["full", "lcha", "ssa"], chunk_frames=2, window_frames=3, sink_frames=3, sample_steps=[1000, 500]),
        torch.float32, (6, 10), 7,
    ),
    "stream_last_step": (
        SLIM | dict(state_write="last_step", chunk_frames=3, window_frames=6, sample_steps=[1000, 750, 500, 250]),
        torch.bfloat16, (8, 4), 6,
    ),
    # The only past of softmax attention is its sinks; the grid is padded in one direction, by two.
    "stream_last_sink": (
        SLIM | dict(
            layout=["ssa", "lcha", "full", "ssa"], state_write="last_step", rope_in_kernel="post", ssa_stride=3, chunk_frames=1,
            window_frames=0, sink_frames=2, attention_head_dim=8, sample_steps=[1000, 500], qk_norm="rms_norm_per_head",
        ),
        torch.float16, (6, 8), 6,
    ),
    "stream_paths": (
        SLIM | dict(
            layout=["linear", "kv_compressed", "local", "ssa", "lcha"], linear_head_dim=8, fusion="sum", chunk_frames=2, window_frames=3,
            sample_steps=[1000, 500],
        ),
        torch.float32, (8, 8), 6,
    ),
}
SMALL = ((3, 16, 24), 731.25)
SMALL_STREAM = ((8, 8), 6)


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
        "text": draw_text(config, g),
    }
    exact = run(checkpoint, inputs, torch.float64)
    write_golden(name, inputs, exact, exact if keep_blocks else ["velocity"], seed)
    report(name, checkpoint, inputs, exact)


def draw_text(config, g):
    text = torch.randn(1, config.text_len, config.text_dim, generator=g)
    text[:, config.text_len * 3 // 4 :] = 0  # padding
    return text


def write_golden(name, inputs, exact, keep, seed):
    assert all(v.isfinite().all() for v in exact.values()), name
    golden = inputs | {k: exact[k].float().contiguous() for k in keep}
    metadata = {
        "generator": "examples/reference/make_goldens.py", "seed": str(seed), "dtype": "float64",
        "torch": torch.__version__.split("+")[0],
    }
    folder = GOLDENS / name
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "golden.safetensors", golden, metadata)


def check(name, checkpoint):
    """Reports on a golden as it is on disk."""
    golden = load_file(GOLDENS / name / "golden.safetensors")
    exact = run(checkpoint, golden, torch.float64)
    compare(name, golden, exact, {"latent", "timestep", "text"})
    report(name, checkpoint, golden, exact)


def compare(name, golden, exact, inputs):
    for key in golden.keys() - inputs:
        error = (golden[key].double() - exact[key]).norm() / exact[key].norm()
        if not error < 1e-7:  # a float32 rounding
            raise SystemExit(f"{name}: golden.safetensors: {key}: relative L2 error {error:.1e}, expected below 1e-7")


def report(name, checkpoint, inputs, exact):
    row = [snr(run(checkpoint, inputs, dtype)["velocity"], exact["velocity"]) for dtype in (torch.float32, torch.float16)]
    latent = "x".join(map(str, inputs["latent"].shape[2:]))
    print(f"| {name} | {latent} | {round(inputs['timestep'].item(), 4)} | {exact['velocity'].std():.2f} | {row[0]} | {row[1]} |")


def run_stream(folder, inputs, dtype):
    """The sampler computes in float32 when the network computes in less."""
    host = torch.promote_types(dtype, torch.float32)
    with torch.no_grad():
        return {"stream.latents": stream(load(folder, dtype), inputs["text"], inputs["stream.noise"].to(host))}


def make_stream(name, checkpoint, size, chunks, seed):
    config = Config.load(checkpoint)
    g = torch.Generator().manual_seed(seed)
    chunk = (1, config.in_channels, config.chunk_frames, *size)
    inputs = {
        "stream.noise": torch.randn(chunks, len(config.sample_steps), *chunk, generator=g),
        "text": draw_text(config, g),
    }
    exact = run_stream(checkpoint, inputs, torch.float64)
    write_golden(name, inputs, exact, exact, seed)
    report_stream(name, checkpoint, inputs, exact)


def check_stream(name, checkpoint):
    golden = load_file(GOLDENS / name / "golden.safetensors")
    exact = run_stream(checkpoint, golden, torch.float64)
    compare(name, golden, exact, {"stream.noise", "text"})
    report_stream(name, checkpoint, golden, exact)


def report_stream(name, checkpoint, inputs, exact):
    config, exact = Config.load(checkpoint), exact["stream.latents"]
    chunks, steps, _, _, frames, rows, cols = inputs["stream.noise"].shape
    past = f"{config.window_frames} | {config.sink_frames}"
    shape = f"{name} | {chunks} x {frames}x{rows}x{cols} | {past} | {steps} | {exact.std():.2f}"
    cells = []
    for dtype in (torch.float32, torch.float16):
        errors = [(x.double() - y).norm() / y.norm() for x, y in zip(run_stream(checkpoint, inputs, dtype)["stream.latents"], exact)]
        cells.append(", ".join(f"{e:.1e}" for e in errors) + f" ({-20 * torch.log10(max(errors)):.1f} dB)")
    print(f"| {shape} | {cells[0]} | {cells[1]} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"any of {', '.join(CASES | STREAMS)} (default: all)")
    parser.add_argument("--small-checkpoint", type=Path, help="makes the cases `small` and `stream_small` from this checkpoint")
    parser.add_argument("--report", action="store_true", help="reports on the goldens that are there, and writes nothing")
    args = parser.parse_args()
    if args.small_checkpoint and args.report:
        check("small", args.small_checkpoint)
        check_stream("stream_small", args.small_checkpoint)
    elif args.small_checkpoint:
        make("small", args.small_checkpoint, *SMALL, seed=7, keep_blocks=False)
        make_stream("stream_small", args.small_checkpoint, *SMALL_STREAM, seed=8)
    cases = [(name, case, 100 + i, make, check) for i, (name, case) in enumerate(CASES.items())]
    cases += [(name, case, 300 + i, make_stream, check_stream) for i, (name, case) in enumerate(STREAMS.items())]
    for name, (config, dtype, *case), seed, make_it, check_it in cases:
        if args.cases and name not in args.cases or args.small_checkpoint and not args.cases:
            continue
        checkpoint = GOLDENS / name / "checkpoint"
        if args.report:
            check_it(name, checkpoint)
            continue
        shards = 1 if make_it is make_stream else case.pop()
        write_checkpoint(from_random(Config(**config), seed), dtype, shards, checkpoint)
        make_it(name, checkpoint, *case, seed=seed + 100, **{} if make_it is make_stream else {"keep_blocks": True})


if __name__ == "__main__":
    main()

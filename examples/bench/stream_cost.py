#!/usr/bin/env python3
"""What a chunk costs in a stream, beside computing the whole clip so far again.

    cargo build --release && python3 examples/bench/stream_cost.py [--preset small] [--latent 16x24] [--chunks 12] [--svg OUT] [--json]

For n = 1 … CHUNKS: the time of one network call on a clip of n chunks (clip mode, ONNX fp32), and of one `denoise` call for the
n-th chunk of a stream. Both in ONNX Runtime from Python, on the same threads, alternating, medians. Also what writes the states and `prompt`,
and `denoise` beside the same chunk in clip mode, which computes the prompt's keys and values every time. Needs onnxruntime and
numpy.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime

ROOT = Path(__file__).resolve().parents[2]


def session(path, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    loaded = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feeds = {i.name: rng.standard_normal(i.shape).astype(np.float32) for i in loaded.get_inputs()}
    for name in feeds:
        if name.startswith("mask"):
            feeds[name][:] = 0
    return lambda: loaded.run(None, feeds)


def seconds(runs, rounds):
    """Median seconds of each, alternating."""
    times = [[] for _ in runs]
    for run in runs:
        run()
    for _ in range(rounds):
        for run, kept in zip(runs, times):
            start = time.perf_counter()
            run()
            kept.append(time.perf_counter() - start)
    return [statistics.median(t) for t in times]


def svg(rows, path):
    width, height, left, bottom, top = 720, 320, 60, 40, 30
    most = max(r["clip_ms"] for r in rows)

    def point(r, key):
        x = left + (width - left - 20) * r["chunks"] / rows[-1]["chunks"]
        return f"{x:.1f},{height - bottom - (height - bottom - top) * r[key] / most:.1f}"

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">']
    out.append(f'<rect width="{width}" height="{height}" fill="white"/>')
    for i in range(5):
        y = height - bottom - (height - bottom - top) * i / 4
        out.append(f'<line x1="{left}" x2="{width - 20}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{most * i / 4:.0f} ms</text>')
    for r in rows:
        x = point(r, "clip_ms").split(",")[0]
        out.append(f'<text x="{x}" y="{height - bottom + 16}" text-anchor="middle">{r["chunks"]}</text>')
    out.append(f'<text x="{width / 2}" y="{height - 6}" text-anchor="middle">chunks so far</text>')
    for key, colour, label in [("clip_ms", "#c33", "the whole clip so far"), ("denoise_ms", "#2468b0", "the new chunk in a stream")]:
        points = " ".join(point(r, key) for r in rows)
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        x, y = points.split(" ")[-1].split(",")
        out.append(f'<text x="{float(x):.1f}" y="{float(y) - 8:.1f}" text-anchor="end" fill="{colour}">{label}</text>')
    path.write_text("\n".join(out) + "\n</svg>\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--latent", default="16x24")
    parser.add_argument("--chunks", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--s2ditc", type=Path, default=ROOT / "target/release/s2ditc")
    args = parser.parse_args()

    def s2ditc(*command):
        subprocess.run([str(c) for c in (args.s2ditc, *command, "-q")], check=True)

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        s2ditc("init", "--preset", args.preset, "--seed", "1", "--dtype", "fp32", "-o", folder / "checkpoint")
        onnx = ["--target", "onnx", "--precision", "fp32"]
        s2ditc("compile", folder / "checkpoint", *onnx, "--mode", "stream", "--latent", args.latent, "-o", folder / "kernel")
        contract = json.loads((folder / "kernel/contract.json").read_text())
        frames = contract["chunk"]["frames"]
        writer = contract["state_write"]
        denoise, write, prompt = (session(folder / f"kernel/{f}.onnx", args.threads) for f in ("denoise", writer, "prompt"))
        rows = []
        for n in range(1, args.chunks + 1):
            clip = folder / "clip.onnx"
            s2ditc("compile", folder / "checkpoint", *onnx, "--latent", f"{n * frames}x{args.latent}", "-o", clip)
            whole, new = seconds([session(clip, args.threads), denoise], args.rounds)
            rows.append({"chunks": n, "frames": n * frames, "clip_ms": 1e3 * whole, "denoise_ms": 1e3 * new})
        write_s, prompt_s = seconds([write, prompt], args.rounds)
    steps = len(contract["sampler"]["timesteps"])
    report = {
        "preset": args.preset, "latent": args.latent, "chunk_frames": frames, "window_frames": contract["window_frames"],
        "threads": args.threads, "rows": rows, f"{writer}_ms": 1e3 * write_s, "prompt_ms": 1e3 * prompt_s, "steps": steps,
    }
    if args.svg:
        svg(rows, args.svg)
    if args.json:
        print(json.dumps(report, indent=2))
        return
    print(f"{args.preset}, {frames}x{args.latent} a chunk, window of {contract['window_frames']} frames, {args.threads} threads")
    print(f"{'chunks':>7}{'frames':>8}{'clip so far':>14}{'denoise':>12}{'ratio':>8}")
    for r in rows:
        print(f"{r['chunks']:7}{r['frames']:8}{r['clip_ms']:11.1f} ms{r['denoise_ms']:9.1f} ms{r['clip_ms'] / r['denoise_ms']:8.1f}")
    one = rows[0]
    print(f"{writer} {1e3 * write_s:.1f} ms, prompt {report['prompt_ms']:.1f} ms (once a prompt)")
    print(f"one chunk: clip mode {one['clip_ms']:.1f} ms, denoise {one['denoise_ms']:.1f} ms with {contract['window_frames']} frames of past")


if __name__ == "__main__":
    main()

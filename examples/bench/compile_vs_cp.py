#!/usr/bin/env python3
"""Compile time and memory beside `cp` of the same checkpoint, alternating in one run.

    cargo build --release && python3 examples/bench/compile_vs_cp.py [--preset 1.8b] [--rounds 3] [--json]

Prints the wall time of `cp` and of each compile, the ratio of the medians, and the peak of anonymous memory (RssAnon of
/proc/PID/status, sampled every 2 ms: resident memory less file-backed pages, which the kernel can drop at will).
Everything is written to one folder, so to one disk. Needs Linux, and room for three copies of the checkpoint.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = "diffusion_pytorch_model.safetensors"


def anonymous_kib(pid):
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def run(command):
    """(seconds, peak anonymous MB)"""
    start = time.monotonic()
    process = subprocess.Popen([str(c) for c in command])
    peak = 0
    while process.poll() is None:
        peak = max(peak, anonymous_kib(process.pid))
        time.sleep(0.002)
    if process.returncode:
        sys.exit(f"{command} failed")
    return time.monotonic() - start, peak * 1024 / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="1.8b")
    parser.add_argument("--latent", default="3x36x64")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/s2ditc")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory(dir=args.folder) as work:
        work = Path(work)
        checkpoint = work / "checkpoint"
        init, init_memory = run([args.binary, "init", "-q", "--preset", args.preset, "--seed", 1, "-o", checkpoint])
        weights = checkpoint / WEIGHTS
        size = weights.stat().st_size
        os.sync()

        base = [args.binary, "compile", "-q", checkpoint, "--latent", args.latent, "--precision", "fp16"]
        jobs = {
            "cp": ["cp", weights, work / "copy"],
            "coreml fp16": base + ["--target", "coreml", "-o", work / "out.mlpackage"],
            "coreml any": base + ["--target", "coreml", "--compute", "any", "-o", work / "out.mlpackage"],
            "onnx fp16": base + ["--target", "onnx", "-o", work / "out.onnx"],
        }
        times, memory = {k: [] for k in jobs}, {k: 0.0 for k in jobs}
        for _ in range(args.rounds):
            for name, command in jobs.items():
                seconds, peak = run(command)
                times[name].append(seconds)
                memory[name] = max(memory[name], peak)
                for made in work.iterdir():
                    if made != checkpoint:
                        shutil.rmtree(made) if made.is_dir() else made.unlink()
                os.sync()

    median = {k: statistics.median(v) for k, v in times.items()}
    rows = [
        {"job": k, "seconds": v, "median": median[k], "ratio_to_cp": median[k] / median["cp"], "peak_anonymous_mb": memory[k]}
        for k, v in times.items()
    ]
    if args.json:
        print(json.dumps({"preset": args.preset, "bytes": size, "init_seconds": init, "init_peak_anonymous_mb": init_memory, "jobs": rows}))
        return
    print(f"{args.preset}: {size / 1e9:.2f} GB bf16; init {init:.1f} s, {init_memory:.0f} MB anonymous")
    for r in rows:
        each = " ".join(f"{s:.1f}" for s in r["seconds"])
        print(f"{r['job']:12} median {r['median']:6.2f} s  {r['ratio_to_cp']:5.2f} x cp  {r['peak_anonymous_mb']:6.1f} MB anonymous  ({each})")


if __name__ == "__main__":
    main()

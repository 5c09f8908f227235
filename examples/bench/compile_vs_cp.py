#!/usr/bin/env python3
"""Compile time and memory beside `cp` of the same checkpoint, alternating in one run.

    cargo build --release && python3 examples/bench/compile_vs_cp.py [--preset 1.8b] [--rounds 3] [--only coreai] [--json]

Prints, of `cp` and of each compile (ONNX, both layouts of Core ML, and Core AI in fp16, with fp16 weights and in parts), medians of the wall time and of the processor seconds in user
and kernel mode, the ratio of the wall times, and the peak of anonymous memory (RssAnon of /proc/PID/status, sampled every 2 ms:
resident memory less file-backed pages, which the kernel can drop at will). The checkpoint is read once before the first round, so
that it lies in the page cache. On a machine that other programs use, only processor seconds can be compared: `bound` is what a
compile would take if it had the processors for itself and they shared its work evenly.
`--only TEXT` leaves out the compiles without TEXT in their name. Everything is written to one folder, so to one disk. Needs Linux, and room for three copies of the checkpoint.
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
    """(seconds, user seconds, system seconds, peak anonymous MB)"""
    start = time.monotonic()
    process = subprocess.Popen([str(c) for c in command])
    peak = 0
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        peak = max(peak, anonymous_kib(process.pid))
        time.sleep(0.002)
    seconds = time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command} failed")
    return seconds, usage.ru_utime, usage.ru_stime, peak * 1024 / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="1.8b")
    parser.add_argument("--latent", default="3x36x64")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/s2ditc")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--only", default="", metavar="TEXT")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory(dir=args.folder) as work:
        work = Path(work)
        checkpoint = work / "checkpoint"
        init, _, _, init_memory = run([args.binary, "init", "-q", "--preset", args.preset, "--seed", 1, "-o", checkpoint])
        weights = checkpoint / WEIGHTS
        size = weights.stat().st_size
        os.sync()
        with weights.open("rb") as file:
            while file.read(1 << 24):
                pass

        # `cp` does not wait for the disk either.
        base = [args.binary, "compile", "-q", "--no-sync", checkpoint, "--latent", args.latent, "--precision", "fp16"]
        weights_alone = ["fp16-weights" if word == "fp16" else word for word in base]
        jobs = {
            "cp": ["cp", weights, work / "copy"],
            "coreml ane": base + ["--target", "coreml", "--compute", "ane", "-o", work / "out.mlpackage"],
            "coreml any": base + ["--target", "coreml", "--compute", "any", "-o", work / "out.mlpackage"],
            "coreai": base + ["--target", "coreai", "-o", work / "out.aimodel"],
            "coreai fp16-weights": weights_alone + ["--target", "coreai", "-o", work / "out.aimodel"],
            "coreai parts": base + ["--target", "coreai", "--partition", "auto", "-o", work / "parts"],
            "onnx fp16": base + ["--target", "onnx", "-o", work / "out.onnx"],
        }
        jobs = {name: job for name, job in jobs.items() if name == "cp" or args.only in name}
        runs = {k: [] for k in jobs}
        for _ in range(args.rounds):
            for name, command in jobs.items():
                runs[name].append(run(command))
                for made in work.iterdir():
                    if made != checkpoint:
                        shutil.rmtree(made) if made.is_dir() else made.unlink()
                os.sync()

    cp = statistics.median(r[0] for r in runs["cp"])
    rows = []
    for job, measured in runs.items():
        wall, user, system, _ = (statistics.median(column) for column in zip(*measured))
        rows.append(
            {
                "job": job,
                "seconds": [r[0] for r in measured],
                "median": wall,
                "ratio_to_cp": wall / cp,
                "user": user,
                "system": system,
                "bound": (user + system) / (1 if job == "cp" else os.cpu_count()),
                "peak_anonymous_mb": max(r[3] for r in measured),
            }
        )
    if args.json:
        print(json.dumps({"preset": args.preset, "bytes": size, "init_seconds": init, "init_peak_anonymous_mb": init_memory, "jobs": rows}))
        return
    print(f"{args.preset}: {size / 1e9:.2f} GB bf16; init {init:.1f} s, {init_memory:.0f} MB anonymous")
    print(f"{'job':20} {'wall':>7} {'x cp':>6} {'user':>7} {'system':>7} {'bound':>7} {'anonymous':>10}")
    for r in rows:
        each = " ".join(f"{s:.1f}" for s in r["seconds"])
        print(
            f"{r['job']:20} {r['median']:6.2f}s {r['ratio_to_cp']:5.2f}x {r['user']:6.2f}s {r['system']:6.2f}s "
            f"{r['bound']:6.2f}s {r['peak_anonymous_mb']:7.1f} MB  ({each})"
        )


if __name__ == "__main__":
    main()

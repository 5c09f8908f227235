#!/usr/bin/env python3
"""Compile time and memory of public models at their true sizes, beside `cp` of the same weights: one model on the disk at a time.

    cargo build --release && python3 examples/bench/models.py [PRESET[:LATENT] ...] [--json]

For each preset a checkpoint with seeded random weights is made, copied once, compiled to a Core ML package in fp16 for the Neural Engine and
to one with 4-bit palettes, and deleted. Prints seconds, the peak of anonymous memory (RssAnon of /proc/PID/status, sampled every 2 ms), and the
sizes of the results. Needs Linux, and room for three copies of the largest checkpoint.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from compile_vs_cp import ROOT, run

MODELS = ["1.8b:3x36x64", "wan2.1-1.3b:3x36x64", "self-forcing-1.3b:3x36x64", "ltx-video-2b:3x12x16", "sana-video-2b:3x36x64"]
SCHEMES = {"fp16": [], "palette4": ["--quantize", "palette4-group16"]}


def size_of(path):
    return sum(f.stat().st_size for f in Path(path).rglob("*") if f.is_file())


def measure(binary, preset, latent, folder):
    checkpoint, copy = folder / "checkpoint", folder / "copy"
    run([binary, "init", "-q", "--preset", preset, "--seed", 1, "-o", checkpoint])
    row = {"preset": preset, "latent": latent, "bytes": size_of(checkpoint)}
    for file in checkpoint.glob("*.safetensors"):
        run(["cp", file, "/dev/null"])
    row["cp_seconds"] = run(["cp", "-r", checkpoint, copy])[0]
    shutil.rmtree(copy)
    for name, flags in SCHEMES.items():
        out = folder / f"{name}.mlpackage"
        seconds, user, system, peak = run([binary, "compile", "-q", "--no-sync", checkpoint, "--target", "coreml", "--latent", latent, *flags, "-o", out])
        row[name] = {"seconds": seconds, "user": user, "system": system, "anonymous_mb": peak, "bytes": size_of(out)}
        shutil.rmtree(out)
    shutil.rmtree(checkpoint)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS, help="presets with latents, such as wan2.1-14b:3x36x64")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    binary = ROOT / "target" / "release" / "s2ditc"
    if not binary.exists():
        sys.exit(f"{binary} is not there: run cargo build --release")
    rows = []
    for model in args.models:
        preset, _, latent = model.partition(":")
        with tempfile.TemporaryDirectory(prefix="s2ditc-models-") as folder:
            rows.append(measure(binary, preset, latent or "3x36x64", Path(folder)))
        if args.json:
            continue
        row = rows[-1]
        text = f"{row['preset']:<20} {row['latent']:<8} {row['bytes'] / 1e9:5.2f} GB  cp {row['cp_seconds']:5.1f} s"
        for name in SCHEMES:
            of = row[name]
            text += f"   {name} {of['seconds']:5.1f} s, {of['anonymous_mb']:4.0f} MB, {of['bytes'] / 1e9:5.2f} GB"
        print(text, flush=True)
    if args.json:
        print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()

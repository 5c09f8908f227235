#!/usr/bin/env python3
"""Estimated time of a package beside what coremltools makes of the same PyTorch model, under one cost model.

    pip install torch==2.7.1 coremltools==9.0 'numpy<2' safetensors
    cargo build --release && python3 examples/bench/estimate_vs_coremltools.py [--preset small] [--latent 3x36x64] [--device iphone16promax] [--json]

`s2ditc estimate` reads the packages back from disk and costs every op by what it does, whoever wrote it. What matters is the ratio of the likely
times: all packages compute the same step of the same model on the same device. `s2ditc` is the package without a device, `--device` the one that is
compiled for this device. Exit code 1 if the ratio of the latter is above 0.8.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from op_budget import ROOT, convert

MOST = 0.8


def estimated(binary, package, device):
    command = [binary, "estimate", package, "--device", device, "--json"]
    report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    function = report["functions"][0]
    return {
        "ms": report["step_ms"],
        "ops": function["ops"],
        "gflop": function["flops"] / 1e9,
        "bound_by": report["bound_by"],
        "spent_ms": report["spent_ms"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=JSON", help="a field of the configuration")
    parser.add_argument("--latent", default="3x36x64")
    parser.add_argument("--device", default="iphone16promax")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/s2ditc")
    args = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        checkpoint = work / "checkpoint"
        changes = [part for change in args.set for part in ("--set", change)]
        subprocess.run([args.binary, "init", "-q", "--preset", args.preset, *changes, "-o", checkpoint], check=True)
        theirs, ours = work / "theirs.mlpackage", work / "ours.mlpackage"
        convert(checkpoint, [int(side) for side in args.latent.split("x")], theirs)
        command = [args.binary, "compile", "-q", checkpoint, "--target", "coreml", "--latent", args.latent]
        subprocess.run([*command, "--timesteps", "from-config", "-o", ours], check=True)
        tuned = work / "tuned.mlpackage"
        subprocess.run([*command, "--timesteps", "from-config", "--device", args.device, "-o", tuned], check=True)
        for name, package in {"coremltools": theirs, "s2ditc": ours, "s2ditc --device": tuned}.items():
            rows[name] = estimated(args.binary, package, args.device)
    likely = {name: row["ms"]["likely"] for name, row in rows.items()}
    ratios = {name: ms / likely["coremltools"] for name, ms in likely.items()}
    ratio = ratios["s2ditc --device"]
    if args.json:
        print(json.dumps({"preset": args.preset, "latent": args.latent, "device": args.device, "ratios": ratios, **rows}, indent=2))
    else:
        print(f"{args.preset}, latent {args.latent}, fp16, {args.device}")
        print(f"{'':17}{'likely ms':>11}{'low – high':>18}{'ops':>7}{'GFLOP':>9}{'ratio':>8}  bound by, ms")
        for name, row in rows.items():
            span = f"{row['ms']['low']:.1f} – {row['ms']['high']:.1f}"
            spent = ", ".join(f"{what} {ms:.1f}" for what, ms in row["spent_ms"].items())
            print(f"{name:17}{row['ms']['likely']:11.1f}{span:>18}{row['ops']:7}{row['gflop']:9.1f}{ratios[name]:7.2f}×  {spent}")
        print(f"{ratio:.2f}× (at most {MOST})")
    return 0 if ratio <= MOST else 1


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Ops a block of the package, beside what coremltools makes of the PyTorch reference.

    pip install torch==2.7.1 coremltools==9.0 'numpy<2' safetensors
    cargo build --release && python3 examples/bench/op_budget.py [--preset small] [--latent 3x36x64] [--json]

Both packages are judged by `s2ditc lint`, which finds blocks in the names of ops and of their weights. An iPhone compiles a package when
it loads it, and the time follows the number of ops. A preset is made with `s2ditc init`; the ops do not depend on the weights.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import coremltools as ct
import numpy as np
import torch
from coremltools_packages import rope_from_constants, time_in_fp32

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples/reference"))
import s2dit  # noqa: E402

OURS = {
    "s2ditc --attention batched": ["--timesteps", "from-config"],
    "s2ditc --device iphone16promax": ["--timesteps", "from-config", "--device", "iphone16promax"],
    "s2ditc --attention per-head": ["--timesteps", "from-config", "--attention", "per-head"],
    "s2ditc --compute any": ["--compute", "any"],
}


def convert(checkpoint, latent, out):
    """The reference through torch.jit.trace and coremltools, fp16, iOS 18."""
    config = json.loads((checkpoint / "config.json").read_text())
    s2dit.Conditioning.time = time_in_fp32
    s2dit.apply_rope = rope_from_constants
    model = s2dit.load(checkpoint, torch.float32)
    frames, rows, cols = latent
    inputs = {
        "latent": torch.zeros(1, config["in_channels"], frames, rows, cols),
        "timestep": torch.tensor([500.0]),
        "text": torch.zeros(1, config["text_len"], config["text_dim"]),
    }
    with torch.no_grad():
        traced = torch.jit.trace(model, tuple(inputs.values()), check_trace=False)
    package = ct.convert(
        traced,
        inputs=[ct.TensorType(name, shape=x.shape, dtype=np.float32) for name, x in inputs.items()],
        outputs=[ct.TensorType("velocity")],
        minimum_deployment_target=ct.target.iOS18,
        compute_precision=ct.precision.FLOAT16,
        skip_model_load=True,
    )
    package.save(str(out))


def judged(binary, package):
    report = json.loads(subprocess.run([binary, "lint", "--json", package], check=True, capture_output=True).stdout)
    summary = report["packages"][0]["summary"]
    blocks = summary["functions"][0]["blocks"]
    return {
        "ops": sum(summary["ops"].values()),
        "a_block": sum(blocks.values()) / max(1, len(blocks)),
        "most_frequent": Counter(summary["ops"]).most_common(5),
        "transposes": summary["ops"].get("transpose", 0),
        "reshapes": summary["ops"].get("reshape", 0),
        "leave": summary["verdicts"]["leaves"] + summary["verdicts"]["may_leave"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--latent", default="3x36x64")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/s2ditc")
    args = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        checkpoint = work / "checkpoint"
        subprocess.run([args.binary, "init", "-q", "--preset", args.preset, "-o", checkpoint], check=True)
        for name, flags in {"coremltools": None, **OURS}.items():
            out = work / "x.mlpackage"
            start = time.monotonic()
            if flags is None:
                convert(checkpoint, [int(side) for side in args.latent.split("x")], out)
            else:
                command = [args.binary, "compile", "-q", checkpoint, "--target", "coreml", "--latent", args.latent, *flags]
                subprocess.run([*command, "-o", out], check=True)
            rows[name] = {"seconds": time.monotonic() - start, **judged(args.binary, out)}
            subprocess.run(["rm", "-r", out], check=True)
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{args.preset}, latent {args.latent}, fp16")
    print(f"{'':31}{'ops':>7}{'a block':>9}{'transpose':>11}{'reshape':>9}{'off ANE':>9}{'seconds':>9}  most frequent")
    for name, row in rows.items():
        frequent = ", ".join(f"{n} {op}" for op, n in row["most_frequent"])
        print(
            f"{name:31}{row['ops']:7}{row['a_block']:9.1f}{row['transposes']:11}{row['reshapes']:9}{row['leave']:9}"
            f"{row['seconds']:9.1f}  {frequent}"
        )


if __name__ == "__main__":
    main()

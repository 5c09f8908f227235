#!/usr/bin/env python3
"""Size and SNR of `small` in several schemes and plans, against float64 PyTorch (the golden `small`).

    cargo build --release && python3 examples/bench/quantize_table.py

Each row is an fp16 package, run with fp32 arithmetic on the weights that it stores. Plans are made on seeded noise; the golden's
inputs are none of it.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LATENT = "3x16x24"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/s2ditc")
    args = parser.parse_args()
    golden = ROOT / "tests/goldens/small/golden.safetensors"

    def s2ditc(*arguments):
        command = [str(a) for a in (args.binary, *arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        checkpoint, package = work / "checkpoint", work / "x.mlpackage"
        s2ditc("init", "-q", "--preset", "small", "--seed", 7, "--dtype", "bf16", "-o", checkpoint)

        def row(name, how):
            base = ("compile", "-q", "--json", checkpoint, "--target", "coreml", "--latent", LATENT)
            size = json.loads(s2ditc(*base, "--quantize", how, "-o", package))["weight_bytes"]
            report = json.loads(s2ditc("verify", "-q", "--json", package, "--golden", golden, "--min-snr", 0))
            print(f"| {name} | {size / 1e6:.1f} MB | {report['rows'][0]['snr_db']:.1f} dB |", flush=True)
            return size

        def plan(*goal):
            path = work / "plan.toml"
            s2ditc("quantize", "-q", checkpoint, "--latent", LATENT, *goal, "-o", path)
            return path

        print("| `small` | weights | SNR |\n|---|---|---|")
        row("fp16", "fp16")
        row("int8", "int8")
        row("int8, and int8 activations (`--scheme w8a8`)", plan("--scheme", "w8a8"))
        row("8-bit palettes (`palette8-group16`)", "palette8-group16")
        row("6-bit palettes (`palette6-group16`)", "palette6-group16")
        four = row("4-bit palettes (`palette4-group16`)", "palette4-group16")
        calibrated = plan("--scheme", "palette4-group16", "--calibrate", "seeded")
        row("the same, `--calibrate seeded`", calibrated)
        row("`--target-size` of the same bytes", plan("--target-size", f"{four}B"))
        row("`--min-snr 35`", plan("--min-snr", 35))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Packages that coremltools makes from the PyTorch reference, run by s2ditc on this machine, beside s2ditc's own.

    pip install torch==2.7.1 coremltools==9.0 'numpy<2' safetensors
    cargo build --release && python3 examples/bench/coremltools_packages.py [GOLDEN ...]

Two things at once: another tool's packages judge how s2ditc reads and runs MIL, and the table compares what each tool's package
loses against float64 PyTorch (SNR in dB; `fp16 ops` rounds every fp16 result).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples" / "reference"))
warnings.filterwarnings("ignore")

import coremltools as ct  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

import s2dit  # noqa: E402


def time_in_fp32(self, t):
    """coremltools has no float64: the sinusoid as any converter gets it."""
    half = self.freq_dim // 2
    omega = torch.tensor(10000.0 ** (-np.arange(half) / half), dtype=torch.float32)
    angle = t[:, None] * omega[None]
    temb = self.time_embedder(torch.cat([angle.cos(), angle.sin()], -1))
    return temb, self.time_proj(torch.nn.functional.silu(temb)).reshape(-1, 6, temb.shape[-1])


def rope_from_constants(x, angles):
    cos, sin = (torch.tensor(f(angles.numpy()), dtype=torch.float32) for f in (np.cos, np.sin))
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


def convert(name, precision, out):
    folder = ROOT / "tests" / "goldens" / name
    golden = load_file(folder / "golden.safetensors")
    names = ("latent", "timestep", "text")
    inputs = [golden[k] for k in names]
    model = s2dit.load(folder / "checkpoint", torch.float32)
    with torch.no_grad():
        traced = torch.jit.trace(model, inputs, check_trace=False)
    package = ct.convert(
        traced,
        inputs=[ct.TensorType(n, shape=x.shape, dtype=np.float32) for n, x in zip(names, inputs)],
        outputs=[ct.TensorType("velocity")],
        minimum_deployment_target=ct.target.iOS18,
        compute_precision=precision,
        skip_model_load=True,
    )
    package.save(str(out))


def snr(binary, package, golden, *flags):
    command = [binary, "verify", package, "--golden", golden, "--json", "--min-snr", "0", *flags]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["rows"][0]["snr_db"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("goldens", nargs="*", default=["tiny", "odd", "post", "per_head", "stride3"])
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/s2ditc")
    args = parser.parse_args()
    s2dit.Conditioning.time = time_in_fp32
    s2dit.apply_rope = rope_from_constants
    print(f"{'golden':10} {'tool':12} {'fp32':>7} {'fp16':>7} {'fp16 ops':>9}   SNR dB; seconds to make the fp16 package")
    for name in args.goldens:
        golden = ROOT / "tests/goldens" / name / "golden.safetensors"
        latent = "x".join(map(str, load_file(golden)["latent"].shape[2:]))
        for tool in ("coremltools", "s2ditc"):
            figures = []
            with tempfile.TemporaryDirectory() as work:
                for precision in ("fp32", "fp16"):
                    out = Path(work) / f"{precision}.mlpackage"
                    start = time.monotonic()
                    if tool == "coremltools":
                        convert(name, getattr(ct.precision, f"FLOAT{precision[2:]}"), out)
                    else:
                        checkpoint = golden.parent / "checkpoint"
                        command = [args.binary, "compile", "-q", checkpoint, "--target", "coreml", "--latent", latent]
                        subprocess.run([*command, "--precision", precision, "-o", out], check=True)
                    seconds = time.monotonic() - start
                    figures.append(snr(args.binary, out, golden))
                figures.append(snr(args.binary, out, golden, "--fp16"))
            print(f"{name:10} {tool:12} {figures[0]:7.1f} {figures[1]:7.1f} {figures[2]:9.1f}   {seconds:.2f} s")


if __name__ == "__main__":
    main()

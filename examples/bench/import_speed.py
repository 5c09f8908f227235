#!/usr/bin/env python3
"""Time and memory of an exported graph at a true size: `torch.export.save` of the PyTorch reference, read and compiled, beside `cp` of the file.

    cargo build --release
    venv/bin/python examples/bench/import_speed.py [--preset 1.8b] [--latent 1x8x8] [--json]

The model's configuration is that of `s2ditc init --preset`, its weights are PyTorch's own in bfloat16, and the graph is exported at a small latent: neither the number of
ops nor the weights depend on it. `inspect` imports the graph and recognises its formulas; `compile` is the whole way to a Core ML package in fp16. Prints seconds and the
peak of anonymous memory (RssAnon of /proc/PID/status, sampled every 2 ms). Needs Linux, PyTorch, memory for two copies of the weights, and
disk for three.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from compile_vs_cp import ROOT, run

# Runs in a process of its own, so that its memory is gone afterwards.
EXPORT = """
import sys
sys.path.insert(0, sys.argv[1])
import torch, s2dit
config = s2dit.Config.load(sys.argv[2])
frames, rows, cols = (int(side) for side in sys.argv[4].split("x"))
torch.manual_seed(1)
torch.set_default_dtype(torch.bfloat16)
with torch.no_grad():
    model = s2dit.S2DiTTransformer3DModel(config).to(torch.bfloat16).eval()
    inputs = torch.randn(1, config.in_channels, frames, rows, cols), torch.tensor([637.5]), torch.randn(1, config.text_len, config.text_dim)
    torch.export.save(torch.export.export(model, inputs), sys.argv[3])
print(sum(p.numel() for p in model.parameters()))
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="1.8b")
    parser.add_argument("--latent", default="1x8x8")
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/s2ditc")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="s2ditc-import-") as folder:
        folder = Path(folder)
        checkpoint, program, package = folder / "checkpoint", folder / "model.pt2", folder / "model.mlpackage"
        run([args.binary, "init", "-q", "--preset", args.preset, "-o", checkpoint])
        for weights in checkpoint.glob("*.safetensors"):
            weights.unlink()
        command = [sys.executable, "-c", EXPORT, ROOT / "examples/reference", checkpoint, program, args.latent]
        parameters = int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        run(["cp", program, "/dev/null"])
        row = {"preset": args.preset, "parameters": parameters, "bytes": program.stat().st_size}
        for name, command in {
            "cp": ["cp", program, folder / "copy"],
            "inspect": [args.binary, "inspect", "-q", program],
            "compile": [args.binary, "compile", "-q", "--no-sync", program, "--target", "coreml", "-o", package],
        }.items():
            seconds, user, system, memory = run(command)
            row[name] = {"seconds": seconds, "user": user, "system": system, "anonymous_mb": memory}
            (folder / "copy").unlink(missing_ok=True)
    if args.json:
        print(json.dumps(row, indent=2))
        return
    print(f"{row['preset']}: {row['parameters'] / 1e9:.2f} G parameters, {row['bytes'] / 1e9:.2f} GB")
    for name in ("cp", "inspect", "compile"):
        print(f"  {name:8} {row[name]['seconds']:6.2f} s, {row[name]['anonymous_mb']:6.0f} MB")


if __name__ == "__main__":
    main()

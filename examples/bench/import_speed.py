#!/usr/bin/env python3
"""Time and memory of exported graphs at true sizes: what `torch.export.save` wrote of a model, read and compiled, beside `cp` of the file.

    cargo build --release
    venv/bin/python examples/bench/import_speed.py [1.8b] [wan2.1-14b] [--latent 3x36x64] [--folder F] [--json]

`1.8b` is the PyTorch reference with the configuration of `s2ditc init --preset 1.8b`, `wan2.1-14b` is diffusers' class with the configuration of Wan 2.1 14B. The
weights are random numbers in bfloat16: every parameter is a mapping of one file of them, so that an export needs no memory for weights, and each has a storage of its own,
so that the program has all its bytes. `inspect` imports the graph and recognises its formulas; `compile` is the whole way to a Core ML package in fp16. Prints
seconds and the peak of anonymous memory (RssAnon of /proc/PID/status, sampled every 2 ms). One model lies on the disk at a time, beside its package; the copy of `cp` is
deleted before. Needs Linux, PyTorch 2.10 or later (which writes a program without holding it in memory), diffusers and accelerate for Wan, and room for two copies of the weights.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from compile_vs_cp import ROOT, run

MODELS = ["1.8b", "wan2.1-14b"]

# Runs in a process of its own, so that its memory is gone afterwards: MODEL, folder of the reference, folder to work in, file to write, latent.
EXPORT = """
import sys
from pathlib import Path
import torch
from torch import nn
from accelerate import init_empty_weights
name, reference, folder, program, latent = sys.argv[1:]
frames, rows, cols = (int(side) for side in latent.split("x"))
sys.path.insert(0, reference)
torch.set_default_dtype(torch.bfloat16)
with init_empty_weights(include_buffers=False):
    if name.startswith("wan"):
        from diffusers import WanTransformer3DModel
        model = WanTransformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=40, attention_head_dim=128, in_channels=16, out_channels=16, text_dim=4096, freq_dim=256, ffn_dim=13824,
            num_layers=40, cross_attn_norm=True, qk_norm="rms_norm_across_heads", eps=1e-6, rope_max_seq_len=1024,
        )
        named = ("hidden_states", "timestep", "encoder_hidden_states")
        options, channels, text = dict(return_dict=False), 16, (512, 4096)
    else:
        import s2dit
        config = s2dit.Config.load(Path(folder) / "checkpoint")
        model = s2dit.S2DiTTransformer3DModel(config)
        named, options, channels, text = ("x", "t", "text"), {}, config.in_channels, (config.text_len, config.text_dim)
model = model.to(torch.bfloat16).eval()
torch.manual_seed(1)
largest = max(p.numel() for p in model.parameters())
numbers = Path(folder) / "numbers"
with numbers.open("wb") as file:
    for start in range(0, largest, 1 << 24):
        block = torch.randn(min(1 << 24, largest - start)) * 0.02
        file.write(block.view(torch.uint8).numpy().tobytes())
for module in model.modules():
    for key, p in list(module.named_parameters(recurse=False)):
        values = torch.from_file(str(numbers), shared=False, size=p.numel(), dtype=torch.bfloat16)
        setattr(module, key, nn.Parameter(values.view(p.shape), requires_grad=False))
inputs = dict(zip(named, (torch.randn(1, channels, frames, rows, cols), torch.tensor([637.5]), torch.randn(1, *text))))
with torch.no_grad():
    torch.export.save(torch.export.export(model, (), inputs | options), program)
numbers.unlink()
print(sum(p.numel() for p in model.parameters()))
"""


def measure(args, name, folder):
    checkpoint, program, package = folder / "checkpoint", folder / "model.pt2", folder / "model.mlpackage"
    if not name.startswith("wan"):
        run([args.binary, "init", "-q", "--preset", name, "-o", checkpoint])
        for weights in checkpoint.glob("*.safetensors"):
            weights.unlink()
    command = [sys.executable, "-c", EXPORT, name, ROOT / "examples/reference", folder, program, args.latent]
    parameters = int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    run(["cp", program, "/dev/null"])
    row = {"model": name, "parameters": parameters, "bytes": program.stat().st_size}
    for job, command in {
        "cp": ["cp", program, folder / "copy"],
        "inspect": [args.binary, "inspect", "-q", program],
        "compile": [args.binary, "compile", "-q", "--no-sync", program, "--target", "coreml", "-o", package],
    }.items():
        seconds, user, system, memory = run(command)
        row[job] = {"seconds": seconds, "user": user, "system": system, "anonymous_mb": memory}
        (folder / "copy").unlink(missing_ok=True)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["1.8b"], help=", ".join(MODELS) + " [default: 1.8b]")
    parser.add_argument("--latent", default="3x36x64")
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/s2ditc")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = []
    for name in args.models:
        with tempfile.TemporaryDirectory(prefix="s2ditc-import-", dir=args.folder) as folder:
            rows.append(measure(args, name, Path(folder)))
        row = rows[-1]
        if args.json:
            continue
        print(f"{row['model']}: {row['parameters'] / 1e9:.2f} G parameters, {row['bytes'] / 1e9:.2f} GB")
        for job in ("cp", "inspect", "compile"):
            of = row[job]
            print(f"  {job:8} {of['seconds']:6.2f} s ({of['user']:.1f} s user, {of['system']:.1f} s system), {of['anonymous_mb']:6.0f} MB", flush=True)
    if args.json:
        print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()

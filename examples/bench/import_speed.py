#!/usr/bin/env python3
"""How long a program of `torch.export` takes to come in, and how much memory compiling it takes, at the true size of a model.

    cargo build --release && python3 examples/bench/import_speed.py [--blocks 24] [--heads 16] [--dtype bfloat16] [--compile] [--json]

The program is that of the PyTorch reference at the widths of the preset 1.8b, exported without weights (on the device `meta`); its weights, seeded
noise, are written block by block into an archive laid out as torch 2.8 and later do. `--heads 40 --blocks 40` is a model of 14B parameters.
Prints seconds of `compile --emit ir --after canonicalize`, which reads the whole graph and no
weight, and with `--compile` of `compile --target onnx --precision fp16`; of both the peak of anonymous memory (RssAnon, sampled every 2 ms). Needs Linux, torch 2.7, and
room for two copies of the weights.
"""

import argparse
import io
import json
import random
import sys
import tempfile
import zipfile
from pathlib import Path

from compile_vs_cp import ROOT, run

sys.path.insert(0, str(ROOT / "examples/reference"))

NUMBERS = {"float32": (7, 4), "bfloat16": (13, 2)}
BLOCK = 1 << 24


def program(blocks, heads, latent):
    """The JSON of the program, and the shapes of its weights."""
    import torch

    import s2dit

    runs = [("lcha", 2), ("ssa", 4), ("lcha", 3), ("ssa", 5), ("lcha", 3), ("ssa", 5), ("lcha", 2)]
    layout = [kind for kind, count in runs for _ in range(count)]
    layout = [layout[i * len(layout) // blocks] for i in range(blocks)]
    config = s2dit.Config(
        in_channels=16, out_channels=16, patch_size=[1, 2, 2], num_attention_heads=heads, attention_head_dim=128, ffn_dim=512 * heads, text_dim=4096,
        text_len=512, layout=layout,
    )
    with torch.device("meta"):
        model = s2dit.S2DiTTransformer3DModel(config).eval()
        frames, rows, cols = (int(n) for n in latent.split("x"))
        inputs = dict(x=torch.zeros(1, 16, frames, rows, cols), t=torch.zeros(1), text=torch.zeros(1, 512, 4096))
        # Tables of positions are numbers of the program, wherever the weights are.
        s2dit.rope_table, table = lambda *args: real(table, args), s2dit.rope_table
        with torch.no_grad():
            exported = torch.export.export(model, (), inputs)
    saved = io.BytesIO()
    torch.export.save(exported, saved)
    with zipfile.ZipFile(saved) as archive:
        name = next(n for n in archive.namelist() if n.endswith("serialized_exported_program.json"))
        return archive.read(name), {name: list(tensor.shape) for name, tensor in exported.state_dict.items()}


def real(table, args):
    import torch

    with torch.device("cpu"):
        return table(*args).to("meta")


def write(path, text, shapes, dtype):
    """The archive; the weights are written block by block. Returns their bytes."""
    number, size = NUMBERS[dtype]
    noise = random.Random(1).randbytes(BLOCK)
    if size == 2:
        # bf16 of magnitudes from 2^-8 to 2^-1: the exponent is the byte that comes second.
        noise = bytes(b if i % 2 == 0 else 0x3B | (b & 0x80) for i, b in enumerate(noise))
    else:
        noise = bytes(b if i % 4 != 3 else 0x3B | (b & 0x80) for i, b in enumerate(noise))
    config, total = {}, 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        put = lambda name, data: archive.writestr(f"model/{name}", data)
        put("archive_format", "pt2")
        put("archive_version", "0")
        put("byteorder", "little")
        put("models/model.json", text)
        put("data/constants/model_constants_config.json", json.dumps(dict(config={})))
        for i, (name, shape) in enumerate(shapes.items()):
            strides, step = [], 1
            for side in reversed(shape):
                strides.insert(0, step)
                step *= side
            config[name] = dict(
                path_name=f"weight_{i}", is_param=True, use_pickle=False,
                tensor_meta=dict(
                    dtype=number, sizes=[dict(as_int=n) for n in shape], strides=[dict(as_int=n) for n in strides], storage_offset=dict(as_int=0),
                    requires_grad=False, device=dict(type="cpu", index=None), layout=7,
                ),
            )
            left = step * size
            total += left
            info = zipfile.ZipInfo(f"model/data/weights/weight_{i}")
            with archive.open(info, "w", force_zip64=True) as entry:
                while left:
                    part = min(left, BLOCK)
                    entry.write(noise[:part])
                    left -= part
        put("data/weights/model_weights_config.json", json.dumps(dict(config=config)))
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=24)
    parser.add_argument("--heads", type=int, default=16, help="heads of width 128 [default: 16]")
    parser.add_argument("--latent", default="3x36x64")
    parser.add_argument("--dtype", choices=NUMBERS, default="bfloat16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="compile it as well")
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/s2ditc")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    text, shapes = program(args.blocks, args.heads, args.latent)
    with tempfile.TemporaryDirectory(dir=args.folder) as work:
        graph = Path(work) / "model.pt2"
        total = write(graph, text, shapes, args.dtype)
        row = {"blocks": args.blocks, "heads": args.heads, "latent": args.latent, "program_mb": len(text) / 1e6, "weights_gb": total / 1e9}
        ir = Path(work) / "model.s2"
        read = [run([args.binary, "compile", "-q", graph, "--target", "onnx", "--emit", "ir", "--after", "canonicalize", "-o", ir]) for _ in range(args.rounds)]
        row["import_seconds"], row["import_mb"] = min(r[0] for r in read), max(r[3] for r in read)
        row["import_processor_seconds"] = min(r[1] + r[2] for r in read)
        if args.compile:
            command = [args.binary, "compile", "-q", "--no-sync", graph, "--target", "onnx", "--precision", "fp16", "-o", Path(work) / "out.onnx"]
            row["compile_seconds"], _, _, row["compile_mb"] = run(command)
    print(json.dumps(row) if args.json else "\n".join(f"{key}: {value if isinstance(value, (int, str)) else round(value, 2)}" for key, value in row.items()))


if __name__ == "__main__":
    main()

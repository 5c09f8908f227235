#!/usr/bin/env python3
"""Draws docs/figures/overview.svg: the road from a checkpoint to the proof, and the sandwich of the 1.8B preset.

    cargo build --release && python3 examples/bench/draw_overview.py [--s2ditc PROGRAM] [--out FILE]

The sandwich is drawn from `s2ditc inspect --json`: a bar for each block, as tall as its number of tokens. Layout and tokens do not depend on
the width of the model, so a checkpoint of one narrow head is made for it.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INK, PAPER, LINE = "#1f2933", "#ffffff", "#9aa5b1"
COLOURS = {"lcha": "#2f6fb0", "ssa": "#d9822b", "full": "#5a8f3c"}
NAMES = {"lcha": "LCHA", "ssa": "SSA", "full": "full attention"}
WIDTH = 920


def layers(program, preset, latent):
    """(kind, blocks, tokens) of each layer of a preset."""
    with tempfile.TemporaryDirectory() as work:
        narrow = ["num_attention_heads=1", "attention_head_dim=6", "ffn_dim=1", "text_dim=1"]
        sets = [word for field in narrow for word in ("--set", field)]
        subprocess.run([program, "init", "-q", "--preset", preset, *sets, "-o", f"{work}/c"], check=True)
        told = subprocess.run([program, "inspect", "--json", "--latent", latent, f"{work}/c"], check=True, capture_output=True)
    model = json.loads(told.stdout)["model"]
    return [(layer["kind"], layer["blocks"], layer["tokens"]) for layer in model["layers"]]


def text(x, y, words, size=14, anchor="middle", weight="normal", colour=INK):
    return f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" fill="{colour}">{words}</text>'


def box(x, y, width, height, title, lines):
    out = [f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="#f5f7fa" stroke="{LINE}"/>']
    top = y + height / 2 - 9 * len(lines) + 5
    out.append(text(x + width / 2, top, title, 15, weight="bold"))
    out += [text(x + width / 2, top + 19 * (i + 1), line, 13) for i, line in enumerate(lines)]
    return out


def arrow(points):
    path = " ".join(f"{x},{y}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{INK}" stroke-width="1.5" marker-end="url(#head)"/>'


def road():
    out = box(16, 78, 148, 84, "checkpoint", ["config.json", "*.safetensors"])
    out += box(204, 78, 148, 84, "graph", ["plain tensor ops", "weights stay in files"])
    out += box(392, 78, 148, 84, "passes", ["fuse, rescale, split,", "quantize, lay out"])
    out += box(580, 30, 132, 62, ".mlpackage", ["iOS 18, macOS 15"])
    out += box(580, 148, 132, 62, ".onnx", ["ONNX Runtime"])
    out += box(752, 78, 152, 84, "proof", ["the file is read back,", "run, and compared"])
    out += box(392, 238, 148, 62, "PyTorch", ["float64"])
    out += [
        arrow([(164, 120), (200, 120)]),
        arrow([(352, 120), (388, 120)]),
        arrow([(540, 110), (560, 110), (560, 61), (576, 61)]),
        arrow([(540, 130), (560, 130), (560, 179), (576, 179)]),
        arrow([(712, 61), (732, 61), (732, 106), (748, 106)]),
        arrow([(712, 179), (732, 179), (732, 134), (748, 134)]),
        arrow([(90, 162), (90, 269), (388, 269)]),
        arrow([(540, 269), (828, 269), (828, 166)]),
    ]
    return out


def sandwich(found, preset, latent, top):
    tallest, left = 110, 16
    blocks = [(kind, tokens) for kind, count, tokens in found for _ in range(count)]
    most = max(tokens for _, tokens in blocks)
    pitch = (WIDTH - 2 * left) / len(blocks)
    out = [text(left, top, f"The sandwich of the {preset} preset: {len(blocks)} blocks", 15, "start", "bold")]
    out.append(text(WIDTH - left, top, f"height = tokens of a block, latent {latent}", 13, "end"))
    floor = top + 20 + tallest
    for i, (kind, tokens) in enumerate(blocks):
        height = tallest * tokens / most
        out.append(
            f'<rect x="{left + i * pitch + 2:.1f}" y="{floor - height:.1f}" width="{pitch - 4:.1f}" height="{height:.1f}" rx="2" fill="{COLOURS[kind]}"/>'
        )
    first = 0
    for kind, count, tokens in found:
        middle = left + (first + count / 2) * pitch
        out.append(text(f"{middle:.1f}", floor + 18, f"{count} × {NAMES[kind]}", 13, colour=COLOURS[kind], weight="bold"))
        out.append(text(f"{middle:.1f}", floor + 35, f"{tokens:,}", 12))
        first += count
    return out, floor + 50


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--s2ditc", default=str(ROOT / "target/release/s2ditc"))
    parser.add_argument("--preset", default="1.8b")
    parser.add_argument("--latent", default="3x36x64")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/figures/overview.svg")
    args = parser.parse_args()

    drawn, height = sandwich(layers(args.s2ditc, args.preset, args.latent), args.preset.upper(), args.latent, 345)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">',
        "<title>From a checkpoint to a proved package, and the sandwich of the model</title>",
        f'<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="{INK}"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" fill="{PAPER}"/>',
        *road(),
        *drawn,
        "</svg>",
    ]
    args.out.write_text("\n".join(out) + "\n")


if __name__ == "__main__":
    main()

"""Draws the picture of README.md: videos of held-out captions side by side, made by the compiled package with every result rounded to fp16.

    python picture.py --s2ditc ../../target/release/s2ditc     # writes docs/figures/toyworld.webp; under a minute
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

import program
import world
from program import run
from training import HERE, WEIGHTS

CAPTIONS = (
    "three small cyan squares moving up on a black background",
    "a large red circle moving right on a white background",
    "two small yellow circles moving right on a black background",
    "a large cyan triangle spinning on a black background",
    "a large green square moving right on a gradient background",
    "three small purple triangles moving down on a white background",
)
CHUNKS, SCALE, GAP, FPS = 5, 2, 8, 16
FILE = HERE.parents[1] / "docs" / "figures" / "toyworld.webp"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    program.add_argument(parser)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    program.check(args.s2ditc)
    heldout = {scene.caption() for scene in world.split("heldout")}
    seen = [caption for caption in CAPTIONS if caption not in heldout]
    if seen:
        sys.exit(f"not held out: {'; '.join(seen)}")
    videos = []
    with tempfile.TemporaryDirectory() as work:
        pipeline, out = Path(work) / "pipeline", Path(work) / "video.safetensors"
        run(args.s2ditc, "compile", "-q", WEIGHTS / "toyworld", "--target", "coreml", "--mode", "stream", "--size", "64x64", "-o", pipeline)
        for caption in CAPTIONS:
            run(args.s2ditc, "generate", "-q", "--force", pipeline, "--prompt", caption, "--chunks", CHUNKS, "--seed", args.seed, "--fp16", "-o", out)
            videos.append(load_file(out)["video"][0])
    # [3, T, 64, 64] each, side by side on transparent ground
    frames = []
    for t in range(videos[0].shape[1]):
        side, count = world.SIZE * SCALE, len(videos)
        frame = Image.new("RGBA", (count * side + (count - 1) * GAP, side))
        for number, video in enumerate(videos):
            pixels = ((video[:, t].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
            frame.paste(Image.fromarray(np.ascontiguousarray(pixels)).resize((side, side), Image.Resampling.LANCZOS), (number * (side + GAP), 0))
        frames.append(frame)
    frames[0].save(FILE, save_all=True, append_images=frames[1:], duration=round(1000 / FPS), loop=0, quality=60, method=6)
    print(f"{FILE}: {len(frames)} frames of {frames[0].width}x{frames[0].height}, {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()

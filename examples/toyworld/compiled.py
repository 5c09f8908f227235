"""Grades what the compiler makes of the streaming model: precisions and quantizations, by videos of held-out captions. Writes compiled.json and prints its table.

    python compiled.py --s2ditc ../../target/release/s2ditc            # every variant; about ten minutes on two cores
    python compiled.py "fp16, rounded" palette4 -n 8 --s2ditc s2ditc   # some, quickly; writes nothing

`reference` is PyTorch's own stream of the same captions and the same noise, decoded in float32: a compiled variant is as good as its interval meets the reference's. `dB` is
the distance of the variant's latents from the float64 golden's, the chunk that is farthest.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import decoder as decoder_of
import golden
import grader
import models
import table
import text as text_of
import world
from training import HERE, WEIGHTS

CHUNKS = 2
PIPELINE = WEIGHTS / "toyworld"
COREML = ["--target", "coreml"]
# Flags of compile, and whether every result is rounded to fp16.
VARIANTS = {
    "onnx fp32": (["--target", "onnx"], False),
    "fp16, fp32 arithmetic": (COREML, False),
    "fp16, rounded": (COREML, True),
    "int8": ([*COREML, "--quantize", "int8"], True),
    "int4-block32": ([*COREML, "--quantize", "int4-block32"], True),
    **{f"palette{bits}": ([*COREML, "--quantize", f"palette{bits}"], True) for bits in (8, 6, 4, 3, 2)},
    "palette4-group16": ([*COREML, "--quantize", "palette4-group16"], True),
}


def run(s2ditc, *args):
    done = subprocess.run([s2ditc, *map(str, args)], capture_output=True, text=True)
    if done.returncode not in (0, 1) or (done.returncode == 1 and args[0] != "verify"):
        sys.exit(f"s2ditc {' '.join(map(str, args))}: {done.stderr}")
    return done.stdout


def noises(count, seed):
    """The noise of each video, `stream.noise` of its file."""
    config = models.Config.load(models.FOLDERS["ar"])
    generator = torch.Generator().manual_seed(seed)
    shape = (CHUNKS, len(config.sample_steps), 1, config.in_channels, config.chunk_frames, 8, 8)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


@torch.no_grad()
def reference(scenes, noise):
    """PyTorch's videos, a caption after the other."""
    from stream import stream

    encoder, decoder = text_of.load_encoder(), decoder_of.load()
    model = models.s2dit.load(models.FOLDERS["ar"], torch.float32)
    for scene, one in zip(scenes, noise):
        text = text_of.encode(encoder, text_of.tokens([scene.caption()]))
        latents = stream(model, text, one)
        yield decoder(torch.cat(list(latents), 2)).clamp(-1, 1)[0]


def videos(s2ditc, pipeline, rounded, scenes, noise, work):
    """The videos of a compiled pipeline."""
    for scene, one in zip(scenes, noise):
        save_file({"stream.noise": one}, work / "noise.safetensors")
        out = work / "video.safetensors"
        flags = ["--fp16"] if rounded else []
        run(s2ditc, "generate", "-q", "--force", pipeline, "--prompt", scene.caption(), "--noise", work / "noise.safetensors", *flags, "-o", out)
        yield load_file(out)["video"][0]


def distance(s2ditc, pipeline, rounded):
    """The SNR of the worst chunk against float64 PyTorch, in dB."""
    flags = ["--fp16"] if rounded else []
    report = json.loads(run(s2ditc, "verify", "-q", "--json", pipeline / "Transformer", "--golden", golden.FILE, *flags))
    return min(row["snr_db"] for row in report["rows"])


def size(pipeline):
    return sum(f.stat().st_size for f in (pipeline / "Transformer").rglob("*") if f.is_file())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="*", help=f"of {'; '.join(VARIANTS)} (default: all)")
    parser.add_argument("--s2ditc", default="s2ditc", help="the program")
    parser.add_argument("-n", type=int, default=32, help="captions")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if unknown := set(args.variants) - set(VARIANTS):
        parser.error(f"no variant {', '.join(sorted(unknown))}: expected any of {'; '.join(VARIANTS)}")
    rng = np.random.default_rng(args.seed)
    everything = world.split("heldout")
    scenes = [everything[i] for i in rng.permutation(len(everything))[: args.n]]
    noise = noises(len(scenes), args.seed)
    results = {"captions": len(scenes), "chunks": CHUNKS, "seed": args.seed, "variants": {}}

    def add(name, clips, **more):
        grades = table.summary([grader.grade(clip, scene) for clip, scene in zip(clips, scenes, strict=True)], rng)
        results["variants"][name] = {**more, "grades": grades}
        total = grades["total"]
        figures = "  ".join(f"{key} {value}" for key, value in more.items())
        print(f"{name}: total {total[0]:.3f} ({total[1]:.3f} to {total[2]:.3f})  {figures}", flush=True)

    add("reference", reference(scenes, noise))
    for name in args.variants or VARIANTS:
        flags, rounded = VARIANTS[name]
        with tempfile.TemporaryDirectory() as work:
            work = Path(work)
            pipeline = work / "pipeline"
            run(args.s2ditc, "compile", "-q", PIPELINE, *flags, "--mode", "stream", "--size", "64x64", "-o", pipeline)
            snr = round(distance(args.s2ditc, pipeline, rounded), 1)
            add(name, videos(args.s2ditc, pipeline, rounded, scenes, noise, work), dB=snr, bytes=size(pipeline))
    print("\n| | dB | MB | semantic | quality | total | 95 % |\n|---|---|---|---|---|---|---|")
    for name, row in results["variants"].items():
        grades = row["grades"]
        megabytes = f"{row['bytes'] / 1e6:.2f}" if "bytes" in row else ""
        print(
            f"| {name} | {row.get('dB', '')} | {megabytes} | {grades['semantic'][0]:.3f} | {grades['quality'][0]:.3f} | {grades['total'][0]:.3f} | "
            f"{grades['total'][1]:.3f}–{grades['total'][2]:.3f} |"
        )
    if not args.variants:
        (HERE / "compiled.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

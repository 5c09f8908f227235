"""Grades what the compiler makes of the streaming model: precisions, quantizations and long streams, by videos of held-out captions. Writes compiled.json and
prints its tables.

    python compiled.py --s2ditc ../../target/release/s2ditc            # every variant and policy
    python compiled.py "fp16, rounded" palette4 -n 8 --s2ditc s2ditc   # some, quickly; writes nothing

`reference` is PyTorch's own stream of the same captions and the same noise, decoded in float32: a compiled variant is as good as its interval meets the reference's. `dB` is
the distance of the variant's latents from the float64 golden's, the chunk that is farthest. Variants with `calibrated` have a plan of `s2ditc quantize` that saw
latents of training captions. Streams are of 1,000 chunks, graded in windows of 24 frames that end with the chunk named, and come from the package with every result rounded to fp16.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import decoder as decoder_of
import golden
import grader
import models
import program
import table
import text as text_of
import world
from latents import Basis
from program import run
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
# Flags of quantize, which makes a plan from samples.
PLANS = {
    "palette4, calibrated": ["--scheme", "palette4"],
    "palette3, calibrated": ["--scheme", "palette3"],
    "w8a8, calibrated": ["--scheme", "w8a8"],
    "w4a8, calibrated": ["--scheme", "w4a8"],
    "30 dB, calibrated": ["--min-snr", "30"],
}
# What a policy of the states changes in the configuration, and flags of compile. The model was trained with the first.
POLICIES = {
    "last_step, window 6": ({}, []),
    "commit, window 6": ({"state_write": "commit"}, []),
    "last_step, window 6, sink 3": ({"sink_frames": 3}, []),
    "last_step, window 12": ({"window_frames": 12}, []),
    "last_step, window 6, palette4": ({}, ["--quantize", "palette4"]),
}
PLACES = (4, 250, 500, 750, 1000)


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
    report = json.loads(run(s2ditc, "verify", "-q", "--json", pipeline / "Transformer", "--golden", golden.FILE, *flags, codes=(0, 1)))
    return min(row["snr_db"] for row in report["rows"])


@torch.no_grad()
def save_samples(file, seed, count=16):
    """Latents of training captions with the noise of the sampler's steps: what the transformer sees."""
    config, rng = models.Config.load(models.FOLDERS["ar"]), np.random.default_rng([seed, 9])
    steps = table.schedule(config)
    everything = world.split("train")
    scenes = [everything[i] for i in rng.integers(0, len(everything), count)]
    torch.manual_seed(seed)
    clean = Basis.load().encode(world.clips(scenes, 9, rng))
    chosen = [steps[i % len(steps)] for i in range(count)]
    sigma = torch.tensor([sigma for _, sigma in chosen]).view(-1, 1, 1, 1, 1)
    text = text_of.encode(text_of.load_encoder(), text_of.tokens([scene.caption() for scene in scenes]))
    latent = (1 - sigma) * clean + sigma * torch.randn_like(clean)
    save_file({"latent": latent.contiguous(), "timestep": torch.tensor([float(t) for t, _ in chosen]), "text": text.contiguous()}, file)


def long_stream(s2ditc, policy, scenes, work, seed):
    """Grades of streams of 1,000 chunks under a policy, by place."""
    changes, flags = POLICIES[policy]
    folder, kernel = work / "transformer", work / "kernel"
    shutil.copytree(PIPELINE / "transformer", folder)
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    run(s2ditc, "compile", "-q", folder, *COREML, *flags, "--mode", "stream", "--latent", "8x8", "-o", kernel)
    encoder, decoder, grades = text_of.load_encoder(), decoder_of.load(), {place: [] for place in PLACES}
    for number, scene in enumerate(scenes):
        with torch.no_grad():
            save_file({"text": text_of.encode(encoder, text_of.tokens([scene.caption()])).contiguous()}, work / "text.safetensors")
        out, chunk = work / "latents.safetensors", config["chunk_frames"]
        run(s2ditc, "stream", "-q", "--force", kernel, "--prompt", work / "text.safetensors", "--chunks", max(PLACES), "--seed", seed + number, "--fp16", "-o", out)
        latents = next(iter(load_file(out).values())).float()
        # [chunks, 1, C, F, h, w], or the frames of all chunks in one axis
        latents = torch.cat(list(latents), 2) if latents.dim() == 6 else latents
        for place in PLACES:
            with torch.no_grad():
                video = decoder(latents[:, :, max(0, (place - 4) * chunk) : place * chunk])[0, :, -24:].clamp(-1, 1)
            grades[place].append(grader.grade(video, scene))
    return grades


def size(pipeline):
    return sum(f.stat().st_size for f in (pipeline / "Transformer").rglob("*") if f.is_file())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [*VARIANTS, *PLANS, *POLICIES]
    parser.add_argument("variants", nargs="*", help=f"of {'; '.join(known)} (default: all)")
    program.add_argument(parser)
    parser.add_argument("-n", type=int, default=32, help="captions")
    parser.add_argument("--streams", type=int, default=4, help="captions of long streams")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if unknown := set(args.variants) - set(known):
        parser.error(f"no variant {', '.join(sorted(unknown))}: expected any of {'; '.join(known)}")
    program.check(args.s2ditc)
    chosen = args.variants or known
    rng = np.random.default_rng(args.seed)
    everything = world.split("heldout")
    scenes = [everything[i] for i in rng.permutation(len(everything))[: args.n]]
    noise = noises(len(scenes), args.seed)
    results = {"captions": len(scenes), "chunks": CHUNKS, "seed": args.seed, "variants": {}, "streams": {}}

    def add(name, clips, **more):
        grades = table.summary([grader.grade(clip, scene) for clip, scene in zip(clips, scenes, strict=True)], rng)
        results["variants"][name] = {**more, "grades": grades}
        total = grades["total"]
        figures = "  ".join(f"{key} {value}" for key, value in more.items())
        print(f"{name}: total {total[0]:.3f} ({total[1]:.3f} to {total[2]:.3f})  {figures}", flush=True)

    if set(chosen) & {*VARIANTS, *PLANS}:
        add("reference", reference(scenes, noise))
    for name in (name for name in chosen if name not in POLICIES):
        with tempfile.TemporaryDirectory() as work:
            work = Path(work)
            pipeline = work / "pipeline"
            if name in PLANS:
                save_samples(work / "samples.safetensors", args.seed)
                plan = ["--latent", "3x8x8", "--calibrate", work / "samples.safetensors", "-o", work / "plan.toml"]
                run(args.s2ditc, "quantize", "-q", PIPELINE / "transformer", *PLANS[name], *plan)
                flags, rounded = [*COREML, "--quantize", work / "plan.toml"], True
            else:
                flags, rounded = VARIANTS[name]
            run(args.s2ditc, "compile", "-q", PIPELINE, *flags, "--mode", "stream", "--size", "64x64", "-o", pipeline)
            snr = round(distance(args.s2ditc, pipeline, rounded), 1)
            add(name, videos(args.s2ditc, pipeline, rounded, scenes, noise, work), dB=snr, bytes=size(pipeline))
    for name in (name for name in chosen if name in POLICIES):
        with tempfile.TemporaryDirectory() as work:
            grades = long_stream(args.s2ditc, name, scenes[: args.streams], Path(work), args.seed)
        results["streams"][name] = {str(place): table.summary(of, rng) for place, of in grades.items()}
        print(f"{name}: " + "  ".join(f"chunk {place} {row['total'][0]:.3f}" for place, row in results["streams"][name].items()), flush=True)
    print("\n| | dB | MB | semantic | quality | total | 95 % |\n|---|---|---|---|---|---|---|")
    for name, row in results["variants"].items():
        grades = row["grades"]
        megabytes = f"{row['bytes'] / 1e6:.2f}" if "bytes" in row else ""
        print(
            f"| {name} | {row.get('dB', '')} | {megabytes} | {grades['semantic'][0]:.3f} | {grades['quality'][0]:.3f} | {grades['total'][0]:.3f} | "
            f"{grades['total'][1]:.3f}–{grades['total'][2]:.3f} |"
        )
    if not results["streams"]:
        return
    print("\n| 1,000 chunks: total (identity) | " + " | ".join(f"chunk {place}" for place in PLACES) + " |\n|---|" + "---|" * len(PLACES))
    for name, row in results["streams"].items():
        cells = [f"{grades['total'][0]:.3f} ({grades['identity'][0]:.2f})" for grades in row.values()]
        print(f"| {name} | " + " | ".join(cells) + " |")
    if not args.variants:
        (HERE / "compiled.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

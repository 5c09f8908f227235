"""Grades every variant on held-out captions: results.json, and the table of README.md.

    python table.py                        # all of them; about five minutes on one core
    python table.py pretrained kd -n 32    # some, quickly; writes nothing

Every variant gets the same captions, and noise of the same seeds. Intervals are 95 % bootstrap over captions.
"""

import argparse
import json
import time

import numpy as np
import torch

import decoder as decoder_of
import grader
import models
import text as text_of
import world
from latents import CHANNELS, Basis
from stream import schedule  # of examples/reference, whose path models.py adds
from training import HERE
from train_ar import call, new_pasts, renoised

FRAMES, GUIDANCE = 3, 2.0
CLIPS = ("truth", "autoencoder", "noise", "pretrained", "pretrained guided", "teacher", "kd", "ar")


class Maker:
    """Clips of a variant for captions."""

    def __init__(self, seed):
        self.seed, self.decoder, self.encoder = seed, decoder_of.load(), text_of.load_encoder()
        with torch.no_grad():
            self.empty = self.embedded([""])

    def embedded(self, captions):
        return text_of.encode(self.encoder, text_of.tokens(captions))

    @torch.no_grad()
    def clips(self, variant, scenes):
        """[B, 3, 9, 64, 64]"""
        torch.manual_seed(self.seed)
        rng = np.random.default_rng([self.seed, 5])
        if variant == "noise":
            return torch.rand(len(scenes), 3, 9, world.SIZE, world.SIZE) * 2 - 1
        if variant in ("truth", "autoencoder"):
            video = world.clips(scenes, 9, rng)
            return video if variant == "truth" else self.decoder(Basis.load().encode(video)).clamp(-1, 1)
        name, *guided = variant.split()
        model, text = models.load(name).eval(), self.embedded([s.caption() for s in scenes])
        if name == "ar":
            return self.decoder(torch.cat(list(chunks(model, text, 1)), 2)).clamp(-1, 1)
        noise = torch.randn(len(scenes), CHANNELS, FRAMES, 8, 8)
        return self.decoder(models.sample(model, text, self.empty, noise, GUIDANCE if guided else 1.0)).clamp(-1, 1)


@torch.no_grad()
def chunks(model, text, count):
    """A batch of streams, chunk by chunk."""
    config, steps = model.config, schedule(model.config)
    pasts = None
    for chunk in range(count):
        x = torch.randn(len(text), CHANNELS, config.chunk_frames, 8, 8)
        pasts = pasts or new_pasts(config, x)
        for i, (_, sigma) in enumerate(steps):
            clean, _ = call(model, x, sigma, text, chunk, pasts, writing=i == len(steps) - 1)
            x = renoised(clean, steps[i + 1][1]) if i + 1 < len(steps) else clean
        yield x


def interval(values, rng, draws=1000):
    values = np.asarray(values)
    means = values[rng.integers(0, len(values), (draws, len(values)))].mean(1)
    return [round(float(v), 3) for v in (values.mean(), *np.quantile(means, [0.025, 0.975]))]


def graded(clips, scenes):
    return [grader.grade(clip, scene) for clip, scene in zip(clips, scenes)]


def summary(grades, rng):
    return {name: interval([g[name] for g in grades], rng) for name in (*grader.NAMES, "semantic", "quality", "total")}


def stability(maker, scenes, count, every, rng):
    """Grades of two chunks (24 frames) at places along streams of `count` chunks."""
    torch.manual_seed(maker.seed)
    model, text = models.load("ar").eval(), maker.embedded([s.caption() for s in scenes])
    places, kept, out = [], [], {}
    for chunk, x in enumerate(chunks(model, text, count)):
        kept = (kept + [x])[-4:]
        if chunk in (3, *range(every - 1, count, every)):
            places.append(chunk + 1)
            with torch.no_grad():
                video = maker.decoder(torch.cat(kept, 2))[:, :, -24:].clamp(-1, 1)  # two chunks before, for the decoder's memory
            out[str(chunk + 1)] = summary(graded(video, scenes), rng)
            print(f"stream, chunk {chunk + 1}: total {out[str(chunk + 1)]['total'][0]:.3f}", flush=True)
    return out


def markdown(results):
    names = [*grader.NAMES, "total"]
    lines = ["| | " + " | ".join(names) + " | 95 % |", "|---|" + "---|" * (len(names) + 1)]
    for variant, grades in results["clips"].items():
        cells = [f"{grades[n][0]:.2f}" for n in names[:-1]] + [f"**{grades['total'][0]:.3f}**", f"{grades['total'][1]:.3f}–{grades['total'][2]:.3f}"]
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    lines += ["", "| chunks of a stream | " + " | ".join(results["stream"]) + " |", "|---|" + "---|" * len(results["stream"])]
    for name in ("total", "identity", "motion", "count"):
        lines.append(f"| {name} | " + " | ".join(f"{g[name][0]:.3f}" for g in results["stream"].values()) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="*", help=f"of {', '.join(CLIPS)}, stream (default: all)")
    parser.add_argument("-n", type=int, default=76, help="captions")
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--chunks", type=int, default=200)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--picture", help="writes the first frames of eight clips of each variant")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if unknown := set(args.variants) - {*CLIPS, "stream"}:
        parser.error(f"no variant {', '.join(sorted(unknown))}: expected any of {', '.join(CLIPS)}, stream")
    rng = np.random.default_rng(args.seed)
    everything = world.split("heldout")
    if not 1 <= args.n <= len(everything):
        parser.error(f"-n {args.n}: expected 1 to {len(everything)}, the captions that are held out")
    scenes = [everything[i] for i in rng.permutation(len(everything))[: args.n]]
    maker, results = Maker(args.seed), {"captions": len(scenes), "seed": args.seed, "guidance": GUIDANCE, "clips": {}, "stream": {}}
    for variant in args.variants or CLIPS:
        if variant == "stream":
            continue
        name = variant.split()[0]
        if name in models.FOLDERS and not models.FOLDERS[name].exists():
            print(f"{variant}: left out, as there is no {models.FOLDERS[name]}: it was not trained yet", flush=True)
            continue
        begin = time.time()
        clips = maker.clips(variant, scenes)
        made = time.time() - begin
        results["clips"][variant] = summary(graded(clips, scenes), rng)
        figures = "  ".join(f"{name} {value[0]:.2f}" for name, value in results["clips"][variant].items())
        print(f"{variant}: {figures}  (made in {made:.1f} s, all {time.time() - begin:.1f} s)", flush=True)
        if args.picture:
            from PIL import Image

            sheet = torch.cat([torch.cat(list(clips[:8, :, t]), 2) for t in (0, 4, 8)], 1)
            Image.fromarray(((sheet.clamp(-1, 1) + 1) * 127.5).byte().permute(1, 2, 0).numpy()).resize((1024, 384), 0).save(f"{args.picture}{variant.replace(' ', '-')}.png")
            for scene in scenes[:8]:
                print("   ", scene.caption())
    if not args.variants or "stream" in args.variants:
        results["stream"] = stability(maker, scenes[: args.streams], args.chunks, args.every, rng)
    if not args.variants:
        (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        print(markdown(results))


if __name__ == "__main__":
    main()

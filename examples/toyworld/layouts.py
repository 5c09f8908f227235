"""Compares layouts, as Tables 3 and 4 of the paper do: the same network, training and captions, with blocks in another order. Writes layouts.json and prints its table.

    python layouts.py                                   # all of them; about four minutes each on one core, resumed if stopped
    python layouts.py sandwich lcha --steps 100         # some, quickly; writes no layouts.json

s2ditc estimate says what a step takes on a phone.

Every layout begins from the same seed, sees the same batches and is judged after as many steps: this is far less training than the shipped weights had, and losses are to be compared with each other
alone. `loss` is that of flow matching on clips of all held-out captions, with noise of one seed at eight levels; grades are those of table.py. The text encoder is the shipped one, and does not learn.

`lcha, fewer` has five LCHA blocks, which are estimated to take about the time of the sandwich.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import decoder as decoder_of
import models
import program
import table
import text as text_of
import world
from latents import CHANNELS, Basis, Latents
from train_dit import FRAMES, caption_tokens, flow_loss, levels
from training import HERE, Training, stage_arguments

L, S, F = "lcha", "ssa", "full"
LAYOUTS = {
    "sandwich": [L, S, S, L, S, S, L],
    "hourglass": [L, L, S, S, S, S, L],
    "lcha": [L] * 7,
    "lcha, fewer": [L] * 5,
    "ssa": [S] * 7,
    "full": [F] * 7,
}
LEVELS = 8


def config_of(name):
    return replace(models.STUDENT, layout=LAYOUTS[name])


def trained(name, args, data, embedded):
    """The network of a layout, with averaged weights."""
    model = models.initial(config_of(name), args.seed)
    # A run is of a name and a number of steps: another number is another network.
    args.run = f"layout-{name.replace(', ', '-')}-{args.steps}"
    training = Training(args.run, {"model": model}, args, ema=0.99, every=50)

    def loss_of(step, rng):
        clean, scene = data.batch(rng, args.batch, FRAMES)
        scene = torch.where(torch.from_numpy(rng.random(args.batch) < 0.1), len(data.all), scene)
        return flow_loss(model, clean, embedded[scene], levels(rng, args.batch)), {}

    training.loop(loss_of)
    return model.eval()


@torch.no_grad()
def heldout_loss(model, encoder, seed):
    scenes, generator = world.split("heldout"), torch.Generator().manual_seed(seed)
    clean = Basis.load().encode(world.clips(scenes, 9, np.random.default_rng([seed, 3])))
    text = text_of.encode(encoder, text_of.tokens([scene.caption() for scene in scenes]))
    losses = []
    for i in range(LEVELS):
        sigma = models.shifted(torch.tensor((i + 0.5) / LEVELS))
        noise = torch.randn(clean.shape, generator=generator)
        made = model((1 - sigma) * clean + sigma * noise, 1000 * sigma.double().expand(len(clean)), text)
        losses.append(float((made - (noise - clean)).pow(2).mean()))
    return sum(losses) / LEVELS


@torch.no_grad()
def grades(model, encoder, decoder, scenes, seed):
    torch.manual_seed(seed)
    encoded = lambda captions: text_of.encode(encoder, text_of.tokens(captions))
    noise = torch.randn(len(scenes), CHANNELS, FRAMES, 8, 8)
    latents = models.sample(model, encoded([scene.caption() for scene in scenes]), encoded([""]), noise)
    return table.summary(table.graded(decoder(latents).clamp(-1, 1), scenes), np.random.default_rng(seed))["total"]


def estimated_ms(s2ditc, name, latent):
    """What a step takes on a phone by `s2ditc estimate`, in milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        file.write_text(config_of(name).to_json())
        estimate = json.loads(program.run(s2ditc, "estimate", "--config", file, "--latent", latent, "--json"))
        return round(estimate["step_ms"]["likely"], 3)


def markdown(results):
    sizes = list(next(iter(results["layouts"].values()))["step_ms"])
    lines = ["| layout | blocks | parameters | loss | grade | 95 % |" + "".join(f" ms at {size} |" for size in sizes), "|---|---|---|---|---|---|" + "---|" * len(sizes)]
    for name, row in results["layouts"].items():
        blocks = "".join(kind[0].upper() for kind in LAYOUTS[name])
        total = row["total"]
        times = "".join(f" {ms:.2f} |" for ms in row["step_ms"].values())
        lines.append(f"| {name} | {blocks} | {row['parameters'] / 1e6:.2f} M | {row['loss']:.4f} | **{total[0]:.3f}** | {total[1]:.3f}–{total[2]:.3f} |{times}")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layouts", nargs="*", help=f"of {'; '.join(LAYOUTS)} (default: all)")
    stage_arguments(parser, steps=400, batch=64, lr=5e-3, runs=False)
    parser.add_argument("-n", type=int, default=76, help="captions that are graded")
    program.add_argument(parser)
    parser.add_argument("--latents", nargs="+", default=["3x8x8", "3x36x64"], help="sizes of the estimate")
    args = parser.parse_args()
    if unknown := set(args.layouts) - set(LAYOUTS):
        parser.error(f"no layout {', '.join(sorted(unknown))}: expected any of {'; '.join(LAYOUTS)}")
    program.check(args.s2ditc)
    torch.set_num_threads(args.threads)
    data, encoder, decoder = Latents(), text_of.load_encoder(), decoder_of.load()
    with torch.no_grad():
        embedded = text_of.encode(encoder, caption_tokens(data.all))
    everything, rng = world.split("heldout"), np.random.default_rng(args.seed)
    scenes = [everything[i] for i in rng.permutation(len(everything))[: args.n]]
    results = {"steps": args.steps, "batch": args.batch, "lr": args.lr, "seed": args.seed, "captions": len(scenes), "layouts": {}}
    for name in args.layouts or LAYOUTS:
        model = trained(name, args, data, embedded)
        row = {"parameters": sum(p.numel() for p in model.parameters()), "loss": round(heldout_loss(model, encoder, args.seed), 5)}
        row["total"] = grades(model, encoder, decoder, scenes, args.seed)
        row["step_ms"] = {size: estimated_ms(args.s2ditc, name, size) for size in args.latents}
        results["layouts"][name] = row
        print(f"{name}: {row}", flush=True)
    print(markdown(results))
    if not args.layouts:
        (HERE / "layouts.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Stages 3 to 5: the transformers that make whole clips.

    python train_dit.py pretrained     # the student's network on clips and captions; the text encoder is trained with it, and frozen after
    python train_dit.py teacher        # a larger network of full attention, on the same
    python train_dit.py cache          # the teacher, run once: its velocities, guided if --guidance says so, with the noise and the timestep, go to data/cache.pt
    python train_dit.py kd             # the student learns from the store
    python train_dit.py STAGE --export # writes the weights of the run as it stands

Flow matching: at noise level sigma a latent is (1 - sigma) * clean + sigma * noise, and the network learns noise - clean. A tenth of the captions is empty, which is what
guidance needs. A stage whose run is not there begins from the weights in the repository if `--continue` says so.
"""

import argparse
import time

import numpy as np
import torch

import models
import text as text_of
from latents import Latents
from training import DATA, Training, bf16, needed, stage_arguments

FRAMES = 3


def caption_tokens(scenes):
    """Tokens of every training caption, and behind them those of the empty one."""
    return text_of.tokens([s.caption() for s in scenes] + [""])


def export_text_encoder(encoder):
    folder = text_of.FOLDER / "text_encoder"
    encoder.to(torch.bfloat16).save_pretrained(folder)
    encoder.float()


def flow_loss(model, clean, text, rng_level):
    noise = torch.randn_like(clean)
    sigma = models.shifted(rng_level).view(-1, 1, 1, 1, 1)
    made = model((1 - sigma) * clean + sigma * noise, 1000 * sigma.flatten().double(), text)
    return (made - (noise - clean)).pow(2).mean()


def levels(rng, batch):
    """Noise levels before the shift, spread evenly."""
    return torch.from_numpy((rng.permutation(batch) + rng.random(batch)) / batch).float()


def train_from_clips(name, args):
    data = Latents()
    ids = caption_tokens(data.all)
    model = models.load(name) if args.go_on else models.initial(models.CONFIGS[name], args.seed)
    joint = name == "pretrained"
    torch.manual_seed(args.seed)
    encoder = text_of.load_encoder() if args.go_on or not joint else text_of.new_encoder()
    modules = {"model": model} | ({"text_encoder": encoder.train()} if joint else {})
    if not joint:
        with torch.no_grad():
            embedded = text_of.encode(encoder, ids)
    training = Training(name, modules, args)

    def export():
        models.save(model, name)
        if joint:
            export_text_encoder(encoder)

    if args.export:
        training.use_averages()
        return export()

    def loss_of(step, rng):
        clean, scene = data.batch(rng, args.batch, FRAMES)
        scene = torch.where(torch.from_numpy(rng.random(args.batch) < 0.1), len(data.all), scene)
        if joint:
            used, back = scene.unique(return_inverse=True)
            text = text_of.encode(encoder, ids[used])[back]
        else:
            text = embedded[scene]
        return flow_loss(model, clean, text, levels(rng, args.batch)), {}

    training.loop(loss_of, export)


@torch.no_grad()
def cache(args):
    """The teacher's velocities on noised clips."""
    data, teacher, encoder = Latents(), models.load("teacher").eval(), text_of.load_encoder()
    embedded = text_of.encode(encoder, caption_tokens(data.all))
    out, begin = [], time.time()
    for i in range(0, args.samples, 64):
        rng = np.random.default_rng([args.seed, 77, i])
        torch.manual_seed(args.seed * 1_000_003 + i)
        clean, scene = data.batch(rng, 64, FRAMES)
        noise, sigma = torch.randn_like(clean), models.shifted(levels(rng, 64))
        s = sigma.view(-1, 1, 1, 1, 1)
        x = ((1 - s) * clean + s * noise).to(torch.bfloat16)
        v = models.velocity(teacher, x.float(), sigma, embedded[scene], embedded[-1:], args.guidance)
        out.append((x, sigma, scene, v.to(torch.bfloat16)))
        if i % 640 == 0:
            print(f"cache {i}/{args.samples}  {(time.time() - begin) / (i + 64) * (args.samples - i - 64):.0f} s left", flush=True)
    x, sigma, scene, v = (torch.cat(parts) for parts in zip(*out))
    torch.save({"x": x, "sigma": sigma, "scene": scene, "velocity": v, "guidance": args.guidance}, DATA / "cache.pt")


def train_kd(args):
    """From the pretrained student: the stored velocities."""
    store = torch.load(needed(DATA / "cache.pt", "train_dit.py cache"), weights_only=True)
    encoder = text_of.load_encoder()
    data = Latents()
    with torch.no_grad():
        embedded = text_of.encode(encoder, caption_tokens(data.all))
    model = models.load("kd" if args.go_on else "pretrained")
    training = Training("kd", {"model": model}, args)
    export = lambda: models.save(model, "kd")
    if args.export:
        training.use_averages()
        return export()

    def loss_of(step, rng):
        i = torch.from_numpy(rng.integers(0, len(store["x"]), args.batch))
        made = model(store["x"][i].float(), 1000 * store["sigma"][i].double(), embedded[store["scene"][i]])
        return (made - store["velocity"][i].float()).pow(2).mean(), {}

    training.loop(loss_of, export)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["pretrained", "teacher", "cache", "kd"])
    stage_arguments(parser, steps=1200, batch=64, lr=3e-3)
    parser.add_argument("--continue", dest="go_on", action="store_true", help="begins from the shipped weights of the stage")
    parser.add_argument("--export", action="store_true")
    parser.add_argument("--samples", type=int, default=16384, help="of the store")
    parser.add_argument("--guidance", type=float, default=1.0, help="of the store; 1 is none")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.stage == "cache":
        cache(args)
    elif args.stage == "kd":
        train_kd(args)
    else:
        train_from_clips(args.stage, args)


if __name__ == "__main__":
    main()

"""Finds a layout for the toy world as the paper does: a supernet learns where full resolution is needed, and `s2ditc search` places blocks under a budget.

    python layout_search.py --s2ditc ../../target/release/s2ditc             # the layout that follows from layout_scores.toml
    python layout_search.py --s2ditc ../../target/release/s2ditc --again     # trains the supernet first, about five minutes on one core, and writes that file

The supernet is that of `examples/search`: every block has an LCHA and an SSA branch, and a mask, drawn by Gumbel-softmax, chooses one. It learns flow matching on the clips and captions of
the toy world; the text encoder is the shipped one, and does not learn. The budget is what `s2ditc estimate` says that the student's own layout takes, so that the search could find the same or a better one.
"""

import argparse
import importlib.util
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn

import models
import program
import text as text_of
from latents import Latents
from program import run
from train_dit import FRAMES, caption_tokens, flow_loss, levels
from training import HERE, stage_arguments

FILE = HERE / "layout_scores.toml"
# Logits are few, and learn faster than weights.
LOGIT_RATE = 3e-2


def supernet_module():
    path = HERE.parent / "search" / "supernet.py"
    spec = importlib.util.spec_from_file_location("search_supernet", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Drawn(nn.Module):
    """The supernet under masks that are drawn anew for every batch."""

    def __init__(self, net):
        super().__init__()
        self.net, self.temperature = net, 1.5

    def forward(self, x, t, text):
        return self.net(x, t, text, self.net.masks(self.temperature))


def train(args):
    """The logits of the masks [blocks, 2], and the mean loss of the last tenth."""
    data, encoder = Latents(), text_of.load_encoder()
    with torch.no_grad():
        embedded = text_of.encode(encoder, caption_tokens(data.all))
    torch.manual_seed(args.seed)
    net = supernet_module().Supernet(replace(models.STUDENT, layout=["lcha"]), len(models.STUDENT.layout), 1)
    model = models.quick(Drawn(net))
    weights = [p for name, p in net.named_parameters() if name != "logits"]
    optimizer = torch.optim.AdamW([{"params": weights}, {"params": [net.logits], "lr": LOGIT_RATE, "weight_decay": 0.0}], args.lr)
    losses, begin = [], time.time()
    for step in range(args.steps):
        rng = np.random.default_rng([args.seed, step])
        torch.manual_seed(args.seed * 1_000_003 + step)
        model.temperature = max(0.4, 1.5 * (1 - step / args.steps))
        clean, scene = data.batch(rng, args.batch, FRAMES)
        loss = flow_loss(model, clean, embedded[scene], levels(rng, args.batch))
        if not loss.isfinite():
            raise SystemExit(f"step {step + 1}: the loss is {loss.item()}: try a lower --lr")
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % 20 == 0:
            layout = "".join("LS"[int(i)] for i in net.logits.argmax(1))
            left = (time.time() - begin) / (step + 1) * (args.steps - step - 1)
            print(f"supernet {step + 1}/{args.steps}  loss {np.mean(losses[-20:]):.3f}  {layout}  {left / 60:.1f} min left", flush=True)
    return net.logits.detach(), float(np.mean(losses[-max(1, args.steps // 10) :]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stage_arguments(parser, steps=400, batch=32, lr=2e-3, runs=False)
    program.add_argument(parser)
    parser.add_argument("--again", action="store_true", help="trains, although layout_scores.toml is there")
    parser.add_argument("--latent", default="3x36x64", help="the size that the budget is of")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    program.check(args.s2ditc)
    if FILE.exists() and not args.again:
        print(f"{FILE.name} is there, and nothing is trained; --again trains")
    else:
        logits, loss = train(args)
        lines = [f"source = {json.dumps(f'examples/toyworld/layout_search.py: {args.steps} steps of {args.batch} clips, seed {args.seed}, loss {loss:.3f}')}"]
        for lcha, ssa in logits.tolist():
            lines += ["", "[[group]]", f"lcha = {lcha:.4f}", f"ssa = {ssa:.4f}"]
        FILE.write_text("\n".join(lines) + "\n")
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.json"
        config.write_text(models.STUDENT.to_json())
        estimate = json.loads(run(args.s2ditc, "estimate", "--config", config, "--latent", args.latent, "--json"))
        # A hundredth more, so that the student's own layout fits.
        budget = ["--budget-latency", round(1.01 * estimate["step_ms"]["likely"], 2), "--budget-memory", round(1.01 * estimate["peak_memory_bytes"] / 1e6, 2)]
        print(run(args.s2ditc, "search", "-q", "--config", config, "--latent", args.latent, *budget, "--scores", FILE))
    print(f"the student's layout: {' '.join(models.STUDENT.layout)}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""A supernet that learns which groups of blocks run at low resolution, and writes that as scores for `s2ditc search`.

    python supernet.py --steps 200 -o scores.toml
    s2ditc search --preset tiny --blocks 8 --latent 3x8x8 --budget-latency 5 --budget-memory 50 --scores scores.toml -o config.json

The second phase of the search of S2DiT (arXiv 2601.12719, section 3.3), small enough for two cores: every group has both branches, LCHA blocks
in the stream y_L and SSA blocks in the stream y_S, and a binary mask chooses one. Masks are drawn by Gumbel-softmax with a straight-through
estimator, so that the network is one of the hard layouts in every forward pass and the logits get gradients all the same. The streams (eq. 2-6):

    L -> S   y_S = down(y_L), and the buffer S keeps y_L
    S -> L   y_L = up(y_S) + S
    a network that ends in S returns up(y_S), without S

The task is flow matching on latents of moving blobs, which need no data set. A search for a real model trains on its own data, with its own
blocks; what the command reads is the file at the end.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reference"))
from s2dit import Block, Conditioning, Config, Stage, from_random, layer_norm, low_grid, rope_table  # noqa: E402

KINDS = ("lcha", "ssa")


class Supernet(nn.Module):
    """Groups with both branches. A mask m is 1 for LCHA and 0 for SSA."""

    def __init__(self, config, groups, blocks):
        super().__init__()
        self.config, dim = config, config.dim
        self.patch_embedding = nn.Conv3d(config.in_channels, dim, config.patch_size, config.patch_size)
        self.condition_embedder = Conditioning(config)
        branch = lambda kind: nn.ModuleList([Block(config, kind) for _ in range(blocks)])  # noqa: E731
        self.groups = nn.ModuleList([nn.ModuleDict({kind: branch(kind) for kind in KINDS}) for _ in range(groups)])
        # A change of stream before each group, and one at the end.
        self.stages = nn.ModuleList([Stage(dim, config.ssa_stride) for _ in range(groups + 1)])
        self.scale_shift_table = nn.Parameter(torch.zeros(1, 2, dim))
        self.proj_out = nn.Linear(dim, 4 * config.out_channels)
        self.logits = nn.Parameter(torch.zeros(groups, len(KINDS)))
        for name, p in self.named_parameters():
            if name.endswith("kernel.weight"):
                nn.init.normal_(p, std=config.attention_head_dim**-0.5)
            elif name.endswith("kernel.bias"):
                nn.init.zeros_(p)

    def masks(self, temperature):
        """One hard choice a group, with the gradient of the soft one."""
        return F.gumbel_softmax(self.logits, tau=temperature, hard=True)[:, 0]

    def forward(self, x, t, text, masks):
        config, (_, ph, pw) = self.config, self.config.patch_size
        grid = (x.shape[2], x.shape[3] // ph, x.shape[4] // pw)
        low = low_grid(config, grid)
        y_L = self.patch_embedding(x).flatten(2).transpose(1, 2)
        temb, tproj = self.condition_embedder.time(t)
        text = self.condition_embedder.text_embedder(text)
        ropes = {"lcha": rope_table(config, *grid), "ssa": rope_table(config, *low)}

        def run(kind, group, y):
            for block in group[kind]:
                y = block(y, tproj, text, ropes[kind], grid if kind == "lcha" else low)
            return y

        y_S = y_L.new_zeros(y_L.shape[0], low[0] * low[1] * low[2], config.dim)
        buffer, before = torch.zeros_like(y_L), masks.new_ones(())
        for group, stage, m in zip(self.groups, self.stages, masks):
            to_low = before * (1 - m)
            x_L = before * y_L + (1 - before) * stage.leave(y_S, buffer, grid)
            x_S = (1 - before) * y_S + before * stage.enter(y_L, grid)
            buffer = to_low * y_L + (1 - to_low) * buffer
            y_L = m * run("lcha", group, x_L) + (1 - m) * y_L
            y_S = (1 - m) * run("ssa", group, x_S) + m * y_S
            before = m
        x = before * y_L + (1 - before) * self.stages[-1].leave(y_S, None, grid)
        shift, scale = (self.scale_shift_table + temb[:, None]).chunk(2, dim=1)
        x = self.proj_out(layer_norm(x, config.eps) * (1 + scale) + shift)
        x = x.unflatten(1, grid).unflatten(-1, (ph, pw, config.out_channels)).permute(0, 6, 1, 2, 4, 3, 5)
        return x.flatten(5, 6).flatten(3, 4)


def blobs(batch, channels, frames, size, generator):
    """Latents [B, C, F, H, W] of two blobs that move on straight lines; a channel sees each with its own sign."""
    r = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    at = torch.linspace(0, 1, size)
    x = torch.zeros(batch, channels, frames, size, size)
    for _ in range(2):
        start, speed, width = r(batch, 2, 1), 0.3 * (r(batch, 2, 1) - 0.5), 0.06 + 0.12 * r(batch, 1, 1, 1)
        place = start + speed * torch.arange(frames)
        row = (at[None, None, :, None] - place[:, 0, :, None, None]) ** 2
        col = (at[None, None, None, :] - place[:, 1, :, None, None]) ** 2
        sign = torch.randn(batch, channels, 1, 1, 1, generator=generator)
        x += sign * torch.exp(-(row + col) / (2 * width**2))[:, None]
    return x


def train(net, steps, size, frames, seed, log):
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    weights = [p for name, p in net.named_parameters() if name != "logits"]
    optimizer = torch.optim.AdamW([{"params": weights, "lr": 2e-3}, {"params": [net.logits], "lr": 3e-2, "weight_decay": 0.0}])
    config, start = net.config, time.time()
    # Without a prompt: the text says nothing.
    text = torch.zeros(8, config.text_len, config.text_dim)
    running = None
    for step in range(steps):
        x0 = blobs(8, config.in_channels, frames, size, generator)
        sigma = torch.rand(8, generator=generator)
        noise = torch.randn(x0.shape, generator=generator)
        s = sigma[:, None, None, None, None]
        temperature = max(0.4, 1.5 * (1 - step / steps))
        v = net((1 - s) * x0 + s * noise, 1000 * sigma, text, net.masks(temperature))
        loss = F.mse_loss(v, noise - x0)
        if not loss.isfinite():
            raise SystemExit(f"step {step + 1}: the loss is {loss.item()}: a smaller rate, or another seed")
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        running = loss.item() if running is None else 0.95 * running + 0.05 * loss.item()
        if log and (step + 1) % max(1, steps // 10) == 0:
            chosen = "".join("LS"[int(i)] for i in net.logits.argmax(1))
            print(f"step {step + 1}: loss {running:.3f}, {chosen}, {time.time() - start:.0f} s", file=sys.stderr)
    return running


def check(net, size, frames, seed):
    """Under a hard layout the supernet is the network that `s2dit.py` makes of that layout."""
    config, blocks = net.config, len(net.groups[0]["ssa"])
    generator = torch.Generator().manual_seed(seed)
    layouts = [[1, 0, 0, 1], [0, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 1, 0]]
    worst = 0.0
    for masks in layouts:
        masks = (masks * len(net.groups))[: len(net.groups)]
        kinds = [kind for m in masks for kind in [KINDS[1 - m]] * blocks]
        alone = from_random(Config(**{**vars(config), "layout": kinds}), 0).double()
        state = alone.state_dict()
        for i, m in enumerate(masks):
            for j in range(blocks):
                state.update(prefixed(net.groups[i][KINDS[1 - m]][j], f"blocks.{i * blocks + j}."))
        # The stage of a run goes down before its first group and up before the next one, or at the end.
        runs = [i for i, m in enumerate(masks) if m == 0 and (i == 0 or masks[i - 1] == 1)]
        for number, first in enumerate(runs):
            after = next((i for i in range(first, len(masks)) if masks[i] == 1), len(masks))
            state.update(prefixed(net.stages[first].down, f"stages.{number}.down."))
            state.update(prefixed(net.stages[after].up, f"stages.{number}.up."))
        for name in ("patch_embedding", "condition_embedder", "proj_out"):
            state.update(prefixed(getattr(net, name), f"{name}."))
        state["scale_shift_table"] = net.scale_shift_table.detach()
        alone.load_state_dict(state)
        x = torch.randn(1, config.in_channels, frames, size, size, generator=generator, dtype=torch.float64)
        text = torch.randn(1, config.text_len, config.text_dim, generator=generator, dtype=torch.float64)
        t = torch.tensor([321.0], dtype=torch.float64)
        with torch.no_grad():
            mine, theirs = net(x, t, text, torch.tensor(masks, dtype=torch.float64)), alone(x, t, text)
        worst = max(worst, ((mine - theirs).norm() / theirs.norm()).item())
        assert worst < 1e-12, f"layout {kinds}: relative L2 {worst:.1e}"
    print(f"under {len(layouts)} hard layouts the supernet is the reference: relative L2 {worst:.0e} at most")


def prefixed(module, prefix):
    return {prefix + name: value.detach() for name, value in module.state_dict().items()}


def toml(net, args, loss):
    source = f"supernet.py: {args.groups} groups of {args.blocks}, {args.steps} steps, seed {args.seed}, loss {loss:.3f}"
    lines = ["# Logits of the masks: the larger, the better. Made by examples/search/supernet.py", f"source = {json.dumps(source)}"]
    for logits in net.logits.detach().tolist():
        lines += ["", "[[group]]"] + [f"{kind} = {logit:.4f}" for kind, logit in zip(KINDS, logits)]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=8, help="groups M")
    parser.add_argument("--blocks", type=int, default=1, help="blocks k of a group")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--size", type=int, default=8, help="rows and columns of the latent")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", action="store_true", help="compare hard layouts with the reference, and stop")
    parser.add_argument("-o", "--output", type=Path, help="file of scores to make")
    args = parser.parse_args()
    config = Config(
        in_channels=4, out_channels=4, patch_size=[1, 2, 2], num_attention_heads=2, attention_head_dim=24, ffn_dim=128,
        text_dim=32, text_len=8, freq_dim=32, layout=["lcha"],
    )
    torch.manual_seed(args.seed)
    net = Supernet(config, args.groups, args.blocks)
    if args.check:
        check(net.double(), args.size, args.frames, args.seed)
        return
    loss = train(net, args.steps, args.size, args.frames, args.seed, log=True)
    text = toml(net, args, loss)
    if args.output:
        args.output.write_text(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()

"""What every stage of training shares: steps that resume, averaged weights, progress, a log.

A run is a folder: `last.pt` (weights, their moving average, the optimiser, the step) and `log.jsonl` (a line every few steps). The randomness of step i is
that of (seed, i) and of nothing else, so that a run that was stopped goes on as if it had not been. A run without `last.pt` begins from the weights that the stage
loads: those of a shipped checkpoint, in bf16, are as good a beginning as any.
"""

import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from muon import MuonAdamW

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("TOYWORLD_DATA", HERE / "data"))  # latents, runs: large, and not in the repository
WEIGHTS = HERE / "weights"


def stage_arguments(parser, steps, batch, lr, runs=True):
    """The flags of a script that trains; without `runs`, of one that names its runs itself."""
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--lr", type=float, default=lr, help="the highest learning rate; it warms up and falls to a hundredth by a cosine")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    if runs:
        parser.add_argument("--run", help="the name of the run's folder")


def needed(path, script):
    """The path of what another script makes; ends this one where it is not there."""
    if not path.exists():
        raise SystemExit(f"{path}: not there: run `python {script}` first, or name the folder that has it in TOYWORLD_DATA")
    return path


class Training:
    """Steps an optimiser over `modules` (name -> module), with an average of their weights."""

    def __init__(self, name, modules, args, ema=0.998, every=20):
        torch.set_num_threads(args.threads)
        self.name, self.modules, self.args, self.every = name, modules, args, every
        self.folder = DATA / "runs" / (args.run or name)
        self.parameters = [p for m in modules.values() for p in m.parameters() if p.requires_grad]
        self.optimizer = MuonAdamW([pair for m in modules.values() for pair in m.named_parameters()], args.lr)
        self.averages = [p.detach().clone() for p in self.parameters]
        self.ema, self.step, self.seconds = ema, 0, 0.0
        last = self.folder / "last.pt"
        if getattr(args, "export", False) and not last.exists():
            raise SystemExit(f"{self.folder}: no run is there to export: name one with --run, or train first")
        if last.exists():
            state = torch.load(last, weights_only=True)
            for module_name, module in modules.items():
                module.load_state_dict(state["modules"][module_name])
            self.optimizer.load_state_dict(state["optimizer"])
            self.averages = state["averages"]
            self.step, self.seconds = state["step"], state["seconds"]
            print(f"{name}: goes on from step {self.step}" + ("; nothing is left to do: --steps N trains on" if self.step >= args.steps else ""), flush=True)

    def save(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "modules": {name: module.state_dict() for name, module in self.modules.items()}, "optimizer": self.optimizer.state_dict(),
            "averages": self.averages, "step": self.step, "seconds": self.seconds,
        }
        beside = self.folder / "last.pt.part"
        torch.save(state, beside)
        beside.replace(self.folder / "last.pt")

    def use_averages(self):
        """The modules with their averaged weights; the trained ones are kept in `last.pt`."""
        with torch.no_grad():
            for p, average in zip(self.parameters, self.averages):
                p.copy_(average)

    def rate(self):
        warm, done = min(1.0, (self.step + 1) / 50), self.step / max(1, self.args.steps)
        return self.args.lr * warm * (0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * min(1.0, done))))

    def loop(self, loss_of, export=None, save_seconds=120):
        """`loss_of(step, rng)` returns the loss and a dict of figures; `export()` writes the averaged weights where others find them."""
        begin, spent, sums, count = time.time(), self.seconds, {}, 0
        saved, first = time.time(), self.step
        while self.step < self.args.steps:
            torch.manual_seed(self.args.seed * 1_000_003 + self.step)
            rng = np.random.default_rng([self.args.seed, self.step])
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate()
            loss, figures = loss_of(self.step, rng)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            if not math.isfinite(float(norm)):
                raise SystemExit(f"{self.name}: step {self.step}: the gradient is not finite; begin again from {self.folder / 'last.pt'} with a lower --lr")
            self.optimizer.step()
            self.step += 1
            decay = min(self.ema, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                torch._foreach_lerp_(self.averages, self.parameters, 1 - decay)
            for key, value in ({"loss": float(loss.detach())} | figures).items():
                sums[key] = sums.get(key, 0.0) + value
            count += 1
            self.seconds = spent + time.time() - begin
            if self.step % self.every == 0 or self.step == self.args.steps:
                means = {key: round(value / count, 5) for key, value in sums.items()}
                self.folder.mkdir(parents=True, exist_ok=True)
                with open(self.folder / "log.jsonl", "a") as log:
                    log.write(json.dumps({"step": self.step, "seconds": round(self.seconds, 1)} | means) + "\n")
                a_step = (time.time() - begin) / (self.step - first)
                left = a_step * (self.args.steps - self.step)
                words = "  ".join(f"{key} {value:.4f}" for key, value in means.items())
                print(f"{self.name} {self.step}/{self.args.steps}  {words}  {a_step:.2f} s a step  {left / 60:.1f} min left", flush=True)
                sums, count = {}, 0
            if time.time() - saved > save_seconds or self.step == self.args.steps:
                self.save()
                saved = time.time()
        self.use_averages()
        if export:
            export()


def bf16(module):
    """The module's tensors as they ship."""
    return {key: value.detach().to(torch.bfloat16).contiguous() for key, value in sorted(module.state_dict().items())}


def write_weights(tensors, folder):
    """Tensors as the weights of a folder in diffusers' layout."""
    file = folder / "diffusion_pytorch_model.safetensors"
    save_file(tensors, file, metadata={"format": "pt"})
    file.chmod(0o644)
    print(f"wrote {file}", flush=True)

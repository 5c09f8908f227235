"""Stage 2: the decoder, in the layout of TAEHV, for the latents of `latents.py`.

    python decoder.py              # trains
    python decoder.py --export     # writes weights/toyworld/vae from the run as it stands

Why not Wan's autoencoder: on one CPU core its decoder reached 19 dB in the time in which this one passes 26 dB (the linear part alone), and TAEHV is the decoder that fits a
phone. Pictures are taken in patches of 2x2 pixels, so that the finest level works at 32x32. Most steps see parts of 32x32 pixels, which cost a quarter; the last ones see
whole pictures and longer clips.
"""

import argparse
import json

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import world
from latents import CHANNELS, Basis
from training import WEIGHTS, Training, bf16, stage_arguments

CONFIG = {
    "_class_name": "TAEHV", "latent_channels": CHANNELS, "patch_size": 2, "decoder_time_upscale": [True, True, False], "decoder_space_upscale": [True, True, False],
    "widths": [32, 32, 20, 16],
}
FOLDER = WEIGHTS / "toyworld" / "vae"


class Mem(nn.Module):
    """A block that sees the frame before."""

    def __init__(self, n):
        super().__init__()
        conv = lambda a: nn.Conv2d(a, n, 3, padding=1)
        self.conv = nn.Sequential(conv(2 * n), nn.ReLU(), conv(n), nn.ReLU(), conv(n))

    def forward(self, x):
        """x [B, T, C, h, w]"""
        past = F.pad(x, (0, 0, 0, 0, 0, 0, 1, 0))[:, :-1]
        b, t = x.shape[:2]
        y = self.conv(torch.cat([x, past], 2).flatten(0, 1))
        return F.relu(y.unflatten(0, (b, t)) + x)


class Grow(nn.Module):
    """Frames become `stride` frames each."""

    def __init__(self, n, stride):
        super().__init__()
        self.stride, self.conv = stride, nn.Conv2d(n, n * stride, 1, bias=False)

    def forward(self, x):
        b, t, c, h, w = x.shape
        return self.conv(x.flatten(0, 1)).reshape(b, t * self.stride, c, h, w)


class Frames(nn.Module):
    """A layer that looks at each frame by itself; it has the number of the layer in TAEHV's list."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class Decoder(nn.Module):
    def __init__(self, config=CONFIG):
        super().__init__()
        w, self.patch = config["widths"], config["patch_size"]
        self.trim = 2 ** sum(config["decoder_time_upscale"]) - 1
        layers = [nn.Identity(), Frames(nn.Conv2d(config["latent_channels"], w[0], 3, padding=1)), nn.ReLU()]
        for i, (time, space) in enumerate(zip(config["decoder_time_upscale"], config["decoder_space_upscale"])):
            layers += [Mem(w[i]), Mem(w[i]), Mem(w[i]), Frames(nn.Upsample(scale_factor=2 if space else 1)), Grow(w[i], 2 if time else 1)]
            layers += [Frames(nn.Conv2d(w[i], w[i + 1], 3, padding=1, bias=False))]
        layers += [nn.ReLU(), Frames(nn.Conv2d(w[3], 3 * self.patch**2, 3, padding=1))]
        self.decoder = nn.ModuleList(layers)

    def forward(self, latent):
        """latent [B, C, F, h, w] -> video [B, 3, 1+4(F-1), H, W], about -1 to 1 and not clamped."""
        x = torch.tanh(latent.transpose(1, 2) / 3) * 3
        for layer in self.decoder:
            x = layer(x)
        x = F.pixel_shuffle(x, self.patch)[:, self.trim :]
        return x.transpose(1, 2) * 2 - 1

    def shipped(self):
        """Name -> tensor, as in TAEHV's files."""
        return {key.replace(".layer.", "."): value for key, value in bf16(self).items()}


def load():
    model, state = Decoder(json.loads((FOLDER / "config.json").read_text())), load_file(FOLDER / "taehv.safetensors")
    model.load_state_dict({key: state[key.replace(".layer.", ".")] for key in model.state_dict()})
    return model.float().eval()


@torch.no_grad()
def export(model, seed):
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    save_file(model.shipped(), FOLDER / "taehv.safetensors", metadata={"format": "pt"})
    scenes, rng, basis = world.split("heldout"), np.random.default_rng(seed), Basis.load()
    video = world.clips([scenes[i] for i in rng.integers(0, len(scenes), 16)], 17, rng)
    psnr = lambda made: float(10 * torch.log10(4 / (made.clamp(-1, 1) - video).pow(2).mean()))
    latent = basis.encode(video)
    print(f"decoder: {psnr(load()(latent)):.1f} dB on clips of 17 frames of held-out captions; the linear part alone {psnr(basis.decode(latent)):.1f} dB", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stage_arguments(parser, steps=500, batch=16, lr=3e-3)
    parser.add_argument("--continue", dest="go_on", action="store_true", help="begins from the shipped weights")
    parser.add_argument("--export", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    model, scenes, basis = load().train() if args.go_on else Decoder(), world.split("train"), Basis.load()
    training = Training("decoder", {"decoder": model}, args, ema=0.98)
    if args.export:
        training.use_averages()
        return export(model, args.seed)

    def loss_of(step, rng):
        whole = step >= args.steps * 0.85
        batch, frames, side = (args.batch // 4, 17 if step % 2 else 9, 64) if whole else (args.batch, 9, 32)
        video = world.clips([scenes[i] for i in rng.integers(0, len(scenes), batch)], frames, rng, side)
        latent = basis.encode(video)
        # Latents that a transformer makes are not exact: a little noise, of another strength for every clip.
        noisy = latent + 0.15 * torch.rand(batch, 1, 1, 1, 1) * torch.randn_like(latent)
        error = model(noisy) - video
        return error.abs().mean() + error.pow(2).mean(), {"psnr": float(10 * torch.log10(4 / error.detach().pow(2).mean()))}

    training.loop(loss_of, lambda: export(model, args.seed))


if __name__ == "__main__":
    main()

"""Stage 2: the decoder, in the layout of TAEHV, for the latents of `latents.py`.

    python decoder.py              # trains
    python decoder.py --export     # writes weights/toyworld/vae from the run as it stands

Pixels come in patches of 8x8, so that the network works on the latent's own grid and the linear decoding of a patch is within its reach. Decoders that double rows and columns, Wan's and
TAEHV's own, were tried first: after 240 steps they had learned the brightness and no colour (19 dB; the linear part alone has 26), as neighbours that were doubled do not know which half they are.
"""

import argparse
import json

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load_file

import world
from latents import CHANNELS, Basis
from training import WEIGHTS, Training, bf16, stage_arguments, write_weights

CONFIG = {
    "_class_name": "TAEHV", "latent_channels": CHANNELS, "patch_size": 8, "decoder_time_upscale": [False, True, True], "decoder_space_upscale": [False, False, False],
    "widths": [48, 64, 64, 192],
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
        w = self.widths = config["widths"]
        self.patch = config["patch_size"]
        self.trim = 2 ** sum(config["decoder_time_upscale"]) - 1
        layers = [nn.Identity(), Frames(nn.Conv2d(config["latent_channels"], w[0], 3, padding=1)), nn.ReLU()]
        for i, (time, space) in enumerate(zip(config["decoder_time_upscale"], config["decoder_space_upscale"])):
            layers += [Mem(w[i]), Mem(w[i]), Mem(w[i]), Frames(nn.Upsample(scale_factor=2 if space else 1)), Grow(w[i], 2 if time else 1)]
            layers += [Frames(nn.Conv2d(w[i], w[i + 1], 3, padding=1, bias=False))]
        layers += [nn.ReLU(), Frames(nn.Conv2d(w[3], 3 * self.patch**2, 3, padding=1))]
        self.decoder = nn.ModuleList(layers)
        self.start()

    @torch.no_grad()
    def start(self):
        """Carries the latent z through to the last layer, in the first channels, positive so that no ReLU cuts it: z + 3, and beside it s/4 of that in the s-th of a latent's
        four frames. What is left of the channels is random."""
        n = CONFIG["latent_channels"]
        for layer in self.decoder:
            conv = getattr(layer, "layer", None) if isinstance(layer, Frames) else None
            if isinstance(layer, Mem):  # the identity
                nn.init.normal_(layer.conv[4].weight, std=1e-3)
                nn.init.zeros_(layer.conv[4].bias)
            elif isinstance(conv, nn.Conv2d):
                out, into = conv.weight.shape[:2]
                nn.init.kaiming_normal_(conv.weight)
                kept = n if into == n else 2 * n
                conv.weight[: 2 * n].normal_(std=1e-3)
                conv.weight[range(kept), range(kept), 1, 1] = 1.0
                if conv.bias is not None:
                    conv.bias[:n], conv.bias[n : 2 * n], conv.bias[2 * n :] = 3.0, 0.2, 0.0
                if conv is self.decoder[-3].layer:  # small, so that the last layer's weights are not
                    conv.weight *= 0.15
            elif isinstance(layer, Grow):
                layer.conv.weight.zero_()
                width = layer.conv.weight.shape[1]
                step = 0.5 if layer is [g for g in self.decoder if isinstance(g, Grow) and g.stride == 2][0] else 0.25
                for s in range(layer.stride):
                    layer.conv.weight[range(s * width, (s + 1) * width), range(width), 0, 0] = 1.0
                    layer.conv.weight[range(s * width + n, s * width + 2 * n), range(n), 0, 0] = s * step

    def features(self, latent):
        """What the last layer sees."""
        x = torch.tanh(latent.transpose(1, 2) / 3) * 3
        for layer in self.decoder[:-1]:
            x = layer(x)
        return x

    def forward(self, latent):
        """latent [B, C, F, h, w] -> video [B, 3, 1+4(F-1), H, W], about -1 to 1 and not clamped."""
        x = F.pixel_shuffle(self.decoder[-1](self.features(latent)), self.patch)[:, self.trim :]
        return x.transpose(1, 2) * 2 - 1

    def shipped(self):
        """Name -> tensor, as in TAEHV's files."""
        return {key.replace(".layer.", "."): value for key, value in bf16(self).items()}


@torch.no_grad()
def widened(old, widths):
    """A decoder with more channels that makes the same video: what it has of old channels is the old weight, and no old channel sees a new one. New channels are
    as random as those of a decoder that begins. The last layer, which sees all of them, is to be solved."""
    new = Decoder(CONFIG | {"widths": widths})
    for layer, before in zip(new.decoder, old.decoder):
        state = before.state_dict()
        for key, value in layer.state_dict().items():
            small = state[key]
            if value.dim() == 1:
                value[: len(small)] = small
                continue
            # Blocks of channels that stand one behind the other: two frames of a block's input, or the frames that one becomes.
            blocks_in = 2 if isinstance(layer, Mem) and key == "conv.0.weight" else 1
            blocks_out = layer.stride if isinstance(layer, Grow) else 1
            grow = lambda n, blocks, less: torch.cat([torch.arange(less // blocks) + b * (n // blocks) for b in range(blocks)])
            rows, columns = grow(value.shape[0], blocks_out, small.shape[0]), grow(value.shape[1], blocks_in, small.shape[1])
            if layer is not new.decoder[-1]:
                value[rows] = 0
            value[rows[:, None], columns] = small
    return new


@torch.no_grad()
def solve_last_layer(model, scenes, basis, rng, clips=192, ridge=1e-3):
    """Least squares for the last layer behind random ones: training begins where the linear decoding is, and not at grey, which it takes hundreds of steps to leave."""
    last = model.decoder[-1].layer
    inputs = last.weight[0].numel() + 1
    gram, moment = torch.zeros(inputs, inputs, dtype=torch.float64), torch.zeros(inputs, len(last.weight), dtype=torch.float64)
    for _ in range(clips // 8):
        video = world.clips([scenes[i] for i in rng.integers(0, len(scenes), 8)], 9, rng)
        features = model.features(basis.encode(video))[:, model.trim :].flatten(0, 1)
        x = F.unfold(features, 3, padding=1).transpose(1, 2).flatten(0, 1)
        x = torch.cat([x, torch.ones(len(x), 1)], 1).double()
        y = F.pixel_unshuffle((video.transpose(1, 2).flatten(0, 1) + 1) / 2, model.patch).flatten(2).transpose(1, 2).flatten(0, 1).double()
        gram += x.T @ x
        moment += x.T @ y
    solved = torch.linalg.solve(gram + ridge * gram.diagonal().mean() * torch.eye(inputs), moment).float()
    last.weight.copy_(solved[:-1].T.view_as(last.weight))
    last.bias.copy_(solved[-1])


def load():
    model, state = Decoder(json.loads((FOLDER / "config.json").read_text())), load_file(FOLDER / "diffusion_pytorch_model.safetensors")
    model.load_state_dict({key: state[key.replace(".layer.", ".")] for key in model.state_dict()})
    return model.float().eval()


@torch.no_grad()
def export(model, seed):
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    write_weights(model.shipped(), FOLDER)
    scenes, rng, basis = world.split("heldout"), np.random.default_rng(seed), Basis.load()
    video = world.clips([scenes[i] for i in rng.integers(0, len(scenes), 16)], 17, rng)
    psnr = lambda made: float(10 * torch.log10(4 / (made.clamp(-1, 1) - video).pow(2).mean()))
    latent = basis.encode(video)
    print(f"decoder: {psnr(load()(latent)):.1f} dB on clips of 17 frames of held-out captions; the linear part alone {psnr(basis.decode(latent)):.1f} dB", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stage_arguments(parser, steps=600, batch=8, lr=6e-4)
    parser.add_argument("--continue", dest="go_on", action="store_true", help="begins from the shipped weights")
    parser.add_argument("--solve", action="store_true", help="begins with least squares for the last layer; what a run from nothing does in any case")
    parser.add_argument("--widths", type=lambda text: [int(n) for n in text.split(",")], help="with --continue, four widths, none below the shipped weights': more channels, the same video")
    parser.add_argument("--export", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    model, scenes, basis = load().train() if args.go_on else Decoder(), world.split("train"), Basis.load()
    if args.widths:
        old = load().widths
        if len(args.widths) != 4 or any(new < least for new, least in zip(args.widths, old)):
            parser.error(f"--widths: found {args.widths}, expected four numbers, none below {old}")
        CONFIG["widths"], model = args.widths, widened(model, args.widths).train()
    if args.solve or args.widths or not args.go_on:
        solve_last_layer(model, scenes, basis, np.random.default_rng(args.seed))
    training = Training("decoder", {"decoder": model}, args, ema=0.98)
    if args.export:
        training.use_averages()
        return export(model, args.seed)

    def loss_of(step, rng):
        batch, frames = (args.batch // 2, 17) if step % 4 == 0 else (args.batch, 9)
        video = world.clips([scenes[i] for i in rng.integers(0, len(scenes), batch)], frames, rng)
        latent = basis.encode(video)
        # Latents that a transformer makes are not exact: a little noise, of another strength for every clip.
        noisy = latent + 0.1 * torch.rand(batch, 1, 1, 1, 1) * torch.randn_like(latent)
        error = model(noisy) - video
        # Most of a picture is background, which is soon learned: shapes and what is near them count more.
        chroma = (video.amax(1, keepdim=True) - video.amin(1, keepdim=True) > 0.1).float()
        weight = 1 + 6 * F.max_pool3d(chroma, (1, 5, 5), 1, (0, 2, 2))
        weight = weight / weight.mean()
        # The root of the error counts beside its square: of a pixel that is shape or background it would rather have one of the two than their mean, which is what makes edges sharp.
        rough = (error.pow(2) + 1e-3).pow(0.25) - 1e-3**0.25
        return (weight * (rough + error.pow(2))).mean(), {"psnr": float(10 * torch.log10(4 / error.detach().pow(2).mean()))}

    training.loop(loss_of, lambda: export(model, args.seed))


if __name__ == "__main__":
    main()

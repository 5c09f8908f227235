"""Stage 1: the latent space and the latents that the transformers train on.

    python latents.py          # writes weights/latent_basis.safetensors, if it is not there, and data/latents.pt

The autoencoder's latent is linear: patches of 4 frames of 8x8 pixels, projected on their CHANNELS first principal components. The first frame of a clip stands for a patch
by itself, four times over. So the latent space is there before any network is trained, and the projection is the encoder; a decoder (`decoder.py`) learns to draw pixels from latents.
"""

import argparse
import time

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import world
from training import DATA, WEIGHTS, needed

CHANNELS = 16
FRAMES = 33  # 9 latent frames, three chunks
FILE = WEIGHTS / "latent_basis.safetensors"


def patches(video):
    """[B, 3, 1+4k, H, W] -> [B, 1+k, H/8, W/8, 768]"""
    first = video[:, :, :1].expand(-1, -1, 4, -1, -1)
    video = torch.cat([first, video[:, :, 1:]], 2)
    b, _, t, h, w = video.shape
    video = video.reshape(b, 3, t // 4, 4, h // 8, 8, w // 8, 8)
    return video.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)


class Basis:
    """Pixels <-> latents, linear. Components are scaled by their deviation to the power of 0.7: the first ones, which say most of the pixels, stay somewhat larger."""

    def __init__(self, mean, components, scale):
        self.mean, self.components, self.scale = mean, components, scale

    @classmethod
    def fitted(cls, scenes, rng, clips=512):
        x = torch.cat([patches(world.clips([scenes[i] for i in rng.integers(0, len(scenes), 32)], 9, rng))[:, 1:].reshape(-1, 768) for _ in range(clips // 32)])
        mean = x.mean(0)
        values, vectors = torch.linalg.eigh((x - mean).double().T @ (x - mean).double() / len(x))
        components = vectors.flip(1)[:, :CHANNELS].float()
        components = components * components.sum(0).sign().where(components.sum(0) != 0, torch.ones(CHANNELS))
        deviation = values.flip(0)[:CHANNELS].sqrt().float()
        kept = deviation**0.3
        return cls(mean, components, deviation**0.7 * kept.pow(2).mean().sqrt())

    def encode(self, video):
        return ((patches(video) - self.mean) @ self.components / self.scale).permute(0, 4, 1, 2, 3)

    def decode(self, latent):
        """The pixels of the linear part alone; the first frame is the mean of its four."""
        x = (latent.permute(0, 2, 3, 4, 1) * self.scale) @ self.components.T + self.mean
        b, k, h, w, _ = x.shape
        x = x.reshape(b, k, h, w, 3, 4, 8, 8).permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(b, 3, 4 * k, 8 * h, 8 * w)
        return torch.cat([x[:, :, :4].mean(2, keepdim=True), x[:, :, 4:]], 2).clamp(-1, 1)

    def save(self):
        FILE.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in vars(self).items()}, FILE)

    @classmethod
    def load(cls):
        return cls(**load_file(FILE))


class Latents:
    """The training set: latents [N, C, 9, 8, 8] in bf16 and the number of each one's scene."""

    def __init__(self):
        stored = torch.load(needed(DATA / "latents.pt", "latents.py"), weights_only=True)
        self.latents, self.scenes = stored["latents"], stored["scenes"]
        self.all = world.split("train")
        self.level = torch.tensor([s.background == "gradient" for s in self.all])

    def batch(self, rng, size, frames=9):
        """Latents [B, C, frames, 8, 8], scene numbers [B]. The world is a torus: a clip that is rolled by half of the picture is another clip of the same scene."""
        picked = torch.from_numpy(rng.integers(0, len(self.latents), size))
        x, scene = self.latents[picked][:, :, :frames].float(), self.scenes[picked]
        columns, rows = 4 * rng.integers(0, 2, size), 4 * rng.integers(0, 2, size)
        out = [v.roll((0 if self.level[s] else int(r), int(c)), (2, 3)) for v, s, r, c in zip(x, scene, rows, columns)]
        return torch.stack(out), scene


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=3, help="clips of each scene")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    DATA.mkdir(parents=True, exist_ok=True)
    scenes, rng = world.split("train"), np.random.default_rng(args.seed)
    if not FILE.exists():
        Basis.fitted(scenes, rng).save()
    basis = Basis.load()
    order = torch.arange(len(scenes)).repeat(args.clips)
    out, begin = [], time.time()
    for i in range(0, len(order), 20):
        chosen = [scenes[s] for s in order[i : i + 20]]
        out.append(basis.encode(world.clips(chosen, FRAMES, rng)).to(torch.bfloat16))
        if i % 400 == 0:
            done = time.time() - begin
            print(f"latents {i}/{len(order)}  {done / (i + 20) * (len(order) - i - 20):.0f} s left", flush=True)
    x = torch.cat(out)
    torch.save({"latents": x, "scenes": order}, DATA / "latents.pt")
    print(f"{tuple(x.shape)}: mean {x.float().mean():.3f}, deviation {x.float().std():.3f}, of channels {[round(float(v), 2) for v in x.float().std((0, 2, 3, 4))]}")


if __name__ == "__main__":
    main()

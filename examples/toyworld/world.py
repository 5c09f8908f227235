"""The toy world: clips drawn by code, and the captions that describe them.

    python world.py --caption "two small red circles moving left on a black background" --frames 33 -o clip.gif
    python world.py --list heldout                # the captions that training never sees
    python world.py --check

A clip shows one to three equal shapes on a background: 64x64 pixels, 8 frames a second. The picture is a torus: what leaves it on the left comes back on the
right, so that a stream has no end and no seam. Shapes move 2 pixels a frame, which is 8 pixels, one latent pixel of the autoencoder, a latent frame; or they
spin, and half a symmetry turn lasts a latent frame. A clip begins with its centres in the middle of quadrants, each of its own, and with one of two angles: what a network of a million
weights learns in an hour of one core. Edges are antialiased by signed distance.
"""

import argparse
import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch

SIZE = 64
FPS = 8
SPEED = 2.0  # pixels a frame
RADIUS = {"small": 7.0, "large": 12.0}  # of the circle; the other shapes have its area
COUNTS = {"a": 1, "two": 2, "three": 3}
SHAPES = ("circle", "square", "triangle")
SYMMETRY = {"circle": 0, "square": 4, "triangle": 3}
COLOURS = {
    "red": (0.90, 0.15, 0.15), "green": (0.15, 0.70, 0.20), "blue": (0.15, 0.30, 0.90),
    "yellow": (0.95, 0.85, 0.15), "purple": (0.65, 0.20, 0.80), "cyan": (0.15, 0.80, 0.85),
}
MOTIONS = {
    "moving left": (-1, 0), "moving right": (1, 0), "moving up": (0, -1), "moving down": (0, 1), "standing still": (0, 0), "spinning": (0, 0),
}
BACKGROUNDS = {"black": (0.05, 0.05), "gray": (0.5, 0.5), "white": (0.95, 0.95), "gradient": (0.9, 0.1)}  # the brightness of the first and last row


@dataclass(frozen=True)
class Scene:
    count: int
    size: str
    colour: str
    shape: str
    motion: str
    background: str

    def caption(self):
        number = {count: word for word, count in COUNTS.items()}[self.count]
        plural = "s" if self.count > 1 else ""
        return f"{number} {self.size} {self.colour} {self.shape}{plural} {self.motion} on a {self.background} background"

    @property
    def velocity(self):
        """Pixels a frame to the right and down."""
        return tuple(SPEED * step for step in MOTIONS[self.motion])

    @property
    def turn(self):
        """Radians a frame."""
        return math.pi / SYMMETRY[self.shape] / 4 if self.motion == "spinning" else 0.0


def scenes():
    """Every scene of the grammar: several shapes are small, and a circle does not spin."""
    return [
        Scene(count, size, colour, shape, motion, background)
        for count, size in ((1, "large"), (1, "small"), (2, "small"), (3, "small"))
        for colour in COLOURS
        for shape in SHAPES
        for motion in MOTIONS
        if not (shape == "circle" and motion == "spinning")
        for background in BACKGROUNDS
    ]


def held_out(scene):
    """One caption of ten, by its hash."""
    return hashlib.sha256(scene.caption().encode()).digest()[0] * 10 // 256 == 0


def split(name):
    """The scenes of "train" or "heldout", in the grammar's order."""
    return [scene for scene in scenes() if held_out(scene) == (name == "heldout")]


def parse(caption):
    """The scene of a caption."""
    for scene in scenes():
        if scene.caption() == caption:
            return scene
    raise SystemExit(f"the caption {caption!r} is not of the grammar: expected, for one, {scenes()[0].caption()!r}; world.py --list all prints all of them")


def wrapped(x):
    """A difference of positions on the torus, the short way."""
    return (x + SIZE / 2) % SIZE - SIZE / 2


def signed_distance(shape, x, y, radius):
    """Of points (x, y) from the edge of a shape around 0, negative inside. Corners are those of the half planes."""
    if shape == "circle":
        return (x * x + y * y).sqrt() - radius
    if shape == "square":
        return torch.maximum(x.abs(), y.abs()) - radius * math.sqrt(math.pi) / 2
    inner = radius * math.sqrt(math.pi / (3 * math.sqrt(3)))
    return torch.maximum(y, x.abs() * (math.sqrt(3) / 2) - y / 2) - inner


def coverage(shape, x, y, radius, angle):
    """How much of a pixel at (x, y) the shape covers, turned by `angle`."""
    c, s = torch.cos(angle), torch.sin(angle)
    return (0.5 - signed_distance(shape, c * x + s * y, c * y - s * x, radius)).clamp(0, 1)


def places(count, rng):
    """Centres [count, 2], each in the middle of a quadrant of its own."""
    quadrants = rng.permutation(4)[:count]
    return np.stack([quadrants % 2, quadrants // 2], 1) * SIZE / 2 + SIZE / 4


def draw(scene, frames, rng, window=None):
    """Frames [3, T, rows, columns] from -1 to 1. `window` is (row, column, side): a part of the picture."""
    row, column, side = window or (0, 0, SIZE)
    ys = torch.arange(row, row + side, dtype=torch.float32).view(1, side, 1) + 0.5
    xs = torch.arange(column, column + side, dtype=torch.float32).view(1, 1, side) + 0.5
    t = torch.arange(frames, dtype=torch.float32).view(frames, 1, 1)
    first = rng.integers(0, 2) * math.pi / SYMMETRY[scene.shape] if scene.motion == "spinning" else 0.0
    angle, (vx, vy) = first + scene.turn * t, scene.velocity
    alpha = torch.zeros(frames, side, side)
    for x, y in places(scene.count, rng):
        dx, dy = wrapped(xs - float(x) - vx * t), wrapped(ys - float(y) - vy * t)
        alpha = torch.maximum(alpha, coverage(scene.shape, dx, dy, RADIUS[scene.size], angle))
    top, bottom = BACKGROUNDS[scene.background]
    behind = (top + (bottom - top) * (ys % SIZE) / SIZE).expand(frames, side, side)
    colour = torch.tensor(COLOURS[scene.colour]).view(3, 1, 1, 1)
    return (behind + alpha * (colour - behind)) * 2 - 1


def clips(chosen, frames, rng, side=SIZE):
    """A batch [B, 3, T, side, side]; where the side is less than the picture's, a part of it at a random place."""
    out = []
    for scene in chosen:
        window = None if side == SIZE else (*rng.integers(0, SIZE, 2).tolist(), side)
        out.append(draw(scene, frames, rng, window))
    return torch.stack(out)


def save_gif(video, path, scale=4):
    """video [3, T, H, W] from -1 to 1."""
    from PIL import Image

    pixels = ((video.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 3, 0).numpy()
    pictures = [Image.fromarray(p).resize((p.shape[1] * scale, p.shape[0] * scale), Image.NEAREST) for p in pixels]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=1000 // FPS, loop=0)


def check():
    everything, train, test = scenes(), split("train"), split("heldout")
    captions = [scene.caption() for scene in everything]
    assert len(set(captions)) == len(captions) == len(train) + len(test) and all(parse(s.caption()) == s for s in everything[::97])
    assert 0.05 < len(test) / len(captions) < 0.15, len(test)
    for values in (COLOURS, SHAPES, MOTIONS, BACKGROUNDS):
        for value in values:
            assert any(value in scene.caption() for scene in test) and any(value in scene.caption() for scene in train), value
    one = draw(everything[-1], 9, np.random.default_rng(3))
    assert one.equal(draw(everything[-1], 9, np.random.default_rng(3)))
    assert len({draw(everything[-1], 1, np.random.default_rng(seed)).sum().item() for seed in range(40)}) > 3
    for scene in everything[::7]:
        video = draw(scene, 9, np.random.default_rng(1))
        assert video.shape == (3, 9, SIZE, SIZE) and video.abs().max() <= 1
        vx, vy = (int(v) for v in scene.velocity)
        if scene.motion != "spinning":  # the next frame is this one, rolled: shape and background apart
            chroma = video.amax(0) - video.amin(0)
            assert (chroma[1] - chroma[0].roll((vy, vx), (0, 1))).abs().max() < 1e-3, scene
        area = (video.amax(0) - video.amin(0)).sum((1, 2)) / (2 * (max(COLOURS[scene.colour]) - min(COLOURS[scene.colour])))
        wanted = scene.count * math.pi * RADIUS[scene.size] ** 2
        assert ((area / wanted - 1).abs() < 0.05).all(), (scene, area / wanted)
    part = draw(everything[5], 2, np.random.default_rng(2), (8, 16, 32))
    assert part.equal(draw(everything[5], 2, np.random.default_rng(2))[:, :, 8:40, 16:48])
    print(f"world: {len(captions)} captions, {len(test)} of them held out; every seventh scene drawn and measured")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="tests the world")
    parser.add_argument("--list", choices=["train", "heldout", "all"], help="prints captions")
    parser.add_argument("--caption", help="draws this one")
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", default="clip.gif")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.check:
        check()
    elif args.list:
        print("\n".join(s.caption() for s in (scenes() if args.list == "all" else split(args.list))))
    elif args.caption:
        if args.frames < 1:
            parser.error(f"--frames {args.frames}: expected at least 1")
        save_gif(draw(parse(args.caption), args.frames, np.random.default_rng(args.seed)), args.output)
    else:
        parser.error("one of --caption, --list and --check is needed")


if __name__ == "__main__":
    main()

"""Grades a clip of the toy world by code: does it show what its caption says, and how well is it drawn?

    python grader.py clip.safetensors --caption "a large red circle moving left on a black background" [--json]
    python grader.py frames/          --caption ...      # a folder of PNGs, in the order of their names
    python grader.py --check                             # calibration: ground truth, noise, and clips with one thing wrong

A safetensors file holds `video [1,3,T,H,W]` from -1 to 1, as `s2ditc generate -o clip.safetensors` writes it. Each of these is 0 to 1:

    semantic: colour, background, shape, size, count, motion      quality: flicker, identity, sharpness

`total` is the mean of the nine. Shapes are found by their chroma (the largest less the smallest of red, green and blue), which backgrounds do not have, and which is linear
in the coverage of a pixel; so nothing of the caption is used to find them. Where no shape is found, everything but the background is 0, quality too.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np
import torch

import world
from world import SIZE, wrapped

SEMANTIC = ("colour", "background", "shape", "size", "count", "motion")
QUALITY = ("flicker", "identity", "sharpness")
NAMES = SEMANTIC + QUALITY
PERIMETER = {"circle": 2 * math.pi, "square": 4 * math.sqrt(math.pi), "triangle": 6 * math.sqrt(3) * math.sqrt(math.pi / (3 * math.sqrt(3)))}  # of area pi
AXIS = torch.arange(SIZE) + 0.5


def ramp(value, worst, best):
    """0 at `worst`, 1 at `best`, straight between."""
    return min(1.0, max(0.0, (value - worst) / (best - worst)))


def components(mask):
    """Labels [T, H, W] of connected parts on the torus, 0 outside: the largest index of a pixel spreads to its four neighbours."""
    label = torch.arange(1, mask.numel() + 1).view(mask.shape) * mask
    while True:
        near = [label.roll(step, axis) for axis in (1, 2) for step in (1, -1)]
        spread = torch.stack([label, *near]).amax(0) * mask
        if spread.equal(label):
            return label
        label = spread


class Part:
    """One shape of one frame: where it is, how large, which way it points."""

    def __init__(self, alpha, mask):
        self.mask = mask
        near = mask.clone()
        for axis in (0, 1):  # two pixels more, for the soft edge
            for _ in range(2):
                near = near | near.roll(1, axis) | near.roll(-1, axis)
        self.alpha = alpha * near
        self.area = float(self.alpha.sum())
        self.x, self.y = (self.centre(self.alpha.sum(axis)) for axis in (0, 1))
        self.dx, self.dy = wrapped(AXIS - self.x).view(1, -1), wrapped(AXIS - self.y).view(-1, 1)
        self.radius = math.sqrt(self.area / math.pi)

    @staticmethod
    def centre(profile):
        """The centre of mass on the circle, refined without it."""
        angle = 2 * math.pi / SIZE * AXIS
        middle = math.atan2(float((profile * angle.sin()).sum()), float((profile * angle.cos()).sum())) * SIZE / (2 * math.pi)
        return middle + float((profile * wrapped(AXIS - middle)).sum() / profile.sum())

    def overlap(self, shape, angle):
        """Intersection over union with the ideal shape of the same area and centre."""
        ideal = world.coverage(shape, self.dx, self.dy, self.radius, torch.tensor(float(angle)))
        return float(torch.minimum(self.alpha, ideal).sum() / torch.maximum(self.alpha, ideal).sum())

    def angle(self, fold):
        """Orientation, modulo a `fold`-th of a turn."""
        re, im = self.dx.expand(SIZE, SIZE), self.dy.expand(SIZE, SIZE)
        z = torch.complex(re, im) ** fold
        return float(torch.angle((self.alpha * z).sum())) / fold

    def fit(self, spins):
        """Shape -> the best overlap, over orientations if the shape spins."""
        out = {}
        for shape in world.SHAPES:
            fold = world.SYMMETRY[shape]
            angles = np.arange(8) * 2 * math.pi / fold / 8 if spins and fold else [0.0]
            out[shape] = max(self.overlap(shape, a) for a in angles)
        return out


def shift(a, b, reach=8):
    """Pixels (right, down) by which the picture `a` moved to become `b`: the peak of their correlation on the torus, between pixels by a parabola."""
    c = torch.fft.irfft2(torch.fft.rfft2(b) * torch.fft.rfft2(a).conj(), s=b.shape)
    near = c.roll((reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1]
    row, column = divmod(int(near.argmax()), 2 * reach + 1)
    at = lambda r, k: float(c[(r - reach) % SIZE, (k - reach) % SIZE])
    peak = at(row, column)

    def between(before, after):
        bend = before - 2 * peak + after
        return 0.0 if bend >= 0 else max(-0.5, min(0.5, 0.5 * (before - after) / bend))

    return column - reach + between(at(row, column - 1), at(row, column + 1)), row - reach + between(at(row - 1, column), at(row + 1, column))


def grade(video, scene):
    """video [3, T, 64, 64] from -1 to 1, its scene -> name -> 0..1, with `semantic`, `quality` and `total`."""
    if tuple(video.shape[0:1] + video.shape[2:]) != (3, SIZE, SIZE) or video.shape[1] < 2:
        raise ValueError(f"a video of {tuple(video.shape)}: expected [3, T, {SIZE}, {SIZE}] with at least two frames")
    if not video.isfinite().all():
        return dict.fromkeys(NAMES + ("semantic", "quality", "total"), 0.0)
    rgb = (video.float().clamp(-1, 1) + 1) / 2
    frames = rgb.shape[1]
    chroma = rgb.amax(0) - rgb.amin(0)
    alpha, parts = [], []
    for t in range(frames):
        strong = chroma[t][chroma[t] > 0.3]
        full = float(strong.quantile(0.6)) if len(strong) >= 20 else 1.0
        alpha.append((chroma[t] / full).clamp(0, 1))
    alpha = torch.stack(alpha)
    labels = components(alpha > 0.5)
    for t in range(frames):
        found, pixels = labels[t].unique(return_counts=True)
        large = [int(label) for label, n in zip(found, pixels) if label > 0 and n >= 20]
        parts.append([Part(alpha[t], labels[t] == label) for label in large] if len(large) <= 6 else [])
    wanted_area = math.pi * world.RADIUS[scene.size] ** 2
    covered = alpha.sum((1, 2))
    present = [bool(p) and 0.25 * wanted_area < float(c) < 0.35 * SIZE**2 for p, c in zip(parts, covered)]
    share = sum(present) / frames

    behind = alpha < 0.04
    top, bottom = world.BACKGROUNDS[scene.background]
    ideal = (top + (bottom - top) * AXIS / SIZE).view(1, SIZE, 1)
    off = ((rgb - ideal).abs().mean(0) * behind).sum() / behind.sum().clamp(min=1)
    enough = ramp(float(behind.float().mean()), 0.2, 0.5)
    grades = {"background": ramp(float(off), 0.15, 0.03) * enough}
    if share < 0.5:
        grades |= {name: 0.0 for name in NAMES if name != "background"}
        return summed(grades)

    shown = [t for t in range(frames) if present[t]]
    core = torch.stack([rgb[:, t][:, alpha[t] > 0.9].mean(1) for t in shown])  # [frames, 3]
    spread = torch.stack([rgb[:, t][:, alpha[t] > 0.9].std(1).mean() for t in shown])
    distances = {name: (core - torch.tensor(c)).norm(dim=1) for name, c in world.COLOURS.items()}
    nearest = torch.stack(list(distances.values())).amin(0)
    right = (distances[scene.colour] <= nearest).float()
    grades["colour"] = share * float((right * (1 - ((distances[scene.colour] - 0.05) / 0.35).clamp(0, 1)) * (1 - ((spread - 0.05) / 0.2).clamp(0, 1))).mean())

    spins = scene.motion == "spinning"
    fits = [part.fit(spins) for t in shown for part in parts[t][:3]]
    grades["shape"] = share * float(np.mean([ramp(f[scene.shape], 0.7, 0.92) * (max(f, key=f.get) == scene.shape) for f in fits]))
    areas = [sum(p.area for p in parts[t]) / len(parts[t]) for t in shown]
    grades["size"] = share * float(np.mean([ramp(abs(math.log(a / wanted_area)), 0.5, 0.12) for a in areas]))
    grades["count"] = sum(len(p) == scene.count for p in parts) / frames
    grades["motion"] = motion(alpha, parts, present, scene)

    colour_step = (core[1:] - core[:-1]).norm(dim=1).mean() if len(shown) > 1 else 0.0
    both = behind[1:] & behind[:-1]
    behind_step = ((rgb[:, 1:] - rgb[:, :-1]).abs().mean(0) * both).sum() / both.sum().clamp(min=1)
    area_step = np.mean(np.abs(np.diff(np.log(areas)))) if len(areas) > 1 else 0.0
    grades["flicker"] = share * ramp(float(colour_step) + 2 * float(behind_step) + float(area_step), 0.25, 0.03)

    third = max(1, len(shown) // 3)
    first, last = shown[:third], shown[-third:]
    mean = lambda values, ts: np.mean([values[shown.index(t)] for t in ts], axis=0)
    colour_off = float(np.linalg.norm(mean(core.numpy(), first) - mean(core.numpy(), last)))
    area_off = abs(math.log(mean(areas, first) / mean(areas, last)))
    look = lambda ts: np.mean([[p.fit(spins)[s] for s in world.SHAPES] for t in ts for p in parts[t][:3]], axis=0)
    shape_off = float(np.abs(look(first) - look(last)).max())
    count_same = float(np.mean([len(parts[a]) == len(parts[b]) for a, b in zip(first, last)]))
    grades["identity"] = share * count_same * ramp(colour_off / 0.3 + area_off / 0.5 + shape_off / 0.25, 1.0, 0.1)

    edge = []
    for t in shown:
        around = sum(PERIMETER[scene.shape] * p.radius for p in parts[t])
        soft = float(((alpha[t] > 0.1) & (alpha[t] < 0.9)).sum())
        edge.append(ramp(soft / around, 3.0, 1.2))
    grades["sharpness"] = share * float(np.mean(edge))
    return summed(grades)


def motion(alpha, parts, present, scene):
    """How near each step from frame to frame is to the caption's: the shift, and the turn."""
    vx, vy = scene.velocity
    fold = world.SYMMETRY[scene.shape]
    out = []
    for t in range(len(present) - 1):
        if not (present[t] and present[t + 1]):
            out.append(0.0)
            continue
        x, y = shift(alpha[t], alpha[t + 1])
        score = ramp(math.hypot(x - vx, y - vy), 1.6, 0.3)
        if fold and scene.motion in ("spinning", "standing still"):
            turns = []
            for p in parts[t]:
                q = min(parts[t + 1], key=lambda q: wrapped(p.x - q.x) ** 2 + wrapped(p.y - q.y) ** 2)
                turn = (q.angle(fold) - p.angle(fold) + math.pi / fold) % (2 * math.pi / fold) - math.pi / fold
                turns.append(ramp(abs(turn - scene.turn), math.pi / fold / 5, math.pi / fold / 15))
            score *= float(np.mean(turns))
        out.append(score)
    return float(np.mean(out))


def summed(grades):
    grades = {name: float(grades[name]) for name in NAMES}
    mean = lambda names: sum(grades[n] for n in names) / len(names)
    return grades | {"semantic": mean(SEMANTIC), "quality": mean(QUALITY), "total": mean(NAMES)}


def read(path):
    """[3, T, H, W] from -1 to 1."""
    path = Path(path)
    if path.is_dir():
        from PIL import Image

        files = sorted(path.glob("*.png"))
        if not files:
            raise SystemExit(f"{path}: no .png in the folder: expected frames 00000.png, 00001.png, ...")
        frames = [torch.from_numpy(np.asarray(Image.open(file).convert("RGB")).copy()) for file in files]
        return torch.stack(frames).permute(3, 0, 1, 2).float() / 127.5 - 1
    if path.suffix != ".safetensors" or not path.is_file():
        raise SystemExit(f"{path}: expected a .safetensors file with `video [1,3,T,H,W]`, or a folder of .png files")
    from safetensors.torch import load_file

    tensors = load_file(path)
    if "video" not in tensors or tensors["video"].dim() != 5 or tensors["video"].shape[:2] != (1, 3):
        found = {key: list(value.shape) for key, value in tensors.items()}
        raise SystemExit(f"{path}: found {found}, expected `video` [1, 3, T, H, W]")
    return tensors["video"][0].float()


def check():
    chosen = world.split("heldout")
    rng = np.random.default_rng(7)
    truth = [grade(world.draw(s, 9, rng), s) for s in chosen[::4]]
    long = [grade(world.draw(s, 33, rng), s) for s in chosen[::38]]
    for grades in truth + long:
        assert grades["total"] >= 0.95 and min(grades[n] for n in NAMES) > 0.8, grades
    mean = np.mean([g["total"] for g in truth])
    noise = torch.Generator().manual_seed(1)
    worst = 0.0
    for i, s in enumerate(chosen[::30]):
        uniform, normal = torch.rand(3, 9, SIZE, SIZE, generator=noise) * 2 - 1, torch.randn(3, 9, SIZE, SIZE, generator=noise) * 0.5
        flat = torch.full((3, 9, SIZE, SIZE), -0.9)
        worst = max(worst, *(grade(v, s)["total"] for v in (uniform, normal, flat, flat * float("nan"))))
    assert worst <= 0.2, worst
    assert mean >= 0.95

    base = world.parse("two small red squares moving left on a gray background")
    video = world.draw(base, 17, np.random.default_rng(3))
    wrong = lambda **fields: grade(video, world.Scene(**(vars(base) | fields)))
    lower = {
        "colour": wrong(colour="purple"), "background": wrong(background="white"), "shape": wrong(shape="circle"), "count": wrong(count=3), "motion": wrong(motion="moving right"),
        "size": wrong(size="large"), "flicker": grade(video + 0.4 * (torch.arange(17) % 2).view(1, 17, 1, 1), base),
        "identity": grade(torch.cat([video[:, :8], world.draw(world.parse("two small red circles moving left on a gray background"), 9, np.random.default_rng(3))], 1), base),
        "sharpness": grade(torch.nn.functional.avg_pool2d(video.transpose(0, 1), 5, 1, 2, count_include_pad=False).transpose(0, 1), base),
    }
    for name, grades in lower.items():
        assert grades[name] < 0.5, (name, grades)
    turning = world.parse("a small red square standing still on a black background")
    assert grade(world.draw(world.Scene(**(vars(turning) | {"motion": "spinning"})), 9, rng), turning)["motion"] < 0.2
    print(f"grader: ground truth {mean:.3f} over {len(truth)} held-out captions, noise and empty pictures at most {worst:.3f}; each of the nine grades falls below 0.5 where it is wrong")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", help="a .safetensors file or a folder of PNGs")
    parser.add_argument("--caption", help="what the clip should show")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="tests the grader")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.check:
        return check()
    if not args.clip or not args.caption:
        parser.error("a clip and its --caption are needed")
    scene, video = world.parse(args.caption), read(args.clip)
    try:
        grades = grade(video, scene)
    except ValueError as error:
        sys.exit(f"{args.clip}: {error}")
    if args.json:
        print(json.dumps({"clip": args.clip, "caption": args.caption, "frames": video.shape[1], "grades": grades}))
    else:
        for name, value in grades.items():
            print(f"{name:11} {value:.3f}")


if __name__ == "__main__":
    main()

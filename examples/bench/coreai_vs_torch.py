#!/usr/bin/env python3
"""A step of the S2DiT reference as a Core AI asset: by s2ditc, and by coreai-torch, Apple's converter of PyTorch's exports.

    pip install coreai-core==1.0.0b3 coreai-torch==0.4.3 torch safetensors numpy
    cargo build --release && python3 examples/bench/coreai_vs_torch.py [--preset small] [--precision fp32] [--rounds 3] [--json]

One checkpoint with seeded weights (`s2ditc init`) goes two ways, alternating, each in a process of its own: `s2ditc compile --target coreai`, and a Python that loads the checkpoint into the reference
(`examples/reference/s2dit.py`), exports it with `torch.export`, converts and saves it. Printed of each: wall time, processor seconds, the peak of anonymous memory (RssAnon of /proc/PID/status, every 2 ms), ops without
constants of all graphs, whether two rounds made the same bytes, and the signal-to-noise ratio of the asset by Apple's runtime against the reference in float64. `--no-run` leaves the last one out: the runtime on Linux is an interpreter
that takes minutes for large models, and much longer in fp16. Needs Linux.

`imports` is what the converter's process takes until its modules are there; it is part of its time.
"""

import argparse
import asyncio
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from compile_vs_cp import run

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("latent", "timestep", "text")


def reference(checkpoint, dtype):
    sys.path.insert(0, str(ROOT / "examples/reference"))
    from s2dit import load

    return load(checkpoint, dtype)


def inputs(checkpoint, latent, dtype):
    import torch

    config = json.loads((checkpoint / "config.json").read_text())
    frames, rows, cols = latent
    rng = torch.Generator().manual_seed(3)
    shapes = ((1, config["in_channels"], frames, rows, cols), (1, config["text_len"], config["text_dim"]))
    x, text = (torch.randn(shape, generator=rng).half().to(dtype) for shape in shapes)
    return x, torch.tensor([731.25], dtype=dtype), text


def convert(checkpoint, latent, precision, out):
    """The road through coreai-torch."""
    start = time.monotonic()
    import coreai_torch
    import torch

    imports = time.monotonic() - start
    dtype = {"fp32": torch.float32, "fp16": torch.float16}[precision]
    with torch.no_grad():
        model, example = reference(checkpoint, dtype), inputs(checkpoint, latent, dtype)
        exported = torch.export.export(model, example).run_decompositions(coreai_torch.get_decomp_table())
    converter = coreai_torch.TorchConverter(mode=coreai_torch.TorchConverter.Mode.RELEASE)
    converter.add_exported_program(exported, input_names=NAMES, output_names=["velocity"])
    converter.to_coreai().save_asset(out)
    print(json.dumps({"imports": imports}))


async def call(asset, arrays):
    from coreai.authoring import AIModelAsset
    from coreai.runtime import NDArray

    async with AIModelAsset.load(asset).executable() as model:
        function = model.load_function("main")
        results = await function({name: NDArray(array) for name, array in zip(NAMES, arrays)})
        return results["velocity"].numpy().copy()


def snr(asset, checkpoint, latent, precision, out):
    """By Apple's runtime, against float64. The process ends at once: coreai-core 1.0.0b3 now and then aborts while it closes a model."""
    import numpy as np
    import torch

    given = inputs(checkpoint, latent, torch.float64)
    with torch.no_grad():
        wanted = reference(checkpoint, torch.float64)(*given).numpy()
    kinds = {"fp32": np.float32, "fp16": np.float16}
    found = asyncio.run(keep(asset, [x.numpy().astype(kinds[precision]) for x in given], out, wanted))
    return found


async def keep(asset, arrays, out, wanted):
    import numpy as np

    found = (await call(asset, arrays)).astype(np.float64)
    noise = float(((found - wanted) ** 2).sum())
    out.write_text(json.dumps(10 * float(np.log10((wanted**2).sum() / noise)) if np.isfinite(noise) else None))
    os._exit(0)


def ops(binary, asset):
    """Ops of all graphs, as `s2ditc inspect` reads them: Apple's library prints a program with its weights, in many times their memory."""
    report = subprocess.run([binary, "inspect", asset, "--json"], stdout=subprocess.PIPE, check=True)
    return sum(count for _, count in json.loads(report.stdout)["ops"])


def digest(asset):
    hasher = hashlib.sha256()
    with (asset / "main.mlirb").open("rb") as file:
        while part := file.read(1 << 24):
            hasher.update(part)
    return hasher.hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--latent", default="3x16x24")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "fp16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/s2ditc")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--no-run", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", choices=["convert", "snr"], help=argparse.SUPPRESS)
    parser.add_argument("--paths", type=Path, nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    latent = tuple(int(n) for n in args.latent.split("x"))
    if args.child == "convert":
        return convert(args.paths[0], latent, args.precision, args.paths[1])
    if args.child == "snr":
        return snr(args.paths[0], args.paths[1], latent, args.precision, args.paths[2])

    with tempfile.TemporaryDirectory(dir=args.folder) as work:
        work = Path(work)
        checkpoint = work / "checkpoint"
        run([args.binary, "init", "-q", "--preset", args.preset, "--seed", 1, "-o", checkpoint])
        size = sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))
        child = [sys.executable, "-W", "ignore", __file__, "--latent", args.latent, "--precision", args.precision]
        flags = ["--latent", args.latent, "--precision", args.precision]
        jobs = {
            "s2ditc": lambda out: [args.binary, "compile", "-q", "--no-sync", checkpoint, "--target", "coreai", *flags, "-o", out],
            "coreai-torch": lambda out: [*child, "--child", "convert", "--paths", checkpoint, out],
        }
        runs, hashes = ({job: [] for job in jobs} for _ in range(2))
        for round_ in range(args.rounds):
            for job, command in jobs.items():
                out = work / f"{job}{round_}.aimodel"
                runs[job].append(run(command(out)))
                hashes[job].append(digest(out))
                if round_:
                    for file in out.iterdir():
                        file.unlink()
        rows = []
        for job, measured in runs.items():
            asset = work / f"{job}0.aimodel"
            wall, user, system, _ = (statistics.median(column) for column in zip(*measured))
            found = None
            if not args.no_run:
                to = work / f"{job}.json"
                subprocess.run([*child, "--child", "snr", "--paths", asset, checkpoint, to], stdout=subprocess.DEVNULL, check=True)
                found = json.loads(to.read_text())
            rows.append(
                {
                    "job": job,
                    "seconds": [r[0] for r in measured],
                    "median": wall,
                    "cpu": user + system,
                    "peak_anonymous_mb": max(r[3] for r in measured),
                    "bytes": sum(file.stat().st_size for file in asset.iterdir()),
                    "ops": ops(args.binary, asset),
                    "same_bytes": len(set(hashes[job])) == 1 if args.rounds > 1 else None,
                    "snr_db": found,
                }
            )
    if args.json:
        print(json.dumps({"preset": args.preset, "latent": args.latent, "precision": args.precision, "bytes": size, "jobs": rows}))
        return
    print(f"{args.preset}, {args.latent}, {args.precision}: a checkpoint of {size / 1e6:.0f} MB")
    print(f"{'job':14} {'wall':>8} {'cpu':>8} {'anonymous':>11} {'asset':>9} {'ops':>6} {'bytes':>8} {'SNR':>9}")
    for r in rows:
        same = {None: "", True: "same", False: "differ"}[r["same_bytes"]]
        found = "" if r["snr_db"] is None else f"{r['snr_db']:.1f} dB"
        print(
            f"{r['job']:14} {r['median']:7.2f}s {r['cpu']:7.2f}s {r['peak_anonymous_mb']:8.0f} MB {r['bytes'] / 1e6:6.0f} MB {r['ops']:6} {same:>8} {found:>9}"
        )


if __name__ == "__main__":
    main()

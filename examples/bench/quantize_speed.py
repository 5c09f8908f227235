#!/usr/bin/env python3
"""Time and memory of compressed compiles, and palettizing beside coremltools on the same tensors.

    cargo build --release --workspace --examples
    PYTHON_WITH_COREMLTOOLS examples/bench/quantize_speed.py [--preset 1.8b] [--rounds 1] [--skip-compile] [--skip-tensors]

The first table: `compile --target coreml` of a checkpoint in fp16, int8 and 4 bits in groups of 16, alternating; wall time and the
peak of anonymous memory. The second: parameters a second and relative error ‖stored − weight‖/‖weight‖ of our palettes
(`compress_speed --raw`, all cores) and of coremltools' (`palettize_weights.blockwise_compress`, its default of one
worker; its table rounded to fp16, as it is stored).
"""

import argparse
import subprocess
import tempfile
import time
from pathlib import Path

from compile_vs_cp import ROOT, run

SCHEMES = ["fp16", "int8", "palette4-group16"]


def compiles(args):
    with tempfile.TemporaryDirectory(dir=args.folder) as work:
        work = Path(work)
        checkpoint, out = work / "checkpoint", work / "out.mlpackage"
        run([args.binary, "init", "-q", "--preset", args.preset, "--seed", 1, "-o", checkpoint])
        base = [args.binary, "compile", "-q", checkpoint, "--latent", args.latent, "--target", "coreml", "-o", out]
        seconds, memory = {s: [] for s in SCHEMES}, {s: 0.0 for s in SCHEMES}
        for _ in range(args.rounds):
            for scheme in SCHEMES:
                took, peak = run(base + ["--quantize", scheme])
                seconds[scheme].append(took)
                memory[scheme] = max(memory[scheme], peak)
        print(f"| compile of {args.preset} | time | beside fp16 | anonymous memory |\n|---|---|---|---|")
        whole = sorted(seconds["fp16"])[len(seconds["fp16"]) // 2]
        for scheme in SCHEMES:
            median = sorted(seconds[scheme])[len(seconds[scheme]) // 2]
            print(f"| {scheme} | {median:.1f} s | {median / whole:.1f}× | {memory[scheme]:.0f} MB |")


def tensors():
    import numpy as np

    rng = np.random.default_rng(7)
    shape = (512, 1024)
    normal = rng.standard_normal(shape) * 0.02
    rows = normal * np.exp(rng.standard_normal((shape[0], 1)))

    def stored(x):
        """As a bf16 checkpoint holds it, in fp16."""
        bits = x.astype(np.float32).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32).astype(np.float16)

    return {
        "normal": stored(normal),
        "Laplace": stored(rng.laplace(size=shape) * 0.02),
        "Student t, 4 degrees": stored(rng.standard_t(4, size=shape) * 0.02),
        "normal, rows of many sizes": stored(rows),
    }


def beside_coremltools(args):
    import numpy as np
    from coremltools.optimize.coreml._quantization_passes import palettize_weights

    example = args.binary.parent / "examples/compress_speed"
    print("\n| tensor 512×1024 | scheme | coremltools gets | ours, M/s | coremltools, M/s | ratio | our error | its error |\n|---|---|---|---|---|---|---|---|")
    for name, tensor in tensors().items():
        for scheme, bits, group in [("palette4-group16", 4, 16), ("palette6", 6, 0)]:
            with tempfile.NamedTemporaryFile() as file:
                file.write(tensor.tobytes())
                file.flush()
                command = [example, "--raw", file.name, *map(str, tensor.shape), scheme]
                printed = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(3)]
                ours, error = sorted(tuple(map(float, p.split())) for p in printed)[1]
            # coremltools clusters fp32 weights with scikit-learn, large fp16 ones with kmeans1d.
            for dtype in (np.float32, np.float16):
                start = time.monotonic()
                params = palettize_weights.blockwise_compress(tensor.astype(dtype), "KMEANS", bits, [group, 0])
                theirs = time.monotonic() - start
                lut = params.lut.astype(np.float16).astype(np.float64)
                lut = lut.reshape(-1, lut.shape[-2])
                indices = params.indices.reshape(len(lut), -1)
                decoded = np.take_along_axis(lut, indices.astype(np.int64), axis=1).reshape(tensor.shape)
                exact = tensor.astype(np.float64)
                their_error = np.linalg.norm(decoded - exact) / np.linalg.norm(exact)
                n = tensor.size / 1e6
                print(
                    f"| {name} | {scheme} | {np.dtype(dtype)} | {n / ours:.1f} | {n / theirs:.3f} | {theirs / ours:.0f}× "
                    f"| {error:.6f} | {their_error:.6f} |"
                )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="1.8b")
    parser.add_argument("--latent", default="3x36x64")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/s2ditc")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--skip-compile", action="store_true")
    parser.add_argument("--skip-tensors", action="store_true")
    args = parser.parse_args()
    if not args.skip_compile:
        compiles(args)
    if not args.skip_tensors:
        beside_coremltools(args)


if __name__ == "__main__":
    main()

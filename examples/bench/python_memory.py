"""Memory of one Python process over many predictions and many compiles.

    python examples/bench/python_memory.py [--predictions 10000] [--compiles 1000]

Needs the module s2ditc. Prints the resident memory (MB) before, at each tenth of the way and at the end: it must not grow. The package is the golden `cnn`, whose
weights and arrays are small, so that a leak shows; what is compiled is the preset `tiny`.
"""

import argparse
import pathlib
import tempfile
import time

import numpy as np
import s2ditc

GOLDENS = pathlib.Path(__file__).resolve().parents[2] / "tests" / "goldens"


def resident():
    """Resident memory in MB."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def watch(what, times, work):
    for _ in range(max(times // 20, 1)):
        work()
    before, begun, seen = resident(), time.perf_counter(), []
    for i in range(times):
        work()
        if (i + 1) % max(times // 10, 1) == 0:
            seen.append(f"{resident():.1f}")
    seconds = time.perf_counter() - begun
    print(f"{times} {what}: {before:.1f} MB before, then {', '.join(seen)}; {1e3 * seconds / times:.2f} ms each")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--predictions", type=int, default=10_000)
    parser.add_argument("--compiles", type=int, default=1000)
    args = parser.parse_args()
    folder = GOLDENS / "packages" / "cnn"
    package = s2ditc.Package(folder / "model.mlpackage", threads=1)
    inputs = dict(np.load(folder / "inputs.npz"))
    watch("predictions", args.predictions, lambda: package.predict(inputs))
    with tempfile.TemporaryDirectory() as work:
        s2ditc.init(preset="tiny", output=f"{work}/tiny")
        out = f"{work}/tiny.mlpackage"
        watch(
            "compiles",
            args.compiles,
            lambda: s2ditc.compile(f"{work}/tiny", target="coreml", latent=(3, 8, 8), output=out, no_sync=True, progress=False),
        )


if __name__ == "__main__":
    main()

"""Time of `Package.predict` beside the same graph in ONNX Runtime's own Python module.

    python examples/bench/predict_speed.py [--rounds 200] [--threads 1]

Needs the modules s2ditc and onnxruntime. An ONNX file is the same graph for both. The fp16 package of the same checkpoint stands beside it: another graph, of Core ML's operations
in the Neural Engine's layout. Calls of the two alternate, each takes arrays of NumPy and returns them, and medians are printed: of the time that passes, and of the processor's time
in this process, which other work on the machine changes less.
"""

import argparse
import pathlib
import statistics
import tempfile
import time

import numpy as np
import onnxruntime
import s2ditc


def timed(work):
    begun = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begun[0], time.process_time() - begun[1]


def compare(name, ours, theirs, rounds):
    for _ in range(max(rounds // 10, 3)):
        ours(), theirs()
    times = [(timed(ours), timed(theirs)) for _ in range(rounds)]
    for which, clock in enumerate(("passed", "processor")):
        one, other = (1e3 * statistics.median(each[which] for each in side) for side in zip(*times))
        print(f"{name:40} {clock:9} s2ditc {one:8.3f} ms   ONNX Runtime {other:8.3f} ms   {one / other:.3f} times", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    with tempfile.TemporaryDirectory() as work:
        for preset, latent in [("tiny", (3, 8, 8)), ("tiny", (3, 24, 24)), ("small", (3, 16, 24))]:
            checkpoint = f"{work}/{preset}"
            if not pathlib.Path(checkpoint).exists():
                s2ditc.init(preset=preset, seed=7, output=checkpoint, progress=False)
            side = "x".join(map(str, latent))
            made = {}
            for what, target, precision in [("onnx", "onnx", "fp32"), ("mlpackage", "coreml", "fp16")]:
                made[what] = f"{work}/{preset}-{side}.{what}"
                s2ditc.compile(checkpoint, target=target, latent=latent, precision=precision, output=made[what], no_sync=True, progress=False)
            session = onnxruntime.InferenceSession(made["onnx"], options, providers=["CPUExecutionProvider"])
            rng = np.random.default_rng(0)
            inputs = {each.name: rng.standard_normal(each.shape).astype(np.float32) for each in session.get_inputs()}
            inputs["timestep"][:] = 500
            for what in ("onnx", "mlpackage"):
                package = s2ditc.Package(made[what], threads=args.threads)
                name = f"{preset} {side}, {'the same ONNX file' if what == 'onnx' else 'its fp16 package'}"
                compare(name, lambda: package.predict(inputs), lambda: session.run(None, inputs), args.rounds)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""What guidance costs: one call of a step of two clips (compile --batch 2) beside two calls of a step of one.

    pip install onnx onnxruntime 'numpy<2'
    cargo build --release && python3 examples/bench/guidance.py [--preset wan ...] [--json]

For each model: ops a block and ops that leave in the package for the Neural Engine (`s2ditc lint`); the bytes of fp32 activations that are alive at once in the ONNX step, most of them over
the order of its nodes; and the time in ONNX Runtime, two calls against one, alternating in one run, medians. The outputs of both ways are compared.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

ROOT = Path(__file__).resolve().parents[2]
# Four blocks of a width of 512: the published models' shapes, smaller.
SIZES = {
    "small": ("small", [], "3x36x64"),
    "wan": ("wan-tiny", ["num_attention_heads=8", "attention_head_dim=64", "num_layers=4", "ffn_dim=2048", "text_dim=1024", "text_len=128"], "3x32x48"),
    "ltx": ("ltx-tiny", ["num_attention_heads=8", "attention_head_dim=64", "cross_attention_dim=512", "num_layers=4", "caption_channels=1024", "text_len=128"], "3x24x48"),
}


def live_bytes(path):
    """Most bytes of values that are alive at once, weights left out."""
    model = onnx.shape_inference.infer_shapes(onnx.load(str(path)), data_prop=True)
    graph = model.graph
    weights = {w.name for w in graph.initializer}
    size = {}
    for value in [*graph.value_info, *graph.input, *graph.output]:
        tensor = value.type.tensor_type
        size[value.name] = 4 * int(np.prod([d.dim_value for d in tensor.shape.dim]))
    last = {name: i for i, node in enumerate(graph.node) for name in node.input}
    last |= {output.name: len(graph.node) for output in graph.output}
    constant, alive, most = set(weights), 0, 0
    alive = sum(size[i.name] for i in graph.input if i.name not in weights)
    for i, node in enumerate(graph.node):
        if all(name in constant or not name for name in node.input):
            constant |= set(node.output)
            continue
        alive += sum(size.get(name, 0) for name in node.output)
        most = max(most, alive)
        for name in set(node.input) - constant:
            if last.get(name) == i:
                alive -= size.get(name, 0)
    return most


def session(path, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def measured(s2ditc, preset, sets, latent, rounds, threads, work):
    checkpoint = work / "checkpoint"
    flags = [x for s in sets for x in ("--set", s)]
    subprocess.run([s2ditc, "init", "-q", "--preset", preset, *flags, "--seed", "1", "--dtype", "fp32", "-o", checkpoint], check=True)
    rows, sessions = {}, {}
    for batch in (1, 2):
        common = ["compile", "-q", checkpoint, "--latent", latent, "--batch", str(batch)]
        step, package = work / f"{batch}.onnx", work / f"{batch}.mlpackage"
        subprocess.run([s2ditc, *common, "--target", "onnx", "-o", step], check=True)
        subprocess.run([s2ditc, *common, "--target", "coreml", "--timesteps", "from-config", "-o", package], check=True)
        summary = json.loads(subprocess.run([s2ditc, "lint", "--json", package], check=True, capture_output=True).stdout)
        summary = summary["packages"][0]["summary"]
        blocks = summary["functions"][0]["blocks"]
        rows[batch] = {
            "ops": sum(summary["ops"].values()),
            "a_block": sum(blocks.values()) / len(blocks),
            "off": summary["verdicts"]["leaves"] + summary["verdicts"]["may_leave"],
            "live_mb": live_bytes(step) / 1e6,
        }
        sessions[batch] = session(step, threads)
    rng = np.random.default_rng(0)
    feeds = {i.name: rng.standard_normal(i.shape).astype(np.float32) for i in sessions[2].get_inputs()}
    feeds["timestep"] = np.array([731.25], np.float32)
    if "text_mask" in feeds:
        feeds["text_mask"][:] = 1
    ones = [{name: x if name == "timestep" else x[i : i + 1] for name, x in feeds.items()} for i in range(2)]
    two_calls = lambda: np.concatenate([sessions[1].run(["velocity"], one)[0] for one in ones])
    one_call = lambda: sessions[2].run(["velocity"], feeds)[0]
    a, b = two_calls().astype(np.float64), one_call()
    times = {1: [], 2: []}
    for _ in range(rounds):
        for batch, run in ((1, two_calls), (2, one_call)):
            start = time.perf_counter()
            run()
            times[batch].append(1e3 * (time.perf_counter() - start))
    for batch in (1, 2):
        rows[batch]["ms"] = statistics.median(times[batch])
    return {
        "two_calls": rows[1],
        "one_call": rows[2],
        "time_ratio": rows[2]["ms"] / rows[1]["ms"],
        "relative_l2": float(np.linalg.norm(b - a) / np.linalg.norm(a)),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", action="append", choices=SIZES)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--s2ditc", type=Path, default=ROOT / "target/release/s2ditc")
    args = parser.parse_args()
    report = {}
    for name in args.preset or SIZES:
        with tempfile.TemporaryDirectory() as work:
            report[name] = measured(args.s2ditc, *SIZES[name], args.rounds, args.threads, Path(work))
    if args.json:
        print(json.dumps(report, indent=2))
        return
    for name, rows in report.items():
        print(f"{name}, latent {SIZES[name][2]}: time {rows['time_ratio']:.2f}x, outputs differ by {rows['relative_l2']:.1e}")
        for way in ("two_calls", "one_call"):
            row = rows[way]
            print(
                f"  {way.replace('_', ' '):10}{row['ops']:6} ops{row['a_block']:7.1f} a block{row['off']:4} off"
                f"{row['live_mb']:9.1f} MB alive{row['ms']:9.1f} ms"
            )


if __name__ == "__main__":
    main()

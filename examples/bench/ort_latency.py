#!/usr/bin/env python3
"""Latency of the emitted ONNX step in ONNX Runtime, beside every way that PyTorch itself exports the reference.

    cargo build --release && python3 examples/bench/ort_latency.py [--preset small | --config FILE] [--latent 3x36x64] [--json]

The rivals: torch.onnx.export with the dynamo exporter at opsets 18 and 23, and with TorchScript, each also through onnxslim. All
fp32, one ONNX Runtime (from Python), the same threads, alternating in one run; medians. Each output is compared with ours, so that
no rival wins by computing something else. Prints the share of this machine's matrix-product peak that each step reaches: the FLOPs
of the step (`s2ditc inspect`; element-wise ones are a percent) by its time, beside an fp32 product of 2048³ in the same ONNX Runtime. Needs torch, onnx,
onnxscript, onnxslim, onnxruntime, safetensors.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import contrib
import numpy as np
import onnx
import onnxruntime
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples/reference"))
from s2dit import load  # noqa: E402


class Step(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, latent, timestep, text):
        return self.model(latent, timestep, text)


def reshape_unflatten(x, dim, sizes):
    """`unflatten` as a reshape by numbers: TorchScript's exporter fails on the original."""
    dim %= x.dim()
    sizes, size = [int(s) for s in sizes], int(x.shape[dim])
    known = int(np.prod([s for s in sizes if s != -1]))
    sizes = [size // known if s == -1 else s for s in sizes]
    return x.reshape(*[int(d) for d in x.shape[:dim]], *sizes, *[int(d) for d in x.shape[dim + 1 :]])


def export_all(model, feeds, folder):
    """name -> path of every export that works."""
    args = tuple(torch.from_numpy(feeds[k]) for k in ("latent", "timestep", "text"))
    names = dict(input_names=["latent", "timestep", "text"], output_names=["velocity"])
    ways = {
        "torch dynamo 18": dict(dynamo=True, opset_version=18),
        "torch dynamo 23": dict(dynamo=True, opset_version=23),
        "torch TorchScript 18": dict(dynamo=False, opset_version=18, do_constant_folding=True),
    }
    paths = {}
    for name, options in ways.items():
        path = folder / (name.replace(" ", "_") + ".onnx")
        plain = torch.Tensor.unflatten
        try:
            if not options["dynamo"]:
                torch.Tensor.unflatten = reshape_unflatten
            with torch.no_grad():
                torch.onnx.export(Step(model), args, str(path), **names, **options)
            onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:
            print(f"{name}: {str(error).splitlines()[0][:120]}", file=sys.stderr)
            continue
        finally:
            torch.Tensor.unflatten = plain
        paths[name] = path
        try:
            import onnxslim

            slim = folder / (path.stem + "_slim.onnx")
            onnx.save(onnxslim.slim(onnx.load(str(path))), str(slim), save_as_external_data=True, location=slim.name + ".data")
            onnxruntime.InferenceSession(str(slim), providers=["CPUExecutionProvider"])
            paths[name + " + slim"] = slim
        except Exception as error:
            print(f"{name} + slim: {str(error).splitlines()[0][:120]}", file=sys.stderr)
    return paths


def session(path, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def product_peak(threads, folder):
    """FLOP/s of a 2048³ fp32 product in this ONNX Runtime."""
    n = 2048
    info = onnx.helper.make_tensor_value_info
    w = onnx.numpy_helper.from_array(np.random.default_rng(0).standard_normal((n, n)).astype(np.float32), "w")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [info("x", 1, [n, n])], [info("y", 1, [n, n])], [w])
    path = folder / "product.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10), str(path))
    loaded = session(path, threads)
    x = np.random.default_rng(1).standard_normal((n, n)).astype(np.float32)
    loaded.run(None, {"x": x})
    best = min(timed(lambda: loaded.run(None, {"x": x})) for _ in range(5))
    return 2 * n**3 / best


def timed(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--set", action="append", default=[], help="field=json, as for s2ditc init")
    parser.add_argument("--latent", default="3x36x64")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ours-only", action="store_true")
    parser.add_argument("--also", action="append", default=[], type=Path, help="another ONNX file of the same step to time")
    parser.add_argument("--flags", default="", help="more flags for s2ditc compile, as another rival")
    parser.add_argument("--contrib", action="store_true", help="our file with ops of com.microsoft too, as rivals")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--s2ditc", type=Path, default=ROOT / "target/release/s2ditc")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")

    def s2ditc(*command):
        return subprocess.run([str(c) for c in (args.s2ditc, *command)], check=True, capture_output=True, text=True).stdout

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        checkpoint = folder / "checkpoint"
        sets = [x for s in args.set for x in ("--set", s)]
        s2ditc("init", "--preset", args.preset, *sets, "--seed", "1", "--dtype", "fp32", "-o", checkpoint, "-q")
        onnx_flags = ["--target", "onnx", "--precision", "fp32", "--latent", args.latent]
        paths = {"s2ditc": folder / "ours.onnx"}
        s2ditc("compile", checkpoint, *onnx_flags, "-o", paths["s2ditc"], "-q")
        if args.flags:
            paths[f"s2ditc {args.flags}"] = folder / "flags.onnx"
            s2ditc("compile", checkpoint, *onnx_flags, *args.flags.split(), "-o", folder / "flags.onnx", "-q")
        rng = np.random.default_rng(0)
        feeds = {
            i.name: rng.standard_normal(i.shape).astype(np.float32) for i in session(paths["s2ditc"], args.threads).get_inputs()
        }
        feeds["timestep"][:] = 731.25
        if not args.ours_only:
            paths |= export_all(load(checkpoint, torch.float32).eval(), feeds, folder)
        paths |= {str(p): p for p in args.also}
        for name, families in contrib.FAMILIES.items() if args.contrib else ():
            out = folder / f"{name.replace(' ', '_')}.onnx"
            if contrib.rewrite(paths["s2ditc"], families, out):
                paths[f"s2ditc with {name}"] = out
        sessions = {name: session(path, args.threads) for name, path in paths.items()}
        nodes = {name: len(onnx.load(str(path), load_external_data=False).graph.node) for name, path in paths.items()}
        outputs = {name: s.run(["velocity"], feeds)[0] for name, s in sessions.items()}
        times = {name: [] for name in sessions}
        for _ in range(args.rounds):
            for name, s in sessions.items():
                times[name].append(timed(lambda: s.run(None, feeds)))
        peak = product_peak(args.threads, folder)
        costs = json.loads(s2ditc("inspect", checkpoint, "--latent", args.latent, "--json"))["model"]["costs"]
        flops = sum(cost["flops"] for cost in costs)
    ours = outputs["s2ditc"].astype(np.float64)
    rows = []
    for name in sessions:
        seconds = statistics.median(times[name])
        error = np.linalg.norm(outputs[name] - ours) / np.linalg.norm(ours)
        row = {"model": name, "nodes": nodes[name], "ms": 1e3 * seconds, "relative_l2_to_ours": float(error)}
        row["share_of_peak"] = flops / seconds / peak
        rows.append(row)
    if args.json:
        print(json.dumps({"preset": args.preset, "latent": args.latent, "threads": args.threads, "peak_gflops": peak / 1e9, "rows": rows}, indent=2))
        return
    best = min((r["ms"] for r in rows if r["model"].startswith("torch")), default=rows[0]["ms"])
    print(f"{args.preset}, latent {args.latent}, {args.threads} threads; product peak {peak / 1e9:.0f} GFLOP/s")
    print(f"{'model':34}{'nodes':>7}{'ms':>9}{'of best':>9}{'of peak':>9}{'to ours':>10}")
    for r in rows:
        share = f"{100 * r['share_of_peak']:.0f} %"
        print(f"{r['model']:34}{r['nodes']:7}{r['ms']:9.1f}{r['ms'] / best:8.2f}x{share:>9}{r['relative_l2_to_ours']:10.1e}")


if __name__ == "__main__":
    main()

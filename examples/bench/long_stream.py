#!/usr/bin/env python3
"""An hour of stream: do the states stay exact, do time and memory stay flat?

    cargo build --release && python3 examples/bench/long_stream.py [--chunks 3600] [--json]

Streams the golden `stream_tiny` checkpoint for CHUNKS chunks with every kind of kernel, and with the float64 PyTorch reference
on the same noise. Prints for each kernel the relative error of the linear-attention sums in the saved state (means over chunks,
high half plus low half, unpacked as contract.json says), the time of a chunk in the first and in the last hundred, and anonymous
memory (which holds the whole recorded noise) after the first hundred chunks and at the end. Needs torch and safetensors, and Linux for /proc.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples/reference"))
from s2dit import load  # noqa: E402
from stream import Stream  # noqa: E402

GOLDEN = ROOT / "tests/goldens/stream_tiny"
KERNELS = [
    ["onnx", "fp32", "io", "separate"],
    ["onnx", "fp16", "io", "separate"],
    ["coreml", "fp32", "io", "shared"],
    ["coreml", "fp16", "io", "shared"],
    ["coreml", "fp16", "io", "separate"],
    ["coreml", "fp16", "native", "shared"],
    ["coreml", "fp16", "native", "separate"],
]


def unpacked(state, contract):
    """Buffer name -> float64 tensor of a saved state."""
    tensors = {k.removeprefix("state."): v.double() for k, v in load_file(state).items()}
    for p in contract.get("packing", []):
        rows = tensors[p["state"]][p["row"] : p["row"] + p["rows"]]
        count = torch.Size(p["shape"]).numel()
        tensors[p["buffer"]] = rows.reshape(-1)[:count].reshape(p["shape"])
    return tensors


def sums_error(state, contract, truth, commits, tokens):
    """The largest relative error of a block's sums and normalisers."""
    found = unpacked(state, contract)
    worst = 0.0
    for block, (sums, norm) in truth.items():
        for name, want in [("sum", sums), ("norm", norm)]:
            base = f"blocks_{block}_attn1_{name}"
            have = found[base] + found.get(f"{base}_low", 0.0)
            want = want / (commits * tokens[block])
            worst = max(worst, ((have - want).norm() / want.norm()).item())
    return worst


def anonymous(pid):
    """Bytes of memory that is no mapped file, RssAnon, of a process and its children: s2ditc runs models in a child process."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024 + sum(anonymous(child) for child in children)
    raise OSError("the process has ended")


def stream(s2ditc, kernel, noise, chunks, fp16, state):
    """(summary, [(seconds, anonymous bytes)])"""
    command = [s2ditc, "stream", kernel, "--prompt", noise, "--noise", noise, "--chunks", chunks, "--state-out", state, "--json", "-q"]
    if fp16:
        command.append("--fp16")
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE)
    samples, start = [], time.monotonic()

    def watch():
        while process.poll() is None:
            try:
                samples.append((time.monotonic() - start, anonymous(process.pid)))
            except (OSError, IndexError):
                return
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, _ = process.communicate()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: exit {process.returncode}")
    return json.loads(out), samples


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=3600)
    parser.add_argument("--s2ditc", type=Path, default=ROOT / "target/release/s2ditc")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    golden = load_file(GOLDEN / "golden.safetensors")
    shape = golden["stream.noise"].shape[1:]
    torch.manual_seed(3)
    noise = torch.randn(args.chunks, *shape)
    model = load(GOLDEN / "checkpoint")
    reference = Stream(model, golden["text"].double())
    start = time.monotonic()
    for i in range(args.chunks):
        reference.make_chunk(noise[i].double())
        if not args.json and sys.stderr.isatty():
            print(f"\rPyTorch float64: chunk {i + 1}/{args.chunks}", end="", file=sys.stderr)
    seconds = time.monotonic() - start
    layout = model.config.layout
    truth = {i: (p.S, p.z) for i, (p, kind) in enumerate(zip(reference.pasts, layout)) if kind == "lcha"}

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        save_file({"stream.noise": noise, "text": golden["text"]}, folder / "noise.safetensors")
        for target, precision, states, functions in KERNELS:
            kernel = folder / f"{target}-{precision}-{states}-{functions}"
            flags = ["--target", target, "--precision", precision, "--states", states, "--functions", functions]
            command = [args.s2ditc, "compile", GOLDEN / "checkpoint", "--mode", "stream", "--latent", "8x8", *flags, "-q", "-o", kernel]
            subprocess.run([str(c) for c in command], check=True)
            contract = json.loads((kernel / "contract.json").read_text())
            chunk = contract["chunk"]
            _, ph, pw = model.config.patch_size
            tokens = {i: chunk["frames"] * (chunk["rows"] // ph) * (chunk["cols"] // pw) for i in truth}
            fp16 = target == "coreml" and precision == "fp16"
            state = folder / "state.safetensors"
            summary, samples = stream(args.s2ditc, kernel, folder / "noise.safetensors", args.chunks, fp16, state)
            times = summary["chunk_seconds"]
            window = min(100, args.chunks // 2)
            # Chunks begin when the kernel is loaded.
            early = summary["load_seconds"] + sum(times[:window])
            rows.append(
                {
                    "kernel": " ".join([target, precision, states, functions]),
                    "sums_relative_error": sums_error(state, contract, truth, args.chunks, tokens),
                    "first_hundred_ms": 1e3 * statistics.median(times[:window]),
                    "last_hundred_ms": 1e3 * statistics.median(times[-window:]),
                    "memory_after_first_hundred_mb": max((r for t, r in samples if t <= early), default=0) / 1e6,
                    "memory_at_the_end_mb": samples[-1][1] / 1e6,
                }
            )
    if args.json:
        print(json.dumps({"chunks": args.chunks, "pytorch_float64_seconds": seconds, "rows": rows}, indent=2))
        return
    print(f"\n{args.chunks} chunks of stream_tiny; PyTorch float64: {1e3 * seconds / args.chunks:.1f} ms a chunk")
    print(f"{'kernel':32}{'sums':>10}{'first 100':>12}{'last 100':>12}{'MB then':>10}{'MB at end':>11}")
    for r in rows:
        print(
            f"{r['kernel']:32}{r['sums_relative_error']:10.1e}{r['first_hundred_ms']:9.2f} ms{r['last_hundred_ms']:9.2f} ms"
            f"{r['memory_after_first_hundred_mb']:10.1f}{r['memory_at_the_end_mb']:11.1f}"
        )


if __name__ == "__main__":
    main()

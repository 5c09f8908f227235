#!/usr/bin/env python3
"""The models of diffusers, as s2ditc compiles them and as coremltools and torch.onnx export them: ops a block, and time in ONNX Runtime.

    pip install torch==2.7.1 diffusers==0.42.1 accelerate coremltools==9.0 'numpy<2' onnx onnxscript onnxruntime safetensors
    cargo build --release && python3 examples/bench/diffusers_exports.py [--model wan ...] [--skip coremltools] [--json]

A small model of each class (4 blocks of width 512, about 1,150 tokens) with seeded weights is saved by `save_pretrained` and goes two ways. Ops: `s2ditc lint` counts those of a block in
the package for the Neural Engine, and in what coremltools makes of the class. Time: the fp32 ONNX step of s2ditc beside `torch.onnx.export` of the class (dynamo, opsets 18 and 23), one ONNX Runtime, the
same threads, alternating in one run, medians; `quiet` is the share of the fastest run in the median. Each output is compared with ours. Exits with 1 if ours has more ops a block, or is slower than the best export by more
than --slack.

Both sides take the latent unpacked. What a pipeline of diffusers does around the class (packing tokens, the table of timesteps) is inside the traced module where the class takes it as an argument.
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

import numpy as np
import onnx
import onnxruntime
import torch
from diffusers import LTXPipeline, LTXVideoTransformer3DModel, SanaVideoTransformer3DModel, WanTransformer3DModel

ROOT = Path(__file__).resolve().parents[2]
warnings.filterwarnings("ignore")

WIDTH = dict(num_attention_heads=8, attention_head_dim=64, num_layers=4)
TEXT = 128


class Wan(torch.nn.Module):
    """Text to video."""

    LATENT = (16, 3, 32, 48)
    TEXT_WIDTH = 1024

    def __init__(self):
        super().__init__()
        self.model = WanTransformer3DModel(**WIDTH, in_channels=16, out_channels=16, text_dim=1024, freq_dim=256, ffn_dim=2048)

    def forward(self, latent, timestep, text):
        return self.model(latent, timestep, text, return_dict=False)[0]


class Ltx(torch.nn.Module):
    """Text to video; tokens are packed and unpacked as by the pipeline."""

    LATENT = (128, 3, 16, 24)
    TEXT_WIDTH = 1024

    def __init__(self):
        super().__init__()
        self.model = LTXVideoTransformer3DModel(**WIDTH, cross_attention_dim=512, caption_channels=1024)

    def forward(self, latent, timestep, text, text_mask):
        _, frames, rows, cols = self.LATENT
        y = self.model(
            LTXPipeline._pack_latents(latent), text, timestep, text_mask, frames, rows, cols, (8 / 25, 32, 32), return_dict=False
        )[0]
        return LTXPipeline._unpack_latents(y, frames, rows, cols)


class Sana(torch.nn.Module):
    """Text to video."""

    LATENT = (16, 3, 32, 48)
    TEXT_WIDTH = 1024

    def __init__(self):
        super().__init__()
        self.model = SanaVideoTransformer3DModel(
            **WIDTH, in_channels=16, out_channels=16, num_cross_attention_heads=8, cross_attention_head_dim=64, cross_attention_dim=512,
            caption_channels=1024, mlp_ratio=3.0,
        )

    def forward(self, latent, timestep, text, text_mask):
        return self.model(latent, text, timestep, encoder_attention_mask=text_mask, return_dict=False)[0]


MODELS = {"wan": Wan, "ltx": Ltx, "sana": Sana}


def seeded(kind):
    torch.manual_seed(1)
    module = kind().float().eval()
    g = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=g) * parameter[0].numel() ** -0.5)
    return module


def checkpoint_of(module, folder):
    module.model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text()) | {"text_len": TEXT}
    if isinstance(module, Ltx):
        config["causal_temporal_positioning"] = False
    (folder / "config.json").write_text(json.dumps(config))


def inputs_of(kind):
    rng = np.random.default_rng(0)
    feeds = {
        "latent": rng.standard_normal((1, *kind.LATENT)).astype(np.float32),
        "timestep": np.array([731.25], np.float32),
        "text": rng.standard_normal((1, TEXT, kind.TEXT_WIDTH)).astype(np.float32),
    }
    if kind is not Wan:
        feeds["text_mask"] = (np.arange(TEXT)[None] < 100).astype(np.float32)
    return feeds


def coremltools_package(module, feeds, out):
    """The class through torch.export, fp16, iOS 18."""
    import coremltools as ct

    with torch.no_grad():
        program = torch.export.export(module, tuple(map(torch.from_numpy, feeds.values()))).run_decompositions({})
    package = ct.convert(
        program,
        inputs=[ct.TensorType(name, shape=x.shape, dtype=np.float32) for name, x in feeds.items()],
        outputs=[ct.TensorType("velocity")],
        minimum_deployment_target=ct.target.iOS18,
        compute_precision=ct.precision.FLOAT16,
        skip_model_load=True,
    )
    package.save(str(out))


def narrow(module):
    """coremltools has neither complex nor double numbers: the tables of RoPE and of the timestep in fp32, which the class makes in float64."""
    for buffer_of in module.modules():
        for name, buffer in list(buffer_of._buffers.items()):
            if buffer is not None and buffer.dtype == torch.float64:
                buffer_of._buffers[name] = buffer.float()
    return module


def ops(binary, package):
    report = json.loads(subprocess.run([binary, "lint", "--json", package], check=True, capture_output=True).stdout)
    summary = report["packages"][0]["summary"]
    blocks = summary["functions"][0]["blocks"]
    return {
        "ops": sum(summary["ops"].values()),
        "a_block": sum(blocks.values()) / max(1, len(blocks)),
        "transposes": summary["ops"].get("transpose", 0),
        "off": summary["verdicts"]["leaves"] + summary["verdicts"]["may_leave"],
    }


def session(path, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def timed(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def said(error):
    return str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__


def latencies(module, feeds, ours, folder, rounds, threads):
    paths = {"s2ditc": ours}
    args = tuple(map(torch.from_numpy, feeds.values()))
    for opset in (18, 23):
        path = folder / f"dynamo{opset}.onnx"
        try:
            with torch.no_grad():
                torch.onnx.export(
                    module, args, str(path), input_names=list(feeds), output_names=["velocity"], dynamo=True, opset_version=opset
                )
            session(path, threads)
            paths[f"torch dynamo {opset}"] = path
        except Exception as error:
            print(f"torch dynamo {opset}: {said(error)}", file=sys.stderr)
    sessions = {name: session(path, threads) for name, path in paths.items()}
    given = {name: {i.name: feeds[i.name] for i in s.get_inputs()} for name, s in sessions.items()}
    outputs = {name: s.run(["velocity"], given[name])[0].astype(np.float64) for name, s in sessions.items()}
    times = {name: [] for name in sessions}
    for _ in range(rounds):
        for name, s in sessions.items():
            times[name].append(timed(lambda: s.run(None, given[name])))
    exact = outputs["s2ditc"]
    return {
        name: {
            "ms": 1e3 * statistics.median(times[name]),
            "quiet": min(times[name]) / statistics.median(times[name]),
            "nodes": len(onnx.load(str(paths[name]), load_external_data=False).graph.node),
            "relative_l2_to_ours": float(np.linalg.norm(outputs[name] - exact) / np.linalg.norm(exact)),
        }
        for name in sessions
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", choices=MODELS)
    parser.add_argument("--skip", action="append", default=[], choices=["coremltools", "onnx"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--slack", type=float, default=0.0, help="share by which ours may be slower, on a machine that is not quiet")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--s2ditc", type=Path, default=ROOT / "target/release/s2ditc")
    args = parser.parse_args()
    report, fine = {}, True
    for name in args.model or MODELS:
        kind = MODELS[name]
        with tempfile.TemporaryDirectory() as work:
            work = Path(work)
            module, feeds = seeded(kind), inputs_of(kind)
            checkpoint_of(module, work / "checkpoint")
            latent = "x".join(map(str, kind.LATENT[1:]))

            def compiled(target, out, *flags):
                command = [args.s2ditc, "compile", "-q", work / "checkpoint", "--target", target, "--latent", latent, *flags, "-o", work / out]
                subprocess.run(command, check=True)
                return work / out

            rows = report[name] = {"latent": latent}
            if "onnx" not in args.skip:
                ours = compiled("onnx", "ours.onnx")
                rows["onnx"] = latencies(module, feeds, ours, work, args.rounds, args.threads)
                rivals = [row["ms"] for exporter, row in rows["onnx"].items() if exporter != "s2ditc"]
                rows["time_ratio"] = rows["onnx"]["s2ditc"]["ms"] / min(rivals) if rivals else None
                fine &= not rivals or rows["time_ratio"] <= 1 + args.slack
            if "coremltools" not in args.skip:
                package = compiled("coreml", "ours.mlpackage", "--timesteps", "from-config")
                rows["coreml"] = {"s2ditc": ops(args.s2ditc, package)}
                try:
                    coremltools_package(narrow(module), feeds, work / "theirs.mlpackage")
                    rows["coreml"]["coremltools"] = ops(args.s2ditc, work / "theirs.mlpackage")
                    both = rows["coreml"]
                    rows["op_ratio"] = both["s2ditc"]["a_block"] / both["coremltools"]["a_block"]
                    fine &= rows["op_ratio"] <= 1
                except Exception as error:
                    print(f"{name}, coremltools: {said(error)}", file=sys.stderr)
    if args.json:
        print(json.dumps(report, indent=2))
        sys.exit(0 if fine else 1)
    for name, rows in report.items():
        print(f"{name}, latent {rows['latent']}")
        for tool, row in rows.get("coreml", {}).items():
            print(f"  {tool:18}{row['ops']:6} ops{row['a_block']:8.1f} a block{row['transposes']:5} transposes{row['off']:5} off the engine")
        if rows.get("op_ratio"):
            print(f"  ops a block: {rows['op_ratio']:.2f}x")
        for exporter, row in rows.get("onnx", {}).items():
            figures = f"{row['nodes']:6} nodes{row['ms']:9.1f} ms  quiet {row['quiet']:.2f}  to ours {row['relative_l2_to_ours']:.1e}"
            print(f"  {exporter:18}{figures}")
        if rows.get("time_ratio"):
            print(f"  time, of the best export: {rows['time_ratio']:.2f}x")
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()

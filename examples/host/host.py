#!/usr/bin/env python3
"""A host for a streaming kernel, written from its contract alone: what an app around Core ML or ONNX Runtime has to do.

    s2ditc compile tiny/ --target onnx --mode stream --latent 8x8 -o tiny.kernel
    python host.py tiny.kernel golden.safetensors [--bar 1e-5]

Streams an ONNX kernel over the `text`, the `text_mask` if the kernel takes one, and the `stream.noise` of a golden and prints the relative L2 error of each chunk against its
`stream.latents`; exits 1 above the bar. The README beside this file explains the contract. Needs numpy and onnxruntime.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

DTYPES = {"f16": np.float16, "f32": np.float32}
STORED = {"F32": np.float32, "F16": np.float16}


def read_safetensors(path):
    data = Path(path).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)

    def tensor(about):
        begin, end = about["data_offsets"]
        return np.frombuffer(data[start + begin : start + end], STORED[about["dtype"]]).reshape(about["shape"])

    return {name: tensor(about) for name, about in header.items()}


class Host:
    """Loads the three functions, keeps the states, counts the chunks."""

    def __init__(self, folder):
        self.contract = json.loads((folder / "contract.json").read_text())
        if (self.contract["format"], self.contract["version"]) != ("s2dit-kernel", 1):
            raise SystemExit(f"{folder}: not a contract that this host knows")
        if self.contract["target"] != "onnx":
            raise SystemExit(f"{folder}: this host runs ONNX kernels; a Core ML kernel runs the same way on a Mac")
        self.sessions = {
            name: onnxruntime.InferenceSession(str(folder / f["file"]), providers=["CPUExecutionProvider"])
            for name, f in self.contract["functions"].items()
        }
        self.states = {s["name"]: np.zeros(s["shape"]) for s in self.contract["states"]}
        self.chunks = 0
        self.prompt = {}

    def call(self, name, *sources):
        """Calls a function with the inputs that the contract lists, found by name."""
        function = self.contract["functions"][name]
        values = {k: v for source in sources for k, v in source.items()}
        feeds = {p["name"]: np.asarray(values[p["name"]]).astype(DTYPES[p["dtype"]]).reshape(p["shape"]) for p in function["inputs"]}
        names = [p["name"] for p in function["outputs"]]
        return dict(zip(names, self.sessions[name].run(names, feeds)))

    def set_prompt(self, tensors):
        """The function `prompt` takes the text and, in some kernels, a mask of its tokens."""
        self.prompt = self.call("prompt", tensors)

    def host_inputs(self):
        """Small tensors that depend on the stream's position, in float64."""
        return {i["name"]: self.host_input(i, self.chunks) for i in self.contract["host_inputs"]}

    def host_input(self, about, n):
        kind, chunk_frames = about["kind"], self.contract["chunk"]["frames"]
        window_frames, sink_frames = self.contract["window_frames"], self.contract.get("sink_frames", 0)
        first_frame = n * chunk_frames
        if kind == "past_weight":
            return n / (n + 1)
        if kind == "new_weight":
            return 1 / (n + 1)
        if kind == "window_mask":
            # Sinks that have left the window, slots of the window that are not filled yet, frames of the window, frames of the chunk.
            apart = np.arange(sink_frames) < first_frame - window_frames
            filled = np.arange(window_frames) >= window_frames - first_frame
            seen = np.concatenate([apart, filled, np.ones(chunk_frames, bool)]).repeat(about["tokens_per_frame"])
            return np.where(seen, 0.0, about["empty"])
        if kind == "sink_mask":
            slots = np.arange(sink_frames)
            return ((slots >= first_frame) & (slots < first_frame + chunk_frames)).repeat(about["tokens_per_frame"])
        if kind == "rope":
            frames, rows, cols = about["grid"]
            grid = np.meshgrid(np.arange(frames) + first_frame, np.arange(rows), np.arange(cols), indexing="ij")
            angles = [
                pos.reshape(-1, 1) * about["theta"] ** (-2 * np.arange(dim // 2) / dim)
                for pos, dim in zip(grid, about["axis_dims"])
            ]
            angles = np.concatenate(angles, axis=1)
            return np.cos(angles) if about["part"] == "cos" else np.sin(angles)
        raise SystemExit(f"host input {about['name']}: unknown kind {kind}")

    def next_chunk(self, noise):
        """noise [steps, 1, C, F, H, W] -> the chunk [1, C, F, H, W], whose states are then written."""
        sampler, position = self.contract["sampler"], self.host_inputs()
        commits = self.contract.get("state_write", "commit") == "commit"
        sigmas = sampler["sigmas"]
        x = noise[0].astype(np.float64)
        for i, (sigma, timestep) in enumerate(zip(sigmas, sampler["timesteps"])):
            step = {"latent": x, "timestep": timestep}
            last = i + 1 == len(sigmas)
            function = "last_step" if last and not commits else "denoise"
            new = self.call(function, step, self.prompt, position, self.states)
            x = x - sigma * new["velocity"].astype(np.float64)
            if not last:
                x = (1 - sigmas[i + 1]) * x + sigmas[i + 1] * noise[i + 1]
        if commits:
            new = self.call("commit", {"latent": x}, self.prompt, position, self.states)
        self.states = {name: new[f"{name}_out"] for name in self.states}
        self.chunks += 1
        return x


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kernel", type=Path)
    parser.add_argument("golden", type=Path)
    parser.add_argument("--bar", type=float, default=1e-5, help="largest relative L2 error of a chunk")
    args = parser.parse_args()
    golden = read_safetensors(args.golden)
    host = Host(args.kernel)
    host.set_prompt(golden)
    passed = True
    for i, (noise, want) in enumerate(zip(golden["stream.noise"], golden["stream.latents"])):
        made = host.next_chunk(noise)
        error = np.linalg.norm(made - want) / np.linalg.norm(want.astype(np.float64))
        passed &= bool(error <= args.bar)
        print(f"chunk {i}: relative L2 error {error:.1e}")
    sys.exit(not passed)


if __name__ == "__main__":
    main()

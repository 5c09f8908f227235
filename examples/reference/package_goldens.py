"""Packages that coremltools makes of three PyTorch models, with what PyTorch computes: the goldens in tests/goldens/packages.

    python examples/reference/package_goldens.py tests/goldens/packages

Needs torch and coremltools. Weights and inputs are drawn with seed 0; outputs are float64's. `cnn` pools, `unet` upsamples in two ways, `lstm` runs over
time in both directions, `loop` is a loop whose rounds depend on its input.
"""

import json
import pathlib
import shutil
import sys

import coremltools as ct
import numpy as np
import torch
from coremltools.converters.mil import Builder as mb
from torch import nn
from torch.nn import functional as F

SEED = 0


class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=2)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = F.max_pool2d(F.leaky_relu(self.norm(self.first(x)), 0.1), 3, stride=2, padding=1)
        x = F.avg_pool2d(F.hardtanh(self.second(x), 0.0, 6.0), 2, stride=1, padding=1, count_include_pad=False)
        return F.softmax(self.head(x.mean((2, 3))), dim=-1)


class Unet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(2, 6, 3, stride=2, padding=1)
        self.deep = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(8, 6, 4, stride=2, padding=1)
        self.join = nn.Conv2d(12, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        a = F.elu(self.down(x))
        b = torch.cat([a, self.up(F.gelu(self.deep(a)))], 1)
        b = F.interpolate(self.join(b), scale_factor=2, mode="bilinear", align_corners=False)
        return self.last(F.interpolate(b, scale_factor=2, mode="nearest"))


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 6)
        self.lstm = nn.LSTM(6, 5, num_layers=2, bidirectional=True)
        self.head = nn.Linear(10, 4)

    def forward(self, tokens):
        y, (h, c) = self.lstm(self.embed(tokens))
        return self.head(y), h, c


def save(folder, model, inputs, outputs):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    spec = model.get_spec()
    # What changes from run to run: dates, versions, random names of the manifest.
    spec.description.metadata.Clear()
    ct.models.MLModel(spec, weights_dir=model.weights_dir, skip_model_load=True).save(str(folder / "model.mlpackage"))
    weights = folder / "model.mlpackage" / "Data" / "com.apple.CoreML" / "weights"
    if weights.is_dir() and not any(weights.iterdir()):
        # Git keeps no empty folder.
        (weights / ".keep").touch()
    manifest = folder / "model.mlpackage" / "Manifest.json"
    listed = json.loads(manifest.read_text())
    entries = sorted(listed["itemInfoEntries"].items(), key=lambda entry: entry[1]["name"])
    names = {old: f"00000000-0000-0000-0000-{i:012}" for i, (old, _) in enumerate(entries)}
    listed["itemInfoEntries"] = {names[old]: value for old, value in entries}
    listed["rootModelIdentifier"] = names[listed["rootModelIdentifier"]]
    manifest.write_text(json.dumps(listed, indent=4, sort_keys=True) + "\n")
    np.savez(folder / "inputs.npz", **inputs)
    np.savez(folder / "outputs.npz", **outputs)


def converted(name, module, inputs, folder, target):
    torch.manual_seed(SEED)
    module = module().eval()
    for buffer in module.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    with torch.no_grad():
        traced = torch.jit.trace(module, tuple(inputs.values()))
        wide = [x.double() if x.is_floating_point() else x for x in inputs.values()]
        outputs = module.double()(*wide)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    names = [f"y{i}" for i in range(len(outputs))]
    dtype = {torch.float32: np.float32, torch.int32: np.int32}
    model = ct.convert(
        traced,
        inputs=[ct.TensorType(n, x.shape, dtype=dtype[x.dtype]) for n, x in inputs.items()],
        outputs=[ct.TensorType(n) for n in names],
        compute_precision=ct.precision.FLOAT32,
        minimum_deployment_target=target,
        skip_model_load=True,
    )
    save(folder / name, model, {n: x.numpy() for n, x in inputs.items()}, {n: y.numpy() for n, y in zip(names, outputs)})


def loop(folder):
    """x doubled until its sum is 100 or more, in rows of any number."""
    rows = ct.RangeDim(1, 8)

    @mb.program(input_specs=[mb.TensorSpec(shape=(rows.symbol, 3))], opset_version=ct.target.iOS16)
    def program(x):
        return mb.while_loop(
            _cond=lambda x: mb.less(x=mb.reduce_sum(x=x), y=100.0), _body=lambda x: mb.add(x=x, y=x), loop_vars=(x,), name="y"
        )

    model = ct.convert(
        program,
        inputs=[ct.TensorType("x", (rows, 3))],
        compute_precision=ct.precision.FLOAT32,
        minimum_deployment_target=ct.target.iOS16,
        skip_model_load=True,
    )
    x = np.array([[1, 2, 3], [0.5, 0.25, 4]], dtype=np.float32)
    y = x.astype(np.float64)
    while y.sum() < 100:
        y = y + y
    save(folder / "loop", model, {"x": x}, {model.get_spec().description.output[0].name: y})


def main():
    folder = pathlib.Path(sys.argv[1])
    generator = torch.Generator().manual_seed(SEED)
    converted("cnn", Cnn, {"x": torch.randn(2, 3, 21, 17, generator=generator)}, folder, ct.target.iOS15)
    converted("unet", Unet, {"x": torch.randn(1, 2, 16, 24, generator=generator)}, folder, ct.target.iOS17)
    tokens = torch.randint(0, 20, (7, 1), generator=generator, dtype=torch.int32)
    converted("lstm", Lstm, {"tokens": tokens}, folder, ct.target.iOS18)
    loop(folder)


if __name__ == "__main__":
    main()

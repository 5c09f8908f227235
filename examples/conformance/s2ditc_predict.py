"""A pytest plugin: `predict` of coremltools off a Mac, by s2ditc.

coremltools builds Core ML models on every machine and predicts on a Mac only, so its own tests of MIL ops compare numbers there only. With this plugin
they compare numbers everywhere. It stands in for the part of coremltools that talks to Core ML, and sends each prediction to `s2ditc run --serve`.

    export S2DITC=target/release/s2ditc PYMIL_TEST_TARGETS=mlprogram
    PYTHONPATH=examples/conformance python -m pytest -p s2ditc_predict --pyargs coremltools.converters.mil.mil.ops.tests

Options: `--sample N` runs N tests drawn with `--sample-seed`; `--tally FILE` appends what came of each test, and why, as
a line of JSON.
"""

import atexit
import collections
import json
import os
import random
import subprocess
import sys
import tempfile
import types

import numpy as np
import pytest

FOLDER = tempfile.TemporaryDirectory(prefix="s2ditc-predict-")
# What was predicted in the test that runs.
CALLS = collections.Counter()
REFUSALS = []


class Server:
    """A process that predicts, started when it is needed."""

    def __init__(self):
        self.process = None

    def ask(self, request):
        if self.process is None or self.process.poll() is not None:
            command = os.environ.get("S2DITC_SERVE", os.environ.get("S2DITC", "s2ditc") + " run --serve -q").split()
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        while line and "{" not in line:
            line = self.process.stdout.readline()
        line = line[line.find("{"):]
        if not line:
            raise RuntimeError(f"s2ditc ended with {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            REFUSALS.append(answer["error"])
            raise RuntimeError(answer["error"])
        return answer

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait()


SERVER = Server()
atexit.register(SERVER.close)


def array_of(value):
    """A value that a test hands over, as Core ML would take it: an image as its channels, rows and columns."""
    if hasattr(value, "getbands"):
        pixels = np.asarray(value)
        pixels = pixels[None] if pixels.ndim == 2 else pixels[..., :3].transpose(2, 0, 1)
        return np.ascontiguousarray(pixels[None]).astype(np.float32)
    return np.asarray(value)


class State:
    """What `make_state` gives."""

    def __init__(self):
        self.path = tempfile.mktemp(suffix=".npz", dir=FOLDER.name)

    def read_state(self, name):
        return np.load(self.path)[name]

    def write_state(self, name, value):
        values = dict(np.load(self.path)) if os.path.exists(self.path) else {}
        np.savez(self.path, **{**values, name: np.asarray(value, dtype=np.float16)})


class Proxy:
    """Stands in for `_MLModelProxy`."""

    def __init__(self, path, compute_units, function, hints, asset):
        self.path = path
        self.function = function or None

    @staticmethod
    def maximum_supported_specification_version():
        return 10

    def newState(self):
        return State()

    def get_compiled_model_path(self):
        return self.path

    def predict(self, data, state=None):
        CALLS["predict"] += 1
        inputs = os.path.join(FOLDER.name, "inputs.npz")
        outputs = os.path.join(FOLDER.name, "outputs.npz")
        np.savez(inputs, **{name: array_of(value) for name, value in data.items()})
        request = {"model": self.path, "inputs": inputs, "outputs": outputs}
        if self.function:
            request["function"] = self.function
        if state is not None:
            request["states"] = state.path
        SERVER.ask(request)
        SERVER.ask({"close": True})
        with np.load(outputs) as found:
            CALLS["results"] += 1
            return {name: found[name] for name in found.files}

    def batchPredict(self, data):
        return [self.predict(each) for each in data]


def on_a_mac():
    """coremltools as it is on a Mac with this proxy."""
    module = types.ModuleType("coremltools.libcoremlpython")
    module._MLModelProxy = Proxy
    for name in ("_MLComputePlanProxy", "_MLModelAssetProxy", "_MLCPUComputeDeviceProxy", "_MLGPUComputeDeviceProxy",
                 "_MLNeuralEngineComputeDeviceProxy", "_MLComputeDeviceProxy", "_MLModelProxyManager"):
        setattr(module, name, type(name, (), {}))
    sys.modules["coremltools.libcoremlpython"] = module
    import coremltools
    from coremltools import _deps
    from coremltools.models import model, utils

    _deps._IS_MACOS = True
    for place in (utils, model):
        place._is_macos = lambda: True
        place._macos_version = lambda: (26, 0)
    model._MLModelProxy = Proxy
    coremltools.utils._macos_version = lambda: (26, 0)
    from coremltools.converters.mil import testing_utils

    testing_utils._IS_MACOS = True


on_a_mac()


def pytest_addoption(parser):
    group = parser.getgroup("s2ditc")
    group.addoption("--sample", type=int, help="run so many tests, drawn with --sample-seed")
    group.addoption("--sample-seed", type=int, default=0)
    group.addoption("--tally", help="append what came of each test to this file")


def pytest_collection_modifyitems(config, items):
    # The parameters of a test name its backend; those without one only build.
    items[:] = [item for item in items if "neuralnetwork" not in item.nodeid]
    count = config.getoption("--sample")
    if count is not None and count < len(items):
        chosen = set(random.Random(config.getoption("--sample-seed")).sample(range(len(items)), count))
        items[:] = [item for i, item in enumerate(items) if i in chosen]


TALLY = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if call.when == "setup":
        CALLS.clear()
        REFUSALS.clear()
    if call.when == "call" or (call.when == "setup" and report.outcome == "skipped"):
        if report.outcome == "skipped":
            what = "skipped"
        elif CALLS["predict"] == 0:
            what = "no prediction" if report.outcome == "passed" else "fails before a prediction"
        elif report.outcome == "passed":
            # Some tests want a refusal.
            what = "right"
        elif REFUSALS:
            what = "refused"
        else:
            what = "wrong"
        error = REFUSALS[0] if REFUSALS else (str(call.excinfo.value)[:2000] if call.excinfo else "")
        TALLY.append({"test": item.nodeid, "what": what, "error": error})
        if item.config.getoption("--tally"):
            with open(item.config.getoption("--tally"), "a") as out:
                out.write(json.dumps(TALLY[-1]) + "\n")
    return report


def pytest_terminal_summary(terminalreporter, config):
    counts = collections.Counter(each["what"] for each in TALLY)
    compared = counts["right"] + counts["wrong"] + counts["refused"]
    share = f"{100 * counts['right'] / compared:.1f} % of those that predict are right" if compared else "none predicts"
    terminalreporter.write_line(f"s2ditc: {dict(counts)}: {share}")

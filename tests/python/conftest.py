"""What the tests of the Python module share."""

import json
import pathlib
import signal
import sys

import numpy as np
import pytest

REPO = pathlib.Path(__file__).resolve().parents[2]
GOLDENS = REPO / "tests" / "goldens"
# Where the tests run in the background of a shell, SIGINT is ignored, and the processes that they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
STORED = {"F32": np.float32, "F16": np.float16, "I32": np.int32}


def read_safetensors(path):
    data = pathlib.Path(path).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)

    def tensor(about):
        begin, end = about["data_offsets"]
        return np.frombuffer(data[start + begin : start + end], STORED[about["dtype"]]).reshape(about["shape"])

    return {name: tensor(about) for name, about in header.items()}


def snr_db(found, wanted):
    """Signal-to-noise ratio in decibels."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    assert found.shape == wanted.shape and np.isfinite(found).all()
    noise = np.linalg.norm(found - wanted)
    return np.inf if noise == 0 else 20 * np.log10(np.linalg.norm(wanted) / noise)


@pytest.fixture(scope="session")
def goldens():
    return GOLDENS


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A package of the golden checkpoint `tiny`, and the golden."""
    import s2ditc

    out = tmp_path_factory.mktemp("tiny") / "tiny.mlpackage"
    s2ditc.compile(GOLDENS / "tiny" / "checkpoint", target="coreml", latent=(3, 8, 8), output=out, progress=False)
    return out, read_safetensors(GOLDENS / "tiny" / "golden.safetensors")


@pytest.fixture(scope="session")
def stateful(tmp_path_factory):
    """A package that coremltools makes: `total` is a state to which `x` is added, and the result."""
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import Function, Program, types

    inputs = {"x": mb.placeholder((2, 3), dtype=types.fp16), "total": mb.state_tensor_placeholder((2, 3), dtype=types.fp16)}
    with Function(inputs, opset_version=ct.target.iOS18) as function:
        old = mb.read_state(input=function.inputs["total"])
        new = mb.coreml_update_state(state=function.inputs["total"], value=mb.add(x=old, y=function.inputs["x"]))
        function.set_outputs([mb.mul(x=new, y=np.float16(2), name="doubled")])
    program = Program()
    program.add_function("main", function)
    out = tmp_path_factory.mktemp("stateful") / "total.mlpackage"
    model = ct.convert(
        program, convert_to="mlprogram", source="milinternal", minimum_deployment_target=ct.target.iOS18, skip_model_load=True
    )
    model.save(str(out))
    return out


@pytest.fixture
def fresh_python():
    """Runs a program in another process of this Python."""
    import subprocess

    def run(code, **options):
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, **options)

    return run

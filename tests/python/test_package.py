"""Packages predict as PyTorch computed and as the command line does, with coremltools' interface."""

import os
import resource
import signal
import threading

import coremltools as ct
import numpy as np
import pytest
import s2ditc
from conftest import GOLDENS, snr_db


def stored(name):
    folder = GOLDENS / "packages" / name
    return folder / "model.mlpackage", dict(np.load(folder / "inputs.npz")), dict(np.load(folder / "outputs.npz"))


@pytest.mark.parametrize("name", ["cnn", "unet", "lstm", "loop"])
def test_packages_of_coremltools_equal_pytorch(name):
    path, inputs, wanted = stored(name)
    found = s2ditc.Package(path).predict(inputs)
    assert found.keys() == wanted.keys()
    for output in wanted:
        assert snr_db(found[output], wanted[output]) > 110, output


def test_a_compiled_step_equals_pytorch_in_the_same_process(tiny):
    path, golden = tiny
    inputs = {name: golden[name] for name in ("latent", "timestep", "text")}
    exact = s2ditc.Package(path).predict(inputs)["velocity"]
    rounded = s2ditc.Package(path, fp16=True).predict(inputs)["velocity"]
    assert snr_db(exact, golden["velocity"]) > snr_db(rounded, golden["velocity"]) > 50
    assert exact.dtype == np.float32 and not np.array_equal(exact, rounded)


@pytest.mark.parametrize("fp16", [False, True])
def test_predict_equals_the_command_line(tiny, tmp_path, fp16):
    path, golden = tiny
    inputs = {name: golden[name] for name in ("latent", "timestep", "text")}
    np.savez(tmp_path / "in.npz", **inputs)
    report = s2ditc.run(path, inputs=tmp_path / "in.npz", output=tmp_path / "out.npz", fp16=fp16)
    assert [row["name"] for row in report["outputs"]] == ["velocity"]
    # The command leaves weights mapped.
    found = s2ditc.Package(path, fp16=fp16, low_memory=True).predict(inputs)["velocity"]
    np.testing.assert_array_equal(found, np.load(tmp_path / "out.npz")["velocity"].astype(np.float32))
    # Weights in memory are the same numbers; ONNX Runtime may order sums in another way, on some processors. The
    # outputs of the package are fp16, so a last bit of a sum can move a value by one step of fp16 (66 dB if all moved).
    assert snr_db(s2ditc.Package(path, fp16=fp16).predict(inputs)["velocity"], found) > 60


def test_names_types_and_shapes_are_those_of_coremltools(tiny):
    path, _ = tiny
    spec = ct.utils.load_spec(str(path))
    package = s2ditc.Package(path)
    types = {"f16": ct.proto.FeatureTypes_pb2.ArrayFeatureType.FLOAT16, "f32": ct.proto.FeatureTypes_pb2.ArrayFeatureType.FLOAT32}
    for ports, described in [(package.inputs, spec.description.input), (package.outputs, spec.description.output)]:
        assert [port.name for port in ports] == [each.name for each in described]
        for port, each in zip(ports, described):
            assert types[port.dtype] == each.type.multiArrayType.dataType
            assert port.shape == tuple(each.type.multiArrayType.shape)


def test_what_may_be_handed_over():
    path, inputs, _ = stored("lstm")
    package = s2ditc.Package(path)
    wanted = package.predict(inputs)
    tokens = inputs["tokens"]
    strided = np.repeat(tokens, 2, axis=0)[::2]
    for value in [tokens.tolist(), tokens.astype(np.int64), tokens.astype(np.float64), strided, tokens.astype(">i4")]:
        found = package.predict({"tokens": value})
        assert all(np.array_equal(found[name], wanted[name]) for name in wanted), type(value)
    first = next(iter(package.predict(inputs).values()))
    first += 1  # Results belong to the caller.
    assert not np.array_equal(first, next(iter(package.predict(inputs).values())))
    batch = package.predict([inputs, inputs])
    assert len(batch) == 2 and all(np.array_equal(each[name], wanted[name]) for each in batch for name in wanted)


def raised(work):
    try:
        work()
    except Exception as error:  # noqa: BLE001
        return error
    raise AssertionError("nothing was raised")


def test_errors_are_those_of_coremltools():
    path, inputs, _ = stored("cnn")
    package = s2ditc.Package(path)
    model = ct.models.MLModel(str(path), skip_model_load=True)
    for data in ["x", None, (inputs,), [inputs, 3]]:
        theirs, ours = raised(lambda: model._check_predict_data(data)), raised(lambda: package.predict(data))
        assert type(ours) is type(theirs) is TypeError and str(ours) == str(theirs)
    wrong = {"nothing": inputs["x"]}
    theirs, ours = raised(lambda: model._verify_input_name_exists(wrong)), raised(lambda: package.predict(wrong))
    assert isinstance(ours, type(theirs)) and isinstance(ours, s2ditc.Error) and str(ours) in str(theirs).replace("\\", "")
    with pytest.raises(AssertionError, match="unbatched"):
        package.predict([inputs], state=package.make_state())


def test_errors_have_one_message_and_a_kind(tmp_path):
    path, inputs, _ = stored("cnn")
    package = s2ditc.Package(path)
    for data, says in [
        ({}, "input `x`: found nothing, expected f32[2, 3, 21, 17]"),
        ({"x": inputs["x"][:1]}, "input `x`: found f32[1, 3, 21, 17], expected f32[2, 3, 21, 17]"),
        ({"x": np.array(["a"])}, "`x`: found an array of <U1, expected numbers"),
    ]:
        with pytest.raises(s2ditc.Error) as caught:
            package.predict(data)
        assert str(caught.value) == says and caught.value.kind == "input"
        assert isinstance(caught.value, RuntimeError)
    with pytest.raises(s2ditc.Error, match="no function `other`"):
        s2ditc.Package(path, function_name="other")
    with pytest.raises(s2ditc.Error) as caught:
        s2ditc.Package(tmp_path / "none.mlpackage")
    assert caught.value.kind == "io"
    (tmp_path / "bad.onnx").write_bytes(b"no model at all")
    with pytest.raises(s2ditc.Error, match="bad.onnx"):
        s2ditc.Package(tmp_path / "bad.onnx")


def test_states_are_those_of_coremltools(stateful):
    package = s2ditc.Package(stateful)
    assert [(port.name, port.dtype, port.shape) for port in package.states] == [("total", "f16", (2, 3))]
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    one, other = package.make_state(), package.make_state()
    for times in (1, 2, 3):
        found = package.predict({"x": x}, state=one)
        assert found["doubled"].dtype == np.float32
        np.testing.assert_array_equal(found["doubled"], 2 * times * x)
        np.testing.assert_array_equal(one.read_state("total"), times * x)
    assert not other.read_state("total").any()
    other.write_state("total", np.full((2, 3), 0.5))
    np.testing.assert_array_equal(package.predict({"x": x}, state=other)["doubled"], 2 * x + 1)
    for work in [
        lambda: one.read_state("none"),
        lambda: one.write_state("none", x),
        lambda: one.write_state("total", x[:1]),
        lambda: package.predict({"x": x}),
    ]:
        # coremltools documents RuntimeError.
        with pytest.raises(RuntimeError):
            work()
    assert s2ditc.Package(stateful, keep_float16=True).predict({"x": x}, state=other)["doubled"].dtype == np.float16


def test_an_isolated_package_predicts_the_same(stateful, tmp_path):
    path, inputs, _ = stored("unet")
    here, there = s2ditc.Package(path), s2ditc.Package(path, isolated=True)
    assert there.inputs == here.inputs and there.functions == here.functions
    np.testing.assert_array_equal(there.predict(inputs)["y0"], here.predict(inputs)["y0"])
    with pytest.raises(s2ditc.Error, match="input `x`: found nothing") as caught:
        there.predict({})
    assert caught.value.kind == "input"
    package = s2ditc.Package(stateful, isolated=True)
    state, x = package.make_state(), np.ones((2, 3), np.float32)
    for times in (1, 2):
        np.testing.assert_array_equal(package.predict({"x": x}, state=state)["doubled"], 2 * times * x)
    state.write_state("total", 5 * x)
    np.testing.assert_array_equal(state.read_state("total"), 5 * x)
    for work in [lambda: state.read_state("none"), lambda: state.write_state("total", x[:1])]:
        with pytest.raises(s2ditc.Error) as caught:
            work()
        assert caught.value.kind == "state"
    with pytest.raises(s2ditc.Error, match="none.mlpackage"):
        s2ditc.Package(tmp_path / "none.mlpackage", isolated=True)
    # As a crash ends it.
    os.kill(package._native._child.pid, signal.SIGSEGV)
    with pytest.raises(s2ditc.Error, match=r"crashed \(signal 11\)") as caught:
        package.predict({"x": x}, state=state)
    assert caught.value.kind == "engine"


def test_threads_share_a_package(stateful):
    path, inputs, wanted = stored("cnn")
    package, counted = s2ditc.Package(path, threads=1), s2ditc.Package(stateful)
    state, failures = counted.make_state(), []

    def work():
        try:
            for _ in range(20):
                assert snr_db(package.predict(inputs)["y0"], wanted["y0"]) > 110
                counted.predict({"x": np.ones((2, 3))}, state=state)
                state.read_state("total")
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert (state.read_state("total") == 80).all()


def test_other_python_runs_while_a_model_does(tiny):
    path, golden = tiny
    inputs = {name: golden[name] for name in ("latent", "timestep", "text")}
    package = s2ditc.Package(path, threads=1)
    package.predict(inputs)
    counts, stop = [0], threading.Event()

    def count():
        while not stop.wait(0.0001):
            counts[0] += 1

    other = threading.Thread(target=count)
    other.start()
    for _ in range(20):
        package.predict(inputs)
    stop.set()
    other.join()
    assert counts[0] > 20


def test_memory_is_flat_over_predictions():
    path, inputs, _ = stored("cnn")
    package = s2ditc.Package(path, threads=1)

    def predict(times):
        for _ in range(times):
            package.predict(inputs)

    predict(200)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    predict(2000)
    # In kB. What a prediction moves is 9 kB: a leak of it would be 18 MB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4000

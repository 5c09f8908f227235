"""Commands as functions, on the core of the command line."""

import inspect
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import s2ditc
from conftest import GOLDENS, read_safetensors, snr_db

TINY = GOLDENS / "tiny" / "checkpoint"


def test_reports_are_dictionaries(tiny, tmp_path):
    path, golden = tiny
    report = s2ditc.inspect(path)
    assert [each["name"] for each in report["inputs"]] == ["latent", "timestep", "text"]
    linted = s2ditc.lint(path, min_confidence="high")
    assert linted["summary"]["verdict"] and len(linted["packages"]) == 1
    proved = s2ditc.verify(path, golden=GOLDENS / "tiny" / "golden.safetensors", fp16=True)
    assert proved["passed"] and proved["rows"][0]["snr_db"] > 50
    failed = s2ditc.verify(path, golden=GOLDENS / "tiny" / "golden.safetensors", min_snr=200.0)
    assert not failed["passed"]
    assert s2ditc.estimate(TINY, latent="3x8x8")
    assert s2ditc.ranges(path, samples=2)
    assert s2ditc.passes()["passes"]


def test_compile_gives_the_bytes_of_the_command_line(tmp_path):
    ours, theirs = tmp_path / "ours.onnx", tmp_path / "theirs.onnx"
    report = s2ditc.compile(TINY, target="onnx", latent=(3, 8, 8), output=ours, threads=2)
    assert report["target"] == "onnx"
    words = ["compile", str(TINY), "--target", "onnx", "--latent", "3x8x8", "-o", str(theirs), "-q"]
    subprocess.run([sys.executable, "-m", "s2ditc", *words], check=True)
    assert ours.read_bytes() == theirs.read_bytes()
    text = s2ditc.compile(TINY, target="onnx", latent=(3, 8, 8), emit="ir")
    assert text.startswith("module {")


def test_quantize_makes_a_plan_that_compile_takes(tmp_path):
    model, plan, out, plain = (tmp_path / name for name in ("model", "plan.toml", "small.mlpackage", "plain.mlpackage"))
    wide = ["num_attention_heads=4", "attention_head_dim=32", "ffn_dim=256"]
    s2ditc.init(preset="tiny", set=wide, output=model)
    heard = []
    s2ditc.quantize(model, scheme="int8", latent=(1, 8, 8), output=plan, progress=heard.append)
    assert heard[-1].done == heard[-1].total > 0
    report = s2ditc.compile(model, target="coreml", latent=(1, 8, 8), quantize=plan, output=out)
    assert report["weight_bytes"] < s2ditc.compile(model, target="coreml", latent=(1, 8, 8), output=plain)["weight_bytes"]
    package = s2ditc.Package(out)
    inputs = {port.name: np.random.default_rng(0).standard_normal(port.shape) for port in package.inputs}
    one, other = (s2ditc.Package(path).predict(inputs)["velocity"] for path in (out, plain))
    assert 20 < snr_db(one, other) < 80


def test_errors_are_the_command_line_s(tmp_path):
    for work, says, kind in [
        (lambda: s2ditc.inspect(tmp_path / "none"), "none", "work"),
        (lambda: s2ditc.init(preset="unknown", output=tmp_path / "x"), "invalid value 'unknown' for '--preset <PRESET>'", "usage"),
        (lambda: s2ditc.compile(TINY, target="coreml", latent=(3, 8), output=tmp_path / "x"), "latent size: found 3x8", "work"),
        (lambda: s2ditc.verify(tmp_path / "none.onnx", checkpoint=TINY), "none.onnx", "work"),
        (lambda: s2ditc.verify(tmp_path / "none.onnx"), "required arguments were not provided", "usage"),
        (lambda: s2ditc.lint(tmp_path), str(tmp_path), "work"),
    ]:
        with pytest.raises(s2ditc.Error) as caught:
            work()
        text = str(caught.value)
        assert says in text and not text.startswith("error") and "--help" not in text
        assert caught.value.kind == kind, text


def test_a_callback_hears_and_may_stop(tmp_path):
    heard = []
    s2ditc.init(preset="tiny", output=tmp_path / "model", progress=heard.append)
    assert heard[-1].done == heard[-1].total > 0 and heard[-1].text == "weights"

    def stop(at):
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        s2ditc.compile(TINY, target="coreml", latent=(3, 8, 8), output=tmp_path / "x.mlpackage", progress=stop)
    assert sorted(os.listdir(tmp_path)) == ["model"]


def test_a_terminal_shows_a_line(tmp_path, capsys, monkeypatch):
    s2ditc.init(preset="tiny", output=tmp_path / "one", progress=True)
    assert "100 % weights" in capsys.readouterr().err
    s2ditc.init(preset="tiny", output=tmp_path / "two")
    assert capsys.readouterr().err == ""


def test_a_crash_of_a_model_is_an_error(tmp_path, fresh_python):
    # What stands in for a library that crashes: loading it ends the process.
    source = tmp_path / "crash.c"
    source.write_text("#include <signal.h>\n__attribute__((constructor)) static void crash(void) { raise(SIGSEGV); }\n")
    library = tmp_path / "libcrash.so"
    subprocess.run(["cc", "-shared", "-o", library, source], check=True)
    code = f"""
import s2ditc
try:
    s2ditc.verify({str(GOLDENS / 'packages' / 'none.onnx')!r}, checkpoint={str(TINY)!r})
except s2ditc.Error as error:
    print("first", error.kind)
try:
    s2ditc.run({str(GOLDENS / 'packages' / 'cnn' / 'model.mlpackage')!r}, inputs={str(GOLDENS / 'packages' / 'cnn' / 'inputs.npz')!r})
except s2ditc.Error as error:
    print("second", error.kind, "crashed (signal 11)" in str(error))
"""
    done = fresh_python(code, env={**os.environ, "ORT_DYLIB_PATH": str(library)})
    assert done.stdout.split("\n")[:2] == ["first work", "second engine True"], done


@pytest.mark.parametrize("version, is_taken", [("1.19.2", False), ("1.23.2", False), ("1.24.0", True), ("2.0.0", True)])
def test_an_onnxruntime_that_is_too_old_is_left_alone(tmp_path, monkeypatch, version, is_taken):
    from s2ditc import _library

    library = tmp_path / "onnxruntime" / "capi" / f"libonnxruntime.so.{version}"
    library.parent.mkdir(parents=True)
    library.touch()
    (tmp_path / "onnxruntime" / "__init__.py").write_text(f'"""ONNX Runtime."""\n__version__ = "{version}"\n')
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert _library.find() == (library if is_taken else None)


def test_the_command_line_runs_in_python(tiny, tmp_path):
    path, _ = tiny
    command = [sys.executable, "-m", "s2ditc"]
    shown = subprocess.run([*command, "--version"], capture_output=True, text=True)
    assert shown.returncode == 0 and shown.stdout.strip() == f"s2ditc {s2ditc.__version__}"
    assert subprocess.run([*command, "compile"], capture_output=True).returncode == 2
    proved = subprocess.run(
        [*command, "verify", path, "--golden", GOLDENS / "tiny" / "golden.safetensors", "--fp16"], capture_output=True, text=True, cwd=tmp_path
    )
    assert proved.returncode == 0 and "passed" in proved.stdout, proved
    failed = subprocess.run([*command, "verify", path, "--golden", tmp_path / "none"], capture_output=True, text=True)
    assert failed.returncode == 1 and failed.stderr.count("error: ") == 1, failed


def test_ctrl_c_stops_a_command(tmp_path):
    code = f"import s2ditc; s2ditc.init(preset='1.8b', output={str(tmp_path / 'large')!r})"
    child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.iterdir()) and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=120)
    assert child.returncode != 0 and "KeyboardInterrupt" in said, said
    assert not list(tmp_path.iterdir()), "nothing half-written stays"


def test_everything_public_is_documented_and_typed():
    for name in s2ditc.__all__:
        thing = getattr(s2ditc, name)
        if name.startswith("__"):
            continue
        assert inspect.getdoc(thing), name
        if inspect.isfunction(thing):
            signature = inspect.signature(thing)
            assert all(each.annotation is not inspect.Parameter.empty for each in signature.parameters.values()), name

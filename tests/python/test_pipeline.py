"""Pipelines make the videos of diffusers' own pipelines, and those of the command line."""

import inspect
import json
import logging
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import s2ditc
from conftest import GOLDENS, read_safetensors


def said(name):
    """What diffusers was called with for a golden, and what came of it."""
    data = (GOLDENS / name / "golden.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return header["__metadata__"], read_safetensors(GOLDENS / name / "golden.safetensors")


def compiled(name, out):
    about, _ = said(name)
    size = f"{about['width']}x{about['height']}"
    s2ditc.compile(GOLDENS / name / "pipeline", target="onnx", size=size, frames=int(about["num_frames"]), output=out, progress=False)
    return out


@pytest.fixture(scope="module")
def wan(tmp_path_factory):
    return compiled("pipeline_wan", tmp_path_factory.mktemp("wan") / "wan.pipeline")


@pytest.fixture(scope="module")
def streaming(tmp_path_factory):
    """Our own pipeline that streams, of small seeded parts."""
    work = tmp_path_factory.mktemp("stream")
    folder = work / "own"
    folder.mkdir()
    clip = ["vocab_size=634", "eos_token_id=633", "hidden_size=24", "num_attention_heads=3", "intermediate_size=48"]
    s2ditc.init(preset="clip-tiny", set=clip, output=folder / "text_encoder")
    s2ditc.init(preset="taehv-tiny", set="latent_channels=4", output=folder / "vae")
    shutil.copytree(GOLDENS / "stream_tiny" / "checkpoint", folder / "transformer")
    shutil.copytree(GOLDENS / "tokenizer_clip", folder / "tokenizer")
    index = {
        "_class_name": "S2DiTPipeline",
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "transformer": ["diffusers", "S2DiTTransformer3DModel"],
        "vae": ["s2ditc", "TAEHV"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    s2ditc.compile(folder, target="onnx", size="64x64", mode="stream", output=work / "stream.pipeline", progress=False)
    return work / "stream.pipeline"


def shown(video):
    """The video of a file, ``[1, 3, T, H, W]``, as frames."""
    return np.asarray(video, np.float64)[0].transpose(1, 2, 3, 0)


@pytest.mark.parametrize("name", ["pipeline_wan", "pipeline_wan22", "pipeline_ltx"])
def test_frames_are_those_of_diffusers(name, tmp_path):
    about, golden = said(name)
    pipeline = s2ditc.Pipeline(compiled(name, tmp_path / "x.pipeline"))
    assert pipeline.mode == "clip" and pipeline.shape == (int(about["num_frames"]), int(about["height"]), int(about["width"]), 3)
    guidance = [float(about[key]) for key in ("guidance_scale", "guidance_scale_2") if key in about]
    options = dict(negative=about["negative"], noise=golden["noise"], steps=int(about["num_inference_steps"]), guidance=guidance)
    frames = pipeline(about["prompt"], dtype=np.float32, **options)
    assert frames.dtype == np.float32 and frames.shape == pipeline.shape
    assert np.abs(frames - shown(golden["video"])).max() < 1e-3
    pixels = pipeline(about["prompt"], **options)
    assert pixels.dtype == np.uint8
    exact = (shown(golden["video"]).clip(-1, 1) / 2 + 0.5) * 255
    assert np.abs(pixels - exact).max() < 0.5 + 0.2


def test_a_clip_is_that_of_the_command_line(wan, tmp_path):
    s2ditc.generate(wan, prompt="a cat", seed=3, steps=2, output=tmp_path / "x.safetensors")
    s2ditc.generate(wan, prompt="a cat", seed=3, steps=2, output=tmp_path / "png")
    pipeline = s2ditc.Pipeline(wan)
    heard = []
    frames = pipeline("a cat", seed=3, steps=2, dtype="float32", progress=heard.append)
    np.testing.assert_array_equal(frames, shown(read_safetensors(tmp_path / "x.safetensors")["video"]))
    assert [at for at in heard if at.text.startswith("transformer")][-1] == s2ditc.Progress(2, 2, "transformer: 2/2")
    assert {at.text.split(":")[0] for at in heard} == {"text encoder", "transformer", "decoder"}
    pixels = pipeline("a cat", seed=3, steps=2)
    np.testing.assert_array_equal(pixels, np.round((np.clip(frames / 2 + 0.5, 0, 1)) * 255).astype(np.uint8))
    assert len(list((tmp_path / "png").iterdir())) == len(pixels) == pipeline.shape[0]
    for other in [dict(seed=4), dict(seed=3, negative="a ball"), dict(seed=3, guidance=2)]:
        assert not np.array_equal(pipeline("a cat", steps=2, **other), pixels), other
    assert not np.array_equal(pipeline("a dog", seed=3, steps=2), pixels)
    assert np.array_equal(np.concatenate(list(pipeline.stream("a cat", seed=3, steps=2))), pixels)
    assert pipeline.fps == pipeline.contract["video"]["fps"] > 0


def test_a_stream_is_that_of_the_command_line(streaming, tmp_path):
    s2ditc.generate(streaming, prompt="a cat", prompt_at="2=a storm", chunks=4, seed=5, output=tmp_path / "x.safetensors")
    wanted = shown(read_safetensors(tmp_path / "x.safetensors")["video"])
    pipeline = s2ditc.Pipeline(streaming)
    assert pipeline.mode == "stream" and pipeline.shape == (None, 64, 64, 3)
    options = dict(prompt_at={2: "a storm"}, chunks=4, seed=5)
    np.testing.assert_array_equal(pipeline("a cat", dtype=np.float32, **options), wanted)
    pieces = list(pipeline.stream("a cat", dtype=np.float32, **options))
    assert len(pieces) == 4
    np.testing.assert_array_equal(np.concatenate(pieces), wanted)
    # Noise that is given says how many chunks there are.
    kernel = s2ditc.Kernel(streaming / "Transformer")
    noise = np.random.default_rng(0).standard_normal((2, kernel.steps, *kernel.chunk_shape))
    given = pipeline("a cat", noise=noise, dtype=np.float32)
    assert 0 < len(given) < len(wanted) and not np.array_equal(given, wanted[: len(given)])
    with pytest.raises(s2ditc.Error, match="found 3, but the noise is that of 2"):
        pipeline("a cat", noise=noise, chunks=3)


def test_an_iterator_that_is_dropped_stops_the_work(streaming):
    pipeline = s2ditc.Pipeline(streaming)
    heard = []
    frames = pipeline.stream("a cat", chunks=1000, progress=heard.append)
    assert next(frames).shape[1:] == (64, 64, 3)
    frames.close()
    assert not [each for each in threading.enumerate() if each.name == "s2ditc-pipeline"]
    assert 0 < len([at for at in heard if at.text.startswith("transformer")]) < 100


def test_a_callback_may_stop(wan):
    def stop(at):
        if at.text.startswith("transformer"):
            raise KeyError("enough")

    pipeline = s2ditc.Pipeline(wan)
    with pytest.raises(KeyError, match="enough"):
        pipeline("a cat", progress=stop)
    with pytest.raises(KeyError, match="enough"):
        next(pipeline.stream("a cat", progress=stop))
    assert pipeline("a cat", steps=2).any()


def test_ctrl_c_stops_after_a_step(streaming):
    code = f"import s2ditc; print('begun', flush=True); s2ditc.Pipeline({str(streaming)!r})('a cat', chunks=2000)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "begun\n"
    time.sleep(1)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=120)
    assert child.returncode != 0 and "KeyboardInterrupt" in said, said


def test_a_prompt_that_is_cut_is_told(wan, caplog):
    with caplog.at_level(logging.INFO, logger="s2ditc"):
        s2ditc.Pipeline(wan)("a cat walks " * 400, steps=2)
    assert "left out" in caplog.text


def test_what_does_not_fit_is_refused(wan, streaming, tmp_path):
    pipeline = s2ditc.Pipeline(wan)
    for options, says in [
        (dict(chunks=2), "whole clip"),
        (dict(prompt_at={1: "a dog"}), "whole clip"),
        (dict(negative="a dog", guidance=1), "more than 1"),
        (dict(guidance=(3, 4)), "one transformer"),
        (dict(guidance=float("nan")), "expected finite numbers"),
        (dict(steps=0), "found 0, expected 1 to 1000"),
        (dict(seed=-1), "seed: found -1, expected a whole number from 0 on"),
        (dict(noise=np.zeros((1, 2, 3))), r"noise: found \[1, 2, 3\], expected \[1, "),
        (dict(noise=np.full(latent(pipeline), np.nan)), "element 0: found NaN"),
    ]:
        with pytest.raises(s2ditc.Error, match=says):
            pipeline("a cat", **options)
    for options in [dict(seed=1, noise=np.zeros(latent(pipeline))), dict(dtype=np.int64), dict(guidance=[1, 2, 3])]:
        with pytest.raises(TypeError):
            pipeline("a cat", **options)
    with pytest.raises(TypeError, match="prompt: found int, expected a str"):
        pipeline(3)
    with pytest.raises(TypeError, match="steps: found 2.5, expected a whole number"):
        pipeline("a cat", steps=2.5)
    with pytest.raises(s2ditc.Error, match="--chunks: found 0, expected 1 to"):
        s2ditc.Pipeline(streaming)("a cat", chunks=0)
    with pytest.raises(s2ditc.Error, match="expected the folder of a pipeline") as caught:
        s2ditc.Pipeline(tmp_path)
    assert caught.value.kind in ("artifact", "io")
    broken = tmp_path / "broken"
    shutil.copytree(wan, broken)
    with open(broken / "Decoder.onnx", "ab") as file:
        file.write(b"\0")
    with pytest.raises(s2ditc.Error, match="of another compile") as caught:
        s2ditc.Pipeline(broken)
    assert caught.value.kind == "artifact"


def latent(pipeline):
    sides = pipeline.contract["latent"]
    return (1, sides["channels"], sides["frames"], sides["rows"], sides["cols"])


def test_a_call_and_a_stream_take_the_same():
    call, stream = (inspect.signature(each).parameters for each in (s2ditc.Pipeline.__call__, s2ditc.Pipeline.stream))
    assert call == stream

"""Kernels make what PyTorch makes, chunk by chunk."""

import numpy as np
import pytest
import s2ditc
from conftest import GOLDENS, read_safetensors, snr_db


@pytest.fixture(scope="module", params=["io", "native"])
def kernel(request, tmp_path_factory):
    out = tmp_path_factory.mktemp(request.param) / "tiny.kernel"
    s2ditc.compile(
        GOLDENS / "stream_tiny" / "checkpoint", target="coreml", mode="stream", latent="8x8", states=request.param, output=out
    )
    return out


def test_chunks_equal_pytorch(kernel):
    golden = read_safetensors(GOLDENS / "stream_tiny" / "golden.safetensors")
    stream = s2ditc.Kernel(kernel)
    assert stream.text_shape == golden["text"].shape and (stream.steps, *stream.chunk_shape) == golden["stream.noise"].shape[1:]
    stream.set_prompt(golden["text"])
    for i, (noise, wanted) in enumerate(zip(golden["stream.noise"], golden["stream.latents"])):
        assert snr_db(stream.next_chunk(noise), wanted) > 50
        assert stream.chunks == i + 1
    assert all(np.isfinite(state).all() and state.any() for state in stream.states.values())
    assert {state["name"] for state in stream.contract["states"]} == set(stream.states)


def test_a_stream_equals_the_command_line_and_goes_on(kernel, tmp_path):
    s2ditc.stream(kernel, prompt_seed=1, seed=3, chunks=4, fp16=True, output=tmp_path / "latents.safetensors")
    wanted = read_safetensors(tmp_path / "latents.safetensors")["stream.latents"]
    stream = s2ditc.Kernel(kernel, fp16=True, seed=3)
    stream.set_prompt(seed=1)
    for chunk, found in zip(wanted[:2], stream.stream(2)):
        np.testing.assert_array_equal(found, chunk)
    stream.save(tmp_path / "state.safetensors")
    other = s2ditc.Kernel(kernel, fp16=True)
    other.restore(tmp_path / "state.safetensors")
    assert other.chunks == 2 and other.seed == 3
    for chunk in wanted[2:]:
        np.testing.assert_array_equal(other.next_chunk(), chunk)


def test_a_prompt_has_a_mask(tmp_path):
    golden = read_safetensors(GOLDENS / "longsana_tiny" / "golden.safetensors")
    out = tmp_path / "longsana.kernel"
    s2ditc.compile(GOLDENS / "longsana_tiny" / "checkpoint", target="onnx", mode="stream", latent="4x6", output=out)
    stream = s2ditc.Kernel(out)
    assert stream.mask_shape == golden["text_mask"].shape
    with pytest.raises(s2ditc.Error, match="mask of the prompt: found none"):
        stream.set_prompt(golden["text"])
    with pytest.raises(TypeError):
        stream.set_prompt(mask=golden["text_mask"], seed=0)
    stream.set_prompt(golden["text"], golden["text_mask"])
    assert snr_db(stream.next_chunk(golden["stream.noise"][0]), golden["stream.latents"][0]) > 100


def test_what_does_not_fit_is_refused(kernel, tmp_path):
    stream = s2ditc.Kernel(kernel)
    assert stream.mask_shape is None
    with pytest.raises(s2ditc.Error, match="found one, expected none"):
        stream.set_prompt(np.zeros(stream.text_shape), np.ones(stream.text_shape[:2]))
    with pytest.raises(s2ditc.Error, match="the stream has no prompt"):
        stream.next_chunk()
    with pytest.raises(s2ditc.Error, match="prompt: found shape"):
        stream.set_prompt(np.zeros((1, 2, 3)))
    with pytest.raises(TypeError):
        stream.set_prompt()
    stream.set_prompt(seed=0)
    with pytest.raises(s2ditc.Error, match="noise: found"):
        stream.next_chunk(np.zeros((1, *stream.chunk_shape)))
    assert stream.chunks == 0
    with pytest.raises(s2ditc.Error, match="expected a kernel folder"):
        s2ditc.Kernel(tmp_path)

"""Goldens of text encoders: transformers' CLIPTextModel, T5EncoderModel and UMT5EncoderModel in float64, on small seeded checkpoints.

    text_goldens.py             writes tests/goldens/text_*
    text_goldens.py --report    checks them, and prints what the classes reach in float32 and float16; writes nothing

A golden holds `tokens` and, but for CLIP, `text_mask`; `text` as the pipelines make it of the last hidden state; `pooled` of CLIP; and the
blocks' outputs `block0`, `block1`, …: those of T5 and UMT5 at 1/64, as the compiled encoder keeps them.
"""

import argparse
import json
import math
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)
from transformers.utils import logging

GOLDENS = Path(__file__).resolve().parents[2] / "tests" / "goldens"
#: Factor of the blocks of T5 and UMT5.
STREAM = 1 / 64


@dataclass
class Case:
    """A model, its tokens, and the form of its checkpoint."""

    name: str
    model: type
    config: dict
    #: Token ids, `[1, L]`.
    tokens: list[int]
    #: Tokens that count, if the model takes a mask.
    counting: int | None = None
    #: Whether the pipelines of the model make padding 0.
    zero_padding: bool = False
    dtype: torch.dtype = torch.float32
    #: Prefix of the names, as older versions of transformers write them.
    prefix: str = ""
    #: Most bytes of a file.
    shard: str = "1GB"
    #: Whether the weights are a file of torch.save.
    pickled: bool = False
    #: Factors of tensors whose name has a part.
    larger: dict = field(default_factory=dict)
    #: Tensors that are there as well and say nothing, by what they are copied from.
    idle: dict = field(default_factory=dict)


def ids(seed: int, count: int, vocabulary: int, *, first: list[int], last: list[int], padding: int, length: int) -> list[int]:
    """`count` drawn token ids between the `first` and the `last` ones, padded to `length`."""
    drawn = torch.randint(3, vocabulary - 3, (count,), generator=torch.Generator().manual_seed(seed)).tolist()
    return (first + drawn + last + [padding] * length)[:length]


CLIP = {"vocab_size": 99, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
T5 = {"vocab_size": 99, "d_model": 48, "d_kv": 8, "d_ff": 96, "num_layers": 3, "num_heads": 4}
CASES = [
    # As OpenAI's checkpoints: the end is the largest id, and padding is the end again. Names with the prefix, and the numbers of places.
    Case(
        "text_clip",
        CLIPTextModel,
        {**CLIP, "eos_token_id": 2, "bos_token_id": 0, "pad_token_id": 1},
        ids(1, 9, 97, first=[97], last=[98], padding=98, length=77),
        prefix="text_model.",
        idle={"text_model.embeddings.position_ids": torch.arange(77).unsqueeze(0)},
    ),
    # The end is an id of its own, and a larger one comes before it; fewer places are used than there are; a file of torch.save.
    Case(
        "text_clip_gelu",
        CLIPTextModel,
        {**CLIP, "hidden_act": "gelu", "max_position_embeddings": 24, "eos_token_id": 50, "bos_token_id": 0, "pad_token_id": 1},
        [0, 98, 17, 50, 98, 50, 1, 1, 1, 1, 1, 1, 1],
        pickled=True,
    ),
    # No token is the end.
    Case(
        "text_clip_endless",
        CLIPTextModel,
        {**CLIP, "num_hidden_layers": 2, "max_position_embeddings": 16, "eos_token_id": 50, "bos_token_id": 0, "pad_token_id": 1},
        [0, 98, 17, 49, 51],
        dtype=torch.bfloat16,
        shard="20KB",
    ),
    # Longer than the last bucket's first distance.
    Case(
        "text_t5",
        T5EncoderModel,
        {**T5, "feed_forward_proj": "gated-gelu"},
        ids(2, 120, 99, first=[], last=[1], padding=0, length=136),
        counting=121,
        idle={"encoder.embed_tokens.weight": "shared.weight"},
    ),
    # T5 1.0: one feed-forward projection.
    Case(
        "text_t5_relu",
        T5EncoderModel,
        {**T5, "feed_forward_proj": "relu", "relative_attention_num_buckets": 12, "relative_attention_max_distance": 20},
        ids(3, 11, 99, first=[], last=[1], padding=0, length=12),
        counting=12,
        shard="30KB",
        dtype=torch.bfloat16,
    ),
    Case(
        "text_umt5",
        UMT5EncoderModel,
        {**T5, "num_heads": 6},
        ids(4, 20, 99, first=[], last=[1], padding=0, length=40),
        counting=21,
        zero_padding=True,
    ),
    # Beyond fp16, as the published weights are: what goes into the second feed-forward projection, and the stream after it.
    Case(
        "text_umt5_large",
        UMT5EncoderModel,
        T5,
        ids(5, 12, 99, first=[], last=[1], padding=0, length=24),
        counting=13,
        zero_padding=True,
        larger={"wi_1": 20000.0, "DenseReluDense.wo": 4.0},
    ),
]


def weights(model: torch.nn.Module, case: Case, seed: int) -> dict[str, torch.Tensor]:
    """The seeded weights, as the checkpoint stores them: gains around 1, all else of such a size that no layer dies out."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in model.state_dict().items():
        if name == "encoder.embed_tokens.weight":
            continue
        drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        if "norm" in name:
            value = 1 + 0.1 * drawn if name.endswith("weight") else 0.1 * drawn
        elif "embedding" in name or "shared" in name or "bias.weight" in name:
            value = drawn
        elif name.endswith("bias"):
            value = 0.1 * drawn
        else:
            value = drawn / math.sqrt(tensor.shape[1])
        if name.endswith((".q.weight", ".k.weight")):
            value = value / model.config.d_kv**0.25
        for part, factor in case.larger.items():
            if part in name:
                value = value * factor
        state[name] = value.to(case.dtype)
    return state


def save(model: torch.nn.Module, case: Case, state: dict[str, torch.Tensor], folder: Path) -> None:
    """The checkpoint, by `save_pretrained` where it can be."""
    if folder.exists():
        shutil.rmtree(folder)
    model.to(case.dtype).save_pretrained(folder, max_shard_size=case.shard)
    idle = {name: (state[value].clone() if isinstance(value, str) else value) for name, value in case.idle.items()}
    if case.prefix or idle or case.pickled:
        for file in folder.glob("*.safetensors*"):
            file.unlink()
        named = {case.prefix + name: tensor for name, tensor in state.items()} | idle
        if case.pickled:
            torch.save(named, folder / "pytorch_model.bin")
        else:
            save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
    # The same bytes on every machine, and in every version of the library.
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def made(case: Case, seed: int) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    config = {CLIPTextModel: CLIPTextConfig, T5EncoderModel: T5Config, UMT5EncoderModel: UMT5Config}[case.model]
    model = case.model(config(**case.config)).eval()
    state = weights(model, case, seed)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert set(missing) <= {"encoder.embed_tokens.weight"} and not unexpected, (missing, unexpected)
    return model, state


def forward(model: torch.nn.Module, case: Case) -> dict[str, torch.Tensor]:
    """Everything that a golden holds beside the inputs."""
    tokens = torch.tensor([case.tokens])
    blocks = {}

    def keep(index):
        def hook(_module, _inputs, output):
            blocks[f"block{index}"] = output[0] if isinstance(output, tuple) else output

        return hook

    is_clip = case.model is CLIPTextModel
    layers = model.encoder.layers if is_clip else model.encoder.block
    handles = [layer.register_forward_hook(keep(i)) for i, layer in enumerate(layers)]
    mask = None if case.counting is None else mask_of(case)
    with torch.no_grad():
        out = model(input_ids=tokens, attention_mask=mask)
    for handle in handles:
        handle.remove()
    text = out.last_hidden_state
    if case.zero_padding:
        text = text * mask.unsqueeze(-1).to(text.dtype)
    results = {"text": text}
    if is_clip:
        results["pooled"] = out.pooler_output
    factor = 1 if is_clip else STREAM
    return results | {name: factor * block for name, block in blocks.items()}


def mask_of(case: Case) -> torch.Tensor:
    return (torch.arange(len(case.tokens)) < case.counting).long().unsqueeze(0)


def golden(case: Case, index: int) -> tuple[torch.nn.Module, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The model as stored, its weights, and the golden in float64."""
    model, state = made(case, 1100 + index)
    # As stored, so that the golden is of the very weights in the file.
    wide = made(case, 1100 + index)[0]
    wide.load_state_dict({name: tensor.double() for name, tensor in state.items()}, strict=False)
    wide = wide.double()
    if hasattr(wide, "shared"):
        wide.set_input_embeddings(wide.shared)
    tensors = {"tokens": torch.tensor([case.tokens], dtype=torch.int32)}
    if case.counting is not None:
        tensors["text_mask"] = mask_of(case).float()
    narrowed = Narrowing()
    with narrowed:
        results = forward(wide, case)
    narrowed.check(case.name)
    for name, value in results.items():
        assert value.dtype == torch.float64 and torch.isfinite(value).all(), (case.name, name, value.dtype)
    return model, state, tensors | results


class Narrowing(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes operations that make float32 of float64. The norms of T5 sum squares in float32: they are computed in float64 here."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.ops.aten._to_copy.default and kwargs.get("dtype") == torch.float32:
            if isinstance(args[0], torch.Tensor) and args[0].dtype == torch.float64:
                kwargs["dtype"] = torch.float64
        out = func(*args, **kwargs)
        wide = any(isinstance(a, torch.Tensor) and a.dtype == torch.float64 for a in args)
        if wide and isinstance(out, torch.Tensor) and out.dtype in (torch.float32, torch.float16, torch.bfloat16):
            self.found.append(str(func))
        return out

    def check(self, name):
        assert not self.found, (name, self.found)


def snr(found: torch.Tensor, wanted: torch.Tensor) -> float:
    error = (found.double() - wanted).norm()
    return math.inf if error == 0 else 20 * math.log10(float(wanted.norm() / error))


def report(case: Case, model: torch.nn.Module, state: dict, tensors: dict) -> str:
    """What the class reaches in float32 and float16: the worst result or block."""
    cells = []
    for dtype in (torch.float32, torch.float16):
        narrow = made(case, 0)[0].to(dtype)
        narrow.load_state_dict({name: tensor.to(dtype) for name, tensor in state.items()}, strict=False)
        if hasattr(narrow, "shared"):
            narrow.set_input_embeddings(narrow.shared)
        results = forward(narrow, case)
        finite = all(torch.isfinite(value).all() for value in results.values())
        worst = min((snr(value, tensors[name]), name) for name, value in results.items()) if finite else None
        if not finite:
            cells.append("not finite")
        elif dtype == torch.float32:
            cells.append(f"{10 ** (-worst[0] / 20):.1e} ({worst[1]})")
        else:
            cells.append(f"{worst[0]:.1f} dB ({worst[1]}), text {snr(results['text'], tensors['text']):.1f} dB")
    largest = max(float(value.abs().max()) / (1 if case.model is CLIPTextModel else STREAM) for name, value in tensors.items() if name.startswith("block"))
    return f"| `{case.name}` | {' | '.join(cells)} | {largest:.3g} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true", help="check the committed goldens and print what the classes reach")
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if args.report:
        print("| golden | float32 | float16 | largest value between blocks |\n|---|---|---|---|")
    for index, case in enumerate(CASES):
        model, state, tensors = golden(case, index)
        folder = GOLDENS / case.name
        if args.report:
            committed = load_file(folder / "golden.safetensors")
            assert committed.keys() == tensors.keys(), case.name
            for name, value in tensors.items():
                assert torch.allclose(committed[name].double(), value.double(), rtol=1e-6, atol=1e-7 * float(value.abs().max())), (case.name, name)
            print(report(case, model, state, tensors), flush=True)
            continue
        folder.mkdir(parents=True, exist_ok=True)
        save(model, case, state, folder / "checkpoint")
        stored = {name: value if value.dtype == torch.int32 else value.float().contiguous() for name, value in tensors.items()}
        save_file(stored, folder / "golden.safetensors")
        print(f"{case.name}: {sum(f.stat().st_size for f in folder.rglob('*') if f.is_file()) / 1e3:.0f} kB", file=sys.stderr)


if __name__ == "__main__":
    main()

"""Makes `tests/fixtures/doors`: one small Wan checkpoint in every form in which weights come, and what others make of it.

    python3 -m venv venv && venv/bin/pip install torch==2.7.1 diffusers==0.42.1 accelerate numpy safetensors gguf==0.17.1 peft==0.21.2
    venv/bin/python examples/reference/door_fixtures.py

The weights are seeded (700), in bf16, under the names of Wan's own repository. diffusers' own conversion gives them its names and must load
them into `WanTransformer3DModel` without a remainder. The same versions give the same bytes but for `old.pt`, which names storages by addresses. `merged_NAME.safetensors` are the weights that an adapter changes, computed by PyTorch in float64
and rounded once to float32; PEFT must make the same of its own kind. `gguf_expected.safetensors` is what the package gguf (llama.cpp's own) makes of `types.gguf`, float32.
"""

import argparse
import datetime
import json
import pathlib
import zipfile
from collections import Counter, OrderedDict, defaultdict, deque

import gguf
import numpy as np
import torch
from diffusers import WanTransformer3DModel
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from peft import LoraConfig, get_peft_model
from peft.utils import set_peft_model_state_dict
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/fixtures/doors"
SEED = 700
DIM, HEADS, FFN, TEXT, FREQ, CHANNELS, LAYERS = 32, 2, 64, 32, 32, 4, 1
ORIGINAL = {
    "_class_name": "WanModel", "_diffusers_version": "0.30.0", "dim": DIM, "eps": 1e-06, "ffn_dim": FFN, "freq_dim": FREQ, "in_dim": CHANNELS,
    "model_type": "t2v", "num_heads": HEADS, "num_layers": LAYERS, "out_dim": CHANNELS, "text_dim": TEXT, "text_len": 8,
}


def original_weights():
    """A state dict as Wan's own repository has it."""
    shapes = {"patch_embedding.weight": (DIM, CHANNELS, 1, 2, 2), "patch_embedding.bias": (DIM,)}

    def linear(name, out, inner):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, inner), (out,)

    linear("text_embedding.0", DIM, TEXT)
    linear("text_embedding.2", DIM, DIM)
    linear("time_embedding.0", DIM, FREQ)
    linear("time_embedding.2", DIM, DIM)
    linear("time_projection.1", 6 * DIM, DIM)
    for i in range(LAYERS):
        for attention in ("self_attn", "cross_attn"):
            for part in "qkvo":
                linear(f"blocks.{i}.{attention}.{part}", DIM, DIM)
            for norm in ("norm_q", "norm_k"):
                shapes[f"blocks.{i}.{attention}.{norm}.weight"] = (DIM,)
        shapes[f"blocks.{i}.norm3.weight"] = shapes[f"blocks.{i}.norm3.bias"] = (DIM,)
        linear(f"blocks.{i}.ffn.0", FFN, DIM)
        linear(f"blocks.{i}.ffn.2", DIM, FFN)
        shapes[f"blocks.{i}.modulation"] = (1, 6, DIM)
    linear("head.head", 4 * CHANNELS, DIM)
    shapes["head.modulation"] = (1, 2, DIM)
    g = torch.Generator().manual_seed(SEED)
    return {name: torch.randn(shape, generator=g).div(DIM**0.5).bfloat16() for name, shape in shapes.items()}


def diffusers_names(state):
    """The same tensors by diffusers' own conversion, which its class takes without a remainder."""
    converted = convert_wan_transformer_to_diffusers(dict(state))
    model = empty_model()
    model.load_state_dict(converted, strict=True)
    config = {key: value for key, value in model.config.items() if not key.startswith("_")}
    return converted, {"_class_name": "WanTransformer3DModel"} | config | {"text_len": 8}


def empty_model():
    return WanTransformer3DModel(
        in_channels=CHANNELS, out_channels=CHANNELS, num_attention_heads=HEADS, attention_head_dim=DIM // HEADS, num_layers=LAYERS,
        ffn_dim=FFN, text_dim=TEXT, freq_dim=FREQ,
    )


def merged_by_peft(converted, adapter, rank, alpha, scale):
    """The weights that PEFT merges an adapter into, in float64."""
    model = empty_model()
    model.load_state_dict(converted)
    modules = sorted({key.removeprefix("transformer.").split(".lora_")[0] for key in adapter})
    model = get_peft_model(model.double(), LoraConfig(r=rank, lora_alpha=alpha, target_modules=modules)).double()
    state = {key.replace("transformer.", "base_model.model."): value.double() for key, value in adapter.items()}
    assert not set_peft_model_state_dict(model, state).unexpected_keys
    for module in model.modules():
        if hasattr(module, "scale_layer"):
            module.scale_layer(scale)
    return model.merge_and_unload().state_dict()


def repacked(source, target, compression=zipfile.ZIP_STORED, **changed):
    """A zip file again, with other compression or other bytes in an entry."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for entry in old.infolist():
            data = changed.get(entry.filename.split("/")[-1].replace(".", "_"), old.read(entry))
            new.writestr(zipfile.ZipInfo(entry.filename, (1980, 1, 1, 0, 0, 0)), data, compression)


class Harmful:
    def __reduce__(self):
        import os

        return os.system, ("echo this ran",)


def torch_files(original):
    save = lambda value, name, **how: torch.save(value, OUT / name, **how)
    state = OrderedDict(original)
    state._metadata = OrderedDict({"": {"version": 1}})
    save(state, "flat.pt")
    few = {"x": torch.zeros(2)}
    save(few, "plain.pt")
    save(few, "old.pt", _use_new_zipfile_serialization=False)
    wrapped = {f"model._fsdp_wrapped_module.{k.replace('blocks.0.', 'blocks.0._fsdp_wrapped_module.')}": v for k, v in original.items()}
    few = {"model.head.head.bias": original["head.head.bias"]}
    save(
        {"generator": few, "generator_ema": wrapped, "step": 600, "args": {"lr": 1e-5, "betas": (0.9, 0.95), "name": "x"},
         "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"params": [0]}]}},
        "training.pt",
    )
    # Transposed, strided, in the middle of a storage, broadcast, and parameters.
    views = dict(original)
    name = "blocks.0.ffn.0.weight"
    views[name] = views[name].t().contiguous().t()
    name = "blocks.0.self_attn.q.weight"
    wide = torch.zeros(DIM, 2 * DIM, dtype=torch.bfloat16)
    wide[:, ::2] = views[name]
    views[name] = wide[:, ::2]
    both = torch.cat([original["text_embedding.0.bias"], original["text_embedding.2.bias"]])
    views["text_embedding.0.bias"], views["text_embedding.2.bias"] = both[:DIM], both[DIM:]
    views["head.head.bias"] = torch.nn.Parameter(views["head.head.bias"], requires_grad=False)
    name = "patch_embedding.weight"
    views[name] = views[name].permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0)
    save(views, "views.pt")
    save({"a": torch.zeros(2), "harm": Harmful()}, "code.pt")
    # As a trainer saves it: a loose tensor at the top, and values of Python and NumPy beside the weights.
    args = argparse.Namespace(lr=1e-5, out=pathlib.PosixPath("/runs/1"), when=datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc))
    values = {
        "args": args, "took": datetime.timedelta(seconds=3), "loss": np.float64(0.5), "losses": np.arange(3.0), "rng": np.random.RandomState(1).get_state(),
        "seen": {1, 2}, "never": frozenset([3]), "z": 1 + 2j, "groups": defaultdict(list, {"decay": [0]}), "counts": Counter("aab"), "last": deque([1, 2]),
        "dtype": torch.bfloat16, "big": 2**100,
    }
    step = {"global_step": torch.tensor(5), "optimizer": {"state": {"head.head.bias": {"exp_avg": torch.zeros(2)}}}}
    save({"state_dict": original, **step, **values}, "trainer.pt")
    save(values | {"state_dict": few}, "protocol4.pt", pickle_protocol=4)
    save({"x": torch.zeros(2).to(torch.float8_e4m3fn)}, "fp8.pt")
    save_file({"head.head.bias": torch.zeros(2).to(torch.float8_e4m3fn), "x": torch.zeros(2).to(torch.float8_e5m2)}, OUT / "fp8.safetensors")
    repacked(OUT / "plain.pt", OUT / "compressed.pt", zipfile.ZIP_DEFLATED)
    repacked(OUT / "plain.pt", OUT / "big_endian.pt", byteorder=b"big")


def lora_files(original, converted):
    g = torch.Generator().manual_seed(SEED + 1)
    rank = 4
    draw = lambda *shape: torch.randn(shape, generator=g) / 4
    back = {v.data_ptr(): k for k, v in converted.items()}
    names = {k: back[v.data_ptr()] for k, v in original.items()}

    def factors(module):
        weight = original[f"{module}.weight"]
        return draw(rank, *weight.shape[1:]), draw(weight.shape[0], rank, *[1] * (weight.dim() - 2))

    def merged(changes):
        """The weights that change, under diffusers' names; `changes` maps original names to what is added."""
        return {names[k]: (original[k].double() + change).float().contiguous() for k, change in changes.items()}

    def product(a, b, scale):
        return scale * (b.double().flatten(1) @ a.double().flatten(1)).reshape(b.shape[0], *a.shape[1:])

    peft, changes = {}, {}
    for module in ("blocks.0.self_attn.q", "blocks.0.cross_attn.o", "blocks.0.ffn.0", "head.head", "patch_embedding"):
        a, b = factors(module)
        target = names[f"{module}.weight"].removesuffix(".weight")
        peft[f"transformer.{target}.lora_A.weight"], peft[f"transformer.{target}.lora_B.weight"] = a, b
        changes[f"{module}.weight"] = product(a, b, 0.5 * 16.0 / rank)
    about = {"transformer.r": rank, "transformer.lora_alpha": 16, "transformer.use_dora": False, "transformer.alpha_pattern": {}}
    save_file(peft, OUT / "lora_peft.safetensors", metadata={"lora_adapter_metadata": json.dumps(about)})
    ours, theirs = merged(changes), merged_by_peft(converted, peft, rank, 16, 0.5)
    for name, value in ours.items():
        assert torch.equal(value, theirs[name].float()), name
    save_file(ours, OUT / "merged_peft.safetensors")

    kohya, changes = {}, {}
    for module in ("blocks.0.self_attn.v", "blocks.0.ffn.2", "time_projection.1"):
        a, b = factors(module)
        flat = "lora_unet_" + module.replace(".", "_")
        kohya |= {f"{flat}.lora_down.weight": a.half(), f"{flat}.lora_up.weight": b.half(), f"{flat}.alpha": torch.tensor(2.0)}
        changes[f"{module}.weight"] = product(a.half(), b.half(), 2.0 / rank)
    save_file(kohya, OUT / "lora_kohya.safetensors")
    save_file(merged(changes), OUT / "merged_kohya.safetensors")

    diff, changes = {}, {}
    a, b = factors("blocks.0.cross_attn.k")
    diff["diffusion_model.blocks.0.cross_attn.k.lora_down.weight"], diff["diffusion_model.blocks.0.cross_attn.k.lora_up.weight"] = a, b
    changes["blocks.0.cross_attn.k.weight"] = product(a, b, -1.5)
    for name, key in (
        ("blocks.0.norm3.weight", "blocks.0.norm3.diff"), ("blocks.0.ffn.0.bias", "blocks.0.ffn.0.diff_b"),
        ("blocks.0.modulation", "blocks.0.modulation.diff"), ("head.modulation", "head.modulation.diff"),
    ):
        diff[f"diffusion_model.{key}"] = draw(*original[name].shape)
        changes[name] = -1.5 * diff[f"diffusion_model.{key}"].double()
    save_file(diff, OUT / "lora_diff.safetensors")
    save_file(merged(changes), OUT / "merged_diff.safetensors")
    unknown = {"diffusion_model.blocks.7.self_attn.q.lora_down.weight": draw(rank, DIM), "diffusion_model.blocks.7.self_attn.q.lora_up.weight": draw(DIM, rank)}
    save_file(unknown | {"x.hada_w1_a": draw(2, 2)}, OUT / "lora_unknown.safetensors")


def gguf_files(original):
    """A model in several types, and a row of blocks of every type with random contents."""
    types = gguf.GGMLQuantizationType
    kinds = [types.Q8_0, types.Q4_0, types.Q4_1, types.Q5_0, types.Q5_1, types.F16, types.F32, types.BF16]
    writer = gguf.GGUFWriter(OUT / "model.gguf", "wan")
    expected = {}
    matrices = 0
    for name, tensor in original.items():
        values = tensor.float().numpy()
        kind = types.F32
        if values.ndim == 2:
            kind = kinds[matrices % len(kinds)]
            matrices += 1
        data = gguf.quants.quantize(values, kind)
        writer.add_tensor(name, data, raw_dtype=kind)
        plain = {types.F16: torch.float16, types.BF16: torch.bfloat16}.get(kind, torch.float32)
        expected[name] = torch.from_numpy(gguf.quants.dequantize(data, kind).reshape(values.shape).astype(np.float32)).to(plain)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    save_file({k: v.contiguous() for k, v in convert_wan_transformer_to_diffusers(expected).items()}, OUT / "gguf_model.safetensors")

    rng = np.random.default_rng(SEED + 2)
    writer = gguf.GGUFWriter(OUT / "types.gguf", "wan")
    expected = {}
    for kind in kinds + [types.Q2_K, types.Q3_K, types.Q4_K, types.Q5_K, types.Q6_K]:
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        rows = 3 * 512
        blocks = rng.integers(0, 256, (rows // elements, size), dtype=np.uint8)
        halves = {types.Q2_K: [80, 82], types.Q3_K: [108], types.Q4_K: [0, 2], types.Q5_K: [0, 2], types.Q6_K: [208]}
        if kind in (types.F16, types.F32, types.BF16):
            data = gguf.quants.quantize(rng.standard_normal((3, 512)).astype(np.float32), kind)
        else:
            # Random scales would be NaN now and then.
            for at in halves.get(kind, [0, 2] if kind in (types.Q4_1, types.Q5_1) else [0]):
                scales = rng.standard_normal(len(blocks)).astype(np.float16)
                blocks[:, at : at + 2] = scales[:, None].view(np.uint8)
            data = blocks.reshape(3, -1)
        writer.add_tensor(kind.name, data, raw_dtype=kind)
        expected[kind.name] = torch.from_numpy(gguf.quants.dequantize(data, kind).reshape(3, 512).astype(np.float32).copy())
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    save_file(expected, OUT / "gguf_expected.safetensors")


def main():
    (OUT / "diffusers").mkdir(parents=True, exist_ok=True)
    original = original_weights()
    converted, config = diffusers_names(original)
    save_file({k: v.contiguous() for k, v in converted.items()}, OUT / "diffusers/diffusion_pytorch_model.safetensors")
    (OUT / "diffusers/config.json").write_text(json.dumps(config, indent=2) + "\n")
    (OUT / "config.json").write_text(json.dumps(ORIGINAL, indent=2) + "\n")
    save_file(original, OUT / "original.safetensors")
    torch_files(original)
    lora_files(original, converted)
    gguf_files(original)
    for file in sorted(OUT.rglob("*")):
        if file.is_file():
            print(f"{file.stat().st_size:8} {file.relative_to(OUT)}")


if __name__ == "__main__":
    main()

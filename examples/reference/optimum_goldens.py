"""Makes `optimum_CASE.FORM.onnx` and `optimum_CASE.safetensors` of `tests/goldens/import`: text encoders as optimum exports them, and what transformers computes in float64.

    python3 -m venv venv && venv/bin/pip install optimum-onnx[onnxruntime]==0.1.0 transformers==4.57.6 torch==2.15.0 onnxruntime==1.32.0 accelerate==1.15.0 safetensors
    venv/bin/python examples/reference/optimum_goldens.py [CASE ...]

A case is a small model with seeded weights (seed 700 + i), exported in float32 with symbolic sizes of batch and sequence, which is what optimum makes of a checkpoint:

    CASE.optimum.onnx     optimum.exporters.onnx, opset 18
    CASE.optimised.onnx   the same after ONNX Runtime's optimiser of transformers, which writes ops of com.microsoft

`CASE.safetensors` has the ids of a sequence and the results by the order of the file's outputs, as `output` or `output_0`, `output_1`, …. Where transformers narrows to float32
whatever the dtype, it computes in float64 here. Strings that explain (`doc_string`) are dropped from the files; nothing else is edited.
"""

import argparse
import copy
import tempfile
import warnings
from pathlib import Path
from unittest.mock import patch

import onnx
import torch
import torch.nn as nn
from onnxruntime.transformers.optimizer import optimize_model
from optimum.exporters.onnx import model_configs, onnx_export_from_model
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

GOLDENS = Path(__file__).resolve().parents[2] / "tests/goldens/import"

CLIP = CLIPTextConfig(
    vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=16, eos_token_id=49,
    bos_token_id=48, pad_token_id=0, projection_dim=12,
)
T5 = dict(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)

# name: (the model, optimum's description of it, ids, what ONNX Runtime's optimiser calls it)
CASES = {
    "clip": (lambda: CLIPTextModelWithProjection(CLIP), model_configs.CLIPTextWithProjectionOnnxConfig, [48, 3, 17, 5, 49, 0, 0], "clip"),
    "t5": (lambda: T5EncoderModel(T5Config(feed_forward_proj="gated-gelu", **T5)), model_configs.T5EncoderOnnxConfig, [3, 14, 15, 1, 0, 0], None),
    "umt5": (lambda: UMT5EncoderModel(UMT5Config(**T5)), model_configs.T5EncoderOnnxConfig, [3, 14, 15, 1, 0, 0], None),
}


def draw(model):
    for name, tensor in model.named_parameters():
        if tensor.dim() >= 2:
            nn.init.normal_(tensor, std=(tensor[0].numel() or 1) ** -0.5)
        elif name.endswith("bias"):
            nn.init.normal_(tensor, std=0.1)
        else:
            nn.init.normal_(tensor, mean=1.0, std=0.1)


def write(model, path):
    nodes = list(model.graph.node)
    while nodes:
        node = nodes.pop()
        node.ClearField("doc_string")
        nodes += [n for a in node.attribute if a.type == onnx.AttributeProto.GRAPH for n in a.g.node]
    path.write_bytes(model.SerializeToString(deterministic=True))


def make(index, name):
    build, description, ids, optimiser = CASES[name]
    torch.manual_seed(700 + index)
    model = build().eval()
    draw(model)
    config = description(model.config, task="feature-extraction")
    with tempfile.TemporaryDirectory() as folder:
        onnx_export_from_model(copy.deepcopy(model), folder, task="feature-extraction", custom_onnx_configs={"model": config}, opset=18, do_validation=False)
        source = Path(folder) / "model.onnx"
        exported = onnx.load(source)
        write(exported, GOLDENS / f"optimum_{name}.optimum.onnx")
        if optimiser:
            optimised = optimize_model(str(source), model_type=optimiser, num_heads=2, hidden_size=16)
            write(optimised.model, GOLDENS / f"optimum_{name}.optimised.onnx")
            print(f"{name:6} fused: {optimised.get_fused_operator_statistics()}")
    ids = torch.tensor([ids])
    wide = copy.deepcopy(model).double()
    with torch.no_grad(), patch.object(torch.Tensor, "float", torch.Tensor.double), patch.object(torch, "float32", torch.float64):
        torch.set_default_dtype(torch.float64)
        results = wide(input_ids=ids)
    torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        plain = model(input_ids=ids)
    outputs = [output.name for output in exported.graph.output]
    names = ["output"] if len(outputs) == 1 else [f"output_{i}" for i in range(len(outputs))]
    assert all(results[output].dtype == torch.float64 for output in outputs), "something narrower than float64"
    tensors = {"input_ids": ids.float()} | {key: results[output].float().contiguous() for key, output in zip(names, outputs)}
    save_file(tensors, GOLDENS / f"optimum_{name}.safetensors")
    errors = {output: f"{((plain[output].double() - results[output]).norm() / results[output].norm()).item():.1e}" for output in outputs}
    print(f"{name:6} float32: {errors}; {[(p.name, p.stat().st_size) for p in sorted(GOLDENS.glob(f'optimum_{name}.*'))]}")


def main():
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    chosen = parser.parse_args().cases
    for index, name in enumerate(CASES):
        if not chosen or name in chosen:
            make(index, name)


if __name__ == "__main__":
    main()

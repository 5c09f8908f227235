"""Makes the ONNX files of `tests/goldens/import`: the models of `import_goldens.py`, as PyTorch's exporters write them.

    python3 -m venv venv && venv/bin/pip install torch==2.7.1 diffusers==0.42.1 transformers==5.24.0 accelerate numpy safetensors onnx==1.23.2 onnxscript==0.7.2
    venv/bin/python examples/reference/onnx_import_goldens.py [CASE ...] [--all OUT]

A case has the weights and inputs of `import_goldens.py`, by the same seeds, so that `CASE.safetensors` is what it must compute. It is written as

    CASE.dynamo18.onnx    torch.onnx.export(dynamo=True, opset_version=18)
    CASE.dynamo23.onnx    the same with opset_version=23
    CASE.script.onnx      torch.onnx.export(dynamo=False, opset_version=17), the exporter that traces TorchScript
    CASE.half.onnx        dynamo, of a model in float16
    CASE.symbolic.onnx    dynamo, with as many text tokens as one likes: the size `tokens`

as far as the exporter has the model's ops. `s2dit_reference.slim.onnx` is what onnxslim 0.1.98 makes of `s2dit_reference.dynamo18.onnx`
(`python -m onnxslim IN OUT`). Of a node's metadata its scopes alone are kept, since it is most of a small file; nothing else is edited. Only `KEPT`
is committed; `--all OUT` writes every form of every case into the folder OUT.
"""

import argparse
import logging
import warnings
from pathlib import Path

import onnx
import torch

from import_goldens import CASES, EXTRA, GOLDENS, draw

SCOPES = "pkg.torch.onnx.name_scopes"

FORMS = {
    "dynamo18": dict(dynamo=True, opset_version=18),
    "dynamo23": dict(dynamo=True, opset_version=23),
    "script": dict(dynamo=False, opset_version=17),
    "half": dict(dynamo=True, opset_version=18),
    "symbolic": dict(dynamo=True, opset_version=18),
}

# The forms of a case that are committed.
KEPT = {name: ["dynamo18", "script"] for name in CASES if name not in EXTRA} | {
    "s2dit_reference": ["dynamo18", "dynamo23", "script", "half", "symbolic"],
    "ops_elements": ["dynamo18"], "ops_linear_algebra": ["dynamo18"], "ops_shapes": ["dynamo18"], "ops_reductions": ["dynamo18"], "ops_masks": ["dynamo18"],
    "dynamic": ["dynamo18"],
}


def positional(model, names, options):
    """The model with arguments that come in order, which the exporter that traces wants."""
    forward = model.forward

    def in_order(*values):
        out = forward(**dict(zip(names, values)), **options)
        return out if isinstance(out, (torch.Tensor, tuple)) else out.to_tuple()

    model.forward = in_order
    return model


def strip(nodes):
    for node in nodes:
        kept = [entry for entry in node.metadata_props if entry.key == SCOPES]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
        node.ClearField("doc_string")
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                strip(attribute.g.node)


def made(index, name, form, path):
    torch.manual_seed(900 + index)
    model, _, _ = CASES[name]()
    model = model.eval()
    draw(model)
    torch.manual_seed(950 + index)
    _, inputs, options = CASES[name]()
    dynamic = options.pop("dynamic", None)
    if form == "half":
        model = model.half()
        inputs = {k: v.half() if v.is_floating_point() else v for k, v in inputs.items()}
    arguments = FORMS[form]
    if form == "symbolic":
        dynamic = {k: {1: torch.export.Dim("tokens")} if k == "text" else None for k in inputs}
    with torch.no_grad():
        if arguments["dynamo"]:
            program = torch.onnx.export(model, (), kwargs=inputs | options, dynamic_shapes=dynamic, verbose=False, **arguments)
            proto = program.model_proto
        else:
            wrapped = positional(model, list(inputs), options)
            axes = {k: {axis: f"size{axis}" for axis in v} for k, v in (dynamic or {}).items()}
            torch.onnx.export(wrapped, tuple(inputs.values()), str(path), input_names=list(inputs), dynamic_axes=axes, **arguments)
            proto = onnx.load(path)
    graph = proto.graph
    strip(graph.node)
    for function in proto.functions:
        strip(function.node)
    for value in [*graph.input, *graph.output, *graph.value_info]:
        del value.metadata_props[:]
    for tensor in graph.initializer:
        del tensor.metadata_props[:]
    del graph.metadata_props[:]
    del graph.value_info[:]
    path.write_bytes(proto.SerializeToString(deterministic=True))


def main():
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--all", type=Path, metavar="OUT", help="write every form of the cases into this folder")
    args = parser.parse_args()
    out = args.all or GOLDENS
    out.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(CASES):
        if args.cases and name not in args.cases:
            continue
        for form in FORMS if args.all else KEPT.get(name, []):
            path = out / f"{name}.{form}.onnx"
            try:
                made(index, name, form, path)
                print(f"{name:24} {form:9} {path.stat().st_size} bytes", flush=True)
            except Exception as error:  # an exporter that lacks an op says so in many ways
                path.unlink(missing_ok=True)
                print(f"{name:24} {form:9} the exporter refuses it: {str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__}", flush=True)


if __name__ == "__main__":
    main()

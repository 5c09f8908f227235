"""Makes the graphs that are split into streams, `tests/goldens/CASE/chunk.FORM`: one chunk of the networks of stream goldens, as PyTorch exports them.

    python3 -m venv venv && venv/bin/pip install torch==2.7.1 diffusers==0.42.1 accelerate numpy safetensors onnx==1.23.2 onnxscript==0.7.2
    venv/bin/python examples/reference/stream_import_goldens.py [CASE ...]

A case has the weights of a golden's checkpoint in float32, so that `tests/goldens/CASE/golden.safetensors`, which other scripts made, is what its
stream must compute. S2DiT is `s2dit.py`, called without a past; Self-Forcing is diffusers' Wan, which knows no streams at all. The forms are those
of `import_goldens.py` and `onnx_import_goldens.py`.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch

import s2dit
from import_goldens import GOLDENS, written
from onnx_import_goldens import FORMS, strip

CASES = {  # name: (latent H x W, forms that are committed)
    "stream_tiny": ((8, 8), ["raw.pt2"]),
    "stream_sink": ((6, 10), ["dynamo18.onnx"]),
    "stream_last_sink": ((6, 8), ["dec.pt2"]),
    "stream_paths": ((8, 8), ["dec.pt2"]),
    "self_forcing_window": ((6, 4), ["raw.pt2"]),
}


def of_s2dit(folder, size):
    model = s2dit.load(folder, torch.float32)
    config = model.config
    x = torch.zeros(1, config.in_channels, config.chunk_frames, *size)
    return model, dict(x=x, t=torch.zeros(1), text=torch.zeros(1, config.text_len, config.text_dim)), {}


def of_self_forcing(folder, size):
    from diffusers import WanTransformer3DModel
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    config = json.loads((folder / "config.json").read_text())
    state = torch.load(folder / "self_forcing.pt", weights_only=True)["generator_ema"]
    state = {name.removeprefix("model."): tensor.float() for name, tensor in state.items()}
    model = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=config["num_heads"], attention_head_dim=config["dim"] // config["num_heads"],
        in_channels=config["in_dim"], out_channels=config["out_dim"], text_dim=config["text_dim"], freq_dim=config["freq_dim"],
        ffn_dim=config["ffn_dim"], num_layers=config["num_layers"], eps=config["eps"], rope_max_seq_len=32,
    )
    model.load_state_dict(convert_wan_transformer_to_diffusers(state))
    latent = torch.zeros(1, config["in_dim"], config["num_frame_per_block"], *size)
    text = torch.zeros(1, config["text_len"], config["text_dim"])
    inputs = dict(hidden_states=latent, timestep=torch.zeros(1), encoder_hidden_states=text)
    return model.eval(), inputs, dict(return_dict=False)


def export(model, inputs, options, form):
    """The bytes of a form."""
    if form.endswith(".pt2"):
        program = torch.export.export(model, (), inputs | options)
        return written(program.run_decompositions() if form.startswith("dec") else program)
    import onnx

    arguments = FORMS[form.removesuffix(".onnx")]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        if arguments["dynamo"]:
            proto = torch.onnx.export(model, (), kwargs=inputs | options, verbose=False, **arguments).model_proto
        else:
            torch.onnx.export(model, tuple(inputs.values()), str(path), input_names=list(inputs), **arguments)
            proto = onnx.load(path)
    strip(proto.graph.node)
    for function in proto.functions:
        strip(function.node)
    for value in [*proto.graph.input, *proto.graph.output]:
        del value.metadata_props[:]
    for tensor in proto.graph.initializer:
        del tensor.metadata_props[:]
    del proto.graph.metadata_props[:]
    del proto.graph.value_info[:]
    return proto.SerializeToString(deterministic=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--forms", nargs="+", help="these forms, such as raw.pt2 or dynamo18.onnx, in the place of those that are committed")
    args = parser.parse_args()
    for name, (size, forms) in CASES.items():
        if args.cases and name not in args.cases:
            continue
        folder = GOLDENS.parent / name / "checkpoint"
        model, inputs, options = (of_self_forcing if name.startswith("self_forcing") else of_s2dit)(folder, size)
        for form in args.forms or forms:
            with torch.no_grad():
                data = export(model, inputs, options, form)
            (folder.parent / f"chunk.{form}").write_bytes(data)
            print(f"{name}.{form}: {len(data)} bytes", flush=True)


if __name__ == "__main__":
    main()

"""Checks ONNX files from the outside: onnx.checker with shape inference, names, external data; ONNX Runtime if it is installed.

    check_onnx.py FILE...         emitted models
    check_onnx.py --cases DIR     models with inputs and expected outputs (backends/tests/onnx_ops.rs), run by onnx's reference
                                  evaluator and by ONNX Runtime if it is installed
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

try:
    import onnxruntime
except ImportError:
    onnxruntime = None

OPSETS, IR_VERSION = {21, 23}, 10
SMALL, PAGE, LINE = 1024, 4096, 64
# What our external data ends with: this and a hash that the models' metadata names.
MAGIC = b"s2ditc weights:\n"
TRAILER = len(MAGIC) + 32
WIDTH = {onnx.TensorProto.BFLOAT16: 2}


def nbytes(tensor):
    if tensor.data_type in (onnx.TensorProto.INT4, onnx.TensorProto.UINT4):
        return -(-int(np.prod(tensor.dims, dtype=np.int64)) // 2)
    width = WIDTH.get(tensor.data_type)
    if width is None:
        width = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return int(np.prod(tensor.dims, dtype=np.int64)) * width


def check_structure(path, ours=True):
    """Yields what is wrong with a model. `ours`: also what s2ditc promises beyond the format."""
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(str(path), load_external_data=False)
    graph = model.graph
    opsets = {o.domain: o.version for o in model.opset_import}
    if set(opsets) != {""} or opsets[""] not in OPSETS:
        yield f"opset_import: expected ai.onnx of {sorted(OPSETS)}, found {opsets}"
    elif (opsets[""] == 23) != any(node.op_type in ("RotaryEmbedding", "Attention") for node in graph.node):
        yield f"opset_import: {opsets['']} is not the lowest that has every op"
    if model.ir_version != IR_VERSION:
        yield f"ir_version: expected {IR_VERSION}, found {model.ir_version}"
    if model.producer_name != "s2ditc" or not model.producer_version:
        yield f"producer: expected s2ditc and its version, found {model.producer_name!r} {model.producer_version!r}"
    keys = [p.key for p in model.metadata_props]
    if keys != sorted(set(keys)):
        yield f"metadata_props: expected sorted, distinct keys, found {keys}"

    made = [i.name for i in graph.input] + [t.name for t in graph.initializer]
    made += [name for node in graph.node for name in node.output]
    for kind, names in (("value", made), ("node", [n.name for n in graph.node])):
        seen = set()
        for name in names:
            if not name:
                yield f"a {kind} has no name"
            if name in seen:
                yield f"{kind} `{name}`: the name is used twice"
            seen.add(name)
    used = {name for node in graph.node for name in node.input} | {o.name for o in graph.output}
    for name in made[: len(graph.input) + len(graph.initializer)]:
        if name not in used and name not in {i.name for i in graph.input}:
            yield f"initializer `{name}` is not used"

    external = []
    for tensor in graph.initializer:
        size = nbytes(tensor)
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            if len(tensor.raw_data) != size:
                yield f"initializer `{tensor.name}`: expected {size} bytes, found {len(tensor.raw_data)}"
            continue
        location, offset, length = external_place(tensor)
        external.append((location, offset, offset + length, tensor.name))
        if length != size:
            yield f"initializer `{tensor.name}`: expected {size} bytes, found length {length}"
        if ours and size < SMALL:
            yield f"initializer `{tensor.name}`: {size} bytes are external; ONNX Runtime wants small tensors in the model"
        if ours and offset % (PAGE if size >= PAGE else LINE):
            yield f"initializer `{tensor.name}`: offset {offset} is not aligned"
    kernel = (path.parent / "contract.json").exists()
    said = {p.key: p.value for p in model.metadata_props}.get("s2ditc.data", "")
    # A clip's data has the first 16 digits of its identity in its name.
    digits = said.removeprefix("blake3:")[:16]
    wanted = "weights.data" if kernel else f"{path.name}.{digits}.data"
    for location in {e[0] for e in external}:
        file = path.parent / location
        if ours and location != wanted:
            yield f"external data is in `{location}`, expected `{wanted}`"
        if not file.is_file():
            yield f"external data `{location}` is missing"
            continue
        end = 0
        for _, start, stop, name in sorted(e for e in external if e[0] == location):
            if start < end:
                yield f"initializer `{name}`: its bytes overlap another tensor's"
            end = max(end, stop)
        if kernel:
            end = max(sibling_ends(path.parent, location))
        found = file.stat().st_size
        if found != end + TRAILER if ours else found < end:
            yield f"external data `{location}`: expected {end} bytes and {TRAILER} of identity, found {found}"
        if ours:
            with file.open("rb") as data:
                data.seek(end)
                magic, identity = data.read(len(MAGIC)), data.read().hex()
            if magic != MAGIC or said != f"blake3:{identity} {found}":
                yield f"external data `{location}` ends with {magic!r} {identity}, but the model says {said}"


def external_place(tensor):
    """(file, offset, length)"""
    entry = {e.key: e.value for e in tensor.external_data}
    return entry["location"], int(entry["offset"]), int(entry["length"])


def sibling_ends(folder, location):
    """Where the tensors end that the models of a kernel have in the data file that they share."""
    for path in folder.glob("*.onnx"):
        for tensor in onnx.load(str(path), load_external_data=False).graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                where, offset, length = external_place(tensor)
                if where == location:
                    yield offset + length


def session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def check_file(path):
    problems = list(check_structure(path))
    if onnxruntime and not problems:
        loaded = session(path)
        graph = onnx.load(str(path), load_external_data=False).graph
        for kind, ours, theirs in (("inputs", graph.input, loaded.get_inputs()), ("outputs", graph.output, loaded.get_outputs())):
            shapes = [[d.dim_value for d in v.type.tensor_type.shape.dim] for v in ours]
            if shapes != [v.shape for v in theirs]:
                problems.append(f"{kind}: ONNX Runtime sees {[v.shape for v in theirs]}, expected {shapes}")
    return problems


def run_case(folder):
    path = folder / "model.onnx"
    problems = list(check_structure(path, ours=False))
    case = json.loads((folder / "case.json").read_text())
    data = folder / "test_data_set_0"

    def tensors(kind):
        files = sorted(data.glob(f"{kind}_*.pb"), key=lambda p: int(p.stem.split("_")[1]))
        loaded = [onnx.load_tensor(str(f)) for f in files]
        return {t.name: numpy_helper.to_array(t) for t in loaded}

    feeds, expected = tensors("input"), tensors("output")
    judges = [("onnx.reference", lambda names: ReferenceEvaluator(onnx.load(str(path))).run(names, feeds))]
    if onnxruntime:
        judges.append(("onnxruntime", lambda names: session(path).run(names, feeds)))
    for judge, run in judges:
        try:
            found = dict(zip(expected, run(list(expected))))
        except Exception as error:
            problems.append(f"{judge}: {error}")
            continue
        for name, want in expected.items():
            got = np.asarray(found[name])
            if got.shape != want.shape:
                problems.append(f"{judge}: `{name}` is {got.shape}, expected {want.shape}")
                continue
            got = got.astype(np.float64)
            error = np.linalg.norm(got - want) / max(np.linalg.norm(want), 1e-30)
            if not error <= case["relative_l2"]:
                problems.append(f"{judge}: `{name}` has a relative L2 error of {error:.2e}, allowed {case['relative_l2']:.0e}")
            if case["fp16_grid"]:
                if not np.array_equal(got, got.astype(np.float16).astype(np.float64)):
                    problems.append(f"{judge}: `{name}` has values that fp16 does not have")
                if (wrong := np.mean(got != want)) > 0.1:
                    problems.append(f"{judge}: `{name}` rounds {wrong:.0%} of its values elsewhere")
    return problems


def main(arguments):
    if arguments[:1] == ["--cases"]:
        jobs = [(str(f.parent), lambda f=f: run_case(f.parent)) for f in sorted(Path(arguments[1]).rglob("model.onnx"))]
    else:
        jobs = [(a, lambda a=a: check_file(Path(a))) for a in arguments]
    if not jobs:
        sys.exit(__doc__)
    bad = 0
    for name, job in jobs:
        try:
            problems = job()
        except Exception as error:
            problems = [str(error)]
        bad += bool(problems)
        for problem in problems:
            print(f"{name}: {problem}", file=sys.stderr)
    print(f"{len(jobs) - bad} of {len(jobs)} models are fine" + ("" if onnxruntime else " (ONNX Runtime is not installed: not run)"))
    sys.exit(bad > 0)


if __name__ == "__main__":
    main(sys.argv[1:])

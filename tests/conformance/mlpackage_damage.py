"""Ways to damage an mlpackage, each with a word of the problem that `check_mlpackage.py` must report."""

import json
import shutil
import struct
import tempfile
from pathlib import Path

from coremltools.proto import FeatureTypes_pb2, MIL_pb2, Model_pb2

import mlpackage_rules as rules

MODEL = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"

# (expected word, function that damages a package)
DAMAGES = []


class DoesNotApply(Exception):
    """The package has nothing that this damage could hit."""


def file_damage(expected):
    """Registers a function of the package's path."""
    return lambda damage: DAMAGES.append((expected, damage)) or damage


def model_damage(expected):
    """Registers a function of the parsed model."""

    def register(damage):
        def edit(package):
            spec = Model_pb2.Model.FromString((package / MODEL).read_bytes())
            damage(spec)
            (package / MODEL).write_bytes(spec.SerializeToString(deterministic=True))

        edit.__name__ = damage.__name__
        DAMAGES.append((expected, edit))
        return damage

    return register


def first_function(spec):
    return spec.mlProgram.functions[min(spec.mlProgram.functions)]


def block_of(spec):
    function = first_function(spec)
    return function.block_specializations[function.opset]


def first(candidates):
    for candidate in candidates:
        return candidate
    raise DoesNotApply


def find(spec, wanted):
    """The first op that `wanted` holds for."""
    return first(op for op in block_of(spec).operations if wanted(op))


def constant(spec, wanted=lambda tensor: True):
    return find(spec, lambda op: op.type == "const" and wanted(op.attributes["val"].type.tensorType))


def computed(spec, wanted=lambda op: True):
    return find(spec, lambda op: op.type not in ("const", "read_state", "write_state") and wanted(op))


def described(spec):
    """The description of the first function."""
    d = spec.description
    return next((f for f in d.functions if f.name == min(spec.mlProgram.functions)), d)


def blob(spec):
    op = find(spec, lambda op: op.type == "const" and op.attributes["val"].WhichOneof("value") == "blobFileValue")
    return op.attributes["val"].blobFileValue


@model_damage("declared")
def const_type(spec):
    """A const whose declared type is not its value's."""
    op = constant(spec, lambda t: t.dataType == MIL_pb2.INT32)
    op.outputs[0].type.tensorType.dataType = MIL_pb2.FLOAT32


@model_damage("unknown dimensions")
def unknown_dimension(spec):
    op = computed(spec, lambda op: op.outputs[0].type.tensorType.dimensions)
    op.outputs[0].type.tensorType.dimensions[0].unknown.variadic = False


@model_damage("rank")
def wrong_rank(spec):
    computed(spec).outputs[0].type.tensorType.rank += 1


@model_damage("limit")
def rank_six(spec):
    tensor = computed(spec).outputs[0].type.tensorType
    while len(tensor.dimensions) < 6:
        tensor.dimensions.add().constant.size = 1
    tensor.rank = len(tensor.dimensions)


@model_damage("duplicate name")
def duplicate_name(spec):
    block_of(spec).operations.insert(0, constant(spec))


@model_damage("not an identifier")
def bad_identifier(spec):
    rename_value(spec, "a.b")


@model_damage("not an identifier")
def reserved_identifier(spec):
    rename_value(spec, "fp16")


def rename_value(spec, new):
    old = constant(spec).outputs[0].name
    for op in block_of(spec).operations:
        for item in op.outputs:
            if item.name == old:
                item.name = new
        for argument in op.inputs.values():
            for binding in argument.arguments:
                if binding.name == old:
                    binding.name = new


@model_damage("not an identifier")
def bad_function_name(spec):
    functions = spec.mlProgram.functions
    name = min(functions)
    functions["1st"].CopyFrom(functions[name])
    del functions[name]


@model_damage("opset")
def old_opset(spec):
    for function in spec.mlProgram.functions.values():
        function.block_specializations["CoreML7"].CopyFrom(function.block_specializations[function.opset])
        del function.block_specializations[function.opset]
        function.opset = "CoreML7"


@model_damage("its blocks are")
def opset_without_block(spec):
    function = first_function(spec)
    function.block_specializations["CoreML7"].CopyFrom(function.block_specializations[function.opset])


@model_damage("opset")
def other_specification_version(spec):
    spec.specificationVersion = 10


@model_damage("program: version")
def program_version(spec):
    spec.mlProgram.version = 2


@model_damage("docString")
def program_doc_string(spec):
    spec.mlProgram.docString = "text"


@model_damage("no name attribute")
def no_name(spec):
    del computed(spec).attributes["name"]


@model_damage("no name attribute")
def const_without_name(spec):
    del constant(spec).attributes["name"]


@model_damage("attributes")
def another_attribute(spec):
    op = computed(spec)
    op.attributes["note"].CopyFrom(op.attributes["name"])


@model_damage("no outputs")
def no_outputs(spec):
    del block_of(spec).outputs[:]
    del described(spec).output[:]


@model_damage("no value for")
def missing_default(spec):
    candidates = {
        "matmul": "transpose_x", "reduce_mean": "keep_dims", "conv": "groups", "softmax": "axis", "linear": "bias",
        "layer_norm": "epsilon", "rsqrt": "epsilon", "concat": "interleave", "gelu": "mode", "gather": "batch_dims",
    }  # fmt: skip
    op = computed(spec, lambda op: op.type in candidates and candidates[op.type] in op.inputs)
    del op.inputs[candidates[op.type]]


@model_damage("blob path")
def blob_path(spec):
    blob(spec).fileName = "@model_path/weight.bin"


@model_damage("is not that of a record")
def blob_data_offset(spec):
    blob(spec).offset += 64


@model_damage("record(s) that nothing uses")
def swapped_blob(spec):
    """A constant that takes the record of another one of its type, when no third one uses its own."""
    users = {}
    for _, value in rules.values(spec):
        if value.WhichOneof("value") == "blobFileValue":
            users.setdefault(value.blobFileValue.offset, []).append(value)
    single = {}
    for offset, values in sorted(users.items()):
        if len(values) == 1:
            other = single.setdefault(rules.type_name(values[0].type), values[0])
            if other is not values[0]:
                values[0].blobFileValue.offset = other.blobFileValue.offset
                return
    raise DoesNotApply


@model_damage("inline value")
def inline_value(spec):
    block = block_of(spec)
    constants = {op.outputs[0].name: op.attributes["val"] for op in block.operations if op.type == "const"}
    bindings = (b for op in block.operations for a in op.inputs.values() for b in a.arguments)
    binding = first(b for b in bindings if b.name in constants)
    binding.value.CopyFrom(constants[binding.name])


@model_damage("of 0 elements")
def extra_elements(spec):
    """An immediate scalar with no elements."""
    op = constant(spec, lambda t: t.dataType == MIL_pb2.INT32 and t.rank == 0)
    tensor = op.attributes["val"].type.tensorType
    tensor.rank = 1
    tensor.dimensions.add().constant.size = 0
    op.outputs[0].type.CopyFrom(op.attributes["val"].type)


@model_damage("expected bytes")
def wrong_field(spec):
    op = constant(spec, lambda t: t.dataType == MIL_pb2.FLOAT16 and t.rank == 0)
    op.attributes["val"].immediateValue.tensor.floats.values.append(1.0)


@model_damage("mixes")
def fp32_scalar(spec):
    op = constant(spec, lambda t: t.dataType == MIL_pb2.FLOAT16 and t.rank == 0)
    value = op.attributes["val"]
    value.type.tensorType.dataType = MIL_pb2.FLOAT32
    value.immediateValue.tensor.floats.values.append(1.0)
    op.outputs[0].type.CopyFrom(value.type)


@model_damage("the function has")
def input_left_out(spec):
    del described(spec).input[0]


@model_damage("the function has")
def output_added(spec):
    described(spec).output.add().CopyFrom(described(spec).output[0])
    described(spec).output[-1].name = "another"


@model_damage("the function has")
def output_shape(spec):
    described(spec).output[0].type.multiArrayType.shape[0] += 1


@model_damage("the function has")
def input_dtype(spec):
    array = described(spec).input[0].type.multiArrayType
    types = FeatureTypes_pb2.ArrayFeatureType
    array.dataType = types.FLOAT32 if array.dataType != types.FLOAT32 else types.INT32


@model_damage("cannot be the type of")
def double_output(spec):
    described(spec).output[0].type.multiArrayType.dataType = FeatureTypes_pb2.ArrayFeatureType.DOUBLE


@model_damage("is optional")
def optional_input(spec):
    described(spec).input[0].type.isOptional = True


@model_damage("flexible")
def flexible_input(spec):
    array = described(spec).input[0].type.multiArrayType
    array.enumeratedShapes.shapes.add().shape.extend(array.shape)


@model_damage("states are")
def state_left_out(spec):
    first(described(spec).state)
    del described(spec).state[0]


@model_damage("aliases")
def written_output(spec):
    """A state that is written with an output of the function."""
    write_new_state(spec, block_of(spec).outputs[0])


@model_damage("aliases")
def ancestor_of_written(spec):
    block = block_of(spec)
    out = next(item for op in block.operations for item in op.outputs if item.name == block.outputs[0])
    op = block.operations.add(type="identity")
    op.inputs["x"].arguments.add().name = out.name
    op.attributes["name"].CopyFrom(constant(spec).attributes["name"])
    op.outputs.add(name="probe_written").type.CopyFrom(out.type)
    write_new_state(spec, "probe_written")


def write_new_state(spec, name):
    function, block = first_function(spec), block_of(spec)
    ty = next(item.type for op in block.operations for item in op.outputs if item.name == name)
    function.inputs.add(name="probe_state").type.stateType.wrappedType.CopyFrom(ty)
    state = described(spec).state.add(name="probe_state")
    array = state.type.stateType.arrayType
    array.shape.extend(rules.dimensions(ty.tensorType))
    array.dataType = FeatureTypes_pb2.ArrayFeatureType.FLOAT16
    op = block.operations.add(type="write_state")
    op.inputs["input"].arguments.add().name = "probe_state"
    op.inputs["data"].arguments.add().name = name
    op.attributes["name"].CopyFrom(constant(spec).attributes["name"])


@model_damage("is an input of the function")
def returned_input(spec):
    name = described(spec).input[0].name
    block_of(spec).outputs.append(name)
    described(spec).output.add().CopyFrom(described(spec).input[0])


@model_damage("returned twice")
def returned_twice(spec):
    block = block_of(spec)
    block.outputs.append(block.outputs[0])


@model_damage("is a constant")
def returned_constant(spec):
    block_of(spec).outputs.append(constant(spec).outputs[0].name)


@model_damage("expected FLOAT16")
def state_of_fp32(spec):
    item = first(i for i in first_function(spec).inputs if i.type.WhichOneof("type") == "stateType")
    item.type.stateType.wrappedType.tensorType.dataType = MIL_pb2.FLOAT32


@model_damage("defaultFunctionName")
def default_function(spec):
    spec.description.defaultFunctionName = "nothing"


@model_damage("at the top")
def top_level_lists(spec):
    first(spec.description.functions)
    spec.description.input.add().CopyFrom(described(spec).input[0])


@model_damage("lift")
def use_before_definition(spec):
    block = block_of(spec)
    last = block.operations[-1]
    block.operations.insert(0, last)
    del block.operations[-1]


@file_damage("unknown protobuf")
def unknown_field(package):
    with open(package / MODEL, "ab") as file:
        file.write(bytes([0xF8, 0xFF, 0x03, 1]))  # field 8191, varint 1


@file_damage("protobuf")
def truncated_model(package):
    path = package / MODEL
    path.write_bytes(path.read_bytes()[:-1])


@file_damage("rootModelIdentifier")
def root_identifier(package):
    edit_manifest(package, lambda m: m.update(rootModelIdentifier="nothing"))


@file_damage("has no author")
def manifest_item(package):
    edit_manifest(package, lambda m: next(iter(m["itemInfoEntries"].values())).pop("author"))


@file_damage("fileFormatVersion")
def manifest_version(package):
    edit_manifest(package, lambda m: m.update(fileFormatVersion="1.1.0"))


@file_damage("does not belong")
def stray_file(package):
    (package / "Data" / ".DS_Store").write_bytes(b"")


def edit_manifest(package, edit):
    path = package / "Manifest.json"
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))


@file_damage("the header counts")
def blob_count(package):
    edit_weights(package, lambda data: struct.pack_into("<I", data, 0, 0))


@file_damage("version")
def blob_version(package):
    edit_weights(package, lambda data: struct.pack_into("<I", data, 4, 1))


@file_damage("overlap or gap")
def blob_overlap(package):
    edit_weights(package, lambda data: struct.pack_into("<Q", data, 64 + 16, 64))


@file_damage("unknown type")
def blob_type(package):
    edit_weights(package, lambda data: struct.pack_into("<I", data, 64 + 4, 99))


@file_damage("the record's type is")
def blob_other_type(package):
    edit_weights(package, lambda data: struct.pack_into("<I", data, 64 + 4, 6))  # int16: nothing here uses it


@file_damage("past the end")
def blob_truncated(package):
    edit_weights(package, lambda data: data.__delitem__(slice(len(data) - 1, None)))


@file_damage("stray bytes")
def blob_trailing(package):
    edit_weights(package, lambda data: data.extend(bytes(-len(data) % 64 + 7)))


@file_damage("not at multiples of 64")
def blob_alignment(package):
    edit_weights(package, lambda data: data.__setitem__(slice(64, 64), bytes(4)))


@file_damage("which does not exist")
def blob_missing(package):
    first(package.glob(WEIGHTS)).unlink()


def edit_weights(package, edit):
    path = first(package.glob(WEIGHTS))
    data = bytearray(path.read_bytes())
    path.unlink()  # it may be a hard link
    edit(data)
    path.write_bytes(data)


def self_test(package, scratch, check, copy_package):
    """(number of damages found, problems with the checker)."""
    problems = [f"undamaged: {p}" for p in check(package, scratch)]
    found, skipped = int(not problems), []
    for expected, damage in DAMAGES:
        copy = Path(tempfile.mkdtemp(dir=scratch)) / "damaged.mlpackage"
        copy_package(package, copy)
        try:
            damage(copy)
            reported = check(copy, scratch)
            if any(expected in p for p in reported):
                found += 1
            else:
                problems.append(f"{damage.__name__}: nothing with {expected!r} among {reported}")
        except DoesNotApply:
            skipped.append(damage.__name__)
        shutil.rmtree(copy.parent)
    if skipped:
        print(f"{package}: does not apply: {', '.join(skipped)}")
    return found, problems

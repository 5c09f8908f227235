"""The rules of an mlpackage that coremltools' loader does not check. Each function yields or returns problems as strings."""

import json
import mmap
import re
import struct
from pathlib import Path

from coremltools.proto import FeatureTypes_pb2, MIL_pb2
from google.protobuf.unknown_fields import UnknownFieldSet

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_@]*\Z")
# Words of MIL's text form: coremltools renames values that are called so.
RESERVED = set(
    "any bool program func tensor list dict tuple true false string bf16 fp16 fp32 fp64 "
    "int8 int16 int32 int64 uint8 uint16 uint32 uint64 state".split()
)
OPSETS = {6: "CoreML5", 7: "CoreML6", 8: "CoreML7", 9: "CoreML8", 10: "CoreML9"}
BLOB_PATH = "@model_path/weights/weight.bin"
MAX_RANK = 5

_DT = MIL_pb2.DataType
FLOATS = {_DT.FLOAT16, _DT.FLOAT32}
# MIL data type: (type in the blob file, bits)
STORED = {
    _DT.FLOAT16: (1, 16), _DT.FLOAT32: (2, 32), _DT.UINT8: (3, 8), _DT.INT8: (4, 8), _DT.BFLOAT16: (5, 16),
    _DT.INT16: (6, 16), _DT.UINT16: (7, 16), _DT.INT4: (8, 4), _DT.UINT1: (9, 1), _DT.UINT2: (10, 2),
    _DT.UINT4: (11, 4), _DT.UINT3: (12, 3), _DT.UINT6: (13, 6), _DT.INT32: (14, 32), _DT.UINT32: (15, 32),
}  # fmt: skip
BITS = {code: bits for code, bits in STORED.values()} | {16: 8, 17: 8}
# MIL data type: field of an immediate value; every other type is in `bytes`.
FIELDS = {
    _DT.FLOAT32: "floats", _DT.FLOAT64: "doubles", _DT.INT32: "ints", _DT.INT16: "ints", _DT.UINT16: "ints",
    _DT.INT64: "longInts", _DT.BOOL: "bools", _DT.STRING: "strings",
}  # fmt: skip
_AF = FeatureTypes_pb2.ArrayFeatureType
INTERFACE = {_DT.FLOAT32: _AF.FLOAT32, _DT.FLOAT16: _AF.FLOAT16, _DT.INT32: _AF.INT32}
# Ops that may mix float types: they convert, choose, or carry a scale.
MIXED = {"cast", "select", "quantize", "dequantize", "scaled_dot_product_attention"}


def is_identifier(name):
    return bool(IDENTIFIER.match(name)) and name not in RESERVED


def operations(function):
    """The ops of a function, of all its blocks."""
    return [op for block in function.block_specializations.values() for op in block.operations]


def label(op):
    """How problems call an op."""
    return f"{op.outputs[0].name if op.outputs else '-'} ({op.type})"


def type_name(value_type):
    """A short text for a tensor type."""
    if value_type.WhichOneof("type") == "stateType":
        return f"state<{type_name(value_type.stateType.wrappedType)}>"
    tensor = value_type.tensorType
    return f"{_DT.Name(tensor.dataType).lower()}{dimensions(tensor)}"


def dimensions(tensor):
    """Extents; None for one that is not static."""
    return [d.constant.size if d.WhichOneof("dimension") == "constant" else None for d in tensor.dimensions]


def elements(tensor):
    count = 1
    for extent in dimensions(tensor):
        count *= extent or 0
    return count


def manifest(package):
    """The manifest and the files that it names."""
    path = package / "Manifest.json"
    try:
        contents = json.loads(path.read_text())
        items = contents["itemInfoEntries"]
        version, root = contents["fileFormatVersion"], contents["rootModelIdentifier"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield f"manifest: cannot be read: {error!r}"
        return
    if version != "1.0.0":
        yield f"manifest: fileFormatVersion is {version!r}, expected '1.0.0'"
    by_name = {}
    for key, item in items.items():
        missing = {"path", "name", "author", "description"} - set(item)
        if missing:
            yield f"manifest: item {key} has no {', '.join(sorted(missing))}"
            continue
        by_name[item["name"]] = key
        if item["path"] != f"{item['author']}/{item['name']}":
            yield f"manifest: the path of item {key} is {item['path']!r}, expected author/name"
        if not (package / "Data" / item["path"]).exists():
            yield f"manifest: item {key} names {item['path']!r}, which does not exist"
    if sorted(by_name) != ["model.mlmodel", "weights"]:
        yield f"manifest: the items are {sorted(by_name)}, expected model.mlmodel and weights"
    elif root != by_name["model.mlmodel"]:
        yield f"manifest: rootModelIdentifier {root!r} is not the id of model.mlmodel"
    known = {Path("Manifest.json"), Path("Data/com.apple.CoreML/model.mlmodel"), Path("Data/com.apple.CoreML/weights/weight.bin")}
    for extra in sorted(p.relative_to(package) for p in package.rglob("*") if not p.is_dir()):
        if extra not in known:
            yield f"package: `{extra}` does not belong here"


def weight_file(path):
    """Walks the records front to back: ({offset: (type, bytes)}, problems)."""
    records, problems = {}, []
    size = path.stat().st_size
    if size < 64:
        return records, [f"weight.bin: {size} bytes, no room for the header"]
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        count, version = struct.unpack_from("<II", data, 0)
        if version != 2:
            problems.append(f"weight.bin: version {version}, expected 2")
        if any(data[8:64]):
            problems.append("weight.bin: the header's reserved bytes are not zero")
        at = 64
        while at < size:
            start = -(-at // 64) * 64
            if any(data[at : min(start, size)]):
                problems.append(f"weight.bin: the gap at {at} is not zero")
            if start + 64 > size:
                problems.append(f"weight.bin: {size - at} stray bytes at the end")
                break
            sentinel, code, length, offset, padding = struct.unpack_from("<IIQQQ", data, start)
            where = f"weight.bin: record at {start}"
            if sentinel != 0xDEADBEEF:
                problems.append(f"{where}: no sentinel: records are not at multiples of 64 one after the other")
                break
            if code not in BITS:
                problems.append(f"{where}: unknown type {code}")
            if offset != start + 64:
                problems.append(f"{where}: its data is at {offset}, expected {start + 64}: overlap or gap")
            if any(data[start + 32 : start + 64]):
                problems.append(f"{where}: reserved bytes are not zero")
            if padding >= 8 or (padding and BITS.get(code, 8) >= 8):
                problems.append(f"{where}: {padding} padding bits")
            if start + 64 + length > size:
                problems.append(f"{where}: its {length} bytes go past the end of the file")
                break
            records[start] = (code, length)
            at = start + 64 + length
        if count != len(records):
            problems.append(f"weight.bin: the header counts {count} records, found {len(records)}")
    return records, problems


def unknown_fields(message, path="model"):
    """Fields that Core ML's protobufs do not have."""
    numbers = sorted({field.field_number for field in UnknownFieldSet(message)})
    if numbers:
        yield f"{path}: unknown protobuf field(s) {numbers}"
    for field, value in message.ListFields():
        if field.type != field.TYPE_MESSAGE:
            continue
        here = f"{path}.{field.name}"
        if field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].type == field.TYPE_MESSAGE:
                for key in sorted(value):
                    yield from unknown_fields(value[key], f"{here}[{key}]")
        elif hasattr(value, "DESCRIPTOR"):
            yield from unknown_fields(value, here)
        else:
            for i, entry in enumerate(value):
                yield from unknown_fields(entry, f"{here}[{i}]")


def model(spec):
    """Versions, and the description against the functions."""
    yield from unknown_fields(spec)
    program = spec.mlProgram
    if program.version != 1:
        yield f"program: version {program.version}, expected 1"
    if program.docString or program.attributes:
        yield "program: has a docString or attributes"
    if spec.isUpdatable:
        yield "model: is marked updatable"
    opset = OPSETS.get(spec.specificationVersion)
    if opset is None:
        yield f"model: unknown specificationVersion {spec.specificationVersion}"
    for name, function in sorted(program.functions.items()):
        if not is_identifier(name):
            yield f"function {name!r}: not an identifier"
        if opset and function.opset != opset:
            yield f"function {name}: opset {function.opset!r}, but specificationVersion {spec.specificationVersion} is {opset}"
        if list(function.block_specializations) != [function.opset]:
            yield f"function {name}: its blocks are {sorted(function.block_specializations)}, expected [{function.opset!r}]"
    yield from description(spec)


def description(spec):
    d, functions = spec.description, spec.mlProgram.functions
    if len(functions) == 1 and not d.functions:
        if "main" not in functions:
            yield f"description: the only function is {list(functions)}, expected main"
            return
        if d.defaultFunctionName:
            yield f"description: a single function, but defaultFunctionName is {d.defaultFunctionName!r}"
        yield from signature("main", d, functions["main"])
        return
    if d.input or d.output or d.state:
        yield "description: several functions, but there are inputs, outputs or states at the top"
    if d.defaultFunctionName not in functions:
        yield f"description: defaultFunctionName {d.defaultFunctionName!r} is not a function"
    if sorted(f.name for f in d.functions) != sorted(functions):
        yield f"description: describes {sorted(f.name for f in d.functions)}, the program has {sorted(functions)}"
    for described in d.functions:
        if described.name in functions:
            yield from signature(described.name, described, functions[described.name])


def signature(name, described, function):
    """One function's features against its inputs, states and outputs."""
    tensors = {i.name: i.type for i in function.inputs if i.type.WhichOneof("type") == "tensorType"}
    states = {i.name: i.type.stateType.wrappedType for i in function.inputs if i.type.WhichOneof("type") == "stateType"}
    types = {out.name: out.type for op in operations(function) for out in op.outputs}
    returned = [name for block in function.block_specializations.values() for name in block.outputs]
    for kind, features, expected in [
        ("input", described.input, list(tensors)),
        ("output", described.output, returned),
        ("state", described.state, list(states)),
    ]:
        names = [f.name for f in features]
        if names != expected:
            yield f"description of {name}: {kind}s are {names}, the function has {expected}"
        if len(set(names)) != len(names):
            yield f"description of {name}: two {kind}s have one name"
        for feature in features:
            actual = {"input": tensors, "output": types, "state": states}[kind].get(feature.name)
            for problem in feature_problems(kind, feature, actual):
                yield f"description of {name}: {kind} {feature.name}: {problem}"


def feature_problems(kind, feature, actual):
    which = feature.type.WhichOneof("Type")
    wanted = "stateType" if kind == "state" else "multiArrayType"
    if not is_identifier(feature.name):
        yield "not an identifier"
    if which != wanted:
        yield f"is a {which}, expected {wanted}"
        return
    array = feature.type.stateType.arrayType if kind == "state" else feature.type.multiArrayType
    if feature.type.isOptional:
        yield "is optional"
    if array.WhichOneof("ShapeFlexibility") or array.WhichOneof("defaultOptionalValue"):
        yield "has a flexible shape or a default"
    allowed = {_AF.FLOAT16} if kind == "state" else set(INTERFACE.values())
    if array.dataType not in allowed:
        yield f"{_AF.ArrayDataType.Name(array.dataType)} cannot be the type of an {kind}"
    shape = list(array.shape)
    if not 1 <= len(shape) <= MAX_RANK or any(n < 1 for n in shape):
        yield f"shape {shape}: expected 1 to {MAX_RANK} positive extents"
    if actual is not None:
        if dimensions(actual.tensorType) != shape or INTERFACE.get(actual.tensorType.dataType) != array.dataType:
            yield f"{_AF.ArrayDataType.Name(array.dataType)}{shape}, the function has {type_name(actual)}"


def values(spec):
    """Every constant of the program: (where it is, value)."""
    for name, function in sorted(spec.mlProgram.functions.items()):
        for op in operations(function):
            for key, value in op.attributes.items():
                yield f"function {name}: op {label(op)}: {key}", value
            for param, argument in op.inputs.items():
                for binding in argument.arguments:
                    if binding.WhichOneof("binding") == "value":
                        yield f"function {name}: op {label(op)}: {param}", binding.value


def used_records(spec):
    """Offsets in the weight file that a model refers to."""
    blob_values = (v.blobFileValue for _, v in values(spec) if v.WhichOneof("value") == "blobFileValue")
    return {blob.offset for blob in blob_values}


def blobs(spec, records, has_file, used_elsewhere=frozenset()):
    """References to the weight file against its records, all of which are used, here or by packages that share the file."""
    for where, value in values(spec):
        if value.WhichOneof("value") != "blobFileValue":
            continue
        blob, tensor = value.blobFileValue, value.type.tensorType
        if blob.fileName != BLOB_PATH:
            yield f"{where}: blob path {blob.fileName!r}, expected {BLOB_PATH!r}"
        if not has_file:
            yield f"{where}: refers to weight.bin, which does not exist"
            continue
        if blob.offset not in records:
            yield f"{where}: offset {blob.offset} is not that of a record"
            continue
        code, length = records[blob.offset]
        stored = STORED.get(tensor.dataType)
        if stored is None or stored[0] != code:
            yield f"{where}: {type_name(value.type)}, but the record's type is {code}"
        elif length != -(-elements(tensor) * stored[1] // 8):
            yield f"{where}: {type_name(value.type)}, but the record has {length} bytes"
    unused = sorted(set(records) - used_records(spec) - used_elsewhere)
    if unused:
        yield f"weight.bin: {len(unused)} record(s) that nothing uses, the first at {unused[0]}"


def function(function):
    """The ops of a function."""
    if function.attributes:
        yield "has attributes"
    types = {}
    for item in function.inputs:
        yield from declare(types, item, f"input {item.name}", exempt=False)
    inputs = set(types)
    for block in function.block_specializations.values():
        if block.inputs or block.attributes:
            yield "its block has inputs or attributes"
        for op in block.operations:
            where = f"op {label(op)}"
            yield from (f"{where}: {p}" for p in operation(op, types))
            for out in op.outputs:
                yield from declare(types, out, where, exempt=op.type == "const" or op.type.startswith("constexpr_"))
        constants = {out.name for op in block.operations if op.type == "const" for out in op.outputs}
        if not block.outputs:
            yield "its block has no outputs"
        for i, out in enumerate(block.outputs):
            if out not in types:
                yield f"output {out}: not defined"
            elif out in inputs:
                yield f"output {out}: is an input of the function"
            elif out in constants:
                yield f"output {out}: is a constant"
            if out in block.outputs[:i]:
                yield f"output {out}: returned twice"
        yield from state_aliases(block, inputs)


def declare(types, item, where, exempt):
    """Adds a named value and checks its name and type."""
    if not is_identifier(item.name):
        yield f"{where}: {item.name!r} is not an identifier"
    if item.name in types:
        yield f"{where}: duplicate name {item.name!r}"
    types[item.name] = item.type
    kind = item.type.WhichOneof("type")
    if kind == "stateType":
        tensor = item.type.stateType.wrappedType.tensorType
        if tensor.dataType != _DT.FLOAT16:
            yield f"{where}: a state of {_DT.Name(tensor.dataType)}, expected FLOAT16"
    elif kind == "tensorType":
        tensor = item.type.tensorType
    else:
        yield f"{where}: {item.name} is a {kind}"
        return
    shape = dimensions(tensor)
    if tensor.rank != len(shape):
        yield f"{where}: rank {tensor.rank} with {len(shape)} dimensions"
    if any(extent is None for extent in shape):
        yield f"{where}: {item.name} has unknown dimensions"
    elif any(extent == 0 for extent in shape):
        yield f"{where}: {item.name} is empty: {shape}"
    if tensor.attributes:
        yield f"{where}: {item.name} has type attributes"
    if not exempt and len(shape) > MAX_RANK:
        yield f"{where}: rank {len(shape)}, Core ML's limit is {MAX_RANK}"


def operation(op, types):
    """One op: attributes, bindings, constants."""
    constexpr = op.type.startswith("constexpr_")
    if "name" not in op.attributes:
        yield "no name attribute"
    else:
        name = op.attributes["name"]
        if name.type.tensorType.dataType != _DT.STRING or not any(name.immediateValue.tensor.strings.values):
            yield "its name attribute is not a string"
    extra = set(op.attributes) - {"name"} - ({"val"} if op.type == "const" else set())
    if extra and not constexpr:
        yield f"attributes {sorted(extra)}"
    for key, value in op.attributes.items():
        yield from (f"{key}: {p}" for p in value_problems(value))
    if op.type == "const":
        yield from constant(op)
    floats = set()
    for param, argument in sorted(op.inputs.items()):
        if not argument.arguments:
            yield f"{param} is bound to nothing"
        for binding in argument.arguments:
            if binding.WhichOneof("binding") == "name":
                if binding.name not in types:
                    yield f"{param} = {binding.name!r} is not defined before"
                else:
                    floats.add(types[binding.name].tensorType.dataType)
            elif not constexpr:
                yield f"{param} has an inline value"
    if len(floats & FLOATS) > 1 and op.type not in MIXED:
        yield "mixes fp16 and fp32 operands"


def constant(op):
    if op.inputs or op.blocks or len(op.outputs) != 1:
        yield "a const takes nothing and gives one value"
    elif "val" not in op.attributes:
        yield "a const without val"
    elif op.attributes["val"].type != op.outputs[0].type:
        yield f"declared {type_name(op.outputs[0].type)}, but its value is {type_name(op.attributes['val'].type)}"


def value_problems(value):
    if value.docString:
        yield "has a docString"
    if value.type.WhichOneof("type") != "tensorType":
        yield "is not a tensor"
        return
    if value.WhichOneof("value") == "blobFileValue":
        return
    tensor = value.type.tensorType
    held = value.immediateValue.tensor
    field = held.WhichOneof("value")
    expected = FIELDS.get(tensor.dataType, "bytes")
    if field != expected:
        yield f"{type_name(value.type)} in the field {field}, expected {expected}"
        return
    count = len(getattr(held, field).values)
    wanted = elements(tensor)
    if field == "bytes":
        wanted = -(-wanted * STORED.get(tensor.dataType, (0, 8))[1] // 8)
    if count != wanted:
        yield f"{type_name(value.type)} with {count} of {wanted} {'bytes' if field == 'bytes' else 'elements'}"


def state_aliases(block, inputs):
    """Outputs that are written to a state, or go into what is written: Core ML crashes (apple/coremltools#2713)."""
    operands, constants = {}, set()
    for op in block.operations:
        names = [b.name for a in op.inputs.values() for b in a.arguments if b.WhichOneof("binding") == "name"]
        for out in op.outputs:
            operands[out.name] = names
        if op.type == "const":
            constants.update(out.name for out in op.outputs)
    # An identity returns the same value under another name.
    passes_on = {op.outputs[0].name for op in block.operations if op.type == "identity" and op.outputs}

    def origin(name):
        while name in passes_on and operands[name]:
            name = operands[name][0]
        return name

    for op in block.operations:
        if op.type != "write_state":
            continue
        state = op.inputs["input"].arguments[0].name if op.inputs["input"].arguments else "?"
        seen, stack = set(), [b.name for b in op.inputs["data"].arguments]
        while stack:
            name = stack.pop()
            if name not in seen and name not in inputs and name not in constants:
                seen.add(name)
                stack.extend(operands.get(name, []))
        for out in block.outputs:
            if out in seen or origin(out) in seen:
                yield f"output {out}: aliases what is written to state {state}, or an ancestor of it"

"""Compares tables of field numbers (tests/common/wire/*.fields) with the descriptors that onnx and coremltools publish.

usage: check_wire_tables.py onnx.fields coreml.fields
"""

import sys

import onnx
from coremltools.proto import Model_pb2

SCALARS = {1: "double", 2: "float", 3: "int64", 4: "uint64", 5: "int32", 8: "bool", 9: "string", 12: "bytes", 14: "enum"}


def messages(root, prefix):
    """Every message that can occur in `root`, by its name without the package's."""
    found = {}
    todo = [root]
    while todo:
        descriptor = todo.pop()
        name = descriptor.full_name.removeprefix(prefix)
        if name not in found:
            found[name] = descriptor
            todo += [field.message_type for field in descriptor.fields if field.message_type]
    return found


def type_name(field, prefix):
    if not field.message_type:
        return SCALARS[field.type]
    if field.message_type.GetOptions().map_entry:
        key, value = (type_name(field.message_type.fields_by_name[n], prefix) for n in ("key", "value"))
        return f"map<{key}, {value}>"
    return field.message_type.full_name.removeprefix(prefix)


def line(field, prefix):
    name = type_name(field, prefix)
    repeated = getattr(field, "is_repeated", None)
    if repeated is None:
        repeated = field.label == field.LABEL_REPEATED
    if repeated and not name.startswith("map<"):
        name += "[]"
    group = field.containing_oneof
    return f"{field.number} {field.name} {name}" + (f" in {group.name}" if group else "")


def compare(path, root, prefix):
    published = messages(root, prefix)
    problems, compared, message = [], 0, None
    for text in open(path, encoding="utf-8").read().splitlines():
        if not text or text.startswith("#"):
            continue
        if not text.startswith(" "):
            message = published.get(text)
            if message is None:
                problems.append(f"{path}: no message {text} is published")
            continue
        if message is None:
            continue
        number = int(text.split()[0])
        field = message.fields_by_number.get(number)
        expected = line(field, prefix) if field else "nothing"
        if text.strip() != expected:
            problems.append(f"{path}: {message.name}: found {text.strip()!r}, published is {expected!r}")
        compared += 1
    return problems, compared


def main():
    onnx_table, coreml_table = sys.argv[1:]
    problems, lines = [], 0
    for table, root, prefix in (
        (onnx_table, onnx.ModelProto.DESCRIPTOR, "onnx."),
        (coreml_table, Model_pb2.Model.DESCRIPTOR, "CoreML.Specification."),
    ):
        found, compared = compare(table, root, prefix)
        problems += found
        lines += compared
    print("\n".join(problems) or f"{lines} fields are as published")
    sys.exit(1 if problems or not lines else 0)


main()

#!/usr/bin/env python3
"""Checks mlpackages off a Mac: coremltools lifts every function, then come the rules that its loader does not look at.

    check_mlpackage.py PKG...           one line a problem; the last line is `N passed, M failed`; exit code 1 on failure
    check_mlpackage.py --self-test PKG  damages copies of PKG in every way known here and expects each to be found

The packages themselves are not touched: coremltools rewrites manifests, so it gets copies.
"""

import argparse
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path

logging.disable(logging.WARNING)

from coremltools.converters.mil.frontend.milproto import load as milproto
from coremltools.libmodelpackage import ModelPackage
from coremltools.proto import Model_pb2

import mlpackage_rules as rules

MODEL = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"


def copy_package(source, target):
    """A copy whose weight file is a hard link where the file system allows one."""

    def link_or_copy(src, dst):
        if Path(src).name != "weight.bin":
            return shutil.copy2(src, dst)
        try:
            os.link(src, dst)
        except OSError:
            shutil.copy2(src, dst)
        return dst

    shutil.copytree(source, target, copy_function=link_or_copy)


def check(package, scratch):
    """The problems of one package, as strings."""
    package = Path(package)
    if not package.is_dir():
        return ["not a folder"]
    problems = list(rules.manifest(package))
    if problems:
        return problems
    copy = Path(tempfile.mkdtemp(dir=scratch)) / "copy.mlpackage"
    try:
        copy_package(package, copy)
        if not ModelPackage.isValid(str(copy)):
            problems.append("package: coremltools finds it invalid")
        problems += check_model(copy, used_by_siblings(package))
    finally:
        shutil.rmtree(copy.parent)
    return problems


def used_by_siblings(package):
    """Records that packages beside this one use of the same weight file, which is then a hard link."""
    weights, used = package / WEIGHTS, set()
    for sibling in package.absolute().parent.glob("*.mlpackage"):
        theirs = sibling / WEIGHTS
        if sibling.name != package.name and weights.exists() and theirs.exists() and theirs.samefile(weights):
            spec = Model_pb2.Model()
            spec.ParseFromString((sibling / MODEL).read_bytes())
            used |= rules.used_records(spec)
    return used


def check_model(package, used_elsewhere=frozenset()):
    raw = (package / MODEL).read_bytes()
    if len(raw) >= 2**31:
        return [f"model: {len(raw)} bytes, protobuf ends at 2 GiB"]
    spec = Model_pb2.Model()
    try:
        spec.ParseFromString(raw)
    except Exception as error:
        return [f"model: not a protobuf of Core ML: {error}"]
    if spec.WhichOneof("Type") != "mlProgram":
        return ["model: not an ML Program"]
    weights = package / WEIGHTS
    records, problems = rules.weight_file(weights) if weights.exists() else ({}, [])
    problems += rules.model(spec)
    problems += rules.blobs(spec, records, weights.exists(), used_elsewhere)
    for name, function in sorted(spec.mlProgram.functions.items()):
        problems += [f"function {name}: {p}" for p in rules.function(function)]
    return problems + lift(spec, package)


def lift(spec, package):
    """Loads the program with coremltools; what it knows of defaults tells which inputs were left out."""
    try:
        program = milproto.load(spec, spec.specificationVersion, file_weights_dir=str((package / WEIGHTS).parent))
    except Exception as error:
        text = " ".join(str(error).split())
        return [f"lift: coremltools refuses it: {type(error).__name__}: {text[:300]}"]
    problems = []
    if set(program.functions) != set(spec.mlProgram.functions):
        problems.append(f"lift: coremltools found the functions {sorted(program.functions)}")
    for name, function in sorted(spec.mlProgram.functions.items()):
        lifted = {}
        if name in program.functions:
            for op in program.functions[name].operations:
                lifted.update((out.name, op) for out in op.outputs or [])
        for op in rules.operations(function):
            if op.type == "const" or not op.outputs:
                continue
            same = lifted.get(op.outputs[0].name)
            if same is None or same.op_type != op.type:
                # coremltools fuses a write with a read that follows it.
                if op.type != "read_state":
                    problems.append(f"function {name}: op {rules.label(op)}: lost by coremltools' loader")
                continue
            defaults = dict(same.default_inputs().items())
            missing = [p for p, value in defaults.items() if value is not None and p not in op.inputs]
            if missing:
                problems.append(f"function {name}: op {rules.label(op)}: no value for {', '.join(missing)}")
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("packages", metavar="PKG", nargs="+")
    parser.add_argument("--self-test", action="store_true", help="damage copies of PKG and expect every damage to be found")
    arguments = parser.parse_args()
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="check_mlpackage") as scratch:
        for package in arguments.packages:
            if arguments.self_test:
                import mlpackage_damage

                found, problems = mlpackage_damage.self_test(package, scratch, check, copy_package)
                passed, failed = passed + found, failed + len(problems)
            else:
                problems = check(package, scratch)
                passed, failed = passed + (not problems), failed + bool(problems)
            for problem in problems:
                print(f"{package}: {problem}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

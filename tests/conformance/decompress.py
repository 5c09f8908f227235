"""Decompresses the compressed weight of packages with coremltools.

    decompress.py PKG...    writes PKG.f64: the elements of the one constexpr result, row-major
"""

import logging
import sys
from pathlib import Path

import numpy as np

logging.disable(logging.WARNING)

from coremltools.converters.mil.frontend.milproto import load as milproto
from coremltools.proto import Model_pb2

DATA = "Data/com.apple.CoreML"


def main(packages):
    for package in map(Path, packages):
        spec = Model_pb2.Model()
        spec.ParseFromString((package / DATA / "model.mlmodel").read_bytes())
        program = milproto.load(spec, spec.specificationVersion, file_weights_dir=str(package / DATA / "weights"))
        compressed = [op for op in program.functions["main"].operations if op.op_type.startswith("constexpr_")]
        if len(compressed) != 1:
            raise SystemExit(f"{package}: {len(compressed)} compressed weights, expected one")
        dense = compressed[0].materialized_val_inference()
        # A path with a suffix of its own, beside the package.
        Path(f"{package}.f64").write_bytes(np.asarray(dense).astype("<f8").tobytes())


main(sys.argv[1:])

"""Writes the node tests of the package onnx as files: for each a folder with model.onnx and test_data_set_N/{input,output}_M.pb.

    python onnx_node_tests.py OUT
"""
import sys
import warnings
from pathlib import Path

import numpy as np
from onnx import TensorProto, numpy_helper
from onnx.backend.test.case.node import collect_testcases

warnings.filterwarnings("ignore")


def is_tensor(value):
    return isinstance(value, (np.ndarray, np.generic, TensorProto))


def main(out):
    out = Path(out)
    written = 0
    for case in collect_testcases(None):
        if case.model is None or not case.data_sets:
            continue
        sets = [(list(inputs), list(outputs)) for inputs, outputs in case.data_sets]
        if not all(is_tensor(v) for inputs, outputs in sets for v in inputs + outputs):
            continue  # sequences, maps and optionals, which no op that is read has
        folder = out / case.name
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(case.model.SerializeToString())
        for i, (inputs, outputs) in enumerate(sets):
            data = folder / f"test_data_set_{i}"
            data.mkdir()
            for kind, values, names in (("input", inputs, case.model.graph.input), ("output", outputs, case.model.graph.output)):
                for j, (value, name) in enumerate(zip(values, names)):
                    tensor = value if isinstance(value, TensorProto) else numpy_helper.from_array(np.asarray(value))
                    tensor.name = name.name
                    (data / f"{kind}_{j}.pb").write_bytes(tensor.SerializeToString())
        written += 1
    print(written)


if __name__ == "__main__":
    main(sys.argv[1])

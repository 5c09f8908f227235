"""States and packages of several functions."""

import shutil
import tempfile
from pathlib import Path

import coremltools as ct
import numpy as np
from coremltools.converters.mil.mil import Builder as mb
from coremltools.converters.mil.mil import Function, Program, types

from mil_cases import EMPTY, convert, noise


class Stateful:
    """A rolling cache: the new columns are appended, what is oldest falls out; the result sees both the old and the new cache."""

    name, function, bar = "state_rolling", None, 1e-6
    cache, new = noise("cache", (2, 4)).astype(np.float16), noise("new", (2, 1)).astype(np.float16)

    def feeds(self):
        return {"cache": self.cache.astype(np.float64), "x": self.new.astype(np.float64)}

    def save(self, path):
        inputs = {"x": mb.placeholder((2, 1), dtype=types.fp16), "cache": mb.state_tensor_placeholder((2, 4), dtype=types.fp16)}
        with Function(inputs, opset_version=ct.target.iOS18) as function:
            old = mb.read_state(input=function.inputs["cache"])
            kept = mb.slice_by_index(x=old, begin=[0, 1], end=[2, 4])
            rolled = mb.coreml_update_state(state=function.inputs["cache"], value=mb.concat(values=(kept, function.inputs["x"]), axis=1))
            function.set_outputs([mb.sub(x=rolled, y=old, name="r0")])
        program = Program()
        program.add_function("main", function)
        convert(program, path, ct.target.iOS18, source="milinternal")

    def expected(self):
        old, new = (v.astype(np.float64) for v in (self.cache, self.new))
        rolled = np.concatenate([old[:, 1:], new], 1)
        return {"r0": rolled - old, "cache": rolled}


class Multifunction:
    """Two functions that share a weight; one is asked for by name."""

    bar = 1e-6
    x, w = noise("x", (2, 4)).astype(np.float32), noise("w", (3, 4)).astype(np.float32)

    def __init__(self, function):
        self.function, self.name = function, f"functions_{function}"

    def feeds(self):
        return {"x": self.x.astype(np.float64)}

    def save(self, path):
        with tempfile.TemporaryDirectory() as folder:
            described = ct.utils.MultiFunctionDescriptor()
            for name in ["plain", "doubled"]:
                with Function({"x": mb.placeholder((2, 4))}, opset_version=ct.target.iOS18) as function:
                    y = mb.linear(x=function.inputs["x"], weight=self.w)
                    function.set_outputs([mb.mul(x=y, y=np.float32(2 if name == "doubled" else 1), name="r0")])
                program = Program()
                program.add_function("main", function)
                single = Path(folder) / f"{name}.mlpackage"
                convert(program, single, ct.target.iOS18, source="milinternal")
                described.add_function(str(single), src_function_name="main", target_function_name=name)
            described.default_function_name = "plain"
            both = Path(folder) / "both.mlpackage"
            ct.utils.save_multifunction(described, str(both))
            shutil.copytree(both, path)

    def expected(self):
        y = self.x.astype(np.float64) @ self.w.astype(np.float64).T
        return {"r0": y * (2 if self.function == "doubled" else 1)}


CASES = [Stateful(), Multifunction(None), Multifunction("plain"), Multifunction("doubled")]

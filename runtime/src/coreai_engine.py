"""Runs a function of an asset with Apple's runtime: a request on standard input, arrays in and out as .npz.

The process ends as soon as the results are written: coreai-core 1.0.0b3 now and then aborts while it closes a model (one call in four).
"""

import asyncio
import json
import os
import sys

import numpy as np
from coreai.authoring import AIModelAsset
from coreai.runtime import NDArray

DTYPES = {"bool": np.bool_, "f16": np.float16, "f32": np.float32, "f64": np.float64}
for bits in (8, 16, 32, 64):
    DTYPES[f"i{bits}"] = np.dtype(f"int{bits}")
    DTYPES[f"u{bits}"] = np.dtype(f"uint{bits}")


def plain(array):
    """A copy in a type of NumPy's own."""
    return np.array(array) if array.dtype.isbuiltin == 1 else array.astype(np.float32)


async def call(request):
    given = np.load(request["inputs"])
    inputs, states = {}, {}
    for name, dtype in request["dtypes"].items():
        group = states if name in request["states"] else inputs
        group[name] = NDArray(np.ascontiguousarray(given[name].astype(DTYPES[dtype])))
    async with AIModelAsset.load(request["asset"]).executable() as model:
        function = model.load_function(request["function"])
        results = await (function(inputs, state=states) if states else function(inputs))
        results |= {f"{name}_out": value for name, value in states.items()}
        np.savez(request["outputs"], **{name: plain(value.numpy()) for name, value in results.items()})
        os._exit(0)


asyncio.run(call(json.load(sys.stdin)))

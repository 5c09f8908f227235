"""Packages of coremltools' own making for lint: `lint_packages.py OUT` writes them to the folder OUT, each with what is in it that lint
must find (or must not) in the test that calls this."""

import sys
from pathlib import Path

import coremltools as ct
import numpy as np
from coremltools.converters.mil.mil import Builder as mb
from coremltools.converters.mil.mil import types

from mil_cases import convert
from mil_cases_state import Stateful

OUT = Path(sys.argv[1])
X = (1, 64, 1, 64)
HALF = mb.TensorSpec(shape=X, dtype=types.fp16)
weight = np.random.default_rng(0).standard_normal((64, 64, 1, 1)).astype(np.float16)


def save(name, function):
    convert(function, OUT / f"{name}.mlpackage", ct.target.iOS18, source="milinternal")


@mb.program(input_specs=[HALF], opset_version=ct.target.iOS18)
def clean(x):
    y = mb.conv(x=x, weight=weight, name="projection")
    y = mb.gelu(x=y, mode="TANH_APPROXIMATION")
    return mb.softmax(x=y, axis=1)


@mb.program(input_specs=[HALF], opset_version=ct.target.iOS18)
def falls_off(x):
    y = mb.gather(x=x, indices=np.arange(32, dtype=np.int32), axis=1, name="picked")
    y = mb.cast(x=y, dtype="fp32", name="wide")
    y = mb.exp(x=y, name="wide_exp")
    values, _ = mb.topk(x=y, k=32, axis=3, name="best")
    return mb.cast(x=values, dtype="fp16", name="narrow")


@mb.program(input_specs=[HALF], opset_version=ct.target.iOS18)
def blockwise(x):
    data = np.zeros((64, 64, 1, 1), dtype=np.int8)
    scale = np.ones((64, 4, 1, 1), dtype=np.float16)
    return mb.conv(x=x, weight=mb.constexpr_blockwise_shift_scale(data=data, scale=scale), name="quantised")


for name, program in {"clean": clean, "falls_off": falls_off, "blockwise": blockwise}.items():
    save(name, program)
Stateful().save(OUT / "stateful.mlpackage")

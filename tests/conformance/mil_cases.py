"""Programs for the judge of the MIL reader: one op and one choice of options each, with its meaning in float64 numpy."""

import math
import zlib
from types import SimpleNamespace

import coremltools as ct
import numpy as np
from coremltools.converters.mil.mil import Builder as mb
from coremltools.converters.mil.mil import Function, Program, types

DTYPES = {"fp32": (types.fp32, np.float32), "fp16": (types.fp16, np.float16)}
EMPTY = ct.PassPipeline.EMPTY


def noise(name, shape, low=-2.0, high=2.0):
    """Numbers that depend on a name and a shape only."""
    return np.random.default_rng(zlib.crc32(f"{name}{shape}".encode())).uniform(low, high, shape)


class Case:
    """A function of `inputs` (name → shape or array), with constants `weights`, built by `build` and computed by `ref`.

    Both take namespaces of inputs and weights; `build` gets variables and arrays of the case's dtype, `ref` float64 arrays.
    """

    function = None

    def __init__(self, name, inputs, build, ref, dtype="fp32", weights=None, opset=None, bar=1e-6):
        self.name, self.build, self.ref, self.bar = f"{name}.{dtype}", build, ref, bar
        self.mil, self.numpy = DTYPES[dtype]
        self.opset = opset or ct.target.iOS18
        rounded = lambda key, v: np.asarray(v if isinstance(v, np.ndarray) else noise(key, tuple(v))).astype(self.numpy)
        self.inputs = {k: rounded(k, v) for k, v in inputs.items()}
        self.weights = {k: rounded(k, v) for k, v in (weights or {}).items()}

    def feeds(self):
        return {k: v.astype(np.float64) for k, v in self.inputs.items()}

    def save(self, path):
        placeholders = {k: mb.placeholder(v.shape, dtype=self.mil) for k, v in self.inputs.items()}
        with Function(placeholders, opset_version=self.opset) as function:
            scope = SimpleNamespace(T=self.numpy, **function.inputs)
            out = self.build(scope, SimpleNamespace(**self.weights))
            out = list(out) if isinstance(out, (tuple, list)) else [out]
            # An output that is an input or a constant is not allowed; names make the results comparable.
            function.set_outputs([mb.identity(x=v, name=f"r{i}") for i, v in enumerate(out)])
        program = Program()
        program.add_function("main", function)
        convert(program, path, self.opset, source="milinternal")

    def expected(self):
        with np.errstate(all="ignore"):
            wide = {k: v.astype(np.float64) for k, v in self.weights.items()}
            out = self.ref(SimpleNamespace(T=self.numpy, **self.feeds()), SimpleNamespace(**wide))
        out = list(out) if isinstance(out, (tuple, list)) else [out]
        return {f"r{i}": np.asarray(v) for i, v in enumerate(out)}


def convert(program, path, opset, pipeline=EMPTY, **options):
    options.setdefault("compute_precision", ct.precision.FLOAT32)
    model = ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=opset,
        pass_pipeline=pipeline,
        skip_model_load=True,
        **options,
    )
    model.save(str(path))


CASES = []


def case(name, inputs, build, ref, dtypes=("fp32", "fp16"), **options):
    CASES.extend(Case(name, inputs, build, ref, dtype, **options) for dtype in dtypes)


def all_cases():
    # The families register themselves.
    import mil_cases_compressed  # noqa: F401
    import mil_cases_elementwise  # noqa: F401
    import mil_cases_product  # noqa: F401
    import mil_cases_shape  # noqa: F401
    import mil_cases_state

    yield from CASES
    yield from mil_cases_state.CASES
    try:
        import torch  # noqa: F401
    except ImportError:
        return
    import mil_cases_torch

    yield from mil_cases_torch.CASES


erf = np.vectorize(math.erf, otypes=[float])


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))

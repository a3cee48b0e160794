"""Every primitive that has a form in ONNX, on the samples of the registry: the same numbers in onnxruntime, and read back."""

from __future__ import annotations

import io

import numpy as np
import pytest

import kobai
from kobai import nn, onnx
from kobai.core.primitive import REGISTRY
from kobai.onnx.forms import FORMS

onnxruntime = pytest.importorskip("onnxruntime")

PRIMITIVES = sorted(FORMS.keys() & REGISTRY.keys())
REFUSED = {
    (f"ops.recurrent.{kind}", number): "a sequence that has ended keeps its state here, and is 0 in ONNX"
    for kind, number in [("_rnn", 2), ("_rnn", 3), ("_rnn", 9), ("_lstm", 2), ("_lstm", 3), ("_gru", 2), ("_gru", 3)]
}
"""Samples that have no form, by primitive and number -> why."""


class Call(nn.Module):
    """One call of a primitive; its arrays are inputs."""

    def __init__(self, op, args, options):
        super().__init__()
        self.op, self.args, self.options = op, args, options

    def forward(self, *inputs):
        places = iter(inputs)
        args = [next(places) if isinstance(arg, np.ndarray) else arg for arg in self.args]
        return self.op(*args, **self.options)


def cases(key):
    """Arguments and options of the samples in float32, without empty ones, of which graphs have no need."""
    for number, sample in enumerate(REGISTRY[key].samples):
        given = list(sample(np.random.default_rng(0)))
        options = given.pop() if given and isinstance(given[-1], dict) else {}
        given = [np.asarray(x) if isinstance(x, np.generic) else x for x in given]
        given = [x.astype(np.float32) if isinstance(x, np.ndarray) and x.dtype == np.float64 else x for x in given]
        if all(x.size for x in given if isinstance(x, np.ndarray)):
            yield number, given, options


def disagreement(key, given, options):
    """What is wrong with the graph of a call, in words; None if nothing is."""
    model = Call(REGISTRY[key].plain, given, options)
    inputs = [kobai.from_numpy(x) for x in given if isinstance(x, np.ndarray)]
    want = model(*inputs).numpy()
    if not want.size:
        return None
    file, names = io.BytesIO(), [f"in{i}" for i in range(len(inputs))]
    onnx.export(model, tuple(inputs), file, input_names=names)
    session = onnxruntime.InferenceSession(file.getvalue())
    (answer,) = session.run(None, {name: x.numpy() for name, x in zip(names, inputs, strict=True)})
    file.seek(0)
    back = onnx.load(file)(*inputs).numpy()
    for found in (answer, back):
        if (found.shape, found.dtype) != (want.shape, want.dtype):
            return f"{found.shape} {found.dtype}, expected {want.shape} {want.dtype}"
        if not np.allclose(found, want, rtol=1e-5, atol=1e-5, equal_nan=True):
            return f"off by {np.abs(found.astype(float) - want.astype(float)).max():.2g}"
    return None


@pytest.mark.thorough
@pytest.mark.parametrize("key", PRIMITIVES)
def test_a_primitive_has_the_same_numbers_there_and_back(key):
    wrong = {}
    for number, given, options in cases(key):
        try:
            found = disagreement(key, given, options)
        except onnx.OnnxExporterError as error:
            found = None if (key, number) in REFUSED else str(error)
        else:
            assert (key, number) not in REFUSED
        if found:
            wrong[number] = found
    assert not wrong

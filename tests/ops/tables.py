"""Tables of calls and what NumPy says they give: ``name: call | expected``, run on every backend."""

from __future__ import annotations

import numpy as np
import pytest

import kobai
from kobai import xp

SHAPES = {"a": (4, 3), "b": (4, 3), "c": (2, 3, 4), "v": (5,), "s": (), "e": (0, 3), "o": (2, 1, 3)}


def cases(table: str) -> list:
    rows = [line.split(": ", 1) for line in table.strip().split("\n")]
    return [pytest.param(*(part.strip() for part in rest.split(" | ")), id=name) for name, rest in rows]


def host(value):
    """Arrays of a result, tuples taken apart."""
    if isinstance(value, (tuple, list)):
        return [part for each in value for part in host(each)]
    if isinstance(value, kobai.Tensor):
        return [xp.to_host(value.detach().array)]
    return [np.asarray(value)]


def inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    return {name: rng.normal(size=shape) for name, shape in SHAPES.items()}


def tensors() -> dict[str, kobai.Tensor]:
    return {name: kobai.tensor(array, device=xp.default_device()) for name, array in inputs().items()}


def check(call: str, expected: str) -> None:
    """Evaluate ``call`` on tensors and ``expected`` on arrays: same values, shapes and dtypes."""
    names = {"np": np, "float": float, "range": range, "sum": sum}
    ours = host(eval(call, {**names, "T": kobai, "i": kobai.tensor, **tensors()}))
    theirs = host(eval(expected, {**names, **inputs()}))
    assert len(ours) == len(theirs)
    for y, wanted in zip(ours, theirs, strict=True):
        assert y.shape == wanted.shape
        assert y.dtype == wanted.dtype
        near = 1e-6 if y.dtype == np.float32 else 1e-13  # a device adds up in another order
        np.testing.assert_allclose(y, wanted, rtol=near, atol=near)


def refused(call: str, error: type[Exception], message: str) -> None:
    """``call`` raises ``error`` with ``message`` in it."""
    with pytest.raises(error) as caught:
        eval(call, {"T": kobai, "i": kobai.tensor, "np": np, **tensors()})
    assert message in str(caught.value)

"""Every primitive inside a captured step, from the registry alone: forward and backward replayed equal those of the tape."""

from __future__ import annotations

import numpy as np
import pytest

import kobai
from kobai.core.primitive import REGISTRY
from kobai.core.tensor import Tensor
from kobai.errors import CaptureError
from test_registry import case, cotangent, is_float, run, sample

READS_VALUES = {"ops.index._masked": "boolean mask"}
"""Primitives that cannot be captured, and what their error says."""


def moved(args: tuple, k: int, dtype: type) -> list:
    """The sample's arguments, float arrays of ``dtype`` and a little smaller with every k: other values, but legal ones."""
    return [np.asarray(a * (1 - 0.05 * k), dtype) if is_float(a) else a for a in args]


@pytest.mark.parametrize("dtype", [pytest.param(np.float64, marks=pytest.mark.thorough), np.float32])
@pytest.mark.few(6)
@case
def test_replay_equals_the_tape_bit_for_bit(name, i, dtype):
    args, options = sample(name, i)
    args = moved(args, 0, dtype)
    where = [j for j, a in enumerate(args) if isinstance(a, np.ndarray)]
    leaves = {j: Tensor._wrap(np.array(args[j]), requires_grad=True) for j in where if is_float(args[j])}
    others = {j: Tensor._wrap(np.array(args[j])) for j in where if not is_float(args[j])}

    def step(*given):
        with kobai.no_grad():
            for j, value in zip(where, given, strict=True):
                if j in leaves:
                    leaves[j].copy_(value)
                else:
                    others[j].copy_(value)
        made = [leaves.get(j, others.get(j, a)) for j, a in enumerate(args)]
        for leaf in leaves.values():
            leaf.grad = None
        y = REGISTRY[name].op(*made, **options)
        if y.requires_grad:
            (y * weights).sum().backward()
        return y.detach() * 1, [leaf.grad for leaf in leaves.values() if leaf.grad is not None]

    with kobai.no_grad():
        shape = run(name, [Tensor._wrap(a) if isinstance(a, np.ndarray) else a for a in args], options)
    weights = cotangent(shape) if shape.is_floating_point() else None
    captured = kobai.capture(step)
    for k in (0, 0, 1, 2):
        given = [Tensor._wrap(np.array(moved(args, k, dtype)[j])) for j in where]
        if name in READS_VALUES and captured.programs == 0 and k == 0:
            captured(*given)
            with pytest.raises(CaptureError, match=READS_VALUES[name]):
                captured(*given)
            return
        kobai.manual_seed(7)  # primitives that draw masks draw the same ones
        found = captured(*given)
        found = [np.array(found[0].array), *(np.array(g.array) for g in found[1])]
        kobai.manual_seed(7)
        wanted = step(*given)
        wanted = [np.array(wanted[0].array), *(np.array(g.array) for g in wanted[1])]
        assert len(found) == len(wanted)
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(a, b)
    assert captured.programs == 1

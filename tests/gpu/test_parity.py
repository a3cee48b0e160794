"""The CPU and the GPU compute the same: every primitive forward and backward, in every layout, to a few roundings."""

from __future__ import annotations

import math

import numpy as np
import pytest

import kobai
from kobai import xp
from kobai.core.primitive import REGISTRY
from kobai.core.tensor import Tensor

CASES = [(name, i) for name, p in sorted(REGISTRY.items()) for i in range(len(p.samples))]
case = pytest.mark.parametrize(("name", "i"), CASES, ids=[f"{name}-{i}" for name, i in CASES])


def is_float(value):
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


LAYOUTS = ("row by row", "column by column", "with gaps", "backwards")


def placed(array, layout, where):
    """``array`` on a device, its elements lying in memory as ``layout`` says: copies travel, and are seen in other ways."""
    if layout == "row by row" or not array.ndim:
        return xp.asarray(array, device=where)
    if layout == "column by column":
        return xp.asarray(array.T.copy(), device=where).T
    if layout == "backwards":
        return xp.asarray(array[..., ::-1].copy(), device=where)[..., ::-1]
    wide = np.zeros((*array.shape[:-1], 3 * array.shape[-1]), array.dtype)
    wide[..., 1::3] = array
    return xp.asarray(wide, device=where)[..., 1::3]


def computed(name, i, dtype, layout, where):
    """Result and gradients of one sample, on the host."""
    args = REGISTRY[name].samples[i](np.random.default_rng(i))
    args, options = (args[:-1], args[-1]) if args and isinstance(args[-1], dict) else (args, {})
    made = []
    with kobai.using(where):
        for arg in args:
            if isinstance(arg, np.ndarray):
                array = placed(arg.astype(dtype) if is_float(arg) else arg, layout, xp.default_device())
                made.append(Tensor._wrap(array, requires_grad=is_float(arg)))
            else:
                made.append(arg)
        kobai.manual_seed(7)
        y = REGISTRY[name].op(*made, **options)
        if y.requires_grad:
            dy = np.random.default_rng(3).standard_normal(y.shape).astype(y.dtype)
            y.backward(Tensor._wrap(placed(dy, layout, y.device)))
    grads = [a.grad for a in made if isinstance(a, Tensor) and a.grad is not None]
    return [xp.to_host(t.detach().array) for t in (y, *grads)]


@case
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_same_result_and_gradients(name, i, dtype, layout):
    here, there = (computed(name, i, dtype, layout, where) for where in ("numpy", "cupy"))
    assert len(here) == len(there)
    for ours, theirs in zip(here, there, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        # CUDA's functions err by up to two roundings where NumPy's err by one, and sums are added up in another order.
        scale = float(np.abs(ours[np.isfinite(ours)]).max(initial=1.0)) if ours.dtype.kind == "f" else 1.0
        slack = 64 * math.sqrt(max(ours.size, 1)) * float(np.finfo(dtype).eps)
        np.testing.assert_allclose(theirs, ours, rtol=slack, atol=slack * scale)


@case
def test_neither_inputs_nor_the_incoming_gradient_are_written_to(name, i):
    args = REGISTRY[name].samples[i](np.random.default_rng(i))
    args, options = (args[:-1], args[-1]) if args and isinstance(args[-1], dict) else (args, {})
    with kobai.using("cupy"):
        made = [kobai.tensor(a, requires_grad=is_float(a)) if isinstance(a, np.ndarray) else a for a in args]
        before = [a.detach().cpu().numpy().copy() for a in made if isinstance(a, Tensor)]
        y = REGISTRY[name].op(*made, **options)
        if y.requires_grad:
            dy = kobai.randn(y.shape, dtype=y.dtype)
            kept = dy.cpu().numpy().copy()
            y.backward(dy)
            np.testing.assert_array_equal(dy.cpu().numpy(), kept)
    for a, b in zip([a for a in made if isinstance(a, Tensor)], before, strict=True):
        np.testing.assert_array_equal(a.detach().cpu().numpy(), b)


@case
def test_an_in_place_change_never_gives_a_wrong_gradient(name, i):
    """As in the registry's tests; views of a device's memory are views in other ways than NumPy's."""
    args = REGISTRY[name].samples[i](np.random.default_rng(i))
    args, options = (args[:-1], args[-1]) if args and isinstance(args[-1], dict) else (args, {})

    def run():
        kobai.manual_seed(7)
        made = [kobai.tensor(a, requires_grad=is_float(a)) if isinstance(a, np.ndarray) else a for a in args]
        return made, REGISTRY[name].op(*made, **options)

    def grads(made):
        return [a.grad.cpu().numpy() for a in made if isinstance(a, Tensor) and a.grad is not None]

    with kobai.using("cupy"):
        made, y = run()
        if not y.requires_grad:
            pytest.skip("nothing to differentiate")
        dy = kobai.randn(y.shape, dtype=y.dtype)
        y.backward(dy)
        wanted = grads(made)
        for victim in range(len(args) + 1):
            made, y = run()
            target = y if victim == len(args) else made[victim]
            if not isinstance(target, Tensor) or not target.is_floating_point() or target.numel() == 0:
                continue
            if any(step == 0 and n > 1 for n, step in zip(target.shape, target.stride(), strict=True)):
                continue  # an expanded view, in which one place in memory stands for many elements
            target.array[...] = target.array + 1.0
            target._bump()
            try:
                y.backward(dy)
            except RuntimeError as error:
                assert "changed in place" in str(error)  # noqa: PT017
                continue
            for left, right in zip(grads(made), wanted, strict=True):
                np.testing.assert_allclose(left, right, rtol=1e-12)

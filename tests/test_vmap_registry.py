"""``vmap`` of every primitive of the registry: values and gradients are those of a loop over the samples."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import kobai
from kobai import xp
from kobai.autograd.batching import primitives
from kobai.core.primitive import REGISTRY
from test_registry import CASES, IDS

SAMPLES = 3


def first_quick(cases: list[tuple[str, int]]) -> list:
    """The first sample of every primitive as it is, the others left to ``.ci/run``, on every device."""
    return [pytest.param(name, i, marks=[pytest.mark.thorough, pytest.mark.rest] if i else []) for name, i in cases]


UNEVEN = {"ops.index._masked"}
"""A mask chooses another number of elements in every sample: there is no result of one shape."""


def drawn(name: str, i: int) -> tuple[list[Any], dict[str, Any], list[int]]:
    """Arguments of a sample: for each array a list of one per sample, where their shapes agree; and where the arrays are."""
    every = [list(REGISTRY[name].samples[i](np.random.default_rng(seed))) for seed in range(SAMPLES)]
    options = every[0].pop() if isinstance(every[0][-1], dict) else {}
    args: list[Any] = []
    arrays = [j for j, a in enumerate(every[0]) if isinstance(a, np.ndarray)]
    for j, first in enumerate(every[0]):
        alike = j in arrays and all(one[j].shape == first.shape for one in every)
        args.append([one[j] if alike else first for one in every] if j in arrays else first)
    return args, options, arrays


def host(tensor: kobai.Tensor) -> np.ndarray:
    return xp.to_host(tensor.detach().array)


def check(name: str, batched: Sequence[int], args: list[Any], options: dict[str, Any], arrays: list[int]) -> None:
    """vmap along new first dimensions of the arguments ``batched`` against a loop: values, and the gradients of a sum."""
    op = REGISTRY[name].op

    def tensor(a: Any) -> kobai.Tensor:
        array = xp.asarray(np.array(a), device=xp.default_device())
        return kobai.Tensor._wrap(array, requires_grad=array.dtype == np.float64)

    def call(*tensors: kobai.Tensor) -> kobai.Tensor:
        made = dict(zip(arrays, tensors, strict=True))
        return op(*[made.get(j, a) for j, a in enumerate(args)], **options)

    given = {j: tensor(np.stack(args[j]) if j in batched else args[j][0]) for j in arrays}
    kobai.manual_seed(7)
    dims = tuple(0 if j in batched else None for j in arrays)
    y = kobai.vmap(call, in_dims=dims, randomness="same")(*given.values())
    single = {j: [tensor(a) for a in args[j][: SAMPLES if j in batched else 1]] for j in arrays}
    rng, weights, expected = np.random.default_rng(1), [], []
    for b in range(SAMPLES):
        kobai.manual_seed(7)
        out = call(*(single[j][b if j in batched else 0] for j in arrays))
        expected.append(host(out))
        weights.append(rng.normal(size=out.shape))
        if out.requires_grad:
            (out * tensor(weights[-1]).detach()).sum().backward()
    np.testing.assert_allclose(host(y), np.stack(expected), rtol=1e-9, atol=1e-9)
    assert y.dtype == out.dtype
    assert y.requires_grad == out.requires_grad
    if not y.requires_grad:
        return
    (y * tensor(np.stack(weights)).detach()).sum().backward()
    for j in arrays:
        if single[j][0].grad is None:
            assert given[j].grad is None or not host(given[j].grad).any()
        else:
            grads = [host(t.grad) for t in single[j]]
            wanted = np.stack(grads) if j in batched else grads[0]
            np.testing.assert_allclose(host(given[j].grad), wanted, rtol=1e-8, atol=1e-9, err_msg=f"argument {j}")


@pytest.mark.parametrize(("name", "i"), first_quick(CASES), ids=IDS)
def test_values_and_gradients_are_those_of_a_loop(name, i, backend, monkeypatch):
    """With all arguments batched, all floats, and each of them alone beside others that all samples share."""
    monkeypatch.setattr(primitives, "_warned", set())
    args, options, arrays = drawn(name, i)
    floats = [j for j in arrays if args[j][0].dtype == np.float64]
    ways = [arrays, floats, *([j] for j in arrays)]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for batched in [w for k, w in enumerate(ways) if w and w not in ways[:k]]:
            if name == "ops.convert._move" and backend != "numpy":
                continue  # it names the device
            if name in UNEVEN and not set(batched) <= set(floats):
                continue
            check(name, batched, args, options, arrays)
    assert not told, [str(w.message) for w in told]


def floats_of(name: str, i: int) -> list[int]:
    args, _, arrays = drawn(name, i)
    return [j for j in arrays if args[j][0].dtype == np.float64]


SHARING = [(name, i) for name, i in CASES if name not in UNEVEN and len(floats_of(name, i)) > 1]


@pytest.mark.parametrize(("name", "i"), first_quick(SHARING), ids=[f"{name}-{i}" for name, i in SHARING])
def test_gradients_per_sample_of_what_all_share(name, i):
    """vmap(grad(f)) where f's first float argument is the same for all samples: a gradient for each of them."""
    args, options, arrays = drawn(name, i)
    floats = floats_of(name, i)
    first, *rest = floats

    def loss(*tensors: kobai.Tensor) -> kobai.Tensor:
        made = dict(zip(floats, tensors, strict=True))
        full = [made.get(j, kobai.tensor(a[0]) if j in arrays else a) for j, a in enumerate(args)]
        return REGISTRY[name].op(*full, **options).sin().sum()

    given = [kobai.tensor(args[first][0]), *(kobai.tensor(np.stack(args[j])) for j in rest)]
    dims = (None, *(0 for _ in rest))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is done one sample after the other
        found = kobai.func.vmap(kobai.func.grad(loss), in_dims=dims)(*given)
    for b in range(SAMPLES):
        wanted = kobai.func.grad(loss)(given[0], *(t[b] for t in given[1:]))
        np.testing.assert_allclose(found[b].numpy(), wanted.numpy(), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(("name", "i"), first_quick(CASES), ids=IDS)
def test_many_gradients_of_what_was_computed_outside(name, i):
    """vmap over gradients that enter a graph made without it, as for the rows of a Jacobian."""
    args, options, arrays = drawn(name, i)
    made = {j: kobai.tensor(args[j][0]).requires_grad_(args[j][0].dtype == np.float64) for j in arrays}
    y = REGISTRY[name].op(*[made.get(j, a) for j, a in enumerate(args)], **options)
    if not y.requires_grad:
        return
    leaves = [t for t in made.values() if t.requires_grad]
    dys = kobai.tensor(np.random.default_rng(1).normal(size=(SAMPLES, *y.shape)))
    keeps = {"retain_graph": True, "materialize_grads": True}
    found = kobai.autograd.grad(y, leaves, dys, is_grads_batched=True, **keeps)
    for b in range(SAMPLES):
        for one, wanted in zip(found, kobai.autograd.grad(y, leaves, dys[b], **keeps), strict=True):
            np.testing.assert_allclose(one[b].numpy(), wanted.numpy(), rtol=1e-8, atol=1e-9)


FIRST = [name for name in sorted(REGISTRY) if name not in UNEVEN and name != "ops.dropout._dropout"]  # which draws anew


@pytest.mark.thorough
@pytest.mark.parametrize("name", FIRST)
def test_a_captured_step_does_what_the_eager_one_does(name):
    args, options, arrays = drawn(name, 0)

    def call(*tensors: kobai.Tensor) -> kobai.Tensor:
        made = dict(zip(arrays, tensors, strict=True))
        return REGISTRY[name].op(*[made.get(j, a) for j, a in enumerate(args)], **options)

    def step(*tensors: kobai.Tensor) -> list[kobai.Tensor]:
        given = [t.clone().requires_grad_(t.is_floating_point()) for t in tensors]
        y = kobai.vmap(call)(*given)
        if not y.requires_grad:
            return [y]
        leaves = [t for t in given if t.requires_grad]
        return [y.detach(), *kobai.autograd.grad(y.sin().sum(), leaves, materialize_grads=True)]

    data = [kobai.tensor(np.stack(args[j])) for j in arrays]
    expected, captured = step(*data), kobai.capture(step)
    for _ in range(3):
        for found, wanted in zip(captured(*data), expected, strict=True):
            np.testing.assert_array_equal(found.numpy(), wanted.numpy())

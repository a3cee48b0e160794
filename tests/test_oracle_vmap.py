"""PyTorch as the truth for ``vmap``: values, shapes, gradients, and which calls are errors."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import kobai

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

RNG = np.random.default_rng(0)
A, B, M = RNG.normal(size=(4, 3)), RNG.normal(size=(4, 3)), RNG.normal(size=(4, 3, 3)) + 3 * np.eye(3)
K = RNG.integers(0, 3, size=(4, 2))
IMAGES, FILTERS = RNG.normal(size=(4, 2, 6, 6)), RNG.normal(size=(3, 2, 3, 3))
WIDE = RNG.normal(size=(2, 4, 3))

CASES = {
    "dot": (lambda lib, a, b: (a * b).sum(), (A, B), {}),
    "in dims": (lambda lib, a, b: a @ b, (A.T, B), {"in_dims": (1, 0)}),
    "negative dims": (lambda lib, a, b: a * b, (A, WIDE), {"in_dims": (0, -2), "out_dims": -1}),
    "shared": (lambda lib, a, b: (a - b).norm(), (A, B[0]), {"in_dims": (0, None)}),
    "two results": (lambda lib, a: (a.sin(), a.sum()), (A,), {"out_dims": (1, 0)}),
    "tuple out dims": (lambda lib, a: a.sin(), (A,), {"out_dims": (1,)}),
    "a constant": (lambda lib, a: lib.ones(2), (A,), {}),
    "a dict": (lambda lib, a: a["x"] + a["y"], ({"x": A, "y": B},), {"in_dims": ({"x": 0, "y": None},)}),
    "nested": (lambda lib, a: lib.vmap(lambda x: x * a.sum())(a), (A,), {}),
    "pairs": (lambda lib, a, b: lib.vmap(lambda y: (a - y).pow(2).sum())(b), (A, B), {"in_dims": (0, None)}),
    "solve": (lambda lib, m, a: lib.linalg.solve(m, a), (M, A), {}),
    "inverse and det": (lambda lib, m: lib.linalg.inv(m) * lib.linalg.det(m), (M,), {}),
    "svdvals": (lambda lib, m: lib.linalg.svdvals(m), (M,), {}),
    "softmax": (lambda lib, a: lib.softmax(a, 0).log(), (A,), {}),
    "logsumexp": (lambda lib, a: lib.logsumexp(a, -1), (A,), {}),
    "conv": (lambda lib, x, w: lib.nn.functional.conv2d(x[None], w), (IMAGES, FILTERS), {"in_dims": (0, None)}),
    "pool": (lambda lib, x: lib.nn.functional.max_pool2d(x, 2), (IMAGES,), {}),
    "layer norm": (lambda lib, a: lib.nn.functional.layer_norm(a, (3,)), (A,), {}),
    "take": (lambda lib, a, k: a[k], (A, K), {}),
    "gather": (lambda lib, a, k: lib.gather(a, 0, k), (A, K), {}),
    "index_select": (lambda lib, a, k: a.index_select(0, k), (A[0], K), {"in_dims": (None, 0)}),
    "cross entropy": (lambda lib, a, k: lib.nn.functional.cross_entropy(a[None], k[:1]), (A, K), {}),
    "where": (lambda lib, a, b: lib.where(a > b, a, 0.0), (A, B), {}),
    "sort": (lambda lib, a: lib.sort(a, descending=True).values, (A,), {}),
    "cumsum": (lambda lib, a: a.cumsum(0).flip(0), (A,), {}),
    "stack": (lambda lib, a, b: lib.stack([a, b, lib.zeros(3, dtype=a.dtype)], 1), (A, B), {}),
    "einsum": (lambda lib, m, a: lib.einsum("ij,j->i", m, a), (M, A), {}),
    "std": (lambda lib, a: (a - a.mean()) / a.std(), (A,), {}),
    "in place": (lambda lib, a: a.clone().mul_(2).add_(a), (A,), {}),
    "new_zeros": (lambda lib, a: a.new_zeros(3).add_(a), (A,), {}),
    "chunks": (lambda lib, a: a.exp(), (A,), {"chunk_size": 3}),
    "unflatten": (lambda lib, m: m.reshape(-1, 1).expand(9, 2).T.contiguous().view(2, 3, 3), (M,), {}),
}


def given(lib, value):
    if isinstance(value, dict):
        return {key: given(lib, part) for key, part in value.items()}
    made = lib.tensor(value)
    return made.requires_grad_() if value.dtype.kind == "f" else made


def leaves_of(values):
    return [x for v in values for x in (v.values() if isinstance(v, dict) else [v]) if x.requires_grad]


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name):
    function, values, options = CASES[name]
    results = []
    for lib in (torch, kobai):
        args = [given(lib, value) for value in values]
        made = lib.vmap(lambda *x, lib=lib: function(lib, *x), **options)(*args)
        parts = made if isinstance(made, tuple) else (made,)
        total = sum((part * part).sum() for part in parts)
        grads = torch.autograd.grad if lib is torch else kobai.autograd.grad
        leaves = leaves_of(args)
        found = grads(total, leaves, allow_unused=True) if total.requires_grad else [None] * len(leaves)
        results.append(([p.detach().numpy() for p in parts], [None if g is None else g.numpy() for g in found]))
    (wanted, slopes), (found, ours) = results
    for a, b in zip(wanted, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-10)
        assert a.dtype == b.dtype
    for a, b in zip(slopes, ours, strict=True):
        assert (a is None or not a.any()) if b is None else b is not None
        if a is not None and b is not None:
            np.testing.assert_allclose(b, a, rtol=1e-8, atol=1e-9)


ERRORS = {
    "sizes": lambda lib, x: lib.vmap(lib.add)(x, lib.ones(7)),
    "no such dimension": lambda lib, x: lib.vmap(lib.sin, in_dims=5)(x),
    "a number": lambda lib, x: lib.vmap(lib.add)(x, 1.0),
    "none": lambda lib, x: lib.vmap(lib.sin, in_dims=(None,))(x),
    "too few in_dims": lambda lib, x: lib.vmap(lib.add, in_dims=(0,))(x, x),
    "no arguments": lambda lib, x: lib.vmap(lambda: x)(),
    "item": lambda lib, x: lib.vmap(lambda a: a.sum().item() * a)(x),
    "a branch": lambda lib, x: lib.vmap(lambda a: a if a.sum() > 0 else -a)(x),
    "returns a number": lambda lib, x: lib.vmap(lambda a: 3)(x),
    "out dims": lambda lib, x: lib.vmap(lambda a: a, out_dims=(0, 0))(x),
    "out dims None": lambda lib, x: lib.vmap(lambda a: a, out_dims=None)(x),
    "random": lambda lib, x: lib.vmap(lambda a: a + lib.rand(3))(x),
    "dropout": lambda lib, x: lib.vmap(lambda a: lib.nn.functional.dropout(a))(x),
    "randomness": lambda lib, x: lib.vmap(lib.sin, randomness="some")(x),
    "in place of what is shared": lambda lib, x: lib.vmap(lambda a, lib=lib: lib.zeros(3).add_(a))(x),
    "mask": lambda lib, x: lib.vmap(lambda a: a[a > 0])(x),
    "chunks": lambda lib, x: lib.vmap(lib.sin, chunk_size=0)(x),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    kinds = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for lib in (torch, kobai):
            with pytest.raises(Exception) as caught:
                ERRORS[name](lib, lib.tensor(A))
            kinds.append(caught.type)
    theirs, ours = kinds
    assert issubclass(ours, theirs), f"PyTorch raises {theirs.__name__}, Kobai {ours.__name__}"


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_randomness(randomness):
    for lib in (torch, kobai):
        draws = lib.vmap(lambda a, lib=lib: lib.rand(5) + 0 * a.sum(), randomness=randomness)(lib.tensor(A))
        masks = lib.vmap(lambda a, lib=lib: lib.nn.functional.dropout(lib.ones(50)), randomness=randomness)(
            lib.tensor(A)
        )
        for drawn in (draws, masks):
            assert bool((drawn[0] == drawn[1]).all()) is (randomness == "same")

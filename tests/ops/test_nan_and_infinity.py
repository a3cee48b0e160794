"""Values and gradients at NaN, infinity, zero and ties: what PyTorch gives where it is the better answer, written out."""

from __future__ import annotations

import math

import numpy as np
import pytest

import kobai
from kobai import xp
from kobai.nn import functional as F

inf, nan = math.inf, math.nan


def at(f, *values):
    """f and its gradients at vectors of float64."""
    where = xp.default_device()
    made = [kobai.tensor(v, dtype=kobai.float64, device=where, requires_grad=True) for v in values]
    y = f(*made)
    y.sum().backward()
    return [
        xp.to_host(y.detach().array),
        *(np.zeros(x.shape) if x.grad is None else xp.to_host(x.grad.array) for x in made),
    ]


TABLE = {
    # name: (function, arguments, value, gradients)
    "prod, zeros and an overflow": (kobai.prod, [[1e200, 0.0, 0.0, 1e200]], 0, [[0, 0, 0, 0]]),
    "prod, one zero": (kobai.prod, [[2.0, 0.0, 3.0]], 0, [[0, 6, 0]]),
    "prod, infinity": (kobai.prod, [[inf, 2.0]], inf, [[2, inf]]),
    "cumprod, zeros": (lambda x: x.cumprod(0), [[2.0, 0.0, 3.0, 0.0, 1.0]], [2, 0, 0, 0, 0], [[1, 8, 0, 0, 0]]),
    "logsumexp, infinity": (lambda x: x.logsumexp(0), [[inf, 2.0]], inf, [[nan, 0]]),
    "logsumexp, nothing": (lambda x: x.logsumexp(0), [[-inf, -inf]], -inf, [[0, 0]]),
    "logsumexp, -infinity": (lambda x: x.logsumexp(0), [[-inf, 1.0]], 1, [[0, 1]]),
    "logsumexp, nan": (lambda x: x.logsumexp(0), [[nan, 1.0]], nan, [[nan, nan]]),
    "log_softmax, one column": (lambda x: F.log_softmax(x, 0), [[7.3]], [0], [[0]]),
    "softmax, -infinity": (lambda x: F.softmax(x, 0)[:1], [[-inf, 1.0]], [0], [[0, 0]]),
    "softmax, infinity": (lambda x: F.softmax(x, 0), [[inf, 1.0]], [nan, nan], [[nan, nan]]),
    "norm at 0": (kobai.norm, [[0.0, 0.0]], 0, [[0, 0]]),
    "1-norm at 0": (lambda x: x.norm(1), [[0.0, -2.0]], 2, [[0, -1]]),
    "3-norm at 0": (lambda x: x.norm(3), [[0.0, 0.0]], 0, [[0, 0]]),
    "half-norm at 0": (lambda x: x.norm(0.5), [[0.0, 3.0]], 3, [[0, 1]]),
    "norm of order -1 at 0": (lambda x: x.norm(-1), [[0.0, 3.0]], 0, [[0, 0]]),
    "inf-norm, ties": (lambda x: x.norm(inf), [[2.0, -2.0]], 2, [[0.5, -0.5]]),
    "norm, infinity": (kobai.norm, [[inf, 3.0]], inf, [[nan, 0]]),
    "std of equals": (kobai.std, [[2.0, 2.0]], 0, [[0, 0]]),
    "median, ties": (kobai.median, [[1.0, 2.0, 2.0, 3.0]], 2, [[0, 0.5, 0.5, 0]]),
    "median, nan": (kobai.median, [[1.0, nan, 2.0]], nan, [[0, 1, 0]]),
    "nanmedian, ties": (kobai.nanmedian, [[3.0, nan, 1.0, 3.0]], 3, [[0.5, 0, 0, 0.5]]),
    "max, ties": (kobai.max, [[3.0, 1.0, 3.0]], 3, [[0.5, 0, 0.5]]),
    "max, nan": (kobai.max, [[1.0, nan, 2.0]], nan, [[0, 1, 0]]),
    "min, nan": (kobai.min, [[nan, nan, 1.0]], nan, [[0.5, 0.5, 0]]),
    "max along, nan": (lambda x: x.max(0).values, [[1.0, nan, 2.0]], nan, [[0, 1, 0]]),
    "maximum, nan": (kobai.maximum, [[nan, 1.0, 2.0], [0.0, nan, 2.0]], [nan, nan, 2], [[1, 1, 0.5], [1, 1, 0.5]]),
    "minimum, nan": (kobai.minimum, [[nan, 1.0, 2.0], [0.0, nan, 2.0]], [nan, nan, 2], [[1, 1, 0.5], [1, 1, 0.5]]),
    "fmax, nan": (kobai.fmax, [[nan, 1.0], [0.0, nan]], [0, 1], [[0, 1], [1, 0]]),
    "clamp, nan": (
        lambda x: x.clamp(0, 1),
        [[nan, -1.0, 0.0, 1.0, 2.0, inf]],
        [nan, 0, 0, 1, 1, 1],
        [[0, 0, 1, 1, 0, 0]],
    ),
    "clamp, bound of nan": (lambda x, low: x.clamp(low), [[1.0, 1.0], [nan, 2.0]], [nan, 2], [[0, 0], [0, 1]]),
    "quantile": (
        lambda x, q: kobai.quantile(x, q),
        [[1.0, 2.0, 4.0, 8.0], [0.25, 0.5]],
        [1.75, 3],
        [[0.25, 1.25, 0.5, 0], [3, 6]],
    ),
    "quantile, nan": (lambda x: kobai.quantile(x, 0.1), [[1.0, nan, 2.0]], nan, [[0, 0, 0]]),
    "xlogy at 0": (
        kobai.xlogy,
        [[0.0, 0.0, 2.0, 0.0], [2.0, 0.0, 0.0, nan]],
        [0, 0, -inf, nan],
        [[math.log(2), 0, -inf, nan], [0, nan, inf, nan]],
    ),
    "logit beyond": (kobai.logit, [[2.0, -1.0, 0.0, 1.0, 0.5]], [nan, nan, -inf, inf, 0], [[nan, nan, inf, inf, 4]]),
    "mish, far out": (lambda x: F.mish(x), [[1e20, 30.0, -800.0]], [1e20, 30, 0], [[1, 1, 0]]),
    "lgamma": (kobai.lgamma, [[-inf, inf]], [inf, inf], [[nan, inf]]),
    "sign of nan": (kobai.sign, [[nan, -0.0, inf]], [0, 0, 1], [[0, 0, 0]]),
    "index_fill twice": (
        lambda x, v: x.index_fill(0, kobai.tensor([1, 1], device=x.device), v.sum()),
        [[1.0, 2.0, 3.0], [5.0]],
        [1, 5, 3],
        [[1, 0, 1], [1]],
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_values_and_gradients(name, backend):
    f, arguments, value, gradients = TABLE[name]
    found = at(f, *arguments)
    for ours, wanted in zip(found, [value, *gradients], strict=True):
        np.testing.assert_allclose(ours, np.array(wanted, float), rtol=1e-12, atol=1e-15)


@pytest.mark.oracle
@pytest.mark.parametrize("name", [n for n in TABLE if n not in ("prod, infinity", "logsumexp, nothing", "lgamma")])
def test_the_table_is_pytorchs(name, monkeypatch):
    """Left out: a product with infinity, whose factors' gradients PyTorch finds by dividing; −∞ alone, where it has NaN."""
    torch = pytest.importorskip("torch")
    f, arguments, value, gradients = TABLE[name]
    if name == "prod, zeros and an overflow" or name.startswith("quantile, nan"):
        return  # PyTorch's own answer has NaN, or sends NaN's gradient to where NaN stands
    monkeypatch.setitem(globals(), "kobai", torch)
    monkeypatch.setitem(globals(), "F", torch.nn.functional)
    call = getattr(torch, f.__name__, f) if not f.__name__.startswith("<") else f
    made = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in arguments]
    y = call(*made)
    y.sum().backward()
    for theirs, wanted in zip([y.detach(), *(x.grad for x in made)], [value, *gradients], strict=True):
        np.testing.assert_allclose(
            np.zeros(1) if theirs is None else theirs.numpy(), np.array(wanted, float), rtol=1e-9
        )


def test_order_with_nan():
    x = kobai.tensor([1.0, 3.0, nan, 2.0])
    assert x.argmax().item() == 2
    assert x.argmin().item() == 2
    np.testing.assert_array_equal(x.sort().values.numpy(), [1, 2, 3, nan])
    np.testing.assert_array_equal(x.sort(descending=True).values.numpy(), [nan, 3, 2, 1])
    np.testing.assert_array_equal(x.topk(2).values.numpy(), [nan, 3])
    np.testing.assert_array_equal(x.topk(2, largest=False).values.numpy(), [1, 2])
    np.testing.assert_array_equal(x.cummax(0).values.numpy(), [1, 3, nan, nan])
    np.testing.assert_array_equal(x.kthvalue(4).values.numpy(), nan)


def test_every_nan_is_unique():
    values, inverse, counts = kobai.unique(kobai.tensor([nan, 1.0, nan]), return_inverse=True, return_counts=True)
    assert values.numel() == 3
    assert inverse.tolist() == [1, 0, 2]
    assert counts.tolist() == [1, 1, 1]
    assert kobai.unique(kobai.tensor([[nan, 1.0], [nan, 1.0]]), dim=0).shape == (2, 2)


def test_no_log_probability_is_above_0_and_no_cross_entropy_below():
    for columns in (1, 2, 10, 300):
        x = kobai.tensor(np.random.default_rng(0).normal(size=(200, columns)).astype(np.float32) * 20)
        assert F.log_softmax(x, 1).max().item() <= 0
        assert F.cross_entropy(x, x.argmax(1), reduction="none").min().item() >= 0
    one = kobai.tensor(np.random.default_rng(0).normal(size=(100, 1)).astype(np.float32))
    assert (F.log_softmax(one, 1) == 0).all()
    assert (F.softmax(one, 1) == 1).all()
    assert F.cross_entropy(one, kobai.zeros(100, dtype=kobai.int64)).item() == 0

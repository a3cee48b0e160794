"""Special functions of statistics at published values, at their ends, and against PyTorch."""

from __future__ import annotations

import importlib
import math

import numpy as np
import pytest

import kobai
from kobai import special
from kobai.gradcheck import gradcheck
from kobai.ops import _gamma

# by mpmath 1.3 with 40 digits; many are in the tables of Abramowitz, Stegun, Handbook of Mathematical Functions
PUBLISHED = [
    ("i0", (1.0,), 1.2660658777520083),
    ("i0e", (5.0,), 0.18354081260932835),
    ("i0e", (30.0,), 0.073145946482237294),
    ("i1", (1.0,), 0.56515910399248503),
    ("i1e", (5.0,), 0.16397226694454236),
    ("i1e", (-5.0,), -0.16397226694454236),
    ("ndtr", (1.0,), 0.84134474606854295),
    ("ndtr", (-5.0,), 2.8665157187919391e-7),
    ("log_ndtr", (-20.0,), -203.91715537109726),
    ("log_ndtr", (5.0,), -2.8665161296376359e-7),
    ("ndtri", (0.975,), 1.9599639845400539),
    ("ndtri", (1e-10,), -6.3613409024040562),
    ("erfcx", (10.0,), 0.056140992743822586),
    ("erfcx", (-2.0,), 108.94090438997797),
    ("entr", (0.5,), 0.34657359027997265),
    ("zeta", (2.0, 1.0), 1.6449340668482264),
    ("zeta", (3.0, 1.0), 1.2020569031595943),
    ("zeta", (2.0, -1.5), 9.3792466449891238),
    ("gammainc", (2.0, 1.0), 0.26424111765711536),
    ("gammaincc", (2.0, 1.0), 0.73575888234288464),
    ("gammainc", (0.5, 0.25), 0.52049987781304654),
    ("gammaincc", (3.0, 30.0), 4.501016648012124e-11),
    ("gammainc", (1e3, 1e3), 0.50420524418021551),
    ("multigammaln", (3.0, 2), 1.5501949939575646),
    ("polygamma", (1, 1.0), 1.6449340668482264),
    ("polygamma", (2, 1.0), -2.4041138063191886),
    ("polygamma", (3, 0.5), 97.409091034002437),
    ("xlog1py", (2.0, 1.0), 1.3862943611198906),
]


@pytest.mark.parametrize(("name", "args", "value"), PUBLISHED)
def test_published_values(name, args, value, backend):
    fixed = {"multigammaln": 1, "polygamma": 0}.get(name)
    given = [a if i == fixed else kobai.tensor(a, dtype=kobai.float64) for i, a in enumerate(args)]
    found = getattr(special, name)(*given)
    np.testing.assert_allclose(found.item(), value, rtol=2e-13)
    single = [a if i == fixed else kobai.tensor(a, dtype=kobai.float32) for i, a in enumerate(args)]
    result = getattr(special, name)(*single)
    assert result.dtype == np.float32
    if name not in ("ndtri",):  # of 0.975 rounded to float32
        np.testing.assert_allclose(result.item(), value, rtol=1e-6)


X = np.concatenate([np.linspace(-30, 30, 61) + 0.05, [0.0, 1e-8, -1e-8, np.inf, -np.inf, np.nan]])
WIDE = np.exp(np.linspace(-8, 6, 60))


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["i0", "i0e", "i1", "i1e", "ndtr", "log_ndtr", "erfcx", "entr", "ndtri"])
def test_one_number_as_pytorch(name):
    torch = importlib.import_module("torch")
    x = np.concatenate([np.linspace(-0.5, 1.5, 41), [1e-300, 1e-15]]) if name == "ndtri" else X
    theirs = getattr(torch.special, name)(torch.tensor(x)).numpy()
    np.testing.assert_allclose(getattr(special, name)(kobai.tensor(x)).numpy(), theirs, rtol=1e-12, atol=1e-15)


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["gammainc", "gammaincc", "zeta", "xlog1py"])
def test_two_numbers_as_pytorch(name):
    torch = importlib.import_module("torch")
    a, b = np.meshgrid(
        np.concatenate([WIDE, [0.0, 1.0, -1.0], [np.inf] * (name != "zeta")]),
        np.concatenate([WIDE, [0.0, np.inf, -1.5]]),
    )
    theirs = getattr(torch.special, name)(torch.tensor(a), torch.tensor(b)).numpy()
    ours = getattr(special, name)(kobai.tensor(a), kobai.tensor(b)).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=2e-9, atol=1e-300)  # PyTorch's is no better near x = a


@pytest.mark.parametrize("upper", [False, True])
def test_the_expansion_for_large_shapes_meets_series_and_fraction(upper):
    a = np.full(41, 8e3)
    x = a + np.linspace(-12, 12, 41) * np.sqrt(a)
    near = _gamma.incomplete(a, x, upper)
    np.testing.assert_allclose(_gamma._uniformly(a, x, upper), near, rtol=1e-10)


def test_very_large_shapes_are_normal():
    """P(a, a + t √a) → Φ(t) + O(a^−½), and P(a, a) = ½ + 1 / (3 √(2π a)) + ..., where no series ends any more."""
    for a in (1e8, 1e12, 1e15):
        shape = kobai.full((4,), a, dtype=kobai.float64)
        t = kobai.tensor([-8.0, -1.0, 0.0, 2.0], dtype=kobai.float64)
        normal = special.ndtr(t)
        at = shape + t * math.sqrt(a)
        np.testing.assert_allclose(kobai.igamma(shape, at).numpy(), normal.numpy(), rtol=200 / math.sqrt(a) + 2e-7)
        assert abs(kobai.igamma(shape, shape)[0].item() - 0.5 - 1 / (3 * math.sqrt(2 * math.pi * a))) < 1e-13
        assert kobai.allclose(kobai.igamma(shape, at) + kobai.igammac(shape, at), kobai.ones_like(t))
        at.requires_grad_()
        (slope,) = kobai.autograd.grad(kobai.igamma(shape, at).sum(), at)
        bell = (-t * t / 2).exp() / math.sqrt(2 * math.pi * a)
        np.testing.assert_allclose(slope.numpy(), bell.numpy(), rtol=200 / math.sqrt(a) + 2e-7)


def test_gradients():
    x = kobai.tensor(np.random.default_rng(0).uniform(0.5, 3, (3, 2)), requires_grad=True)
    a = kobai.tensor([[1.0], [2.0], [3.5]], dtype=kobai.float64)
    for function in (
        lambda x: special.gammainc(a, x),
        lambda x: special.gammaincc(a, x),
        lambda x: special.zeta(a + 1, x),
        lambda x: special.zeta(2.0, x),
        lambda x: special.multigammaln(x + 1, 3),
        *(lambda x, n=n: special.polygamma(n, x) for n in range(4)),
        special.log_ndtr,
        lambda x: special.log_ndtr(-10 * x),
        lambda x: special.xlog1py(x, x),
        lambda x: special.xlog1py(2.0, x),
    ):
        assert gradcheck(function, (x,), rtol=1e-5)
    for refused in (lambda: special.gammainc(x, a), lambda: special.gammaincc(x, a), lambda: special.zeta(x + 1, a)):
        with pytest.raises(NotImplementedError, match="the gradient of the first argument is not implemented"):
            refused().sum().backward()


def test_methods_and_refusals():
    x = kobai.tensor([1.0, 2.0], dtype=kobai.float64)
    assert kobai.equal(x.polygamma(1), kobai.polygamma(1, x))
    assert kobai.equal(x.clone().polygamma_(2), kobai.polygamma(2, x))
    assert kobai.equal(x.mvlgamma(1), kobai.lgamma(x))
    assert kobai.equal(x.igamma(x) + x.igammac(x), kobai.ones_like(x))
    assert kobai.equal(x.clone().i0_(), kobai.i0(x))
    assert kobai.special.ndtr(kobai.tensor([0, 1])).dtype == kobai.float32
    out = kobai.empty(2, dtype=kobai.float64)
    assert special.i1e(x, out=out) is out
    for call, message in (
        (lambda: kobai.polygamma(-1, x), "polygamma: expected an integer n >= 0, got -1"),
        (lambda: kobai.mvlgamma(x, 0), "mvlgamma: expected an integer p >= 1, got 0"),
        (lambda: kobai.igamma(x.long(), x > 0), "igamma: expected a tensor of floats, got kobai.int64 and kobai.bool"),
        (lambda: x.long().igammac(x.int()), "igammac: expected a tensor of floats, got kobai.int64 and kobai.int32"),
    ):
        with pytest.raises(RuntimeError, match=message):
            call()

"""Rarer functions and older methods: against PyTorch, and what they refuse. Special functions at their hard places."""

from __future__ import annotations

import importlib
import math

import numpy as np
import pytest

import kobai
from kobai.engine import special
from kobai.ops import _gamma

X = np.array([-2.5, -1.0, -0.3, 0.0, 0.2, 0.5, 1.0, 2.0, 3.7, 12.0, 171.0])
Y = np.array([3.0, -1.0, 0.0, 2.0, np.nan, 0.5, -0.0, 7.0, 1.0, 2.0, -4.0])
M = np.random.default_rng(0).standard_normal((3, 4))

CALLS = {
    "lgamma": lambda m, x, y, a: m.lgamma(x),
    "digamma": lambda m, x, y, a: m.digamma(x),
    "erfinv": lambda m, x, y, a: m.erfinv(x / 3),
    "sinc": lambda m, x, y, a: m.sinc(x),
    "xlogy": lambda m, x, y, a: m.xlogy(x, y),
    "xlogy of a number": lambda m, x, y, a: m.xlogy(x, 2.0),
    "deg2rad": lambda m, x, y, a: m.deg2rad(x),
    "rad2deg": lambda m, x, y, a: x.rad2deg(),
    "heaviside": lambda m, x, y, a: m.heaviside(x, m.ones(1).double() / 2),
    "copysign": lambda m, x, y, a: m.copysign(x, y),
    "fmax": lambda m, x, y, a: m.fmax(x, y),
    "fmin": lambda m, x, y, a: x.fmin(y),
    "gcd": lambda m, x, y, a: m.gcd(x.long() * 6, m.tensor(4)),
    "lcm": lambda m, x, y, a: m.lcm(x.long() * 6, m.tensor(4)),
    "positive": lambda m, x, y, a: m.positive(x),
    "rsub": lambda m, x, y, a: m.rsub(x, 3, alpha=2),
    "special.expit": lambda m, x, y, a: m.special.expit(x),
    "special.gammaln": lambda m, x, y, a: m.special.gammaln(x),
    "special.psi": lambda m, x, y, a: m.special.psi(x),
    "hann_window": lambda m, x, y, a: m.hann_window(5),
    "hamming_window": lambda m, x, y, a: m.hamming_window(6, periodic=False),
    "blackman_window": lambda m, x, y, a: m.blackman_window(4, dtype=m.float64),
    "window of one": lambda m, x, y, a: m.hann_window(1),
    "combinations": lambda m, x, y, a: m.combinations(x[:4], 3),
    "combinations with replacement": lambda m, x, y, a: m.combinations(x[:3], with_replacement=True),
    "combinations, none": lambda m, x, y, a: m.combinations(x[:1], 2),
    "diagflat": lambda m, x, y, a: m.diagflat(a[:2, :2], 1),
    "vander": lambda m, x, y, a: m.vander(a[0]),
    "vander increasing": lambda m, x, y, a: m.vander(a[0], 2, increasing=True),
    "unravel_index": lambda m, x, y, a: m.stack(m.unravel_index(m.tensor([5, 11]), (3, 4))),
    "scalar_tensor": lambda m, x, y, a: m.scalar_tensor(3),
    "trapezoid": lambda m, x, y, a: m.trapezoid(a, dx=0.5, dim=0),
    "trapezoid at points": lambda m, x, y, a: m.trapezoid(a, m.tensor([0.0, 1.0, 3.0, 4.0]).double()),
    "trapz": lambda m, x, y, a: m.trapz(a, a.exp()),
    "cumulative_trapezoid": lambda m, x, y, a: m.cumulative_trapezoid(a, m.tensor([0.0, 1.0, 3.0]).double(), dim=0),
    "histogram": lambda m, x, y, a: m.cat(list(m.histogram(a, 5))),
    "histogram in a range": lambda m, x, y, a: m.histogram(a, 4, range=(-1.0, 1.0), density=True).hist,
    "histogram by edges": lambda m, x, y, a: m.histogram(a, m.tensor([-1.0, 0.0, 2.0]).double(), weight=a.exp()).hist,
    "nanmedian": lambda m, x, y, a: m.nanmedian(y),
    "nanmedian of nan": lambda m, x, y, a: m.nanmedian(y[4:5]),
    "renorm": lambda m, x, y, a: m.renorm(a, 2, 0, 1.0),
    "sum_to_size": lambda m, x, y, a: a.expand(2, 3, 4).sum_to_size(1, 4),
    "sum_to_size, same": lambda m, x, y, a: a.sum_to_size((3, 4)),
    "apply_": lambda m, x, y, a: a.clone().apply_(lambda v: v * 2),
    "map_": lambda m, x, y, a: a.clone().map_(a * 2, lambda v, w: v + w),
    "put_": lambda m, x, y, a: a.clone().put_(m.tensor([0, 5]), m.tensor([1.0, 2.0]).double()),
    "put_ accumulating": lambda m, x, y, a: a.clone().put_(m.tensor([0, 0]), m.tensor([1.0, 2.0]).double(), True),
    "new": lambda m, x, y, a: a.new([1, 2]) if m is kobai else a.new_tensor([1, 2]),
}


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CALLS)
def test_as_pytorch(case):
    torch = importlib.import_module("torch")
    expected = CALLS[case](torch, *(torch.tensor(v) for v in (X, Y, M)))
    result = CALLS[case](kobai, *(kobai.tensor(v) for v in (X, Y, M)))
    assert str(result.dtype).split(".")[-1] == str(expected.dtype).split(".")[-1]
    tolerance = 1e-12 if result.dtype == kobai.float64 else 1e-6
    np.testing.assert_allclose(result.numpy(), expected.numpy(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("case", [c for c in CALLS if not c.startswith(("apply_", "map_"))])
def test_every_backend_gives_the_same(case, backend):
    tensors = [kobai.tensor(v) for v in (X, Y, M)]
    result = CALLS[case](kobai, *tensors).cpu().numpy()
    with kobai.using("numpy"):
        expected = CALLS[case](kobai, *(kobai.tensor(v) for v in (X, Y, M))).numpy()
    np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-15)  # CUDA's sin πx is exactly 0 at integers


@pytest.mark.parametrize(
    ("function", "x", "value"),
    [
        (_gamma.lgamma, 0.5, math.lgamma(0.5)),
        (_gamma.lgamma, 1e-10, math.lgamma(1e-10)),
        (_gamma.lgamma, 1e10, math.lgamma(1e10)),
        (_gamma.lgamma, -0.5, math.lgamma(-0.5)),
        (_gamma.lgamma, -7.0, math.inf),
        (_gamma.lgamma, math.inf, math.inf),
        (_gamma.digamma, 1.0, -0.57721566490153286),
        (_gamma.digamma, 0.5, -0.57721566490153286 - 2 * math.log(2)),
        (_gamma.digamma, 0.0, -math.inf),
        (_gamma.digamma, -2.0, math.nan),
        (_gamma.trigamma, 1.0, math.pi**2 / 6),
        (_gamma.trigamma, 0.5, math.pi**2 / 2),
        (_gamma.trigamma, -0.5, math.pi**2 / 2 + 4),
        (lambda x: _gamma.erfinv(x, special.erf), 0.5, 0.47693627620446987),
        (lambda x: _gamma.erfinv(x, special.erf), 1 - 1e-12, 5.0420297569379926),
        (lambda x: _gamma.erfinv(x, special.erf), -1.0, -math.inf),
        (lambda x: _gamma.erfinv(x, special.erf), 1.5, math.nan),
    ],
)
def test_values_that_are_known(function, x, value):
    with np.errstate(all="ignore"):
        assert float(function(np.array([x]))[0]) == pytest.approx(
            value, rel=1e-5 if 0.99 < x < 1 else 1e-13, nan_ok=True
        )


def test_questions_and_copies():
    x = kobai.arange(6.0).reshape(2, 3)
    assert x[1].storage_offset() == 3
    assert x.storage_offset() == 0
    assert x.get_device() == -1
    assert (kobai.is_nonzero(x[0, 1]), kobai.is_complex(x), x.is_signed(), x.is_sparse) == (True, False, True, False)
    assert not kobai.tensor([1], dtype=kobai.uint8).is_signed()
    assert x.pin_memory() is x
    assert x.new(2, 3).shape == (2, 3)
    assert x.new().shape == (0,)
    np.testing.assert_allclose(np.exp(x).numpy(), x.exp().numpy(), rtol=3e-7)
    assert isinstance(np.exp(x), kobai.Tensor)


def test_draws():
    kobai.manual_seed(0)
    assert kobai.poisson(kobai.full((1000,), 4.0)).mean().item() == pytest.approx(4, abs=0.3)
    assert kobai.empty(1000).geometric_(0.25).mean().item() == pytest.approx(4, abs=0.4)
    assert kobai.empty(1000).log_normal_(0.0, 0.5).log().mean().item() == pytest.approx(0, abs=0.1)
    assert kobai.empty(1000).cauchy_(2.0).median().item() == pytest.approx(2, abs=0.3)
    w = kobai.normal(0.0, 0.1, (3, 2), requires_grad=True, dtype=kobai.float64)
    assert w.requires_grad
    assert w.dtype == kobai.float64


def test_a_numpy_number_among_data_keeps_its_dtype():
    assert kobai.tensor([np.float64(1.0)]).dtype == kobai.float64
    assert kobai.tensor([np.float32(1.0), np.float32(2.0)]).dtype == kobai.float32
    assert kobai.tensor([1.0, 2]).dtype == kobai.float32


def test_grad_takes_any_iterable():
    parameters = {"a": kobai.ones(1, requires_grad=True), "b": kobai.ones(1, requires_grad=True)}
    loss = (parameters["a"] * 2 + parameters["b"]).sum()
    assert [g.item() for g in kobai.autograd.grad(loss, parameters.values())] == [2, 1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kobai.gcd(kobai.ones(1), kobai.ones(1)), "gcd: expected integers"),
        (lambda: kobai.combinations(kobai.ones(2, 2)), "expected a vector"),
        (lambda: kobai.histogram(kobai.arange(3)), "expected floats"),
        (lambda: kobai.ones(2, 3).sum_to_size(2, 2), "does not broadcast"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(RuntimeError, match=message):
        call()


def test_scalar_tensor_may_require_a_gradient():
    x = kobai.scalar_tensor(2, requires_grad=True)
    (x * x).backward()
    assert x.grad.item() == 4
    assert not kobai.scalar_tensor(2).requires_grad
    with pytest.raises(RuntimeError, match="expected a float tensor, got int32"):
        kobai.scalar_tensor(2, dtype=kobai.int32, requires_grad=True)

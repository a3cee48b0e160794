"""Activations: derivatives at kinks, extreme values without a warning, in-place forms, softmax, bad input."""

import math

import numpy as np
import pytest

import kobai
import kobai.nn.functional as F

SIMPLE = """relu relu6 leaky_relu elu celu selu gelu silu mish softplus softsign hardtanh hardsigmoid hardswish logsigmoid
tanhshrink hardshrink softshrink rrelu""".split()
INPLACE = "relu relu6 leaky_relu elu celu selu silu mish hardtanh hardsigmoid hardswish rrelu".split()

AT_ZERO = {  # derivative at 0: that from the left
    "relu": 0.0,
    "relu6": 0.0,
    "leaky_relu": 0.01,
    "elu": 1.0,
    "celu": 1.0,
    "selu": 1.0507009873554805 * 1.6732632423543772,
    "gelu": 0.5,
    "silu": 0.5,
    "mish": 0.6,
    "softplus": 0.5,
    "softsign": 1.0,
    "hardtanh": 1.0,
    "hardsigmoid": 1 / 6,
    "hardswish": 0.5,
    "logsigmoid": 0.5,
    "tanhshrink": 0.0,
    "hardshrink": 0.0,
    "softshrink": 0.0,
    "rrelu": (1 / 8 + 1 / 3) / 2,
}


@pytest.mark.parametrize("name", SIMPLE)
def test_derivative_at_zero(name):
    x = kobai.zeros(1, requires_grad=True)
    getattr(F, name)(x).sum().backward()
    assert x.grad.item() == pytest.approx(AT_ZERO[name], rel=1e-6)


@pytest.mark.parametrize("name", SIMPLE)
def test_large_arguments_give_finite_values_and_slopes(name):  # warnings are errors here
    x = kobai.tensor([-1e4, -100.0, 100.0, 1e4], requires_grad=True)
    y = getattr(F, name)(x)
    y.sum().backward()
    assert np.isfinite(y.detach().numpy()).all()
    assert (x.grad.abs() <= 1.1).all()


@pytest.mark.parametrize("name", INPLACE)
def test_inplace_writes_into_its_argument_and_keeps_the_gradient(name):
    values = [-4.0, -1.5, -0.3, 0.4, 2.5, 8.0]
    function = getattr(F, name)
    results = []
    for inplace in (False, True):
        leaf = kobai.tensor(values, requires_grad=True)
        x = leaf * 1
        y = function(x, inplace=inplace)
        assert (y is x) == inplace
        (y * y).sum().backward()
        results.append((y.tolist(), leaf.grad.tolist()))
    assert results[0] == results[1]


def test_inplace_on_a_leaf_that_requires_a_gradient_is_refused():
    with pytest.raises(RuntimeError, match="a leaf that requires a gradient"):
        F.relu(kobai.ones(2, requires_grad=True), inplace=True)


def test_relu_keeps_integers_and_others_make_floats():
    assert kobai.relu(kobai.tensor([-1, 2])).tolist() == [0, 2]
    assert F.gelu(kobai.tensor([0, 1])).dtype == kobai.float32
    x = kobai.tensor([-1.0, 1.0])
    assert x.relu_() is x
    assert x.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("name", [*SIMPLE, "softmax", "glu"])
def test_something_else_than_a_tensor_is_refused(name):
    with pytest.raises(TypeError, match=r"expected a Tensor, got list"):
        getattr(F, name)([1.0, 2.0], *([0] if name in ("softmax", "glu") else []))


def test_bad_options():
    x = kobai.ones(2, 3)
    with pytest.raises(ValueError, match="min_val <= max_val, got 1 and 0"):
        F.hardtanh(x, 1, 0)
    with pytest.raises(ValueError, match="alpha != 0"):
        F.celu(x, 0)
    with pytest.raises(RuntimeError, match="'none' or 'tanh', got 'erf'"):
        F.gelu(x, approximate="erf")
    with pytest.raises(RuntimeError, match="lambd >= 0, got -1"):
        F.softshrink(x, -1)
    with pytest.raises(RuntimeError, match=r"prelu: expected weight \(1,\) or \(3,\), got \(2,\)"):
        F.prelu(x, kobai.ones(2))
    with pytest.raises(RuntimeError, match=r"glu: expected an even size in dimension 1, got shape \(2, 3\)"):
        F.glu(x)
    with pytest.raises(RuntimeError, match="glu: expected a tensor with dimensions"):
        F.glu(kobai.tensor(1.0))
    with pytest.raises(IndexError, match=r"softmax: expected dim in \[-2, 1\], got 2"):
        F.softmax(x, 2)


def test_softmax_does_not_overflow_and_sums_to_one():
    x = kobai.tensor([[1000.0, 1000.0, -1000.0], [-1e30, 0.0, -math.inf]])
    assert F.softmax(x, dim=1).tolist() == [[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]
    assert F.log_softmax(x[0, :2], dim=-1).tolist() == pytest.approx([math.log(0.5)] * 2)
    assert F.softmin(x[:1], dim=1).tolist() == [[0.0, 0.0, 1.0]]


def test_softmax_of_a_scalar_of_nothing_and_of_integers():
    assert F.softmax(kobai.tensor(3.0), 0).item() == 1.0
    assert F.log_softmax(kobai.tensor(3.0), 0).item() == 0.0
    assert F.softmax(kobai.zeros(3, 0), 1).shape == (3, 0)
    assert F.softmax(kobai.tensor([0, 0]), 0).tolist() == [0.5, 0.5]
    assert F.softmax(kobai.zeros(2), 0, dtype=kobai.float64).dtype == kobai.float64


def test_softmax_without_dim_warns_and_takes_pytorchs_choice():
    with pytest.warns(UserWarning, match="softmax: dim was not given, taking 1"):
        y = F.softmax(kobai.zeros(2, 4))
    assert y.tolist() == [[0.25] * 4] * 2


def test_prelu_has_one_slope_per_channel():
    x = -kobai.ones(1, 2, 2)
    w = kobai.tensor([0.1, 0.2], requires_grad=True)
    F.prelu(x, w).sum().backward()
    assert w.grad.tolist() == [-2.0, -2.0]


def test_selu_keeps_mean_zero_and_variance_one():
    x = kobai.randn(100_000, dtype=kobai.float64)
    y = F.selu(x)
    assert abs(y.mean().item()) < 0.02
    assert abs(y.var().item() - 1) < 0.02

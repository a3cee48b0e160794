"""Unary mathematics: values against the math module, what happens to integers, in-place forms, clamp and its relatives."""

import math

import numpy as np
import pytest

import kobai
from kobai import Tensor

VALUES = {
    "neg": lambda v: -v,
    "abs": abs,
    "square": lambda v: v * v,
    "sqrt": math.sqrt,
    "rsqrt": lambda v: 1 / math.sqrt(v),
    "reciprocal": lambda v: 1 / v,
    "exp": math.exp,
    "exp2": lambda v: 2**v,
    "expm1": math.expm1,
    "log": math.log,
    "log2": math.log2,
    "log10": math.log10,
    "log1p": math.log1p,
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "asin": math.asin,
    "acos": math.acos,
    "atan": math.atan,
    "sinh": math.sinh,
    "cosh": math.cosh,
    "asinh": math.asinh,
    "atanh": math.atanh,
    "sigmoid": lambda v: 1 / (1 + math.exp(-v)),
    "tanh": math.tanh,
    "erf": math.erf,
    "erfc": math.erfc,
    "logit": lambda v: math.log(v / (1 - v)),
}
KEEP_INTEGERS = {"neg", "abs", "square"}


@pytest.mark.parametrize("name", VALUES)
def test_function_method_and_in_place_form_agree_with_the_math_module(name):
    points = [0.1, 0.3, 0.95]
    wanted = [VALUES[name](v) for v in points]
    x = kobai.tensor(points, dtype=kobai.float64)
    np.testing.assert_allclose(getattr(kobai, name)(x).numpy(), wanted, rtol=1e-14)
    np.testing.assert_allclose(getattr(x, name)().numpy(), wanted, rtol=1e-14)
    assert getattr(x, name + "_")() is x
    np.testing.assert_allclose(x.numpy(), wanted, rtol=1e-14)


@pytest.mark.parametrize("name", sorted(VALUES.keys() - {"atanh", "logit"}))
def test_integers_become_floats_where_the_result_is_none(name):
    y = getattr(kobai, name)(kobai.tensor([1, 1]))
    assert y.dtype == (kobai.int64 if name in KEEP_INTEGERS else kobai.float32)


@pytest.mark.parametrize("name", sorted(VALUES))
def test_something_else_than_a_tensor_is_refused(name):
    with pytest.raises(TypeError, match=rf"{name}: expected a Tensor, got list"):
        getattr(kobai, name)([1.0])


def test_aliases_and_operators():
    x = kobai.tensor([-0.5, 0.5])
    for alias, name in [("absolute", "abs"), ("negative", "neg"), ("arcsin", "asin"), ("arctanh", "atanh")]:
        assert getattr(kobai, alias)(x).tolist() == getattr(x, name)().tolist() == getattr(x, alias)().tolist()
    assert (-x).tolist() == [0.5, -0.5]
    assert abs(x).tolist() == [0.5, 0.5]
    assert kobai.acosh(kobai.tensor([1.0])).tolist() == kobai.arccosh(kobai.tensor([1.0])).tolist() == [0.0]


def test_abs_has_derivative_zero_at_zero_and_minus_one_left_of_it():
    x = kobai.tensor([-2.0, 0.0, 3.0], requires_grad=True)
    x.abs().sum().backward()
    assert x.grad.tolist() == [-1.0, 0.0, 1.0]


def test_sigmoid_and_tanh_do_not_overflow():  # warnings are errors here
    x = kobai.tensor([-1e30, -1000.0, 1000.0, 1e30], requires_grad=True)
    assert kobai.allclose(x.sigmoid(), kobai.tensor([0.0, 0.0, 1.0, 1.0]))
    (x.sigmoid() + x.tanh()).sum().backward()
    assert x.grad.abs().max().item() < 1e-30


def test_an_integer_tensor_cannot_hold_a_float_result():
    with pytest.raises(RuntimeError, match=r"cannot be kept in a tensor of kobai\.int64"):
        kobai.tensor([1, 2]).exp_()


def test_clamp_with_numbers_tensors_and_one_bound():
    x = kobai.tensor([-2.0, 0.5, 3.0], requires_grad=True)
    assert x.clamp(-1, 1).tolist() == [-1.0, 0.5, 1.0]
    assert x.clamp(min=0).tolist() == x.clamp_min(0).tolist() == [0.0, 0.5, 3.0]
    assert x.clamp(max=0).tolist() == x.clamp_max(0).tolist() == [-2.0, 0.0, 0.0]
    assert x.clip(kobai.tensor([0.0, 1.0, 4.0])).tolist() == [0.0, 1.0, 4.0]
    assert x.clamp(2, 1).tolist() == [1.0, 1.0, 1.0]  # max wins
    assert kobai.tensor([1, 5]).clamp(2, 3).dtype == kobai.int64
    assert kobai.tensor([1, 5]).clamp(1.5).tolist() == [1.5, 5.0]
    with pytest.raises(ValueError, match="at least one of min and max"):
        x.clamp()


def test_clamp_passes_the_gradient_at_its_bounds_and_gives_it_to_the_bound_beyond_them():
    x = kobai.tensor([-2.0, -1.0, 0.0, 1.0, 2.0], requires_grad=True)
    low, high = kobai.tensor([-1.0] * 5, requires_grad=True), kobai.tensor(1.0, requires_grad=True)
    x.clamp(low, high).sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]
    assert low.grad.tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert high.grad.item() == 1.0


def test_clamp_in_place_under_no_grad_keeps_a_parameter_a_leaf():
    w = kobai.tensor([-2.0, 2.0], requires_grad=True)
    with kobai.no_grad():
        w.clamp_(-1, 1)
    assert w.tolist() == [-1.0, 1.0]
    assert w.is_leaf


def test_nan_to_num():
    x = kobai.tensor([math.nan, math.inf, -math.inf, 1.0], requires_grad=True)
    y = x.nan_to_num(nan=5.0)
    largest = np.finfo(np.float32).max
    np.testing.assert_array_equal(y.detach().numpy(), np.float32([5, largest, -largest, 1]))
    assert kobai.nan_to_num(x, 0, 1, 2).tolist() == [0.0, 1.0, 2.0, 1.0]
    y.sum().backward()
    assert x.grad.tolist() == [0.0, 0.0, 0.0, 1.0]
    ints = kobai.tensor([1, 2])
    assert ints.nan_to_num().tolist() == [1, 2]


def test_lerp_addcmul_addcdiv_hypot():
    a, b = kobai.tensor([1.0, 2.0]), kobai.tensor([3.0, 4.0])
    assert a.lerp(b, kobai.tensor([0.0, 1.0])).tolist() == [1.0, 4.0]
    assert kobai.addcmul(a, a, b, value=0.5).tolist() == [2.5, 6.0]
    assert kobai.addcdiv(a, b, a).tolist() == [4.0, 4.0]
    assert kobai.hypot(b[:1], b[1:]).tolist() == [5.0]
    state = kobai.tensor([1.0, 1.0])
    assert state.lerp_(b, 0.5) is state
    assert state.addcmul_(a, b).tolist() == [5.0, 10.5]


def test_logit_with_eps_and_logaddexp():
    x = kobai.tensor([0.0, 1.0])
    assert kobai.allclose(kobai.logit(x, eps=0.1), kobai.tensor([-2.1972246, 2.1972246]))
    assert kobai.logaddexp(kobai.tensor([1000.0]), kobai.tensor([1000.0])).item() == pytest.approx(1000 + math.log(2))


def test_docstrings_say_what_a_function_is():
    assert kobai.exp.__doc__.startswith(
        "eˣ. Elementwise; integers are converted to floats first.\n\n>>> import kobai\n"
    )
    assert Tensor.exp_.__name__ == "exp_"
    assert kobai.exp.__name__ == "exp"

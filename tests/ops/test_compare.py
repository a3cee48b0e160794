"""Comparison, logic and bits, sign and rounding."""

from __future__ import annotations

import pytest
from tables import cases, check, refused

import kobai

TABLE = """
eq: a == b | a == b
eq_self: a == a | a == a
ne: a != 0 | a != 0
lt: a < b | a < b
le: T.le(a, b) | a <= b
gt: 0.5 > a | a < 0.5
ge: a.ge(o) | a >= o
greater: T.greater(a, b) | a > b
greater_equal: a.greater_equal(b) | a >= b
less: T.less(a, b) | a < b
less_equal: a.less_equal(b) | a <= b
not_equal: a.not_equal(b) | a != b
eq_promotes: i([1, 2]) == i([1.0, 2.5]) | np.array([True, False])
lt_int_number: i([1, 2]) < 1.5 | np.array([True, False])
eq_bool: i([True, False]) == True | np.array([True, False])
eq_none: a == None | False
ne_string: a != 'x' | True
ge_numpy_number: a >= np.float32(0) | a >= 0
in: 2 in [1, 2] | True
isclose: T.isclose(a, a + 1e-9) | a == a
isclose_nan: i([float('nan')]).isclose(i([float('nan')]), equal_nan=True) | np.array([True])
allclose: T.allclose(a, a + 1e-9) | True
allclose_not: a.allclose(b) | False
allclose_tolerance: a.allclose(a + 0.5, atol=1) | True
equal: T.equal(a, a.clone()) | True
equal_shapes: a.equal(v) | False
equal_not: a.equal(b) | False
logical_and: T.logical_and(a > 0, b > 0) | (a > 0) & (b > 0)
logical_or: (a > 0).logical_or(b) | np.ones_like(a, bool)
logical_xor: T.logical_xor(i([1, 0]), i([2.0, 0.0])) | np.array([False, False])
logical_not: T.logical_not(i([0, 3])) | np.array([True, False])
and: (a > 0) & (b > 0) | (a > 0) & (b > 0)
or: (a > 0).__or__(b > 0) | np.logical_or(a > 0, b > 0)
xor: (a > 0) ^ True | a <= 0
not: ~(a > 0) | a <= 0
bits: i([6, 3]) & 5 | np.array([4, 1])
bits_reflected: 8 ^ i([6, 3]) | np.array([14, 11])
bits_and_reflected: 4 & i([6, 3]) | np.array([4, 0])
bits_bool_int: i([True, False]) & 1 | np.array([1, 0])
bits_not: ~i([6, 3]) | np.array([-7, -4])
bitwise_or: T.bitwise_or(i([6, 3]), 8) | np.array([14, 11])
shift: i([6, 3]) << 2 | np.array([24, 12])
shift_right: i([6, -3]) >> i([1, 1]) | np.array([3, -2])
bitwise_left_shift: T.bitwise_left_shift(i([1]), i([3])) | np.array([8])
isnan: T.isnan(i([1.0, float('nan')])) | np.array([False, True])
isnan_int: i([1]).isnan() | np.array([False])
isinf: i([1.0, -float('inf')]).isinf() | np.array([False, True])
isfinite: T.isfinite(i([1.0, -float('inf'), float('nan')])) | np.array([True, False, False])
isposinf: i([float('inf'), -float('inf')]).isposinf() | np.array([True, False])
isneginf: i([float('inf'), -float('inf')]).isneginf() | np.array([False, True])
signbit: i([1.0, -1.0]).signbit() | np.array([False, True])
sign: a.sign() | np.sign(a)
sgn: T.sgn(a) | np.sign(a)
sign_int: i([-2, 0]).sign() | np.array([-1, 0])
sign_bool: i([True, False]).sign() | np.array([True, False])
floor: (a * 3).floor() | np.floor(a * 3)
ceil: T.ceil(a * 3) | np.ceil(a * 3)
trunc: (a * 3).trunc() | np.trunc(a * 3)
fix: (a * 3).fix() | np.trunc(a * 3)
frac: (a * 3).frac() | a * 3 - np.trunc(a * 3)
round: (a * 3).round() | np.round(a * 3)
round_half: T.round(i([0.5, 1.5, 2.5, -0.5])) | np.float32([0, 2, 2, -0.0])
round_decimals: a.round(decimals=2) | np.round(a, 2)
round_tens: (a * 100).round(decimals=-1) | np.round(a * 10) * 10
floor_int: i([1, 2]).floor() | np.array([1, 2])
"""


@pytest.mark.parametrize(("call", "expected"), cases(TABLE))
def test_agrees_with_numpy(call, expected, backend):
    check(call, expected)


REFUSED = [
    ("a == v", RuntimeError, "shapes (4, 3), (5,) do not fit together"),
    ("a < 'x'", TypeError, "not supported between instances of 'Tensor' and 'str'"),
    ("T.eq(a, 'x')", TypeError, "eq: expected a Tensor or a number, got str"),
    ("T.eq(1, a)", TypeError, "eq: expected a Tensor, got int"),
    ("~a", TypeError, "bitwise_not: expected integers or truth values, got kobai.float64"),
    ("a & 1", NotImplementedError, "bitwise_and: expected integers or truth values, got floats"),
    ("i([1]) | 1.5", NotImplementedError, "bitwise_or: expected integers or truth values, got floats"),
    ("i([1]) << 'x'", TypeError, "unsupported operand"),
    ("T.logical_and(a, 1)", TypeError, "logical_and: expected a Tensor, got int"),
    ("T.equal(a, 1)", TypeError, "equal: expected a Tensor, got int"),
    ("i([1]).frac()", RuntimeError, "frac: expected floats, got kobai.int64"),
    ("i([1]).round(decimals=1)", RuntimeError, "round: decimals need floats, got kobai.int64"),
    ("T.sign(1)", TypeError, "sign: expected a Tensor, got int"),
    ("T.isclose(a, a, rtol=-0.4)", RuntimeError, "isclose: expected rtol >= 0, got -0.4"),
    ("T.allclose(a, a, atol=-0.4)", RuntimeError, "isclose: expected atol >= 0, got -0.4"),
    ("T.isclose(a, a, atol=float('nan'))", RuntimeError, "isclose: expected atol >= 0, got nan"),
    ("T.isclose(a, 2)", TypeError, "isclose: expected a Tensor, got int"),
    ("T.diff(a, -1)", RuntimeError, "diff: expected n >= 0, got -1"),
    ("T.add(i([1]), i([1]), alpha=0.5)", RuntimeError, "add: expected an integer as alpha for integers, got 0.5"),
    ("T.sub(i([1]), 1, alpha=0.5)", RuntimeError, "sub: expected an integer as alpha for integers, got 0.5"),
    ("T.fmod(2, a)", TypeError, "fmod: expected a Tensor, got int"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED, ids=[row[0] for row in REFUSED])
def test_refuses(call, error, message):
    refused(call, error, message)


M = "i([True, False])"
OF_TRUTH_VALUES = [
    *(f"{M} - {x}" for x in (M, "True", "1", "1.5", "i([1, 2])", "i([1., 2.])", "i(True)")),
    *(f"{x} - {M}" for x in ("True", "1", "1.5", "i([1, 2])", "i([1., 2.])", "i(2.)")),
    *(
        "i([1, 2]) - True",
        "True - i([1., 2.])",
        "i([1., 2.]).sub_(i(True))",
        f"T.rsub({M}, 1)",
        f"T.rsub(i([1.]), {M})",
    ),
    *(f"{M} {op} {x}" for op in ("//", "%", "**") for x in (M, "True")),
    *(f"{M} << {M}", f"{M} >> {M}", f"T.fmod({M}, {M})", f"T.div({M}, {M}, rounding_mode='trunc')"),
    *(f"-{M}", f"+{M}", f"{M}.neg()", f"{M}.neg_()"),
    *(f"{M}.{step}()" for step in ("floor", "ceil", "trunc", "round", "fix")),
]


@pytest.mark.parametrize("call", OF_TRUTH_VALUES)
def test_arithmetic_that_truth_values_have_not(call, backend):
    """NumPy gives int8, a truth value or an error of its own for these."""
    refused(call, NotImplementedError, "expected numbers, got ")
    refused(call, NotImplementedError, "; a mask is inverted by ~mask")


def test_arithmetic_that_truth_values_have(backend):
    m = kobai.tensor([True, False])
    assert (m + m).tolist() == [True, False]
    assert (m * m).tolist() == [True, False]
    assert (m + 1).tolist() == (m // 1 + 1).tolist() == [2, 1]
    assert (m**2).dtype == (m % 2).dtype == (m << 1).dtype == kobai.int64
    assert kobai.diff(m).tolist() == [True]
    assert (kobai.ones(2) * m - 0.5).tolist() == [0.5, -0.5]


def test_operators_in_place_keep_the_tensor():
    x = kobai.tensor([6, 3])
    same = x
    x &= 5
    x |= 8
    x ^= 1
    x <<= 1
    x >>= 1
    assert x is same
    assert x.tolist() == [13, 8]
    mask = kobai.tensor([True, False])
    mask.logical_not_()
    mask &= kobai.tensor([True, True])
    assert mask.tolist() == [False, True]


def test_rounding_is_recorded_with_gradient_zero_and_frac_with_one():
    for function, slope in ((kobai.round, 0.0), (kobai.floor, 0.0), (kobai.sign, 0.0), (kobai.frac, 1.0)):
        x = kobai.tensor([1.3], requires_grad=True)
        y = function(x)
        assert y.requires_grad
        y.sum().backward()
        assert x.grad.tolist() == [slope]


def test_comparisons_need_no_gradient():
    x = kobai.ones(2, requires_grad=True)
    assert not (x > 0).requires_grad
    assert not kobai.isnan(x).requires_grad


def test_tensors_stay_hashable_by_identity():
    x = kobai.ones(2)
    assert {x: 1}[x] == 1

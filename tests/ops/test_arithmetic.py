"""Binary arithmetic: operators, promotion, broadcasting, corners."""

from __future__ import annotations

import math
import operator
from fractions import Fraction

import numpy as np
import pytest

import kobai

PYTHON = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": operator.pow,
}
every_operator = pytest.mark.parametrize("symbol", PYTHON)


@every_operator
def test_operators_agree_with_numpy_on_both_sides(symbol, backend):
    f = PYTHON[symbol]
    a, b = np.array([1.5, 2.0, 3.25]), np.array([0.5, 2.0, 1.25])
    x, y = kobai.tensor(a), kobai.tensor(b)
    np.testing.assert_allclose(f(x, y).tolist(), f(a, b), rtol=1e-15)
    np.testing.assert_allclose(f(x, 1.5).tolist(), f(a, 1.5), rtol=1e-15)
    np.testing.assert_allclose(f(1.5, x).tolist(), f(1.5, a), rtol=1e-15)
    np.testing.assert_allclose(f(x, kobai.tensor(2.0)).tolist(), f(a, 2.0), rtol=1e-15)


@every_operator
def test_in_place_operators_keep_the_object(symbol):
    f = getattr(operator, f"i{PYTHON[symbol].__name__}")
    x = kobai.tensor([4.0, 9.0])
    y, memory = x, x.array
    x = f(x, 2)
    assert x is y
    assert x.array is memory
    assert x.tolist() == PYTHON[symbol](np.array([4.0, 9.0]), 2).tolist()


@pytest.mark.parametrize(
    ("a", "b"),
    [((4, 3), (4, 3)), ((4, 1, 3), (2, 1)), ((), (2, 3)), ((0, 3), (3,)), ((1,), (0,)), ((2, 1), (1, 0))],
    ids=str,
)
def test_broadcasting_and_its_transpose(a, b):
    x = kobai.rand(a, dtype=kobai.float64, requires_grad=True)
    y = kobai.rand(b, dtype=kobai.float64, requires_grad=True)
    z = x * y
    assert z.shape == np.broadcast_shapes(a, b)
    z.backward(kobai.ones_like(z))
    assert (x.grad.shape, y.grad.shape) == (a, b)
    spread = np.broadcast_to(y.detach().array, z.shape)
    np.testing.assert_allclose(x.grad.array.sum(), spread.sum(), rtol=1e-12)


def test_numbers_are_weak_and_categories_strong():
    i, f, b = kobai.arange(3), kobai.ones(3), kobai.ones(3, dtype=kobai.bool)
    half, double = kobai.ones(3, dtype=kobai.float16), kobai.ones(3, dtype=kobai.float64)
    brain = kobai.ones(3, dtype=kobai.bfloat16)
    expected = {
        kobai.int64: [i + 1, i + True, b + 1, i * b, i // 2, i**2, i + kobai.tensor(2, dtype=kobai.int8)],
        kobai.float32: [
            i + 1.0,
            i / i,
            i / 2,
            b / b,
            f + 1,
            i * f,
            f * double[0],
            i**2.0,
            b + 0.5,
            brain + half,
        ],
        kobai.float16: [half + 1, half * 1e-3, half * i, half / 3, half + np.float64(1)],
        kobai.bfloat16: [brain + 1, brain * 1e-3, 1.5 + brain, brain * i, brain / 3, brain + np.float64(1), brain**2.0],
        kobai.float64: [double * f, double + half, i + double, kobai.tensor(1, dtype=kobai.int64) + double],
        kobai.bool: [b + b, b * b, b + True],
    }
    for dtype, results in expected.items():
        for k, result in enumerate(results):
            assert result.dtype == dtype, (dtype, k)
    kobai.set_default_dtype(kobai.float64)
    assert (i / i).dtype == kobai.float64
    assert (i + 0.5).dtype == kobai.float64


def test_alpha():
    x = kobai.tensor([1.0, 2.0])
    assert kobai.add(x, x, alpha=10).tolist() == [11, 22]
    assert kobai.sub(x, 1, alpha=2).tolist() == [-1, 0]
    assert x.add_(x, alpha=-1).tolist() == [0, 0]


@pytest.mark.parametrize("dtype", [kobai.int64, kobai.float64, kobai.int8])
def test_quotients_and_remainders_of_all_signs(dtype):
    a = kobai.tensor([7, -7, 7, -7, 6, -6, 0]).to(dtype)
    b = kobai.tensor([2, 2, -2, -2, 3, 3, 5]).to(dtype)
    pairs = list(zip(a.tolist(), b.tolist(), strict=True))
    assert (a // b).tolist() == [x // y for x, y in pairs]
    assert (a % b).tolist() == [x % y for x, y in pairs]
    assert kobai.div(a, b, rounding_mode="floor").tolist() == [x // y for x, y in pairs]
    assert kobai.div(a, b, rounding_mode="trunc").tolist() == [math.trunc(x / y) for x, y in pairs]
    assert kobai.fmod(a, b).tolist() == [math.fmod(x, y) for x, y in pairs]
    assert kobai.div(a, b, rounding_mode="trunc").dtype == dtype


def test_large_integers_stay_exact():
    big = 2**60 + 1
    assert kobai.div(kobai.tensor([-big]), 2, rounding_mode="trunc").item() == -(big // 2)
    assert (kobai.tensor([big]) // 1).item() == big
    assert (kobai.tensor([3]) ** 30).item() == 3**30


def test_powers():
    x = kobai.tensor([0.0, 2.0], dtype=kobai.float64, requires_grad=True)
    for exponent, gradient in ((2, [0, 4]), (3, [0, 12]), (1, [1, 1]), (0, [0, 0]), (1.0, [1, 1])):
        x.grad = None
        (x**exponent).sum().backward()
        assert x.grad.tolist() == gradient, exponent
    n = kobai.tensor([0.0, 1.0, 2.0], dtype=kobai.float64, requires_grad=True)
    (kobai.tensor([0.0, 2.0, 2.0], dtype=kobai.float64) ** n).sum().backward()
    np.testing.assert_allclose(n.grad.array, [0, 2 * math.log(2), 4 * math.log(2)])
    assert (kobai.tensor([True]) ** 2).dtype == kobai.int64
    assert kobai.float_power(kobai.tensor([2]), -1).tolist() == [0.5]
    assert kobai.float_power(2, kobai.ones(1)).dtype == kobai.float64
    with pytest.raises(RuntimeError, match="pow: integers cannot be raised to the negative power -1"):
        kobai.tensor([2]) ** -1


def test_a_number_to_the_power_of_a_tensor(backend):
    n = kobai.tensor([0.5, 2.0], dtype=kobai.float64, requires_grad=True)
    for base in (2, 0.5, True):
        n.grad = None
        (base**n).sum().backward()
        np.testing.assert_allclose(n.grad.tolist(), [base**k * math.log(base) for k in (0.5, 2)], rtol=1e-14)
    n.grad = None
    (0**n).sum().backward()
    assert n.grad.tolist() == [0, 0]


def test_equal_arguments_share_the_gradient_of_maximum():
    x = kobai.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = kobai.tensor([2.0, 2.0, 2.0], requires_grad=True)
    kobai.maximum(x, y).sum().backward()
    assert (x.grad.tolist(), y.grad.tolist()) == ([0, 0.5, 1], [1, 0.5, 0])
    x.grad = y.grad = None
    kobai.minimum(x, y).sum().backward()
    assert (x.grad.tolist(), y.grad.tolist()) == ([1, 0.5, 0], [0, 0.5, 1])


def test_maximum_passes_nan_on():
    nan = float("nan")
    assert kobai.maximum(kobai.tensor([nan, 1.0]), kobai.tensor([1.0, nan])).isnan().all()


def test_division_follows_ieee():
    x = kobai.tensor([1.0, -1.0, 0.0])
    assert (x / 0).tolist()[:2] == [math.inf, -math.inf]
    assert math.isnan((x / 0).tolist()[2])


def test_atan2_quadrants():
    y, x = kobai.tensor([1.0, 1.0, -1.0, -1.0]), kobai.tensor([1.0, -1.0, -1.0, 1.0])
    np.testing.assert_allclose(kobai.atan2(y, x).array * 4 / math.pi, [1, 3, -3, -1], rtol=1e-6)


def test_names():
    x = kobai.ones(2)
    assert kobai.subtract(x, 1).tolist() == x.subtract(1).tolist() == [0, 0]
    assert kobai.multiply(x, 2).tolist() == kobai.true_divide(x, 0.5).tolist() == kobai.divide(x, 0.5).tolist()


def test_errors():
    with pytest.raises(ValueError, match="div: expected rounding_mode None, 'floor' or 'trunc', got 'up'"):
        kobai.div(kobai.ones(2), 2, rounding_mode="up")
    with pytest.raises(TypeError, match="mul: expected a Tensor or a number, got str"):
        kobai.mul(kobai.ones(2), "2")
    with pytest.raises(TypeError, match="add: expected a Tensor or a number, got list and int"):
        kobai.add([1], 2)


EDGES = [0.0, -0.0, 1.0, -1.0, 3.0, -3.0, 0.1, -0.1, 1 / 3, 7.0, 1000.0, 1e8, -1e8, 1e30, math.inf, -math.inf, math.nan]


def _fmod(a: float, b: float) -> float:
    return math.fmod(a, b) if b and math.isfinite(a) and not math.isnan(b) else math.nan


def _floored(a: float, b: float) -> float:
    rest = _fmod(a, b)
    return rest + b if rest and (rest < 0) != (b < 0) else rest


def _quotient(a: float, b: float) -> float:
    if not math.isfinite(a) or math.isnan(b):
        return math.nan
    if b == 0:
        return math.copysign(math.inf, a * math.copysign(1, b)) if a else math.nan
    return float(Fraction(a) // Fraction(b)) if math.isfinite(b) else -float(a * b < 0)


@pytest.mark.parametrize("dtype", [kobai.float32, kobai.float64])
@pytest.mark.parametrize("name", ["fmod", "remainder", "floor_divide"])
def test_remainders_are_those_of_the_exact_quotient(name, dtype, backend):
    reference = {"fmod": _fmod, "remainder": _floored, "floor_divide": _quotient}[name]
    rng = np.random.default_rng(0)
    a = np.concatenate([np.repeat(EDGES, len(EDGES)), rng.normal(size=300) * 10 ** rng.uniform(-3, 6, 300)])
    b = np.concatenate([np.tile(EDGES, len(EDGES)), rng.normal(size=300) * 10 ** rng.uniform(-1, 2, 300)])
    a, b = a.astype(dtype), b.astype(dtype)
    found = getattr(kobai, name)(kobai.tensor(a), kobai.tensor(b)).cpu().numpy()
    expected = [reference(float(x), float(y)) for x, y in zip(a, b, strict=True)]
    if name == "floor_divide":  # the quotient itself has the digits of its dtype
        expected = [e if math.isinf(e) or math.isnan(e) or abs(e) < 2**22 else math.nan for e in expected]
        found = np.where(np.isnan(expected), np.nan, found)
        with np.errstate(all="ignore"):
            expected = np.where(np.isnan(found), np.nan, expected)
    np.testing.assert_array_equal(found, np.array(expected).astype(dtype))


def test_a_number_on_either_side():
    assert (7 % kobai.tensor([4.0, -4.0])).tolist() == [3, -1]
    assert (kobai.tensor([7.0, -7.0]) % -4).tolist() == [-1, -3]
    assert (-7 // kobai.tensor([2, -2])).tolist() == [-4, 3]


DIVISIONS = {
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "fmod": lambda a, b: kobai.fmod(a if isinstance(a, kobai.Tensor) else kobai.tensor(a), b),
    "trunc": lambda a, b: kobai.div(a, b, rounding_mode="trunc"),
    "floor": lambda a, b: kobai.div(a, b, rounding_mode="floor"),
}


@pytest.mark.parametrize("divide", DIVISIONS.values(), ids=DIVISIONS)
def test_integers_are_not_divided_by_zero(divide):
    five, zero = kobai.tensor([5, 6]), kobai.tensor([1, 0])
    for a, b in ((five, 0), (five, zero), (5, zero), (five.to(kobai.uint8), kobai.tensor(0))):
        with pytest.raises(RuntimeError, match="expected integers other than 0 to divide by"):
            divide(a, b)
    with pytest.raises(RuntimeError, match="floor_divide: "):
        five.floor_divide_(0)
    assert not divide(kobai.tensor([5.0]), 0).isfinite().any()


def test_a_captured_division_of_integers_looks_at_its_divisors_too():
    divisor = kobai.tensor([1, 2])
    step = kobai.capture(lambda x, d: x // d)
    x = kobai.tensor([5, 6])
    for _ in range(3):
        assert step(x, divisor).tolist() == [5, 3]
    with pytest.raises(RuntimeError, match="other than 0"):
        step(x, kobai.tensor([1, 0]))


def test_integers_to_negative_powers_lose_their_fraction():
    n = kobai.tensor([-1, -2, -3, 0, 3])
    for base in (-2, -1, 1, 2):
        expected = [int(float(base) ** e) for e in n.tolist()]
        assert (base**n).tolist() == expected
        assert (kobai.full((5,), base) ** n).tolist() == expected


@pytest.mark.parametrize("dtype", [kobai.uint8, kobai.int8, kobai.int16, kobai.int32, kobai.int64], ids=str)
@pytest.mark.parametrize("number", [-1, -300, 255, 70000, 2**40 + 3, -(2**63)])
def test_a_number_that_the_dtype_cannot_hold_wraps_as_its_arithmetic_does(dtype, number):
    x = kobai.tensor([1, 100], dtype=dtype)
    bits = 8 * np.dtype(dtype).itemsize

    def modulo(values):
        return np.array([v % 2**bits for v in values], np.uint64).astype(f"u{bits // 8}").view(dtype).tolist()

    for found, expected in (
        (x + number, [1 + number, 100 + number]),
        (number - x, [number - 1, number - 100]),
        (x * number, [number, 100 * number]),
        (x.clone().add_(number), [1 + number, 100 + number]),
        (kobai.add(x, x, alpha=number), [1 + number, 100 + 100 * number]),
        (kobai.where(x > 1, x, number), [number, 100]),
        (x & number, [1 & number, 100 & number]),
    ):
        assert found.dtype == dtype
        assert found.tolist() == modulo(expected)
    assert (x < number).tolist() == [number > 1, number > 100]  # comparisons do not wrap
    assert (x == number).tolist() == [False, False]


FILLS = {
    "full": lambda n: kobai.full((2,), n, dtype=kobai.uint8),
    "fill_": lambda n: kobai.zeros(2, dtype=kobai.uint8).fill_(n),
    "masked_fill": lambda n: kobai.zeros(2, dtype=kobai.uint8).masked_fill(kobai.tensor(True), n),
    "index_fill": lambda n: kobai.zeros(2, dtype=kobai.uint8).index_fill(0, kobai.tensor([0, 1]), n),
    "scatter": lambda n: kobai.zeros(2, dtype=kobai.uint8).scatter(0, kobai.tensor([0, 1]), n),
    "clamp": lambda n: kobai.zeros(2, dtype=kobai.uint8).clamp(max=n) if n > 255 else kobai.full((2,), n, dtype=kobai.uint8),
    "tensor": lambda n: kobai.tensor([n, n], dtype=kobai.uint8),
}  # fmt: skip


@pytest.mark.parametrize("fill", FILLS.values(), ids=FILLS)
def test_a_number_to_be_kept_must_fit(fill):
    assert fill(-1).tolist() == [255, 255]
    with pytest.raises(RuntimeError, match=r"expected .* fits? into uint8"):
        fill(300)


def test_beyond_64_bits():
    with pytest.raises(OverflowError, match="mul: expected an integer of 64 bits"):
        kobai.tensor([1]) * 2**64
    with pytest.raises(RuntimeError, match="pow: expected an integer that fits into uint8, got 300"):
        kobai.tensor([1], dtype=kobai.uint8) ** 300


@pytest.mark.parametrize("captured", [False, True], ids=["eager", "captured"])
@pytest.mark.parametrize("shapes", [((4, 3), (4, 3)), ((4, 1, 3), (2, 1)), ((), (2, 3)), ((0, 3), (3,))], ids=str)
@pytest.mark.parametrize("mode", ["floor", "trunc"])
def test_a_rounded_quotient_has_the_gradient_zero(mode, shapes, captured, backend):
    a, b = (kobai.ones(*shape, requires_grad=True) for shape in shapes)

    def step():
        y = kobai.div(7 * a, b, rounding_mode=mode) + a
        grads = kobai.autograd.grad(y.sum(), [a, b])
        return y, *grads

    run = kobai.capture(step) if captured else step
    for _ in range(3):
        y, da, db = run()
        assert (y == 8).all()
        assert da.shape == a.shape
        assert (da == max(1, y.numel() // max(1, a.numel()))).all()  # that of + a
        assert db.shape == b.shape
        assert (db == 0).all()


def test_every_form_of_a_rounded_quotient_requires_a_gradient(backend):
    x = kobai.tensor([7.5, -7.5], requires_grad=True)
    forms = [
        lambda: x // 2,
        lambda: 2 // x,
        lambda: kobai.floor_divide(x, x),
        lambda: kobai.div(x, 2, rounding_mode="trunc"),
        lambda: (1 * x).div_(2, rounding_mode="floor"),
        lambda: (1 * x).floor_divide_(2),
    ]
    for form in forms:
        (dx,) = kobai.autograd.grad(form().sum(), [x])
        assert dx.tolist() == [0, 0]


@pytest.mark.parametrize("p", [-16, -3, -2, -1, -0.5, 0.5, 1.5, 2.5, 3, 4, 16, 17, -17, 101, 2.2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_powers_of_numbers_of_either_sign_and_their_slopes(p, dtype):
    x = np.random.default_rng(0).uniform(0.3, 1.2, (40, 30)).astype(dtype)
    x[::2] *= -1
    x[0, :5] = 0, -0.0, np.inf, np.nan, 1
    eps = np.finfo(dtype).eps
    with np.errstate(all="ignore"):
        right, slope = x.astype(np.longdouble) ** p, p * x.astype(np.longdouble) ** (p - 1)
    if p in (-0.5, 0.5):
        right[0, 1] = np.copysign(right[0, 1], -1)  # of −0 a root keeps the sign
        slope[0, 1] = -np.inf
    for view in (np.asarray, np.transpose):
        t = kobai.tensor(x, requires_grad=True)
        y = (t if view is np.asarray else t.T) ** p
        y.backward(kobai.ones_like(y))
        np.testing.assert_allclose(view(y.detach().array), right, rtol=(abs(p) + 4) * eps, atol=np.finfo(dtype).tiny)
        np.testing.assert_allclose(t.grad.array, slope, rtol=(abs(p) + 6) * eps, atol=abs(p) * np.finfo(dtype).tiny)


def test_powers_of_negative_numbers_by_a_tensor():
    x = np.concatenate([-np.random.default_rng(0).uniform(0.3, 1.2, 300), [0, -0.0, np.inf, -np.inf, np.nan]])
    exponents = np.array([0, 1, 2, 3, -1, -2, 0.5, 1.5, np.inf, -np.inf, np.nan])
    with np.errstate(all="ignore"):
        right = x ** exponents[:, None]
        of_a_number = (-2.0) ** np.tile(exponents, 40)
    np.testing.assert_allclose((kobai.tensor(x) ** kobai.tensor(exponents)[:, None]).array, right, rtol=1e-14)
    np.testing.assert_allclose(((-2.0) ** kobai.tensor(np.tile(exponents, 40))).array, of_a_number)

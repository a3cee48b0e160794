"""Elementary functions of host arrays: accuracy over the whole range, its ends, and that nothing but x decides their bits."""

import numpy as np
import pytest

import kobai
from kobai.engine import dispatch
from kobai.formula import derivative, elementary
from kobai.formula.elementwise import Elementwise
from kobai.xp import xp_of

pytestmark = pytest.mark.skipif(not dispatch.numba_installed, reason="NumPy's functions are left as they are")

EVERYWHERE = (-np.inf, np.inf)
DOMAINS = {
    "exp": (-746, 711), "exp2": (-1076, 1025), "expm1": (-60, 711), "sinh": (-711, 711), "cosh": (-711, 711),
    "tanh": (-25, 25), "log": (0, np.inf), "log2": (0, np.inf), "log10": (0, np.inf), "log1p": (-1, np.inf),
    "arcsinh": EVERYWHERE, "arccosh": (1, np.inf), "arctanh": (-1, 1), "arcsin": (-1, 1), "arccos": (-1, 1),
    "arctan": EVERYWHERE, "sin": (-1e6, 1e6), "cos": (-1e6, 1e6), "tan": (-1e6, 1e6),
}  # fmt: skip
WORST = {
    "exp": 1,
    "exp2": 1,
    "log": 1,
    "log2": 0.51,
    "log10": 0.51,
    "sin": 1,
    "cos": 1,
    "arcsin": 1,
    "arccos": 1,
    "tanh": 3,
}
"""Units in the last place of a float64; 2 of all others. In float32 half of one, but for those that are computed in it."""

OWN_32 = {"exp": 1, "log1p": 1, "tanh": 3}


def cases(names):
    """Few of them by default: each is compiled."""
    always = ("exp", "log", "sin")
    return [name if name in always else pytest.param(name, marks=pytest.mark.thorough) for name in names]


BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])
EDGES = np.array(
    [0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 5e-324, -5e-324, 1e-310, 2, -2, 3, 0.5, -0.5, 1e300, -1e300, 2**53]
)


def numbers(low, high, dtype, count=4000):
    """Of every size, down to denormal ones; near 0 and near 1."""
    rng, kind = np.random.default_rng(0), np.finfo(dtype)
    sizes = np.exp2(rng.uniform(np.log2(float(kind.smallest_subnormal)), np.log2(float(kind.max)), count))
    x = np.concatenate(
        [sizes, -sizes, rng.normal(size=count), 1 + rng.normal(size=count) / 100, rng.uniform(-30, 30, count)]
    )
    if np.isfinite([low, high]).all():
        x = np.concatenate([x, rng.uniform(low, high, count)])
    x = x.astype(dtype)
    return np.unique(x[(x > low) & (x < high) & np.isfinite(x)])


def units(y, exact):
    """How far y is from what is exact, in units in the last place of what is nearest to it."""
    rounded = exact.astype(y.dtype)
    counts = np.isfinite(rounded)
    assert (y[~counts] == rounded[~counts]).all()
    return float((abs(y[counts] - exact[counts]) / np.spacing(abs(rounded[counts]))).max())


def wider(dtype):
    if dtype is np.float64 and np.finfo(np.longdouble).eps > 2e-19:
        pytest.skip("no wider floats to compare with")
    return np.float64 if dtype is np.float32 else np.longdouble


@BOTH
@pytest.mark.parametrize("name", cases(DOMAINS))
@np.errstate(all="ignore")
def test_accuracy(name, dtype):
    x = numbers(*DOMAINS[name], dtype)
    y = kobai.tanh(kobai.tensor(x)).numpy() if name == "tanh" else getattr(elementary.namespace, name)(x)
    worst = WORST.get(name, 2) if dtype is np.float64 else OWN_32.get(name, 0.501)
    assert units(y, getattr(np, name)(x.astype(wider(dtype)))) <= worst


@BOTH
@pytest.mark.parametrize("name", cases(["power", "arctan2"]))
@np.errstate(all="ignore")
def test_accuracy_of_two(name, dtype):
    rng = np.random.default_rng(1)
    x, y = numbers(*EVERYWHERE, dtype, 3000), rng.normal(size=4000) * 20
    x = np.resize(rng.permutation(x), 20_000)
    x = abs(x) if name == "power" else x
    y = np.resize(np.concatenate([y, numbers(*EVERYWHERE, dtype, 2000)]), x.size).astype(dtype)
    wide = wider(dtype)
    assert units(getattr(elementary.namespace, name)(x, y), getattr(np, name)(x.astype(wide), y.astype(wide))) <= 2


@BOTH
@pytest.mark.parametrize("name", cases(["sin", "cos", "tan"]))
def test_large_angles_are_reduced_by_all_bits_of_pi(name, dtype):
    rng = np.random.default_rng(2)
    top = 127 if dtype is np.float32 else 1023
    x = (np.exp2(rng.uniform(28, top, 500)) * rng.choice([-1, 1], 500)).astype(dtype)
    x[:2] = 2.0**30, -(2.0**100)
    if dtype is np.float64:
        x[2] = 6381956970095103 * 2.0**797  # the nearest to a multiple of π/2 that there is
    y = getattr(elementary.namespace, name)(x)
    np.testing.assert_allclose(y, getattr(np, name)(x.astype(np.float64)), rtol=1e-6 if dtype is np.float32 else 4e-15)
    mixed = np.where(np.arange(x.size) % 2, x, dtype(0.5))  # a large one changes none of the others
    np.testing.assert_array_equal(getattr(elementary.namespace, name)(mixed)[1::2], y[1::2])
    assert (getattr(elementary.namespace, name)(mixed)[::2] == getattr(elementary.namespace, name)(mixed[:1])).all()


@BOTH
@pytest.mark.parametrize("name", cases(elementary.FUNCTIONS))
@np.errstate(all="ignore")
def test_ends_are_numpys(name, dtype):
    plain, args = getattr(np, name), (EDGES.astype(dtype),)
    if plain.nin == 2:
        args = tuple(np.meshgrid(args[0], args[0]))
    y, expected = getattr(elementary.namespace, name)(*args), plain(*args)
    np.testing.assert_allclose(y, expected, rtol=4 * np.finfo(dtype).eps)
    number = ~np.isnan(y)
    np.testing.assert_array_equal(np.signbit(y)[number], np.signbit(expected)[number])


@BOTH
@pytest.mark.parametrize("name", cases(elementary.FUNCTIONS))
def test_layout_place_and_company_change_no_bit(name, dtype):
    function, rng = getattr(elementary.namespace, name), np.random.default_rng(3)
    args = [rng.uniform(1.1, 3, (37, 41)).astype(dtype) for _ in range(getattr(np, name).nin)]
    args = args if name not in ("arcsin", "arccos", "arctanh") else [a / 4 for a in args]
    y = function(*args)
    assert y.dtype == dtype
    np.testing.assert_array_equal(function(*[np.asfortranarray(a) for a in args]), y)
    np.testing.assert_array_equal(function(*[a[::-2, 3::5] for a in args]), y[::-2, 3::5])
    np.testing.assert_array_equal(function(*[a[5, 7] for a in args]), y[5, 7])
    np.testing.assert_array_equal(function(*[a[:0] for a in args]), y[:0])
    for out in (np.empty_like(y), np.empty((41, 37), dtype).T, args[0].copy()):
        first = out if out.flags.c_contiguous and (out == args[0]).all() else args[0]
        assert function(first, *args[1:], out=out) is out
        np.testing.assert_array_equal(out, y)
    if len(args) == 2:
        column, row = args[0][:, :1], args[1][0]
        whole = function(*[np.array(a) for a in np.broadcast_arrays(column, row)])
        np.testing.assert_array_equal(function(column, row), whole)
        np.testing.assert_array_equal(function(column, 1.5), function(column, np.full_like(column, 1.5)))
        np.testing.assert_array_equal(function(2, row), function(np.full_like(row, 2), row))


def test_threads_change_no_bit():
    x = np.random.default_rng(4).uniform(0.1, 2, 1 << 18).astype("f4")
    for function in (elementary.namespace.sin, elementary.namespace.exp2):
        y = function(x)
        assert (np.concatenate([function(part) for part in np.array_split(x, 7)]) == y).all()


def test_other_types_are_numpys():
    namespace = xp_of(np.zeros(3))
    assert namespace is elementary.namespace
    for x in (np.arange(3), np.ones(3, "f2"), np.ones(3, "c8"), np.ones(3, ">f8")):
        y = namespace.exp(x)
        assert y.dtype == np.exp(x).dtype
        np.testing.assert_array_equal(y, np.exp(x))
    assert namespace.power(np.ones(3, "f4"), np.float64(2)).dtype == np.float64
    assert namespace.logaddexp.accumulate([1.0, 2.0]).tolist() == np.logaddexp.accumulate([1.0, 2.0]).tolist()


def test_without_numba_all_are_numpys(monkeypatch):
    x = np.random.default_rng(5).uniform(0.1, 0.9, 100).astype("f4")
    monkeypatch.setattr(dispatch, "numba_installed", False)
    for name, function in elementary.FUNCTIONS.items():
        args = (x,) * getattr(np, name).nin if name != "arccosh" else (x + 1,)
        assert function(*args).tobytes() == getattr(np, name)(*args).tobytes()


@pytest.mark.parametrize("name", cases(elementary.FUNCTIONS))
def test_a_captured_step_has_the_same_bits(name):
    function, rng = elementary.FUNCTIONS[name], np.random.default_rng(6)
    x = rng.uniform(0.1, 0.9, (5, 9)).astype("f4") + (name == "arccosh")
    plain = getattr(np, name)

    def step(t):
        args = (t._array.T,) * plain.nin
        return kobai.tensor(xp_of(t._array).asarray(getattr(xp_of(t._array), name)(*args)))

    captured, t = kobai.capture(step), kobai.tensor(x)
    for _ in range(3):
        assert captured(t).numpy().tobytes() == function(*(x.T,) * plain.nin).tobytes()


@pytest.mark.parametrize(
    "op",
    cases("exp2 expm1 log log2 log10 sinh cosh asinh acosh atanh asin acos atan pow atan2".split()),
)
def test_slopes_of_formulas(op):
    rng = np.random.default_rng(7)
    count = 1 + (op in ("pow", "atan2"))
    kernel = elementary._kernel(op, (True,) * count)
    low, high = (1.2, 2.0) if op == "acosh" else (0.1, 0.9)
    args = [rng.uniform(low, high, 50) for _ in range(count)]
    for k in range(count):
        slope = Elementwise.of(derivative.part(derivative.vjp(kernel.formula), k), f"slope_{op}_{k}")
        there, h = [list(args), list(args)], 1e-6
        there[0][k], there[1][k] = args[k] + h, args[k] - h
        measured = (kernel(*there[0]) - kernel(*there[1])) / (2 * h)
        np.testing.assert_allclose(slope(*args, np.ones(50)), measured, rtol=1e-6, atol=1e-8)

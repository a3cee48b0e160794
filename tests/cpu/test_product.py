"""Kobai's own matrix products: NumPy's numbers for any shape and layout, and nothing touched beside them."""

import mmap
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from product_cases import DTYPES, LAYOUTS, assert_close, both, grids, multiply, numbers

from kobai.cpu import blas, product
from kobai.ops._matmul import matmul

pytest.importorskip("numba")
pytestmark = pytest.mark.skipif(not blas.own(), reason="this processor is left to NumPy's BLAS")


# --- numbers ----------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("k", [1, 2, 15, 16, 17, 31, 33])
def test_products_of_every_small_shape(rng, dtype, k):
    for m in range(1, 20):
        for n in (*range(1, 36), 47, 48, 49, 64, 65):
            a, b = numbers(rng, m, k, dtype=dtype), numbers(rng, k, n, dtype=dtype)
            assert_close(multiply(a, b), a, b)


@both
@pytest.mark.parametrize(
    "shape", [(70, 33, 90), (257, 129, 511), (9, 384, 40), (9, 385, 40), (9, 1000, 40), (130, 770, 9)]
)
def test_products_of_larger_shapes(rng, dtype, shape):
    m, k, n = shape
    a, b = numbers(rng, m, k, dtype=dtype), numbers(rng, k, n, dtype=dtype)
    for grid in grids(m, n):
        assert_close(multiply(a, b, grid), a, b)


@both
def test_products_wider_than_a_block(rng, dtype):
    n = product.BLOCK // product.INNER // np.dtype(dtype).itemsize + 70
    a, b = numbers(rng, 20, 400, dtype=dtype), numbers(rng, 400, n, dtype=dtype)
    for left in (a, np.asfortranarray(a)):
        assert_close(multiply(left, b), a, b)


@both
@pytest.mark.parametrize("m", range(1, 35))
def test_factors_that_lie_column_by_column_for_many_columns(rng, dtype, m):
    a, b = numbers(rng, m, 50, dtype=dtype), numbers(rng, 50, product.OFTEN + 3, dtype=dtype)
    expected = multiply(a, b).tobytes()
    for layout in ("columns", "columns of a wider one", "columns backwards"):
        assert multiply(LAYOUTS[layout](a), b).tobytes() == expected


@pytest.mark.parametrize("shapes", [((0, 3), (3, 2)), ((3, 0), (0, 2)), ((3, 4), (4, 0)), ((0, 0), (0, 0))], ids=str)
def test_empty_products(every, shapes):
    a, b = (np.ones(shape, np.float32) for shape in shapes)
    y = matmul(a, b)
    assert y.dtype == np.float32
    assert y.shape == (shapes[0][0], shapes[1][1])
    assert not y.any()


@both
def test_one_element(every, dtype):
    a, b = np.array([[3]], dtype), np.array([[5]], dtype)
    assert matmul(a, b).tolist() == [[15]]
    assert multiply(a, b).tolist() == [[15]]


@both
@pytest.mark.parametrize(
    "shapes", [((1, 700), (700, 50)), ((50, 700), (700, 1)), ((1, 700), (700, 1)), ((50, 1), (1, 50))]
)
def test_vectors_as_matrices(every, rng, dtype, shapes):
    a, b = (numbers(rng, *shape, dtype=dtype) for shape in shapes)
    assert_close(matmul(a, b), a, b)


@both
def test_factors_that_repeat_themselves(every, rng, dtype):
    a, b = numbers(rng, 1, 40, dtype=dtype), numbers(rng, 40, 1, dtype=dtype)
    rows, columns = np.broadcast_to(a, (30, 40)), np.broadcast_to(b, (40, 50))
    assert_close(matmul(rows, columns), rows, columns)
    same = np.broadcast_to(np.array(3, dtype), (40, 50))
    assert_close(matmul(rows, same), rows, same)
    windows = np.lib.stride_tricks.sliding_window_view(a[0], 20)
    assert_close(matmul(windows, windows.T.copy()), windows, windows.T)


# --- where the result lies ------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("k", [20, 500])
def test_nothing_beside_the_result_is_written(rng, dtype, k):
    for m in (1, 5, 9, 16, 17):
        for n in (1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100):
            a, b = numbers(rng, m, k, dtype=dtype), numbers(rng, k, n, dtype=dtype)
            wide = np.full((2 * m + 3, n + 7), 7, dtype)
            for rows in (slice(2, m + 2), slice(1, 2 * m + 1, 2)):
                wide.fill(7)
                out = wide[rows, 3 : n + 3]
                multiply(a, b, out=out)
                assert_close(out, a, b)
                out.fill(7)
                assert (wide == 7).all()


@both
def test_results_that_lie_otherwise_are_numpys(every, rng, dtype):
    a, b = numbers(rng, 30, 20, dtype=dtype), numbers(rng, 20, 40, dtype=dtype)
    wide = np.zeros((60, 80), dtype)
    shifted = np.frombuffer(bytearray(30 * 40 * wide.itemsize + 1), np.uint8)[1:].view(dtype).reshape(30, 40)
    for out in (
        np.zeros((30, 40), dtype, order="F"),
        wide[::2, ::2],
        wide[:30, :40][::-1],
        wide[:30, :40][:, ::-1],
        shifted,
    ):
        assert not product.Product().describe(a, b, out, (1, 2))
        assert matmul(a, b, out=out) is out
        assert_close(out, a, b)


@both
def test_results_that_lie_on_a_factor_are_none_of_ours(rng, dtype):
    factors = numbers(rng, 20, 10, dtype=dtype)
    for start in range(11):
        assert not product.Product().describe(factors[:10], factors[10:], factors[start : start + 10], (1, 2))
        assert not product.Product().describe(factors[10:], factors[:10], factors[start : start + 10], (1, 2))
    assert not product.Product().describe(factors[::-2], factors[:10], factors[10:], (1, 2))


@both
def test_a_result_right_beside_a_factor_is_ours(rng, dtype):
    both = numbers(rng, 120, 40, dtype=dtype)
    before = both.copy()
    multiply(both[:40], both[80:], (2, 1), out=both[40:80])
    assert_close(both[40:80], before[:40], before[80:])
    assert (both[:40] == before[:40]).all()
    assert (both[80:] == before[80:]).all()


def test_results_that_do_not_fit_are_refused_as_numpy_does(every, rng):
    a, b = numbers(rng, 30, 20), numbers(rng, 20, 40)
    locked = np.zeros((30, 40), np.float32)
    locked.flags.writeable = False
    for out in (np.zeros((30, 41), np.float32), np.zeros((30, 40), np.int32), locked):
        with pytest.raises((ValueError, TypeError)):
            np.matmul(a, b, out=out)
        with pytest.raises((ValueError, TypeError)):
            matmul(a, b, out=out)
    with pytest.raises(ValueError, match="mismatch"):
        matmul(a, a)
    assert_close(matmul(a, b, out=np.zeros((30, 40))).astype(np.float32), a, b)


@both
def test_factors_in_records_are_read_where_they_lie(every, rng, dtype):
    a, b = numbers(rng, 30, 20, dtype=dtype), numbers(rng, 20, 40, dtype=dtype)
    for fields in ([("x", dtype), ("tag", "u1")], [("tag", "u1"), ("x", dtype)]):
        left, right = np.zeros(a.shape, fields), np.zeros(b.shape, fields)
        left["x"], right["x"] = a, b
        assert_close(matmul(left["x"], right["x"]), a, b)


def read_up_to_the_edge():
    """Products of factors that end where memory ends."""
    import ctypes

    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 64 * page)
    first = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(first + 63 * page), ctypes.c_size_t(page), 0) == 0
    whole = np.frombuffer(memory, np.uint8, 63 * page)
    rng = np.random.default_rng(0)

    def at_the_edge(x, order):
        y = whole[len(whole) - x.nbytes :].view(x.dtype).reshape(x.shape, order=order)
        y[:] = x
        return y

    for dtype in DTYPES:
        for m, k, n in ((1, 1, 1), (9, 17, 33), (13, 40, 131), (16, 64, 160), (7, 400, 5)):
            a, b = numbers(rng, m, k, dtype=dtype), numbers(rng, k, n, dtype=dtype)
            for order in "CF":
                assert_close(multiply(at_the_edge(a, order), b), a, b)
                assert_close(multiply(a, at_the_edge(b, order)), a, b)
            out = at_the_edge(np.zeros((m, n), dtype), "C")
            assert_close(multiply(a, b, out=out), a, b)
    print("read")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is fenced off by Linux' mprotect")
def test_nothing_beyond_a_factor_is_read():
    code = "import test_product; test_product.read_up_to_the_edge()"
    path = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
    env = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "read\n"), done.stderr


# --- infinity and NaN ---------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("layout", ["rows", "columns", "every second"])
@pytest.mark.parametrize("shape", [(13, 17, 21), (20, 400, 131)])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_infinite_factors_and_nan_are_what_ieee_says(rng, dtype, layout, shape):
    m, k, n = shape
    a, b = numbers(rng, m, k, dtype=dtype), numbers(rng, k, n, dtype=dtype)
    a[2, 3], a[4, 5], a[6, 7], a[8, k - 1] = np.nan, np.inf, -np.inf, np.inf
    b[5, 6], b[7, 8], b[9, 10], b[k - 1, n - 1], b[1, 0] = 0, 0, np.nan, -np.inf, np.inf
    with np.errstate(invalid="ignore"):
        y, expected = multiply(LAYOUTS[layout](a), LAYOUTS[layout](b), (2, 2)), np.einsum("ik,kj->ij", a, b)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
    np.testing.assert_array_equal(y[np.isinf(expected)], expected[np.isinf(expected)])
    np.testing.assert_array_equal(np.isinf(y), np.isinf(expected))
    finite = np.isfinite(expected)
    np.testing.assert_allclose(y[finite], expected[finite], rtol=1e-3, atol=1e-3 if dtype == "float32" else 1e-11)


@both
@pytest.mark.parametrize("n", [1, 5, 9, 16, 17, 31, 33, 47, 150])
def test_nan_stays_in_its_row_and_its_column(rng, dtype, n):
    for m in (1, 7, 8, 9, 20):
        a, b = numbers(rng, m, 30, dtype=dtype), numbers(rng, 30, n, dtype=dtype)
        for i in (0, m // 2, m - 1):
            for left in (np.array(a, order="C"), np.array(a, order="F")):
                left[i, 7] = np.nan
                assert (np.isnan(multiply(left, b)).any(1) == (np.arange(m) == i)).all()
        for j in (0, n // 2, n - 1):
            for right in (np.array(b, order="C"), np.array(b, order="F")):
                right[7, j] = np.nan
                assert (np.isnan(multiply(a, right)).any(0) == (np.arange(n) == j)).all()


@both
def test_numbers_too_large_or_too_small(dtype):
    info = np.finfo(dtype)
    a = np.full((9, 2), info.max, dtype)
    assert np.isposinf(multiply(a, np.ones((2, 20), dtype))).all()
    assert np.isposinf(multiply(a, np.tile(np.array([[2], [-2]], dtype), 20))).all()
    assert (multiply(a, np.tile(np.array([[1], [-1]], dtype), 20)) == 0).all()
    tiny = np.full((9, 1), info.smallest_subnormal, dtype)
    assert (multiply(tiny, np.ones((1, 20), dtype)) == info.smallest_subnormal).all()

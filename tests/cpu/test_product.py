"""Kobai's own matrix products: NumPy's numbers for any shape and layout, and one set of bits, however they are parted."""

import mmap
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from kobai.cpu import blas, product, team, threads
from kobai.ops import _matmul
from kobai.ops._matmul import matmul

pytest.importorskip("numba")
pytestmark = pytest.mark.skipif(not blas.own(), reason="this processor is left to NumPy's BLAS")

DTYPES = ["float32", "float64"]
both = pytest.mark.parametrize("dtype", DTYPES)
LAYOUTS = {
    "rows": lambda x: np.array(x, order="C"),
    "columns": lambda x: np.array(x, order="F"),
    "rows of a wider one": lambda x: np.pad(x, ((1, 2), (3, 4)), constant_values=np.nan)[1:-2, 3:-4],
    "columns of a wider one": lambda x: np.pad(x.T, ((1, 2), (3, 4)), constant_values=np.nan)[1:-2, 3:-4].T,
    "every second": lambda x: np.kron(x, np.array([[1, 0], [0, 0]], x.dtype))[::2, ::2],
    "backwards": lambda x: np.array(x[::-1, ::-1], order="C")[::-1, ::-1],
    "columns backwards": lambda x: np.array(x[:, ::-1], order="F")[:, ::-1],
}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def every(monkeypatch):
    """Every matrix product that is not empty is one of ours, and shared by three threads if it has parts for them."""
    for name in ("PART", "SMALL", "FEW", "WORTHWHILE"):
        monkeypatch.setattr(_matmul, name, 1)
    monkeypatch.setattr(threads, "pool", threads.Pool())
    threads.set_num_threads(3)
    yield
    threads.set_num_threads(None)


def numbers(rng, *shape, dtype="float32"):
    return rng.standard_normal(shape).astype(dtype)


def multiply(a, b, grid=(1, 1), out=None):
    """The product in these parts, by this thread; it leaves what is beside it as it was."""
    n = b.shape[1]
    wide = np.full((len(a) + 1, n + 32), 7, a.dtype) if out is None else None
    out = wide[:-1, :n] if out is None else out
    job = product.Product()
    assert job.describe(a, b, out, grid)
    team.alone(job.address, team.scratch())
    assert wide is None or ((wide[:-1, n:] == 7).all() and (wide[-1] == 7).all())
    return out


def assert_close(y, a, b):
    """No further from the product than its sums may be by rounding."""
    bound = (a.shape[1] + 2) * np.finfo(y.dtype).eps * (np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64))
    wrong = np.abs(y - a.astype(np.float64) @ b.astype(np.float64))
    assert y.shape == wrong.shape
    assert (wrong <= bound).all()


def grids(m, n):
    """All that a product is parted in for up to eight threads."""
    found = {product.grid_of(m, n, count, turned) for count in range(1, 9) for turned in (False, True)}
    return sorted(found | {(1, 2), (2, 1), (3, 2)})


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


# --- bits -------------------------------------------------------------------------------------------------------------


def nearest(x, dtype):
    """The number of this type that is nearest to a fraction, the even one of two."""
    guess = dtype(float(x))
    near = [guess, np.nextafter(guess, dtype(-np.inf)), np.nextafter(guess, dtype(np.inf))]
    return min(near, key=lambda y: (abs(Fraction(float(y)) - x), int(y.view(f"i{y.itemsize}")) & 1))


def as_promised(a, b):
    """Sums over p in order, each product fused into them; those of blocks are added in order."""
    (m, k), n, dtype = a.shape, b.shape[1], a.dtype.type
    out = np.empty((m, n), dtype)
    for i in range(m):
        for j in range(n):
            for first in range(0, k, product.INNER):
                total = dtype(0)
                for p in range(first, min(first + product.INNER, k)):
                    exact = Fraction(float(a[i, p])) * Fraction(float(b[p, j])) + Fraction(float(total))
                    total = nearest(exact, dtype)
                out[i, j] = out[i, j] + total if first else total
    return out


def test_nearest_rounds_once():
    between = 1 + Fraction(1, 2**24)
    assert nearest(between, np.float32) == 1
    assert nearest(between + Fraction(1, 2**80), np.float32) == np.float32(1 + 2**-23)
    assert nearest(Fraction(1, 3), np.float64) == 1 / 3


@both
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (3, 9, 5), (9, 4, 18), (10, 3, 35), (2, 384, 2), (1, 385, 3), (2, 800, 2)]
)
def test_products_have_the_bits_that_are_promised(rng, dtype, shape):
    m, k, n = shape
    a, b = numbers(rng, m, k, dtype=dtype), numbers(rng, k, n, dtype=dtype)
    assert multiply(a, b).tobytes() == as_promised(a, b).tobytes()


@both
@pytest.mark.parametrize("shape", [(5, 7, 9), (33, 70, 45), (40, 400, 150), (130, 30, 300)])
def test_layouts_have_the_same_bits(rng, dtype, shape):
    m, k, n = shape
    a, b = numbers(rng, m, k, dtype=dtype), numbers(rng, k, n, dtype=dtype)
    expected = multiply(a, b).tobytes()
    for left in LAYOUTS.values():
        assert multiply(left(a), LAYOUTS["every second"](b)).tobytes() == expected
    for right in LAYOUTS.values():
        assert multiply(LAYOUTS["rows of a wider one"](a), right(b)).tobytes() == expected


@both
@pytest.mark.parametrize("shape", [(5, 7, 9), (33, 70, 45), (40, 400, 150), (300, 30, 130)])
def test_grids_have_the_same_bits(rng, dtype, shape):
    m, k, n = shape
    a, b = numbers(rng, m, k, dtype=dtype), numbers(rng, k, n, dtype=dtype)
    expected = multiply(a, b).tobytes()
    for left in (a, np.asfortranarray(a)):
        for grid in grids(m, n):
            assert multiply(left, b, grid).tobytes() == expected


@both
def test_a_row_or_a_column_by_itself_has_the_same_bits(rng, dtype):
    a, b = numbers(rng, 21, 500, dtype=dtype), numbers(rng, 500, 70, dtype=dtype)
    whole = multiply(a, b)
    for i in (0, 8, 20):
        assert multiply(a[i : i + 1], b).tobytes() == whole[i].tobytes()
    for j in (0, 15, 16, 69):
        assert multiply(a, b[:, j : j + 1].copy()).tobytes() == whole[:, j].tobytes()


@both
@pytest.mark.parametrize("shape", [(40, 400, 150), (90, 40, 70), (8, 100, 600)])
def test_any_number_of_threads_gives_the_same_bits(every, rng, dtype, shape):
    m, k, n = shape
    a, b = numbers(rng, m, k, dtype=dtype), numbers(rng, k, n, dtype=dtype)
    expected = multiply(a, b).tobytes()
    for count in (1, 2, 3):
        threads.set_num_threads(count)
        for _ in range(10):
            assert matmul(a, b).tobytes() == expected
        job = _matmul.split.bind(a, b, out := np.empty((m, n), dtype))
        job()
        assert out.tobytes() == expected


# --- parts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("edge", [1, 16])
@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 40, 100, 1000, 4097])
def test_ranges_make_up_the_whole(n, parts, edge):
    found = product.ranges(n, parts, edge)
    assert len(found) == parts
    assert [0, *(stop for _, stop in found)] == [*(start for start, _ in found), n]
    assert all(start % edge == 0 for start, _ in found)
    sizes = [stop - start for start, stop in found]
    assert max(sizes) - min(sizes) <= 2 * edge
    assert [product.cut(n, i, parts, edge) for i in range(parts)] == [start for start, _ in found]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("count", range(1, 9))
def test_grids_cover_the_result_with_parts_that_have_something_to_do(count, turned):
    for m in (1, 2, 8, 15, 64, 100, 333, 2000):
        for n in (1, 15, 16, 17, 31, 32, 64, 200, 2000):
            rows, columns = product.grid_of(m, n, count, turned)
            assert 1 <= rows * columns <= count
            covered = np.zeros((m, n), bool)
            for top, bottom in product.ranges(m, rows, 1):
                for left, right in product.ranges(n, columns, product.EDGE):
                    assert top < bottom
                    assert left < right
                    assert not covered[top:bottom, left:right].any()
                    covered[top:bottom, left:right] = True
            assert covered.all()


def test_grids_are_as_fine_as_is_of_use():
    assert product.grid_of(1000, 1000, 1, False) == (1, 1)
    assert product.grid_of(8, 4000, 4, False) == (1, 4)  # rows would each copy all columns
    assert product.grid_of(4000, 16, 4, False) == (4, 1)  # nothing less than a vector to be had
    assert product.grid_of(4000, 16, 4, True) == (4, 1)
    assert product.grid_of(1, 16, 8, False) == (1, 1)
    for count in range(1, 9):
        rows, columns = product.grid_of(2000, 2000, count, False)
        assert rows * columns == count


def test_rows_are_halved_rather_than_columns_that_do_not_halve_evenly():
    assert product.grid_of(16, 64, 2, False) == (1, 2)
    assert product.grid_of(16, 48, 2, False) == (2, 1)
    assert product.grid_of(16, 48, 2, True) == (1, 2)  # each half would copy all columns, which lie apart


def test_the_memory_of_a_thread_is_enough_for_any_processor(monkeypatch):
    for machine in ((16, 8), (32, 6), (64, 8)):
        monkeypatch.setattr(product, "machine", lambda machine=machine: machine)
        assert product.scratch_bytes() <= team.SCRATCH


# --- batches -------------------------------------------------------------------------------------------------


def factor(rng, lead, rows, columns, dtype):
    """A batch of matrices that lie in one of three ways."""
    way = rng.integers(3) if lead else rng.integers(2)
    if way == 0:
        return numbers(rng, *lead, columns, rows, dtype=dtype).swapaxes(-1, -2)
    if way == 1:
        return numbers(rng, *lead, rows, columns, dtype=dtype)
    return np.moveaxis(numbers(rng, *lead[:-1], rows, lead[-1], columns, dtype=dtype), -2, -3)


@pytest.mark.parametrize("seed", range(30))
def test_batches_of_any_shape(every, seed):
    rng = np.random.default_rng(seed)
    whole = tuple(rng.integers(1, 4, rng.integers(1, 4)).tolist())

    def lead():
        kept = whole[rng.integers(len(whole) + 1) :]
        return tuple(1 if rng.random() < 0.3 else n for n in kept)

    dtype = rng.choice(DTYPES)
    m, k, n = rng.integers(1, 60, 3).tolist()
    a, b = (factor(rng, shape, *size, dtype) for shape, size in ((whole, (m, k)), (lead(), (k, n))))
    if rng.random() < 0.5:
        a, b = b.swapaxes(-1, -2), a.swapaxes(-1, -2)
    y = matmul(a, b)
    expected = np.matmul(a.astype("d"), b.astype("d"))
    assert (y.shape, y.dtype) == (expected.shape, dtype)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4 if dtype == "float32" else 1e-12)


@both
def test_a_batch_has_the_bits_of_its_products(every, rng, dtype):
    a, b = numbers(rng, 5, 3, 20, 30, dtype=dtype).swapaxes(0, 1), numbers(rng, 3, 1, 30, 40, dtype=dtype)
    y = matmul(a, b)
    for i, j in np.ndindex(3, 5):
        assert y[i, j].tobytes() == matmul(a[i, j], b[i, 0]).tobytes()
    rows = numbers(rng, 4, 6, 30, dtype=dtype)
    assert matmul(rows, b[0, 0]).tobytes() == matmul(rows.reshape(24, 30), b[0, 0]).tobytes()


def test_dimensions_that_are_not_two_are_numpys(rng):
    a = numbers(rng, 2, 3, 4, 5, 5).transpose(2, 1, 0, 3, 4)
    assert product.batch_steps(a, a, np.empty((4, 3, 2, 5, 5), "f")) is None
    y = np.empty((4, 3, 2, 5, 5), "f")
    assert not product.Product().describe(a, a, y, (1, 1), 3)

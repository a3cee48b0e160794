"""Kobai's own matrix products: the same bits by any layout, grid, thread and batch."""

from fractions import Fraction

import numpy as np
import pytest
from product_cases import DTYPES, LAYOUTS, both, grids, multiply, numbers

from kobai.cpu import blas, product, team, threads
from kobai.ops import _matmul
from kobai.ops._matmul import matmul

pytest.importorskip("numba")
pytestmark = pytest.mark.skipif(not blas.own(), reason="this processor is left to NumPy's BLAS")

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
@pytest.mark.parametrize("k", [1, 5, 100, 500])
def test_rows_have_the_same_bits_whatever_stands_beside_them(rng, dtype, k):
    """Every number of rows, as a vector, in a batch, and into a result that lies anyhow."""
    a, b = numbers(rng, 40, k, dtype=dtype), numbers(rng, k, 37, dtype=dtype)
    whole = matmul(a, b)
    for m in range(1, 20):
        assert matmul(a[:m], b).tobytes() == whole[:m].tobytes()
        assert matmul(a, b[:, :m]).tobytes() == np.ascontiguousarray(whole[:, :m]).tobytes()
    assert matmul(a[3], b).tobytes() == whole[3].tobytes()
    assert matmul(a, b[:, 5]).tobytes() == np.ascontiguousarray(whole[:, 5]).tobytes()
    assert matmul(a.reshape(8, 5, k), b).tobytes() == whole.tobytes()
    batch = np.broadcast_to(a, (2, 3, 40, k)).transpose(1, 0, 2, 3)
    assert (matmul(batch, np.asfortranarray(b)) == whole).all()
    for out in (np.empty((37, 40), dtype).T, np.empty((80, 74), dtype)[::2, ::2]):
        assert (matmul(a, b, out) == whole).all()
        _matmul.split(a, b, out := np.zeros_like(out))
        _matmul.split.bind(a[::-1], b, out)()
        assert (out == whole[::-1]).all()


@both
def test_batches_that_lie_in_too_many_ways_have_the_same_bits(rng, dtype):
    a, b = (numbers(rng, 2 * 3 * 4 * 5, 6, dtype=dtype).reshape(2, 3, 4, 5, 6) for _ in range(2))
    left, right = (
        a[::-1, :, ::2].transpose(2, 0, 1, 3, 4)[:, :, :1],
        b.swapaxes(-1, -2)[:, ::-1, ::2].transpose(2, 0, 1, 3, 4),
    )
    y = matmul(left, right)
    for i in np.ndindex(y.shape[:-2]):
        assert y[i].tobytes() == matmul(left[i[0], i[1], 0].copy(), right[i].copy()).tobytes()


@both
@pytest.mark.parametrize("n", [1, 3, 16, 33, 1000])
def test_dots_have_the_same_bits_by_any_layout(rng, dtype, n):
    a, b = numbers(rng, n, 3, dtype=dtype), numbers(rng, n, 2, dtype=dtype)
    y = matmul(a[:, 1], b[::-1, 0])
    assert y.shape == ()
    assert y == matmul(a[:, 1].copy(), b[::-1, 0].copy())
    np.testing.assert_allclose(y, (a[:, 1].astype("f8") * b[::-1, 0]).sum(), rtol=1e-4, atol=1e-5)


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

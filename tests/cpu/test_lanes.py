"""Sums with the same bits on every processor: those of the definition, whatever vectors there are."""

import numpy as np
import pytest

pytest.importorskip("numba")

from kobai.cpu import lanes
from kobai.engine.dispatch import compiled

SIZES = [0, 1, 7, 8, 9, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 300]
both = pytest.mark.parametrize("dtype", [np.float32, np.float64])
every = pytest.mark.parametrize("n", SIZES)


@compiled
def _sums(x, y, out):
    out[0], out[1] = lanes_total(x), lanes_dot(x, y)


@compiled
def _pairs(g, w, x, bound, origin, out):
    out[0], out[1] = moments(x, origin)
    out[2], out[3] = slopes(g, w, x, origin)
    out[4], out[5] = rectified_slopes(g, w, bound, x, origin)


lanes_total, lanes_dot = lanes.total, lanes.dot
moments, slopes, rectified_slopes = lanes.moments, lanes.slopes, lanes.rectified_slopes


def fused(a, b, c):
    """a·b + c, rounded once: exact for the small whole numbers and halves of these tests, else by the wider type."""
    return (a.astype(np.longdouble) * b + c).astype(c.dtype)


def promised(terms, lane_count, add):
    """The sum of ``terms``, indexed by slices, as the module's text has it."""
    n, sums, i = terms, np.zeros((4, lane_count), add.dtype), 0
    if n <= lane_count:
        s = add.first(n)
    else:
        while n - i >= 4 * lane_count:
            for v in range(4):
                sums[v] = add(sums[v], slice(i + v * lane_count, i + (v + 1) * lane_count))
            i += 4 * lane_count
        while n - i >= lane_count:
            sums[0] = add(sums[0], slice(i, i + lane_count))
            i += lane_count
        sums[1, : n - i] = add(sums[1, : n - i], slice(i, n))
        s = (sums[0] + sums[1]) + (sums[2] + sums[3])
    while s.size > 1:
        s = s[: s.size // 2] + s[s.size // 2 :]
    return s[0]


class Adding:
    """s + x, or s + x·y with the product fused into the sum."""

    def __init__(self, x, y=None, lane_count=None):
        self.x, self.y, self.dtype = x, y, x.dtype
        self.lanes = lane_count or 64 // x.itemsize

    def __call__(self, s, part):
        return s + self.x[part] if self.y is None else fused(self.x[part], self.y[part], s)

    def first(self, n):
        s = np.zeros(self.lanes, self.dtype)
        s[:n] = self.x if self.y is None else self.x * self.y
        return s


@both
@every
def test_sums_are_those_of_the_definition(rng, dtype, n):
    x, y = rng.standard_normal((2, n + 1)).astype(dtype)[:, 1:]  # not at the beginning of a vector
    if dtype == np.float64:  # whose products a long double does not hold: but those of half the digits it does
        y = y.astype(np.float32).astype(dtype)
        x = x.astype(np.float32).astype(dtype)
    x, y = np.ascontiguousarray(x), np.ascontiguousarray(y)
    out = np.empty(2, dtype)
    _sums(x, y, out)
    count = 64 // x.itemsize
    assert out[0].tobytes() == promised(n, count, Adding(x)).tobytes()
    assert out[1].tobytes() == promised(n, count, Adding(x, y)).tobytes()


@both
@every
def test_pairs_of_sums_are_those_of_the_definition(rng, dtype, n):
    g, w, x = rng.standard_normal((3, n)).astype(np.float32).astype(dtype)
    origin, bound = dtype(0.5), dtype(0.25)
    out = np.empty(6)
    _pairs(g, w, x, bound, origin, out)
    d = x.astype(np.float64) - 0.5
    for at, u in ((0, d), (2, (g * w).astype(np.float64)), (4, np.where(w <= bound, 0, g).astype(np.float64))):
        assert out[at].tobytes() == promised(n, 8, Adding(u, lane_count=8)).tobytes()
        np.testing.assert_allclose(out[at + 1], np.sum(u * d), rtol=1e-12, atol=1e-12)


@both
def test_what_is_no_number_shows_and_what_lies_behind_an_array_does_not_count(dtype):
    out, ones = np.empty(2, dtype), np.ones(40, dtype)
    ones[21:] = np.nan
    _sums(ones[:21], ones[:21], out)
    assert out.tolist() == [21, 21]
    for i in (0, 7, 20):
        x = np.ones(21, dtype)
        x[i] = np.inf
        _sums(x, x, out)
        assert out.tolist() == [np.inf, np.inf]
        x[i] = np.nan
        _sums(x, x, out)
        assert np.isnan(out).all()

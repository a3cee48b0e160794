"""Moments: every engine against the definitions in float64; digits, vanished and exploded numbers, NaN and infinity."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from kobai.engine import dispatch
from kobai.lab.probe.moments import combined, measure, moments, width
from kobai.lab.probe.moments_layout import (
    HEAD,
    LARGEST,
    ORIGIN,
    SAMPLE,
    SATURATED,
    SQUARES,
    SUMS,
    TOTAL,
    WITHIN,
    Look,
    stride_of,
)
from kobai.xp import move, to_host

WHOLE = Look()
needs_numba = pytest.mark.skipif(not dispatch.numba_installed, reason="needs Numba")


@pytest.fixture(params=[pytest.param("numba", marks=needs_numba), "reference", "strict"])
def look_at(request, monkeypatch):
    """``look_at(x, look, minus)``: the moments by one engine, and that row of numbers."""
    monkeypatch.setattr(dispatch, "numba_installed", request.param == "numba")
    device = "strict" if request.param == "strict" else "cpu"

    def run(x, look=WHOLE, minus=None):
        x, minus = (None if a is None else move(np.asarray(a), device) for a in (x, minus))
        row = move(np.full(width(x, look.bins), np.nan), device)
        measure(x, row, look, minus)
        return moments(combined(to_host(row)[None], look.bins))[0]

    return run


def draw(shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def near(found, wanted, slack=1e-6):
    assert found == pytest.approx(float(wanted), rel=slack, abs=slack * 1e-3)


SHAPES = [(), (1,), (7,), (1, 5), (5, 1), (101, 100), (9, 1100), (6, 5, 7), (3, 4, 5, 6), (2, 2, 2, 3, 4)]


@pytest.mark.few(3)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_numbers_are_those_of_their_definitions(look_at, shape, dtype):
    x = (draw(shape, dtype) + 3).astype(dtype)
    exact = x.astype(np.float64)
    whole, table = look_at(x), look_at(x, Look(by_sample=True, flat=(2.5, 3.5)))
    for found in (whole, table):
        assert found.size == x.size
        assert found.samples == (shape[0] if shape else 1)
        near(found.mean, exact.mean())
        near(found.std, exact.std())
        near(found.norm, np.linalg.norm(exact))
        near(found.rms, math.sqrt((exact**2).mean()))
        assert found.finite
        assert found.edges is found.counts is None
    assert math.isnan(whole.largest)
    assert math.isnan(whole.signal)
    assert math.isnan(whole.saturated)
    assert math.isnan(table.dead)
    near(table.largest, abs(exact).max())
    near(table.saturated, ((exact <= 2.5) | (exact >= 3.5)).mean())
    if shape:
        near(table.signal, math.sqrt(exact.var(0).mean()))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_of_a_difference(look_at, dtype):
    x, y = draw((30, 70), dtype), draw((30, 70), dtype, 1)
    found, exact = look_at(x, Look(bins=6), y), (x - y if dtype != "float16" else x.astype("f") - y).astype(np.float64)
    assert abs(found.mean - exact.mean()) < 1e-6 * exact.std()
    near(found.std, exact.std())
    near(found.norm, np.linalg.norm(exact))
    sample = exact.reshape(-1)[:: stride_of(exact.size)][:SAMPLE]
    assert found.counts == tuple(np.histogram(sample, 6)[0])


def test_elements_that_do_not_stand_in_a_row(look_at):
    x = draw((12, 10))
    y = draw((20, 12), seed=1)[::2]
    found, wanted = (
        look_at(x.T, Look(by_sample=True), y),
        look_at(np.array(x.T, order="C"), Look(by_sample=True), y.copy()),
    )
    assert found == wanted or repr(found) == repr(wanted)  # NaN is not equal to itself


@pytest.mark.parametrize("shape", [(8, 6), (4, 3, 6), (4, 6, 3, 3), (9,)], ids=str)
def test_dead_units_are_nowhere_above_0(look_at, shape):
    x = np.maximum(draw(shape), 0) + np.float32(0.01)
    look = Look(by_sample=True, rectifier=True)
    assert look_at(x, look).dead == 0
    if x.ndim == 1:
        assert look_at(0 * x, look).dead == 1
        return
    units = np.moveaxis(x, 1, -1) if x.ndim == 4 else x  # a view
    units[..., [1, 4]] = 0
    near(look_at(x, look).dead, 2 / 6)
    units[(-1,) * (x.ndim - 1)] = 1  # alive in one place, the last, is enough
    assert look_at(x, look).dead == 0
    units[..., 0] = 0
    units[(0,) * x.ndim] = np.nan
    assert look_at(x, look).dead == 0


def test_no_digits_are_lost_to_a_mean(look_at):
    """Sigmoids that all say 0.5 still differ by the last digits; by the mean of squares they would differ by 1e-4."""
    x = np.float32(0.5) + np.float32(6e-8) * np.random.default_rng(0).integers(-3, 4, (100, 50)).astype(np.float32)
    found, exact = look_at(x, Look(by_sample=True)), x.astype(np.float64)
    near(found.std, exact.std(), 1e-3)
    near(found.signal, math.sqrt(exact.var(0).mean()), 1e-3)
    far = 1e6 + 1e-3 * draw((100, 50), "float64")
    for by_sample in (False, True):
        near(look_at(far, Look(by_sample=by_sample)).std, far.std(), 1e-4)
    assert look_at(np.full((100, 50), 0.1, np.float32), Look(by_sample=True)).std == 0
    assert look_at(np.full(5000, 0.1, np.float32)).std == 0


@pytest.mark.parametrize("by_sample", [False, True])
def test_the_first_element_may_be_far_from_the_others(look_at, by_sample):
    x = draw((500, 20))
    x[0] = 1e4
    found, exact = look_at(x, Look(by_sample=by_sample)), x.astype(np.float64)
    near(found.std, exact.std())
    assert abs(found.mean - exact.mean()) < 1e-5 * exact.std()


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_squares_neither_vanish_nor_overflow(look_at, scale):
    x = draw((40, 30)) * np.float32(scale)
    found = look_at(x, Look(by_sample=True))
    near(found.norm / scale, np.linalg.norm(x.astype(np.float64)) / scale)
    near(found.signal / scale, math.sqrt(x.astype(np.float64).var(0).mean()) / scale)


@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize("by_sample", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_shows(look_at, value, by_sample, place):
    for shape in ((6, 3), (7,), (1, 1)):
        x = draw(shape)
        x.reshape(-1)[place] = value
        found = look_at(x, Look(by_sample=by_sample, flat=(-9.0, 9.0), rectifier=True, bins=4))
        assert not found.finite
        assert math.isnan(found.std)
        np.testing.assert_equal(found.mean, float(value))
        if by_sample:
            np.testing.assert_equal(found.largest, abs(float(value)))
        near(found.saturated, np.isinf(value) / x.size)
        if x.size > 1:
            sane = x[np.isfinite(x)].astype("d")
            assert found.counts == tuple(np.histogram(sane, 4)[0])
            np.testing.assert_allclose(found.edges, np.histogram(sane, 4)[1], rtol=1e-12)
        else:
            assert found.edges is found.counts is None


def test_infinities_of_both_signs(look_at):
    x = np.array([[1, np.inf, 2], [-np.inf, 3, 4]], np.float32)
    found = look_at(x, Look(by_sample=True, bins=3))
    assert math.isnan(found.mean)
    assert found.norm == found.largest == math.inf
    assert found.counts == (1, 1, 2)


def test_histograms_are_those_of_numpy(look_at):
    for x in (draw(1000), draw((7, 11), "float64"), np.arange(12, dtype=np.float32), np.full(9, 2.5, np.float32)):
        counts, edges = np.histogram(x.astype("d"), 5)
        found = look_at(x, Look(bins=5))
        assert found.counts == tuple(counts)
        np.testing.assert_allclose(found.edges, edges, rtol=1e-12)
        counts, edges = np.histogram(x.clip(-1, 2).astype("d"), 7, (-1, 2))  # the outer bins count what is beyond
        found = look_at(x, Look(bins=7, range=(-1.0, 2.0)))
        assert found.counts == tuple(counts)
        np.testing.assert_allclose(found.edges, edges, rtol=1e-12)


def test_a_histogram_of_many_elements_counts_some_of_all_units(look_at):
    x = np.tile(np.arange(256, dtype=np.float32), 100)
    found = look_at(x.reshape(100, 256), Look(bins=256))
    assert sum(found.counts) == SAMPLE
    assert min(found.counts) >= 1


def test_parts_are_put_together():
    """What a GPU's blocks leave behind: each the sums over some of the columns, from one origin."""
    x = draw((30, 12), "float64") + 5
    row = np.full(HEAD + 3 * SUMS + 2, np.nan)
    row[:HEAD] = x.size, 30, 12, x[0, 0], 1.0, 9.0
    row[-2:] = 3, 4
    for part, own in enumerate(np.split(np.arange(12), [5, 5])):  # the second has nothing to do
        sums = row[HEAD + part * SUMS :][:SUMS]
        off = x[:, own].mean(0) - row[ORIGIN]
        sums[TOTAL], sums[SQUARES] = off.sum(), (off**2).sum()
        sums[WITHIN], sums[LARGEST] = x[:, own].var(0).sum() * 30, abs(x[:, own]).max(initial=0)
        sums[SATURATED] = (x[:, own] > 6).sum() / x.size
    found = moments(combined(row[None], 2))[0]
    near(found.mean, x.mean())
    near(found.std, x.std())
    near(found.norm, np.linalg.norm(x))
    near(found.signal, math.sqrt(x.var(0).mean()))
    near(found.largest, x.max())
    near(found.saturated, (x > 6).mean())
    assert found.edges == (1.0, 5.0, 9.0)
    assert found.counts == (3, 4)
    assert moments(combined(np.full_like(row, np.nan)[None], 2)) == [None]


def test_what_cannot_be_measured():
    for x, error in ((np.zeros((0, 3)), ValueError), (np.zeros(3, int), TypeError)):
        with pytest.raises(error, match="expected floats, at least one"):
            measure(x, np.zeros(width(x, 0)), Look())


@needs_numba
def test_one_look_takes_no_longer_than_a_few_sums():
    """Measured: 0.6 times as long as ``x.sum()``, a table twice. Another pass in float64 through NumPy would show."""
    x = draw((1000, 200))
    row = np.zeros(width(x, 0))

    def best(function):
        function()
        times = []
        for _ in range(40):
            begun = time.perf_counter()
            function()
            times.append(time.perf_counter() - begun)
        return min(times)

    one = best(x.sum)
    assert best(lambda: measure(x, row, Look())) < 4 * one
    assert best(lambda: measure(x, row, Look(by_sample=True, flat=(-1.0, 1.0), rectifier=True))) < 10 * one

"""Random bits and dropout: the same bits on every engine, whole and in parts, eager and in a captured step."""

import numpy as np
import pytest

import kobai
from engines import launches, peak_bytes
from kobai.engine import dispatch
from kobai.nn import functional as F
from kobai.ops.dropout import kernel as kernels, philox

needs_numba = pytest.mark.skipif(not dispatch.numba_installed, reason="no Numba")


def on(monkeypatch, numba, function):
    monkeypatch.setattr(dispatch, "numba_installed", numba)
    result = function()
    monkeypatch.undo()
    return result


def seeded(seed=3):
    return kobai.Generator().manual_seed(seed)


@needs_numba
@pytest.mark.parametrize("first", [0, 1, 12345, 2**32 - 2, 2**63])
@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 1000, 100_001])
def test_both_host_engines_give_the_same_bits(monkeypatch, n, first):
    start = first, 0x0123456789ABCDEF, 0xFEDCBA9876543210
    bits = [on(monkeypatch, numba, lambda: philox.philox_bits(n, start, np.zeros(1))) for numba in (True, False)]
    assert bits[0].dtype == bits[1].dtype == np.uint32
    np.testing.assert_array_equal(*bits)


@needs_numba
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (7, 9), (100, 100), (700, 1000)])
@pytest.mark.parametrize("p", [1e-9, 0.3, 0.999])
def test_dropout_equals_the_reference_bit_for_bit(monkeypatch, dtype, shape, p):
    x = np.asarray(np.random.default_rng(0).normal(size=shape), dtype)
    dy = np.asarray(np.random.default_rng(1).normal(size=shape), dtype)

    def both_ways():
        y, keep = kernels.dropout(x, p, source := seeded())
        return y, keep, kernels.masked(dy, keep, 1 / (1 - p)), source.counter

    fast, slow = (on(monkeypatch, numba, both_ways) for numba in (True, False))
    for a, b in zip(fast, slow, strict=True):
        np.testing.assert_array_equal(a, b)
    assert fast[0].dtype == dtype


@needs_numba
def test_what_is_not_finite_stays_so_where_it_is_kept(monkeypatch):
    x = np.full((50, 50), np.nan, np.float32)
    x[::2] = np.inf
    fast, slow = (on(monkeypatch, numba, lambda: kernels.dropout(x, 0.5, seeded())[0]) for numba in (True, False))
    np.testing.assert_array_equal(fast, slow)


@pytest.mark.parametrize("numba", [pytest.param(True, marks=needs_numba), False])
@pytest.mark.parametrize("function", [F.dropout, F.dropout2d, F.alpha_dropout, F.rrelu])
def test_a_captured_step_draws_anew_at_every_replay(monkeypatch, numba, function):
    monkeypatch.setattr(dispatch, "numba_installed", numba)
    x = kobai.randn(4, 6, 5, 5, requires_grad=True)

    def step():
        x.grad = None
        y = function(x, training=True)
        y.sum().backward()
        return y.detach() * 1, x.grad

    def runs(step):
        kobai.manual_seed(11)
        state = []
        for _ in range(4):
            y, g = step()
            state.append((y.numpy().copy(), g.numpy().copy(), kobai.random.default_generator.counter))
        return state

    captured = kobai.capture(step)
    first, eager, again = runs(captured), runs(step), runs(captured)  # also after the seed has been set anew
    assert captured.programs == 1
    for a, b, c in zip(first, eager, again, strict=True):
        for u, v, w in zip(a, b, c, strict=True):
            np.testing.assert_array_equal(u, v)
            np.testing.assert_array_equal(w, v)
    assert (eager[0][0] != eager[1][0]).any()


@needs_numba
def test_compiled_loops_allocate_nothing(monkeypatch):
    x = np.ones((100, 300), np.float32)
    noted = launches(monkeypatch)
    _, keep = kernels.dropout(x, 0.5, seeded())
    kernels.masked(x, keep, 2.0)
    assert len(noted) == 2
    for kernel, args in noted:
        assert peak_bytes(lambda kernel=kernel, args=args: kernel(*args)) < 1000


def test_masking_in_parts(monkeypatch):
    monkeypatch.setattr(kernels, "LIGHT", 64)
    x = np.random.default_rng(0).normal(size=(30, 40)).astype(np.float32)
    np.testing.assert_array_equal(kernels.masked(x, x > 0, 2.0), 2 * x * (x > 0))

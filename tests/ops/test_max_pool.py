"""Max-pooling: the compiled loops against the passes that are their reference, bit for bit, at ties, NaN, edges and gaps."""

import numpy as np
import pytest

from kobai.engine import dispatch
from kobai.ops._windows import Windows, n_windows
from kobai.ops.pool import _max_pool, max_pool

pytestmark = pytest.mark.skipif(not dispatch.numba_installed, reason="no Numba")

CASES = [  # size, kernel, stride, pads, dilation
    ((4, 6), (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)),
    ((7, 9), (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)),
    ((7, 9), (2, 2), (2, 2), ((0, 1), (0, 1)), (1, 1)),
    ((4, 32), (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)),  # whole vectors
    ((5, 71), (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)),  # the last one begins within another
    ((7, 9), (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1)),
    ((8, 8), (3, 2), (1, 3), ((1, 1), (0, 1)), (2, 1)),
    ((5, 5), (5, 5), (5, 5), ((0, 0), (0, 0)), (1, 1)),
    ((11,), (3,), (2,), ((1, 1),), (2,)),
    ((6,), (2,), (2,), ((0, 0),), (1,)),
    ((90,), (2,), (2,), ((1, 1),), (1,)),
    ((99,), (3,), (2,), ((1, 1),), (1,)),
    ((88,), (4,), (2,), ((2, 2),), (1,)),
    ((99,), (5,), (2,), ((2, 2),), (1,)),
    ((101,), (3,), (3,), ((1, 0),), (1,)),
    ((80,), (90,), (2,), ((45, 45),), (1,)),
    ((5, 120), (3, 3), (1, 1), ((1, 1), (1, 1)), (2, 2)),
    ((6, 100), (2, 3), (2, 2), ((0, 0), (0, 1)), (1, 1)),
]


def windows(size, kernel, stride, pads, dilation):
    fields = zip(size, kernel, stride, pads, dilation, strict=True)
    return Windows(
        kernel, stride, dilation, pads, size, tuple(n_windows(n, k, s, a + b, d) for n, k, s, (a, b), d in fields)
    )


def reference(x, w, dy, monkeypatch):
    with monkeypatch.context() as m:
        m.setattr(dispatch, "numba_installed", False)
        import kobai

        leaf = kobai.from_numpy(x.copy()).requires_grad_()
        y = _max_pool(leaf, w=w)
        y.backward(kobai.from_numpy(dy))
        return y.detach().numpy(), leaf.grad.numpy()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_as_the_reference(case, dtype, monkeypatch):
    w, rng = windows(*case), np.random.default_rng(0)
    x = rng.integers(-3, 3, size=(2, 5, *case[0])).astype(dtype)  # with many ties
    dy = rng.normal(size=(2, 5, *w.out)).astype(dtype)
    wanted_y, wanted_dx = reference(x, w, dy, monkeypatch)
    y, taken = max_pool.forward(x, w)
    np.testing.assert_array_equal(y, wanted_y)
    np.testing.assert_allclose(max_pool.backward(dy, taken, w), wanted_dx, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nan_wins_and_minus_infinity_keeps_its_place(case, monkeypatch):
    w, rng = windows(*case), np.random.default_rng(1)
    x = rng.normal(size=(3, 2, *case[0])).astype(np.float32)
    x[rng.random(x.shape) < 0.2] = np.nan
    x[2] = -np.inf
    dy = np.ones((3, 2, *w.out), np.float32)
    y, taken = max_pool.forward(x, w)
    np.testing.assert_array_equal(y, reference(x, w, dy, monkeypatch)[0])
    assert max_pool.backward(dy, taken, w).sum() == dy.size  # no gradient is lost, to the padding or otherwise
    assert taken.max() < np.prod(w.kernel)


def test_threads_share_the_planes_and_no_memory_is_needed(monkeypatch):
    w = windows((32, 32), (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1))
    x = np.random.default_rng(0).normal(size=(16, 16, 32, 32)).astype(np.float32)
    wanted = max_pool.forward(x, w)
    monkeypatch.setattr(max_pool, "GRAIN", 1)
    for whole, parts in zip(wanted, max_pool.forward(x, w), strict=True):
        np.testing.assert_array_equal(whole, parts)


def test_what_the_loops_do_not_take_goes_the_other_way():
    w = windows((4, 4), (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1))
    x = np.ones((2, 3, 4, 4), np.float32)
    assert max_pool.has_twin(x, w)
    assert not max_pool.has_twin(x.astype(np.int64), w)
    assert not max_pool.has_twin(x.transpose(0, 1, 3, 2), w)
    assert not max_pool.has_twin(x[:0], w)
    assert not max_pool.has_twin(x, windows((4, 4), (17, 17), (1, 1), ((8, 8), (8, 8)), (1, 1)))

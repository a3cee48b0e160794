"""Convolution among threads: blocks of images are shared, and neither the bits nor the memory depend on who does which."""

import threading

import numpy as np
import pytest
from engines import host_engine, peak_bytes  # noqa: F401 - a fixture

import kobai
from kobai import nn
from kobai.kernels import blas, convolution, engine, threads
from kobai.kernels.windows import Windows

WINDOWS = {
    "by image": Windows((3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), (12, 12), (12, 12)),
    "by block": Windows((3, 3), (2, 2), (1, 1), ((1, 1), (1, 1)), (12, 12), (6, 6)),
}


@pytest.fixture
def workers(monkeypatch):
    """Sets how many workers there are, in blocks of two images; returns the threads that made columns."""
    seen = set()

    def im2col(*args):
        seen.add(threading.get_ident())
        return made(*args)

    made = convolution.im2col

    def set_workers(n, present=None):
        seen.clear()
        monkeypatch.setattr(blas, "workers", lambda: n)
        monkeypatch.setattr(threads, "num_threads", lambda: present or n)
        monkeypatch.setattr(convolution, "CACHE", 0)
        monkeypatch.setattr(convolution, "FEWEST", 0)
        monkeypatch.setattr(convolution, "im2col", im2col)
        return seen

    return set_workers


def everything(w, x, weight, dy, bias):
    return (
        convolution.convolve(x, weight, w, 1, bias),
        convolution.convolve_transposed(dy, weight, w, 1),
        convolution.weight_gradient(x, dy, w, 1, weight.shape),
    )


@pytest.mark.usefixtures("host_engine")
@pytest.mark.parametrize("way", WINDOWS)
def test_the_number_of_workers_changes_no_image_and_rounds_weights_alike_each_time(way, workers):
    w, rng = WINDOWS[way], np.random.default_rng(0)
    x, weight = rng.normal(size=(11, 3, 12, 12)).astype("f"), rng.normal(size=(5, 3, 3, 3)).astype("f")
    dy, bias = rng.normal(size=(11, 5, *w.out)).astype("f"), rng.normal(size=5).astype("f")
    workers(1)
    alone = everything(w, x, weight, dy, bias)
    workers(3)
    shared = [everything(w, x, weight, dy, bias) for _ in range(5)]
    for found in shared:
        for i in (0, 1):
            np.testing.assert_array_equal(found[i], alone[i])
        np.testing.assert_array_equal(found[2], shared[0][2])
        np.testing.assert_allclose(found[2], alone[2], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("planned", [1, 2])
def test_more_threads_than_were_planned_for_wait_for_memory(planned, workers):
    """As with ``OPENBLAS_NUM_THREADS=1``, with ``KOBAI_EXCLUSIVE=1``, or if ``set_num_threads`` comes after a recording."""
    w, rng = WINDOWS["by image"], np.random.default_rng(0)
    x, weight = rng.normal(size=(64, 3, 12, 12)).astype("f"), rng.normal(size=(5, 3, 3, 3)).astype("f")
    dy = rng.normal(size=(64, 5, 12, 12)).astype("f")
    workers(1)
    alone = everything(w, x, weight, dy, None)
    workers(planned, present=6)
    for _ in range(20):
        for a, b in zip(everything(w, x, weight, dy, None), alone, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_several_threads_take_part(workers):
    w, rng = WINDOWS["by image"], np.random.default_rng(0)
    x, weight = rng.normal(size=(400, 8, 12, 12)).astype("f"), rng.normal(size=(16, 8, 3, 3)).astype("f")
    seen = workers(2)
    for _ in range(50):  # whoever wakes late finds nothing left to do
        convolution.convolve(x, weight, w, 1)
        if len(seen) == 2:
            return
    pytest.fail("one thread did all the work")


def test_an_error_in_a_worker_is_raised_and_leaves_the_memory_to_the_next_call(workers, monkeypatch):
    w, x, weight = WINDOWS["by image"], np.ones((9, 3, 12, 12), "f"), np.ones((5, 3, 3, 3), "f")
    workers(2)
    plan = convolution.plan_of(x, w, 3, 5, 1)
    memory = convolution._memory(plan, x, rows=False)
    y = np.empty((9, 5, 12, 12), "f")
    run = convolution._forward.bind(plan, plan.blocks, memory, x, weight.reshape(1, 5, -1), None, y)
    product = blas.multiply

    def fail(*args):
        raise MemoryError("no room")

    monkeypatch.setattr(blas, "multiply", fail)
    with pytest.raises(MemoryError, match="no room"):
        run()
    monkeypatch.setattr(blas, "multiply", product)
    run()
    assert y[0, 0, 1, 1] == 27


@pytest.mark.skipif(not engine.numba_installed, reason="without Numba NumPy's functions need memory on the way")
def test_a_captured_net_replays_without_memory():
    kobai.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(800, 10),
    )
    optimizer = kobai.optim.SGD(net.parameters(), lr=0.1)
    x, t = kobai.randn(32, 1, 24, 24), kobai.arange(32) % 10

    @kobai.capture
    def step(x, t):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), t)
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(3):
        step(x, t)
    assert peak_bytes(lambda: step(x, t)) < 1 << 16  # one image's columns would be twice as many

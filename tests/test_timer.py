"""``kobai.utils.benchmark``, with a clock of its own: nothing here hangs on how fast the machine is."""

from __future__ import annotations

import itertools

import pytest

import kobai
from kobai.utils import benchmark


def clock(step=0.5):
    """A clock that goes on by ``step`` seconds whenever it is read."""
    count = itertools.count()
    return lambda: next(count) * step


def test_timeit_counts_runs_and_warms_up():
    runs = []
    m = benchmark.Timer(lambda: runs.append(kobai.get_num_threads()), timer=clock(), label="adding").timeit(300)
    assert runs == [1] * 303
    assert (m.number_per_run, m.raw_times, m.times, m.iqr) == (300, [0.5], [0.5 / 300], 0)
    assert "adding" in repr(m)
    assert "1.667 ms" in repr(m)


def test_blocked_autorange_measures_until_the_time_is_up():
    told = []
    timer = benchmark.Timer("torch.ones(n) + kobai.ones(n)", "n = 2", clock(), num_threads=2)
    before = kobai.get_num_threads()
    m = timer.blocked_autorange(lambda number, seconds: told.append((number, seconds)), min_run_time=2)
    assert (m.number_per_run, m.raw_times, told) == (1, [0.5] * 4, [(1, 0.5)] * 3)
    assert (m.mean, m.median, m.num_threads, kobai.get_num_threads()) == (0.5, 0.5, 2, before)


def test_blocked_autorange_takes_more_runs_of_what_is_fast():
    assert benchmark.Timer(timer=clock(1e-5)).blocked_autorange(min_run_time=1e-3).number_per_run == 1
    seconds = iter([0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    m = benchmark.Timer(timer=lambda: next(seconds)).blocked_autorange(min_run_time=1)
    assert (m.number_per_run, m.times) == (100, [0.01])


def test_what_the_timer_refuses():
    with pytest.raises(ValueError, match="num_threads >= 1, got 0"):
        benchmark.Timer(num_threads=0)
    with pytest.raises(NotImplementedError, match=r"utils\.benchmark\.Compare"):
        benchmark.Compare([])


@pytest.mark.oracle
def test_figures_are_pytorchs():
    from torch.utils.benchmark import Measurement, TaskSpec

    times = [0.3, 0.1, 0.2, 0.4, 0.15]
    theirs = Measurement(10, times, TaskSpec("pass", "pass"))
    ours = benchmark.Measurement(10, times)
    for name in ("mean", "median", "iqr"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name))


@pytest.mark.parametrize("pred", [True, kobai.tensor(True), kobai.tensor([1.0])])
def test_cond_calls_one_of_two(pred):
    x = kobai.ones(2, requires_grad=True)
    kobai.cond(pred, lambda a: a * 2, lambda a: a * 3, (x,)).sum().backward()
    assert x.grad.tolist() == [2, 2]
    assert kobai.cond(False, lambda: 1, lambda: 2) == 2

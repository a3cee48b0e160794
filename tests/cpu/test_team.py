"""Jobs shared with threads that are awake: each part once, whoever does it, and never waiting for who is late."""

import ctypes
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from kobai.cpu import blas, team, threads
from kobai.engine import dispatch

pytest.importorskip("numba")
products = pytest.mark.skipif(not blas.own(), reason="this processor is left to NumPy's BLAS")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def three(monkeypatch):
    """Every matrix product is shared by three threads, whatever the machine has, in a pool of its own."""
    for name in ("PART", "SMALL", "FEW"):
        monkeypatch.setattr(blas, name, 1)
    monkeypatch.setattr(threads, "_pool", threads._Pool())
    threads.set_num_threads(3)
    yield
    threads.set_num_threads(None)


def matrices(rng, m, k, n, dtype="float32"):
    a, b = (rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n)))
    return a, b, np.empty((m, n), dtype)


# By these names Numba is to know them.
load, replace, add, call, _look_away = team.load, team.replace, team.add, team.call, team._look_away
WORD, JOB, DONE, YIELD, FUNCTION, HEADER = team.WORD, team.JOB, team.DONE, team.YIELD, team.FUNCTION, team.HEADER


@dispatch.entry
def count(job, i, scratch):
    add(load(job + HEADER) + 8 * i, 1)


class Counting(team.Job):
    """A job whose parts count how often they are done."""

    def __init__(self, parts, work=0):
        super().__init__(1)
        self.parts, self.counts = parts, np.zeros(parts, np.int64)
        self.memory[:] = count.address, parts, work, self.counts.ctypes.data

    def done(self):
        """How often all parts have been done since this was asked last; they are done equally often."""
        times = set(self.counts.tolist())
        self.counts.fill(0)
        assert len(times) == 1
        return times.pop()


def word(board, place):
    return ctypes.c_int64.from_address(board.address + place).value


def put(board, place, value):
    ctypes.c_int64.from_address(board.address + place).value = value


# --- jobs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 2, 3, 64])
def test_one_thread_does_each_part_of_a_job_once(parts):
    job = Counting(parts)
    team.alone(job.address, threads.scratch())
    assert job.done() == 1


@pytest.mark.parametrize("parts", [1, 2, 3, 12])
def test_a_pool_does_each_part_of_a_job_once(three, parts):
    job = Counting(parts)
    for pause in [0, 0, 0.01] * 10:
        time.sleep(pause)
        threads.share_job(job)
        assert job.done() == 1


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_pool_has_no_more_helpers_than_it_may_have_however_many_parts_there_are(three, count):
    threads.set_num_threads(count)
    job = Counting(12)
    threads.share_job(job)
    assert job.done() == 1
    assert threads._pool.threads == count - 1


def test_a_job_is_done_by_its_caller_while_another_has_the_pool(three):
    job = Counting(3)
    with threads._pool.free:
        threads.share_job(job)
    assert job.done() == 1
    assert threads._pool.board is None


def test_a_part_is_given_its_job_and_the_memory_of_its_thread():
    job = Counting(4)
    job.memory[team.FUNCTION // 8] = note.address
    team.alone(job.address, 12345)
    assert (job.counts == 12345).all()


@dispatch.entry
def note(job, i, scratch):
    add(load(job + HEADER) + 8 * i, scratch)


# --- helpers ----------------------------------------------------------------------------------------------------------


def test_a_helper_does_the_parts_that_nobody_else_takes():
    board, job, helped = team.Board(), Counting(4), []
    helper = threading.Thread(target=lambda: helped.append(team.serve(board.address, 0, threads.scratch())))
    put(board, team.JOB, job.address)
    put(board, team.WORD, (1 << 32) | (4 << 16))
    helper.start()
    helper.join()
    assert helped == [0]  # it has gone to sleep since
    assert (word(board, team.DONE), word(board, team.WORD) & 0xFFFF) == (4, 4)
    assert job.done() == 1


def test_a_helper_comes_out_when_the_interpreter_has_work():
    board = team.Board()
    team.change(board.address + team.CALLS, 1)
    assert team.serve(board.address, 0, threads.scratch()) == 1
    assert team.serve(board.address, 1, threads.scratch()) == 0


@products
def test_products_of_helpers_that_sleep_and_wake_are_whole(three, rng):
    a, b, _ = matrices(rng, 90, 40, 70)
    expected = blas.matmul(a, b)
    np.testing.assert_allclose(expected, a @ b, rtol=1e-4, atol=1e-4)
    for pause in [0, 0.02, 0, 0, 0.001] * 6:  # asleep after some tenths of a millisecond
        time.sleep(pause)
        assert blas.matmul(a, b).tobytes() == expected.tobytes()
    assert threads._pool.threads == 2


def test_helpers_that_sleep_are_counted_and_woken_once(three):
    job = Counting(3)
    threads.share_job(job)
    board = threads._pool.board
    for _ in range(20):
        deadline = time.monotonic() + 10
        while word(board, team.ASLEEP) < 2 and time.monotonic() < deadline:
            time.sleep(0.005)
        assert word(board, team.ASLEEP) == 2
        threads.share_job(job)
        threads.run_split(lambda start, stop: None, 100, grain=1)


@products
def test_loops_and_products_take_turns(three, rng):
    a, b, _ = matrices(rng, 90, 40, 70)
    expected = blas.matmul(a, b)
    for _ in range(30):
        done = []
        threads.run_split(lambda start, stop, done=done: done.append((start, stop)), 24, grain=1)
        assert sum(stop - start for start, stop in done) == 24
        assert blas.matmul(a, b).tobytes() == expected.tobytes()


@products
def test_products_of_many_threads_at_once(three, rng):
    cases = [matrices(rng, *rng.integers(2, 120, 3), dtype) for dtype in ("float32", "float64") * 4]
    expected = [blas.matmul(a, b).tobytes() for a, b, _ in cases]
    wrong = []

    def run():
        for _ in range(40):
            wrong.extend(i for i, (a, b, _) in enumerate(cases) if blas.matmul(a, b).tobytes() != expected[i])

    callers = [threading.Thread(target=run) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


# --- helpers that are of no use -----------------------------------------------------------------------------------------


@dispatch.compiled
def take_and_dawdle(board, looks, scratch):
    """A helper that is held up after it has taken a part."""
    while True:
        word = load(board + WORD)
        taken = word & 0xFFFF
        if taken < (word >> 16) & 0xFFFF and replace(board + WORD, word, word + 1):
            break
    other = load(board + YIELD)
    for look in range(looks):
        _look_away(look, other)
    job = load(board + JOB)
    call(load(job + FUNCTION), job, taken, scratch)
    add(board + DONE, 1)


def test_a_helper_that_is_held_up_is_waited_for_once():
    board, job = team.Board(), Counting(64)
    put(board, team.MISSES, -(1 << 60))  # that it comes late for many jobs before is nothing to be counted
    take_and_dawdle.compile()
    for _ in range(
        50
    ):  # where other programs have the processors, the caller may be held up itself while the helper dawdles
        helper = threading.Thread(target=take_and_dawdle, args=(board.address, 200 * team.PATIENCE, 0))
        helper.start()
        while helper.is_alive():
            team.share(board.address, job.address, 0, 0)
            assert job.done() == 1
        helper.join()
        if word(board, team.NEXT_REST) > team.REST:
            break
    assert word(board, team.RESTING) <= team.REST
    assert word(board, team.NEXT_REST) == 2 * team.REST


def test_who_never_gets_help_does_without():
    board, job = team.Board(), Counting(2)
    for i in range(team.MISSED):
        assert word(board, team.RESTING) == 0, i
        assert team.share(board.address, job.address, 1, 0) == 0
    assert word(board, team.RESTING) == team.REST
    assert word(board, team.NEXT_REST) == 2 * team.REST
    job.done()
    for _ in range(team.REST):
        team.share(board.address, job.address, 1, 0)
        assert job.done() == 1
    assert word(board, team.RESTING) == 0


def test_large_jobs_end_the_rest_sooner():
    board, job = team.Board(), Counting(2, work=9 << 20)
    put(board, team.RESTING, 25)
    for left in (15, 5, -5):
        assert team.share(board.address, job.address, 1, 0) == 0
        assert word(board, team.RESTING) == left
    assert job.done() == 3


@pytest.mark.parametrize(
    ("helpers", "asleep", "parts", "woken"), [(1, 1, 2, 1), (3, 3, 2, 1), (3, 2, 2, 0), (3, 2, 4, 2), (3, 3, 1, 0)]
)
def test_as_many_are_woken_as_there_are_parts(helpers, asleep, parts, woken):
    board, job = team.Board(), Counting(parts)
    put(board, team.ASLEEP, asleep)
    assert team.share(board.address, job.address, helpers, 0) == woken
    assert job.done() == (0 if woken else 1)
    assert team.share(board.address, job.address, 0, 0) == 0
    assert job.done() == 1


def test_no_more_are_woken_than_sleep():
    board = team.Board()
    for there, most, taken in [(2, 5, 2), (3, 2, 2), (-1, 5, 0), (0, 1, 0)]:
        put(board, team.ASLEEP, there)
        assert team.take(board.address + team.ASLEEP, most) == taken
        assert word(board, team.ASLEEP) == there - taken


# --- processes ----------------------------------------------------------------------------------------------------------


@products
@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX")
def test_a_forked_child_has_helpers_of_its_own(three, rng):
    a, b, _ = matrices(rng, 90, 40, 70)
    expected = blas.matmul(a, b)
    child = os.fork()
    if child == 0:
        same = all(blas.matmul(a, b).tobytes() == expected.tobytes() for _ in range(20))
        os._exit(0 if same and threads._pool.threads == 2 else 1)
    assert os.waitpid(child, 0)[1] == 0


@products
def test_a_process_ends_while_its_helpers_are_awake():
    code = (
        "import kobai; kobai.set_num_threads(3); a = kobai.ones(300, 300)\n"
        "for _ in range(20): b = a @ a\n"
        "print(b[0, 0].item())"
    )
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "300.0\n"

"""Jobs shared with threads that are awake: each part once, whoever does it, and never waiting for who is late."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from kobai.cpu import blas, job, team, threads
from kobai.engine import dispatch
from kobai.ops import _matmul
from kobai.ops._matmul import matmul

pytest.importorskip("numba")
products = pytest.mark.skipif(not blas.own(), reason="this processor is left to NumPy's BLAS")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def three(monkeypatch):
    """Every matrix product is shared by three threads, whatever the machine has, in a pool of its own."""
    monkeypatch.setattr(_matmul, "PART", 1)
    monkeypatch.setattr(threads, "pool", threads.Pool())
    threads.set_num_threads(3)
    yield
    threads.set_num_threads(None)


def matrices(rng, m, k, n, dtype="float32"):
    a, b = (rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n)))
    return a, b, np.empty((m, n), dtype)


# By these names Numba is to know them.
load, add, look_away = job.load, team.add, team.look_away
COUNT = job.fields("counts doers slow looks give_way", after=job.JOB)


@dispatch.entry
def count(job, i, scratch):
    """Note that the part was done, and by whom; look around before that, if that is who is ``slow``."""
    if scratch == load(job + COUNT.slow):
        for look in range(load(job + COUNT.looks)):
            look_away(look, load(job + COUNT.give_way))
    add(load(job + COUNT.counts) + 8 * i, 1)
    add(load(job + COUNT.doers) + 8 * i, scratch)


class Counting(job.Job):
    """A job whose parts note how often they are done, and by which thread's memory."""

    def __init__(self, parts, work=0):
        super().__init__(COUNT)
        self.parts, self.counts, self.doers = parts, np.zeros(parts, np.int64), np.zeros(parts, np.int64)
        self.write(function=count.address, parts=parts, work=work, give_way=team.give_way_address())
        self.write(counts=self.counts.ctypes.data, doers=self.doers.ctypes.data)

    def done(self):
        """How often all parts have been done since this was asked last; they are done equally often."""
        times = set(self.counts.tolist())
        self.counts.fill(0)
        self.doers.fill(0)
        assert len(times) == 1
        return times.pop()


class Alone:
    """A pool that has no thread, and notes how many are to be woken."""

    def __init__(self, threads=0):
        self.threads, self.woken = threads, 0

    def wake(self, helpers):
        self.woken += helpers


@pytest.fixture
def helping():
    """Starts threads that serve a board until the test is over; gives the memory by which a job knows the thread."""
    boards, helpers = [], []

    def help(board):
        memory, ready = [], threading.Event()

        def serve():
            memory.append(team.scratch())
            ready.set()
            board.serve(0)

        boards.append(board)
        helpers.append(threading.Thread(target=serve))
        helpers[-1].start()
        ready.wait()
        return memory[0]

    yield help
    for board in boards:
        board.call()
    for helper in helpers:
        helper.join()


FOR_EVER = team.Patience(idle=1 << 40, missed=1 << 40)


# --- jobs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 2, 3, 64])
def test_one_thread_does_each_part_of_a_job_once(parts):
    job = Counting(parts)
    team.alone(job.address, team.scratch())
    assert job.done() == 1


@pytest.mark.parametrize("parts", [1, 2, 3, 12])
def test_a_pool_does_each_part_of_a_job_once(three, parts):
    job = Counting(parts)
    for pause in [0, 0, 0.01] * 10:
        time.sleep(pause)
        team.share_job(job)
        assert job.done() == 1


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_pool_has_no_more_helpers_than_it_may_have_however_many_parts_there_are(three, count):
    threads.set_num_threads(count)
    job = Counting(12)
    team.share_job(job)
    assert job.done() == 1
    assert threads.pool.threads == count - 1


def test_a_job_is_done_by_its_caller_while_another_has_the_pool(three):
    job = Counting(3)
    with threads.pool.free:
        team.share_job(job)
    assert job.done() == 1
    assert threads.pool.awake is None


def test_a_part_is_given_its_job_and_the_memory_of_its_thread():
    job = Counting(4)
    team.alone(job.address, 12345)
    assert (job.doers == 12345).all()


def test_each_thread_has_memory_of_its_own():
    seen, both = [team.scratch()], threading.Barrier(3)
    assert team.scratch() == seen[0]

    def look():
        seen.append(team.scratch())
        both.wait()

    others = [threading.Thread(target=look) for _ in range(2)]
    for other in others:
        other.start()
    both.wait()
    for other in others:
        other.join()
    assert (np.diff(sorted(seen)) >= team.SCRATCH).all()
    assert all(address % 64 == 0 for address in seen)


# --- helpers ----------------------------------------------------------------------------------------------------------


def test_a_helper_does_the_parts_that_its_caller_has_not_come_to(helping):
    board, job = team.Board(FOR_EVER), Counting(8, work=FOR_EVER.large)
    helper = helping(board)
    job.write(slow=team.scratch(), looks=20_000)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        board.share(job, Alone(1))
        doers = set(job.doers.tolist())
        assert doers <= {team.scratch(), helper}
        assert job.done() == 1
        if helper in doers:
            return
    pytest.fail("no part was done by the helper")


def test_a_helper_without_work_goes_to_sleep():
    assert not team.Board(team.Patience(idle=10)).serve(0)


def test_a_helper_comes_out_when_the_interpreter_has_work():
    board = team.Board()
    assert board.calls() == 0
    board.call()
    assert board.calls() == 1
    assert board.serve(0)
    assert not board.serve(1)


@products
def test_products_of_helpers_that_sleep_and_wake_are_whole(three, rng):
    a, b, _ = matrices(rng, 90, 40, 70)
    expected = matmul(a, b)
    np.testing.assert_allclose(expected, a @ b, rtol=1e-4, atol=1e-4)
    for pause in [0, 0.02, 0, 0, 0.001] * 6:  # asleep after some tenths of a millisecond
        time.sleep(pause)
        assert matmul(a, b).tobytes() == expected.tobytes()
    assert threads.pool.threads == 2


def test_helpers_that_sleep_are_counted_and_woken_once(three):
    job = Counting(3)
    team.share_job(job)
    board = threads.pool.awake
    for _ in range(20):
        deadline = time.monotonic() + 10
        while board.read("asleep") < 2 and time.monotonic() < deadline:
            time.sleep(0.005)
        assert board.read("asleep") == 2
        team.share_job(job)
        threads.run_split(lambda start, stop: None, 100, grain=1)


@products
def test_loops_and_products_take_turns(three, rng):
    a, b, _ = matrices(rng, 90, 40, 70)
    expected = matmul(a, b)
    for _ in range(30):
        done = []
        threads.run_split(lambda start, stop, done=done: done.append((start, stop)), 24, grain=1)
        assert sum(stop - start for start, stop in done) == 24
        assert matmul(a, b).tobytes() == expected.tobytes()


@products
def test_products_of_many_threads_at_once(three, rng):
    cases = [matrices(rng, *rng.integers(2, 120, 3), dtype) for dtype in ("float32", "float64") * 4]
    expected = [matmul(a, b).tobytes() for a, b, _ in cases]
    wrong = []

    def run():
        for _ in range(40):
            wrong.extend(i for i, (a, b, _) in enumerate(cases) if matmul(a, b).tobytes() != expected[i])

    callers = [threading.Thread(target=run) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


# --- helpers that are of no use -----------------------------------------------------------------------------------------


def alone_for(board, job):
    """How many runs of a job the caller does without looking for help, which it had just stopped to do."""
    runs = 0
    while board.read("resting") > 0:
        board.share(job, Alone(1))
        assert job.done() == 1
        runs += 1
    return runs


def test_who_never_gets_help_does_without_for_longer_each_time():
    board, job = team.Board(team.Patience(missed=3, rest=4, longest_rest=16)), Counting(2)
    for rest in (4, 8, 16, 16):
        for _ in range(3):
            assert board.read("resting") == 0
            board.share(job, Alone(1))
            assert job.done() == 1
        assert alone_for(board, job) == rest


def test_a_helper_is_not_asked_during_the_rest(helping):
    board, job = team.Board(FOR_EVER._replace(missed=1, rest=200)), Counting(64)
    board.share(job, Alone(1))
    assert job.done() == 1
    helper = helping(board)
    for _ in range(200):
        board.share(job, Alone(1))
        assert helper not in job.doers
        assert job.done() == 1
    assert board.read("resting") == 0


def test_a_helper_that_is_held_up_is_waited_for_once(helping):
    board, job = team.Board(FOR_EVER._replace(rest=5, held_up=10)), Counting(64)
    job.write(slow=helping(board), looks=20_000)
    deadline = time.monotonic() + 60
    while not board.read("resting"):  # it may come too late for many, and the caller may be held up itself
        board.share(job, Alone(1))
        assert job.done() == 1
        assert time.monotonic() < deadline
    assert alone_for(board, job) == 5


def test_large_jobs_end_the_rest_sooner_and_very_large_ones_ignore_it():
    patience = team.Patience(missed=1, rest=25, longest_rest=25, large=1 << 25)
    board, job = team.Board(patience), Counting(2, work=9 << 20)
    board.share(job, Alone(1))
    assert job.done() == 1
    assert alone_for(board, job) == 3  # 10 of the 25 each
    small, large = Counting(2), Counting(2, work=1 << 25)
    board.share(small, Alone(1))
    board.share(large, Alone(1))
    assert large.done() == 1
    assert board.read("resting") == 25


@pytest.mark.parametrize(
    ("helpers", "asleep", "parts", "woken"), [(1, 1, 2, 1), (3, 3, 2, 1), (3, 2, 2, 0), (3, 2, 4, 2), (3, 3, 1, 0)]
)
def test_as_many_are_woken_as_there_are_parts(helpers, asleep, parts, woken):
    board, job, pool = team.Board(), Counting(parts), Alone(helpers)
    board.asleep(asleep)
    board.share(job, pool)
    assert pool.woken == woken
    assert board.read("asleep") == asleep - woken
    assert job.done() == 1


@pytest.mark.parametrize(("asleep", "most", "taken"), [(2, 5, 2), (3, 2, 2), (-1, 5, 0), (0, 1, 0)])
def test_no_more_are_woken_than_sleep(asleep, most, taken):
    board = team.Board()
    board.asleep(asleep)
    assert team.take(board.address + team.BOARD.asleep, most) == taken
    assert board.read("asleep") == asleep - taken


# --- processes ----------------------------------------------------------------------------------------------------------


@products
@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX")
def test_a_forked_child_has_helpers_of_its_own(three, rng):
    a, b, _ = matrices(rng, 90, 40, 70)
    expected = matmul(a, b)
    child = os.fork()
    if child == 0:
        same = all(matmul(a, b).tobytes() == expected.tobytes() for _ in range(20))
        os._exit(0 if same and threads.pool.threads == 2 else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.thorough
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

"""Products shared with a thread that is awake: whole, the same bits whoever does a part, and never waiting for who is late."""

import ctypes
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from kobai.kernels import blas, engine, team, threads

pytest.importorskip("numba")
LIBRARY = blas.gemms()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="NumPy's BLAS is not OpenBLAS")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def three(monkeypatch):
    """Every matrix product is shared by three threads, whatever the machine has, in a pool of its own."""
    monkeypatch.setattr(blas, "PART", 1)
    monkeypatch.setattr(blas, "threads", lambda: 3)
    monkeypatch.setattr(threads, "_pool", threads._Pool())


def matrices(rng, m, k, n, dtype="float32"):
    a, b = (rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n)))
    return a, b, np.empty((m, n), dtype)


def job_of(a, b, out, grid):
    job = team.Job()
    assert job.describe(LIBRARY, a, b, out, grid)
    job.keeps = a, b, out
    return job


def word(board, place):
    return ctypes.c_int64.from_address(board.address + place).value


def put(board, place, value):
    ctypes.c_int64.from_address(board.address + place).value = value


# --- jobs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("grid", [(1, 1), (1, 3), (2, 2), (4, 1)])
@pytest.mark.parametrize("layout", ["NN", "NT", "TN", "TT"])
def test_the_parts_of_a_job_are_the_product(rng, dtype, grid, layout):
    a, b, out = matrices(rng, 70, 33, 90, dtype)
    a = np.asfortranarray(a) if layout[0] == "T" else a
    b = np.asfortranarray(b) if layout[1] == "T" else b
    wide = np.zeros((140, 180), dtype)[::2, :90]
    for result in (out, wide):
        team.alone(job_of(a, b, result, grid).address)
        np.testing.assert_allclose(result, a @ b, rtol=1e-4, atol=1e-4 if dtype == "float32" else 1e-12)


def test_what_blas_cannot_read_is_no_job(rng):
    a, b, out = matrices(rng, 20, 20, 20)
    job = team.Job()
    for left, right, result in (
        (np.repeat(a, 2, 1)[:, ::2], b, out),
        (a, np.repeat(np.repeat(b, 2, 0), 2, 1)[::2, ::2], out),
        (a, b, out.T),
        (a[::-1], b, out),
        (np.frombuffer(b"x" + a.tobytes(), np.uint8)[1:].view(np.float32).reshape(20, 20), b, out),
        (a, b, a),
        (a, b, b),
    ):
        assert not job.describe(LIBRARY, left, right, result, (1, 2))
    assert job.describe(LIBRARY, a[::2], b, out[:10], (1, 2))  # rows that lie apart are rows


def test_results_that_lie_on_a_factor_are_numpys(three, rng):
    a, b, _ = matrices(rng, 64, 64, 64)
    expected = a @ b
    np.testing.assert_allclose(blas.matmul(a, b, out=a), expected, rtol=1e-4, atol=1e-4)


# --- helpers ----------------------------------------------------------------------------------------------------------


def test_a_helper_does_the_parts_that_nobody_else_takes(rng):
    board, helped = team.Board(), []
    a, b, out = matrices(rng, 64, 50, 64)
    job = job_of(a, b, out, (2, 2))
    helper = threading.Thread(target=lambda: helped.append(team.serve(board.address, 0)))
    put(board, team.JOB, job.address)
    put(board, team.WORD, (1 << 32) | (4 << 16))
    helper.start()
    helper.join()
    assert helped == [0]  # it has gone to sleep since
    assert (word(board, team.DONE), word(board, team.WORD) & 0xFFFF) == (4, 4)
    np.testing.assert_allclose(out, a @ b, rtol=1e-4, atol=1e-4)


def test_a_helper_comes_out_when_the_interpreter_has_work():
    board = team.Board()
    team.change(board.address + team.CALLS, 1)
    assert team.serve(board.address, 0) == 1
    assert team.serve(board.address, 1) == 0


def test_products_of_helpers_that_sleep_and_wake_are_whole(three, rng):
    a, b, _ = matrices(rng, 90, 40, 70)
    expected = blas.matmul(a, b)
    np.testing.assert_allclose(expected, a @ b, rtol=1e-4, atol=1e-4)
    for pause in [0, 0.02, 0, 0, 0.001] * 6:  # asleep after some tenths of a millisecond
        time.sleep(pause)
        assert blas.matmul(a, b).tobytes() == expected.tobytes()
    assert threads._pool.threads == 2


def test_helpers_that_sleep_are_counted_and_woken_once(three, rng):
    a, b, _ = matrices(rng, 90, 40, 70)
    blas.matmul(a, b)
    board = threads._pool.board
    for _ in range(20):
        deadline = time.monotonic() + 10
        while word(board, team.ASLEEP) < 2 and time.monotonic() < deadline:
            time.sleep(0.005)
        assert word(board, team.ASLEEP) == 2
        blas.matmul(a, b)
        threads.run_split(lambda start, stop: None, 100, grain=1)


def test_loops_and_products_take_turns(three, rng):
    a, b, _ = matrices(rng, 90, 40, 70)
    expected = blas.matmul(a, b)
    threads.set_num_threads(3)
    try:
        for _ in range(30):
            done = []
            threads.run_split(lambda start, stop, done=done: done.append((start, stop)), 24, grain=1)
            assert sum(stop - start for start, stop in done) == 24
            assert blas.matmul(a, b).tobytes() == expected.tobytes()
    finally:
        threads.set_num_threads(None)


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


# By these names Numba is to know them.
load, replace, add, _look_away, _compute = team.load, team.replace, team.add, team._look_away, team._compute
WORD, JOB, DONE, YIELD = team.WORD, team.JOB, team.DONE, team.YIELD


@engine.compiled
def take_and_dawdle(board, looks):
    """A helper that is held up after it has taken a part."""
    while True:
        word = load(board + WORD)
        taken = word & 0xFFFF
        if taken < (word >> 16) & 0xFFFF and replace(board + WORD, word, word + 1):
            break
    other = load(board + YIELD)
    for look in range(looks):
        _look_away(look, other)
    _compute(load(board + JOB), taken)
    add(board + DONE, 1)


def test_a_helper_that_is_held_up_is_waited_for_once(rng):
    board, (a, b, out) = team.Board(), matrices(rng, 64, 50, 64)
    job = job_of(a, b, out, (16, 4))
    helper = threading.Thread(target=take_and_dawdle, args=(board.address, 200 * team.PATIENCE))
    take_and_dawdle.compile()
    helper.start()
    for _ in range(10000):
        out.fill(np.nan)
        team.share(board.address, job.address, 0)
        np.testing.assert_allclose(out, a @ b, rtol=1e-4, atol=1e-4)
        if not helper.is_alive():
            break
    helper.join()
    assert word(board, team.NEXT_REST) > team.REST


def test_who_never_gets_help_does_without(rng):
    board, (a, b, out) = team.Board(), matrices(rng, 64, 50, 64)
    job = job_of(a, b, out, (1, 2))
    for i in range(team.MISSED):
        assert word(board, team.RESTING) == 0, i
        assert team.share(board.address, job.address, 1) == 0
    assert word(board, team.RESTING) == team.REST
    assert word(board, team.NEXT_REST) == 2 * team.REST
    for _ in range(team.REST):
        out.fill(np.nan)
        team.share(board.address, job.address, 1)
        np.testing.assert_allclose(out, a @ b, rtol=1e-4, atol=1e-4)
    assert word(board, team.RESTING) == 0


@pytest.mark.parametrize(
    ("helpers", "asleep", "parts", "woken"), [(1, 1, 2, 1), (3, 3, 2, 1), (3, 2, 2, 0), (3, 2, 4, 2)]
)
def test_as_many_are_woken_as_there_are_parts(rng, helpers, asleep, parts, woken):
    board, (a, b, out) = team.Board(), matrices(rng, 64, 50, 64)
    job = job_of(a, b, out, (parts, 1))
    out.fill(7)
    put(board, team.ASLEEP, asleep)
    assert team.share(board.address, job.address, helpers) == woken
    assert (out == 7).all() == bool(woken)  # then nothing has been done yet
    assert team.share(board.address, job.address, 0) == 0
    np.testing.assert_allclose(out, a @ b, rtol=1e-4, atol=1e-4)


def test_no_more_are_woken_than_sleep():
    board = team.Board()
    for there, most, taken in [(2, 5, 2), (3, 2, 2), (-1, 5, 0), (0, 1, 0)]:
        put(board, team.ASLEEP, there)
        assert team.take(board.address + team.ASLEEP, most) == taken
        assert word(board, team.ASLEEP) == there - taken


# --- processes ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX")
def test_a_forked_child_has_helpers_of_its_own(three, rng):
    a, b, _ = matrices(rng, 90, 40, 70)
    expected = blas.matmul(a, b)
    child = os.fork()
    if child == 0:
        same = all(blas.matmul(a, b).tobytes() == expected.tobytes() for _ in range(20))
        os._exit(0 if same and threads._pool.threads == 2 else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_process_ends_while_its_helpers_are_awake():
    code = (
        "import kobai; kobai.set_num_threads(3); a = kobai.ones(300, 300)\n"
        "for _ in range(20): b = a @ a\n"
        "print(b[0, 0].item())"
    )
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "300.0\n"


def test_without_numba_there_is_none(monkeypatch):
    monkeypatch.setattr(engine, "numba_installed", False)
    assert blas.gemms.__wrapped__() is None

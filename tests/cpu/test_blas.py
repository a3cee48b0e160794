"""Products on Kobai's own threads: NumPy's results for every shape and layout, one set of bits, BLAS undisturbed."""

import os
import queue
import subprocess
import sys
import threading

import numpy as np
import pytest
import threadpoolctl

import kobai
from kobai.cpu import blas, threads
from kobai.engine import dispatch
from kobai.ops import _matmul
from kobai.ops._matmul import matmul


@pytest.fixture
def rng():
    return np.random.default_rng(0)


SHAPES = [
    ((64, 30), (30, 50)),
    ((1, 700), (700, 900)),
    ((700, 300), (300, 1)),
    ((5, 3), (3, 2)),
    ((0, 3), (3, 2)),
    ((3, 0), (0, 2)),
    ((257, 129), (129, 511)),
    ((6, 40, 30), (6, 30, 20)),
    ((6, 40, 30), (30, 20)),
    ((40, 30), (6, 30, 20)),
    ((2, 3, 40, 30), (3, 30, 20)),
    ((2, 1, 40, 30), (1, 3, 30, 20)),
    ((1, 40, 30), (6, 30, 20)),
]


@pytest.fixture(params=["awake", "asleep"])
def splitting(monkeypatch, request):
    """Every product is split, among three threads whatever the machine has: awake ones, or such as sleep between products."""
    if request.param == "awake" and not blas.own():
        pytest.skip("needs Numba, and a processor that multiplies and adds at once")
    if request.param == "asleep":
        monkeypatch.setattr(blas, "own", lambda: False)
    for name in ("PART", "WORTHWHILE"):
        monkeypatch.setattr(_matmul, name, 1)
    monkeypatch.setattr(blas, "threads", lambda: 3)
    threads.set_num_threads(3)
    yield
    threads.set_num_threads(None)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_split_products_are_numpys(splitting, rng, shapes, dtype):
    a, b = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    expected = np.matmul(a, b)
    tolerance = 1e-4 if dtype == "float32" else 1e-12
    for left in (a, np.asfortranarray(a), np.repeat(a, 2, -1)[..., ::2]):
        for right in (b, np.asfortranarray(b), b[..., ::-1, :][..., ::-1, :]):
            y = matmul(left, right)
            assert y.dtype == expected.dtype
            np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance)
    out = np.full_like(expected, np.nan)
    assert matmul(a, b, out=out) is out
    np.testing.assert_allclose(out, expected, rtol=tolerance, atol=tolerance)
    wide = np.zeros((*expected.shape[:-1], expected.shape[-1] * 2), dtype)
    matmul(a, b, out=wide[..., ::2])
    np.testing.assert_allclose(wide[..., ::2], expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shapes", [((256, 200), (200, 300)), ((8, 64, 64), (8, 64, 64))])
def test_the_bits_do_not_depend_on_who_computes_a_part(splitting, monkeypatch, rng, shapes):
    a, b = (rng.standard_normal(shape).astype("float32") for shape in shapes)
    expected = matmul(a, b)
    for _ in range(20):
        assert matmul(a, b).tobytes() == expected.tobytes()
    with threads.pool.free:  # another loop has the pool: all parts on this thread
        assert matmul(a, b).tobytes() == expected.tobytes()


def test_other_dtypes_and_mixed_ones_are_left_to_numpy(splitting):
    for a, b in [("int64", "int64"), ("float32", "float64"), ("float16", "float16"), ("complex64", "complex64")]:
        x, y = np.ones((4, 3), a), np.ones((3, 2), b)
        z = matmul(x, y)
        assert z.dtype == np.matmul(x, y).dtype
        assert (z == 3).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [9, 64, 200])
def test_results_that_lie_on_a_factor_are_as_if_they_did_not(splitting, rng, n, dtype):
    factors = rng.standard_normal((2 * n, n)).astype(dtype)
    expected = factors[:n] @ factors[n:]
    tolerance = 1e-4 if dtype == "float32" else 1e-12
    for multiply in (matmul, lambda a, b, out: _matmul.split(a, b, out)):
        for start in (0, 1, n // 2, n - 1, n):
            there = factors.copy()
            out = there[start : start + n]
            multiply(there[:n], there[n:], out)
            np.testing.assert_allclose(out, expected, rtol=tolerance, atol=tolerance)


def test_results_of_another_shape_are_refused(splitting):
    a, b = np.ones((2, 30, 20), "float32"), np.ones((20, 40), "float32")
    for shape in ((30, 2, 40), (60, 40), (2, 30, 41)):
        with pytest.raises(ValueError, match=r"out|shape|dimension"):
            matmul(a, b, out=np.empty(shape, "float32"))
    assert matmul(a, b[:, :0], out=np.empty((2, 30, 0), "float32")).shape == (2, 30, 0)


@pytest.mark.skipif(not blas.own(), reason="needs Numba, and a processor that multiplies and adds at once")
@pytest.mark.parametrize(
    ("a", "b", "dtype", "ours"),
    [
        ((32, 32), (32, 32), "float32", True),
        ((32, 32), (32, 32), "float64", True),
        ((1, 1), (1, 1), "float32", True),
        ((7, 1000), (1000, 1000), "float32", True),
        ((1000,), (1000,), "float32", True),
        ((1000, 1000), (1000,), "float32", True),
        ((1000,), (1000, 1000), "float32", True),
        ((2, 64, 64), (64, 64), "float32", True),
        ((2, 64, 0), (0, 64), "float32", False),
        ((), (64, 64), "float32", False),
        ((64, 64), (65, 64), "float32", False),
        ((64, 64), (64, 64), "int64", False),
        ((64, 64), (64, 64), "float16", False),
        ((64, 64), (64, 64), np.dtype("float32").newbyteorder(), False),
    ],
    ids=str,
)
def test_floats_of_one_type_are_multiplied_by_our_own_loops(a, b, dtype, ours):
    assert _matmul.ours(np.empty(a, dtype), np.empty(b, dtype)) == ours
    assert not _matmul.ours(np.empty(a, dtype), np.empty(b, "complex64"))


def test_other_libraries_multiply_as_they_do(rng):
    with kobai.using("strict"):
        a = kobai.tensor(rng.standard_normal((3, 4))).array
        assert type(matmul(a, a.T)) is type(a)


@pytest.mark.parametrize("grid", [(1, 2), (2, 3), (4, 4), (3, 8)])
def test_parts_cover_the_result_once(grid):
    for m in (1, 15, 16, 17, 100, 333):
        for n in (1, 31, 64, 200):
            out = np.zeros((m, n))
            parts = _matmul._parts(np.ones((m, 5)), np.ones((5, n)), out, grid[0] * grid[1])
            for _, _, part in parts:
                part += 1
            assert (out == 1).all()
            assert len(parts) <= grid[0] * grid[1]


# --- the library's own threads ----------------------------------------------------------------------------------------


def blas_threads():
    return [switch.get() for switch in blas.switches()]  # NumPy's: another may have been loaded since


@pytest.mark.parametrize("others", [False, True])
def test_tiny_products_leave_openblas_as_it_is(monkeypatch, others):
    held = []
    monkeypatch.setattr(dispatch, "numba_installed", False)
    monkeypatch.setattr(blas, "on_one_thread", lambda function, *args: held.append(1) or function(*args))
    monkeypatch.setattr(blas, "takes_tiny_alone", lambda: not others)
    rng = np.random.default_rng(0)
    for left, right in [((12, 8), (8, 8)), ((3, 4, 5), (3, 5, 6)), ((90,), (90, 90)), ((90, 90), (90,)), ((7,), (7,))]:
        a, b = rng.normal(size=left).astype("f"), rng.normal(size=right).astype("f")
        np.testing.assert_array_equal(matmul(a, b), np.matmul(a, b))
    assert len(held) == (5 if others else 0)
    matmul(np.ones((1, 9000), "f"), np.ones((9000, 1), "f"))
    assert held


@pytest.mark.skipif(not blas.switches(), reason="no BLAS whose threads can be set")
def test_blas_works_on_one_thread_within_and_on_its_own_afterwards(monkeypatch):
    before = blas_threads()

    def within():
        assert set(blas_threads()) == {1}
        blas.on_one_thread(matmul, np.ones((3, 3)), np.ones((3, 3)))
        assert set(blas_threads()) == {1}

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        blas.on_one_thread(within)
        assert set(blas_threads()) == {2}
        with pytest.raises(ValueError, match="mismatch"):
            matmul(np.ones((3, 3)), np.ones((4, 3)))
        assert set(blas_threads()) == {2}
    assert blas_threads() == before


@pytest.mark.skipif(not blas.switches(), reason="no BLAS whose threads can be set")
def test_products_in_several_threads_leave_blas_as_it_was():
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        a = np.ones((50, 50), "float32")

        def many():
            for _ in range(200):
                matmul(a, a)

        workers = [threading.Thread(target=many) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert set(blas_threads()) == {2}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_child_forked_during_a_product_has_its_threads_back():
    if not blas.switches():
        pytest.skip("no BLAS whose threads can be set")

    def fork():
        child = os.fork()
        if child == 0:
            ok = set(blas_threads()) == {2} and (matmul(np.ones((2, 2)), np.ones((2, 2))) == 2).all()
            os._exit(0 if ok else 1)
        assert os.waitpid(child, 0)[1] == 0

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        blas.on_one_thread(fork)


@pytest.mark.skipif(not blas.switches(), reason="no BLAS whose threads can be set")
def test_no_more_threads_than_blas_would_use(monkeypatch):
    monkeypatch.setattr(blas, "num_threads", lambda: 8)
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        assert blas.threads() == 2
        assert blas.on_one_thread(blas.threads) == 2
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        assert blas.threads() == 1
    monkeypatch.setattr(blas, "num_threads", lambda: 1)
    assert blas.threads() == 1


def test_without_numba_no_product_is_ours(monkeypatch):
    monkeypatch.setattr(dispatch, "numba_installed", False)
    assert not blas.own()
    assert not _matmul.ours(np.ones((64, 64)), np.ones((64, 64)))


def test_exclusive_processors_are_left_to_blas():
    code = (
        "from kobai.cpu import blas\n"
        "print(len(blas.switches()), blas.threads() == max(blas.library_threads(), 1), blas.own())"
    )
    env = {**os.environ, "KOBAI_EXCLUSIVE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "True", "False"]


@pytest.mark.skipif(not blas.switches(), reason="no BLAS whose threads can be set")
def test_a_captured_step_keeps_blas_on_one_thread_in_every_replay():
    seen = queue.SimpleQueue()  # what the kernel does here is done by replays too; the step itself keeps nothing

    def look(array):
        seen.put(set(blas_threads()))

    def step(x):
        y = x @ x
        dispatch.launch(look, y._array)
        return y

    captured = kobai.capture(step)
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        for _ in range(5):
            captured(kobai.ones(3, 3))
    found = [seen.get_nowait() for _ in range(seen.qsize())]
    assert found[-1] == {1}
    assert len(found) == 5


def test_captured_products_are_split_too(splitting, rng):
    a, b = (kobai.tensor(rng.standard_normal((90, 90)).astype("float32")) for _ in range(2))
    expected = (a @ b).numpy().tobytes()
    captured = kobai.capture(lambda a, b: a @ b)
    for _ in range(4):
        assert captured(a, b).numpy().tobytes() == expected

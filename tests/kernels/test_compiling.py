"""Whoever compiles a kernel says so: to those who listen, else once to the log; what is read from disk passes in silence."""

import logging
import subprocess
import sys

import numpy as np
import pytest

from kobai.kernels import compiling, engine

SOURCE = """
def twice(x, y):
    for i in range(x.size):
        y[i] = 2 * x[i]
"""


@pytest.fixture(autouse=True)
def as_at_the_start(monkeypatch):
    monkeypatch.setattr(compiling._state, "said", False, raising=False)
    monkeypatch.setattr(compiling, "listeners", [])


@pytest.fixture
def twice(tmp_path, monkeypatch):
    pytest.importorskip("numba")
    loops = pytest.importorskip("kobai.kernels._loop_code")
    monkeypatch.setenv("KOBAI_CACHE", str(tmp_path))

    def fresh():
        return engine.compiled(loops.load_module("doubling", SOURCE).twice)

    return fresh


def test_listeners_hear_of_each_kernel_and_how_long_it_took(caplog):
    heard = []
    with compiling.listening(lambda *what: heard.append(what)):
        with compiling.compiling("a"), compiling.compiling("that a calls"):
            pass
        with pytest.raises(ZeroDivisionError), compiling.compiling("b"):
            raise ZeroDivisionError
    assert [name for name, _ in heard] == ["a", "a", "b", "b"]
    assert [seconds is None for _, seconds in heard] == [True, False, True, False]
    assert caplog.messages == []


def test_without_listeners_the_log_says_it_once(caplog):
    with caplog.at_level(logging.WARNING, logger="kobai"):
        for name in "ab":
            with compiling.compiling(name):
                pass
    assert caplog.messages == [f"kernels: {compiling.NOTICE}"]


def test_numba_tells_of_what_it_compiles_and_not_of_what_it_reads(twice):
    heard = []
    with compiling.listening(lambda *what: heard.append(what)):
        for dtype in ("float32", "float64", "float32"):
            x = np.arange(4, dtype=dtype)
            y = np.empty_like(x)
            twice()(x, y)
            assert (y == 2 * x).all()
    assert [name for name, _ in heard] == ["doubling.twice"] * 4
    assert all(seconds > 0 for _, seconds in heard[1::2])


def test_kernels_of_others_are_their_own_affair(twice):
    numba = pytest.importorskip("numba")
    twice()(np.ones(2), np.ones(2))  # from now on Numba's events are heard
    heard = []
    with compiling.listening(lambda *what: heard.append(what)):
        numba.njit(lambda x: x + 1)(1)
    assert heard == []


def test_where_no_folder_can_be_written_kernels_are_not_kept(tmp_path):
    pytest.importorskip("numba")
    code = f"exec(compile({SOURCE!r}, '<nowhere>', 'exec'))\n" + (
        "import numpy as np; from kobai.kernels.engine import compiled\n"
        "y = np.ones(2); compiled(twice)(np.ones(2), y); print(y)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[2. 2.]\n"

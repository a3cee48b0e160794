"""Whoever compiles a kernel says so: to those who listen, else once to the log; what is read from disk passes in silence."""

import logging
import os
import subprocess
import sys
import tempfile

import numpy as np
import pytest

from kobai.cpu.job import fields
from kobai.engine import dispatch, notices
from kobai.engine.notices import NOTICE

SOURCE = """
def twice(x, y):
    for i in range(x.size):
        y[i] = 2 * x[i]
"""


@pytest.fixture(autouse=True)
def as_at_the_start(monkeypatch):
    monkeypatch.setattr(notices._state, "said", False, raising=False)
    monkeypatch.setattr(notices, "listeners", [])


@pytest.fixture
def twice(tmp_path, monkeypatch):
    pytest.importorskip("numba")
    loops = pytest.importorskip("kobai.formula.loop_code")
    monkeypatch.setenv("KOBAI_CACHE", str(tmp_path))

    def fresh():
        return dispatch.compiled(loops.load_module("doubling", SOURCE).twice)

    return fresh


def test_listeners_hear_of_each_kernel_and_how_long_it_took(caplog):
    heard = []
    with notices.listening(lambda *what: heard.append(what)):
        with notices.compiling("a"), notices.compiling("that a calls"):
            pass
        with pytest.raises(ZeroDivisionError), notices.compiling("b"):
            raise ZeroDivisionError
    assert [name for name, _ in heard] == ["a", "a", "b", "b"]
    assert [seconds is None for _, seconds in heard] == [True, False, True, False]
    assert caplog.messages == []


def test_without_listeners_the_log_says_it_once(caplog):
    with caplog.at_level(logging.WARNING, logger="kobai"):
        for name in "ab":
            with notices.compiling(name):
                pass
    assert caplog.messages == [f"kernels: {notices.NOTICE}"]


def test_numba_tells_of_what_it_compiles_and_not_of_what_it_reads(twice):
    heard = []
    with notices.listening(lambda *what: heard.append(what)):
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
    with notices.listening(lambda *what: heard.append(what)):
        numba.njit(lambda x: x + 1)(1)
    assert heard == []


def test_where_no_folder_can_be_written_kernels_are_not_kept(tmp_path):
    pytest.importorskip("numba")
    code = f"exec(compile({SOURCE!r}, '<nowhere>', 'exec'))\n" + (
        "import numpy as np; from kobai.engine.dispatch import compiled\n"
        "y = np.ones(2); compiled(twice)(np.ones(2), y); print(y)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[2. 2.]\n"


def test_the_offsets_of_a_record_are_constants(tmp_path, monkeypatch):
    """To read one number of a tuple Numba would build the whole tuple, each time: compiling took 7 % longer."""
    numba = pytest.importorskip("numba")
    loops = pytest.importorskip("kobai.formula.loop_code")
    monkeypatch.setenv("KOBAI_CACHE", str(tmp_path))
    module = loops.load_module("reading", "def read(y):\n    y[0] = RECORD.b + RECORD.c\n")
    module.RECORD = fields("a b c")
    read, y = dispatch.compiled(module.read), np.zeros(1)
    read(y)
    assert y[0] == 24
    (made,) = read.dispatcher.overloads.values()
    assert not any(isinstance(kind, numba.types.BaseTuple) for kind in made.type_annotation.typemap.values())


@pytest.mark.thorough
def test_what_is_linked_is_a_copy_of_ones_own(tmp_path, monkeypatch):
    """Copies of one name in several loops are optimised otherwise; the loader would keep whichever it met first."""
    pytest.importorskip("numba")
    loops = pytest.importorskip("kobai.formula.loop_code")
    monkeypatch.setenv("KOBAI_CACHE", str(tmp_path))
    long = "\n".join(f"    y[{i} % y.size] = x[{i} % x.size] / (y[{i + 1} % y.size] + {i}.5)" for i in range(60))
    source = f"def called(x, y):\n{long}\n\ndef calling(x, y):\n    called(x, y)\n    called(y, x)\n"
    module = loops.load_module("linking", source)
    module.called = called = dispatch.compiled(module.called)
    calling = dispatch.compiled(module.calling)
    calling(np.ones(4), np.ones(4))
    (made,) = calling.dispatcher.overloads.values()
    (other,) = called.dispatcher.overloads.values()
    name = other.fndesc.mangled_name
    assert made.library.get_function(name).linkage.name == "internal"
    assert made.library._get_module_for_linking().get_function(name).linkage.name == "linkonce_odr"


def test_code_is_compiled_again_where_something_that_it_links_has_changed(tmp_path, monkeypatch):
    """Machine code holds what was linked and the constants: those of another version of a file must not go on to be used."""
    pytest.importorskip("numba")
    loops = pytest.importorskip("kobai.formula.loop_code")
    monkeypatch.setenv("KOBAI_CACHE", str(tmp_path))

    def results(body, constant):
        calling = loops.load_module("caller", "def calling(y):\n    called(y)\n    y[0] += CONSTANT[1]\n")
        calling.called = dispatch.compiled(loops.load_module("callee", f"def called(y):\n    y[0] = {body}\n").called)
        calling.CONSTANT = (0, constant)
        function, y = dispatch.compiled(calling.calling), np.zeros(1)
        function(y)
        return y[0], sum(function.dispatcher.stats.cache_hits.values())

    assert [results(1, 1), results(1, 1)] == [(2, 0), (2, 1)]
    assert [results(2, 1), results(2, 1)] == [(3, 0), (3, 1)]
    assert [results(2, 5), results(2, 5)] == [(7, 0), (7, 1)]


# --- what is kept on disk ---------------------------------------------------------------------------------------------


def run(function):
    y = np.empty(4, np.float32)
    function(np.ones(4, np.float32), y)
    assert y.tolist() == [2, 2, 2, 2]
    return sum(function.dispatcher.stats.cache_hits.values())


@pytest.fixture
def kept(monkeypatch):
    from kobai.engine import disk_cache

    monkeypatch.setattr(disk_cache, "unkept", [])
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    disk_cache._refused.cache_clear()
    yield disk_cache
    disk_cache._refused.cache_clear()


def test_every_damage_is_noticed_and_mended_with_a_line(kept, twice, tmp_path, caplog):
    caplog.set_level(logging.WARNING, logger="kobai")
    assert [run(twice()), run(twice())] == [0, 1]
    caplog.clear()
    files = [path for path in tmp_path.rglob("*") if path.suffix in (".nbi", ".nbc", ".py")]
    assert len(files) == 3
    for path in files:
        whole = path.read_bytes()
        positions = [0, len(whole) // 2, len(whole) - 1]
        flipped = [whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :] for i in positions]
        for damaged in (*flipped, whole[: len(whole) // 2], b"", whole + b"#"):
            path.write_bytes(damaged)
            run(twice())
            assert [path.name in line and "is damaged" in line for line in caplog.messages if NOTICE not in line] == [
                True
            ]
            caplog.clear()
            assert (run(twice()), caplog.messages) == (1, [])


def test_what_is_in_the_files_is_not_run_before_it_is_checked(kept, twice, tmp_path):
    run(twice())
    planted = b"cos\nmkdir\n(V" + str(tmp_path / "taken").encode() + b"\ntR."
    for path in tmp_path.rglob("*.nb?"):
        path.write_bytes(planted)
    for path in tmp_path.rglob("kobai_*.py"):
        path.write_text(f"import os\nos.mkdir({str(tmp_path / 'taken')!r})\n{SOURCE}")
    assert run(twice()) == 0
    assert not (tmp_path / "taken").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="folders have no owner here")
@pytest.mark.parametrize("fault", ["open to others", "another user's", "a file", "full", "no home"])
def test_a_folder_that_is_not_safe_only_costs_time(kept, twice, tmp_path, monkeypatch, caplog, fault):
    caplog.set_level(logging.WARNING, logger="kobai")
    folder = tmp_path / "kernels"
    if fault == "open to others":
        folder.mkdir()
        folder.chmod(0o777)
    elif fault == "another user's":
        monkeypatch.setattr(os, "geteuid", lambda: 4711)
    elif fault == "a file":
        folder.write_text("")
    elif fault == "full":
        full = OSError(28, "No space left on device")
        monkeypatch.setattr(kept, "write_whole", lambda *_: (_ for _ in ()).throw(full))
    else:
        for name in ("HOME", "XDG_CACHE_HOME", "KOBAI_CACHE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr("os.path.expanduser", lambda path: path)
    before = set(os.listdir(tempfile.gettempdir()))
    assert [run(twice()), run(twice())] == [0, 0]
    assert not {name for name in set(os.listdir(tempfile.gettempdir())) - before if name.startswith("kobai-")}
    lines = [line for line in caplog.messages if NOTICE not in line]
    assert len(lines) == 1
    assert "compiled anew in every process" in lines[0]
    assert not list(tmp_path.rglob("*.nb?"))
    assert not list(tmp_path.rglob("*.tmp"))


def test_numbas_own_files_are_not_loaded(kept, twice, tmp_path):
    run(twice())
    for path in tmp_path.rglob("*.nb?"):
        path.rename(path.with_name(path.name.replace(".own.sha256", "")))
    assert run(twice()) == 0

"""Kobai's own threads: every part once, whoever calls from wherever; and the number of processors, containers included."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from kobai.cpu import threads
from kobai.cpu.threads import cpu_quota, num_threads, run_split, set_num_threads


@pytest.fixture(autouse=True)
def three_threads():
    set_num_threads(3)
    yield
    set_num_threads(None)


def add_one(counts, start, stop):
    counts[start:stop] += 1


class Watched:
    """A function of parts that remembers which it was given, and by whom."""

    def __init__(self, pause=0.0):
        self.parts, self.names, self.pause = [], set(), pause

    def __call__(self, start, stop):
        self.parts.append((start, stop))
        self.names.add(threading.current_thread().name)
        time.sleep(self.pause)


@pytest.mark.parametrize("grain", [1, 7, 64, 5000])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 13, 14, 63, 64, 127, 128, 1000, 9999, 10_000, 65_537])
def test_the_parts_make_up_the_whole(n, grain):
    counts = np.zeros(n, int)
    watched = Watched()
    run_split(lambda *args: (add_one(*args), watched(*args[1:])), n, counts, grain=grain)
    assert (counts == 1).all()
    sizes = [stop - start for start, stop in sorted(watched.parts)]
    assert all(size >= min(grain, n) for size in sizes[:-1])
    assert len(sizes) <= max(1, n // grain)


def test_several_threads_take_part():
    watched = Watched(pause=0.01)
    run_split(watched, 24, grain=1)
    assert threading.current_thread().name in watched.names
    assert 1 < len(watched.names) <= 3


def test_the_parts_do_not_depend_on_who_comes():
    first, second = Watched(), Watched(pause=0.001)
    run_split(first, 10_000, grain=100)
    run_split(second, 10_000, grain=100)
    assert sorted(first.parts) == sorted(second.parts)


@pytest.mark.parametrize("grain", [1, 100])
def test_a_loop_too_short_for_two_threads_stays_whole(grain):
    watched = Watched()
    run_split(watched, 2 * grain - 1, grain=grain)
    assert watched.parts == [(0, 2 * grain - 1)]


def test_one_thread_runs_the_whole_loop():
    set_num_threads(1)
    watched = Watched()
    run_split(watched, 1000, grain=1)
    assert watched.parts == [(0, 1000)]


@pytest.mark.parametrize("where", [0, 10, 20])
def test_what_a_part_raises_is_raised_when_all_have_stopped(where):
    running = []

    def loop(start, stop):
        running.append(start)
        try:
            time.sleep(0.002)
            if start == where:
                raise IndexError("class 12 of 10")
        finally:
            running.remove(start)

    for _ in range(10):
        with pytest.raises(IndexError, match="class 12 of 10"):
            run_split(loop, 24, grain=1)
        assert running == []
    test_several_threads_take_part()


def test_loops_of_several_threads_at_once():
    counts = np.zeros((8, 5000), int)

    def many(row):
        for _ in range(50):
            run_split(add_one, 5000, row, grain=100)

    callers = [threading.Thread(target=many, args=(row,)) for row in counts]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert (counts == 50).all()


def test_a_loop_within_a_loop():
    counts = np.zeros((20, 1000), int)

    def outer(start, stop):
        for i in range(start, stop):
            run_split(add_one, 1000, counts[i], grain=10)

    run_split(outer, 20, grain=1)
    assert (counts == 1).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own():
    run_split(Watched(0.001), 24, grain=1)
    with threads.pool.free:  # as if another thread were in a loop at the moment of the fork
        child = os.fork()
        if child == 0:
            watched = Watched(0.001)
            run_split(watched, 240, grain=10)
            os._exit(0 if sorted(watched.parts)[-1][1] == 240 and len(watched.names) > 1 else 1)
    for _ in range(1000):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.01)
    else:
        os.kill(child, signal.SIGKILL)
        pytest.fail("the child hangs")
    assert status == 0


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_an_interrupt_waits_for_the_other_threads():
    running = []

    def loop(start, stop):
        running.append(start)
        time.sleep(0.05)
        running.remove(start)

    timer = threading.Timer(0.12, os.kill, [os.getpid(), signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        run_split(loop, 100, grain=1)
    timer.join()
    assert len(running) <= 1  # the caller's own part, which the interrupt left in its middle
    test_several_threads_take_part()


def test_no_thread_is_started_before_it_is_needed():
    code = "import threading, kobai; print(threading.active_count())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


# --- how many processors ----------------------------------------------------------------------------------------------


def proc(tmp_path, groups, mounts):
    folder = tmp_path / "proc"
    folder.mkdir()
    (folder / "cgroup").write_text("".join(f"{line}\n" for line in groups))
    (folder / "mountinfo").write_text("".join(f"{i} 1 0:{i} {line}\n" for i, line in enumerate(mounts, 30)))
    return folder


def files(folder, **values):
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (folder / f"cpu.{name}").write_text(f"{value}\n")


def test_quota_of_version_2(tmp_path):
    root = tmp_path / "cg"
    files(root / "a" / "b", max="150000 100000")
    folder = proc(tmp_path, ["0::/a/b"], [f"/ {root} rw,nosuid shared:9 - cgroup2 cgroup2 rw"])
    assert cpu_quota(folder) == 1.5
    files(root / "a", max="50000 100000")  # a parent's limit holds for its children
    assert cpu_quota(folder) == 0.5
    files(root / "a", max="max 100000")
    files(root / "a" / "b", max="max 100000")
    assert cpu_quota(folder) is None


def test_quota_seen_from_inside_a_container(tmp_path):
    root = tmp_path / "cg"
    files(root, max="400000 100000")
    for path in ("/", "/../other", "/docker/5f2"):
        folder = proc(tmp_path, [f"0::{path}"], [f"/ {root} ro - cgroup2 cgroup rw"])
        assert cpu_quota(folder) == 4.0
        (folder / "cgroup").unlink(), (folder / "mountinfo").unlink(), folder.rmdir()


def test_quota_of_version_1(tmp_path):
    root = tmp_path / "cg dir" / "cpu,cpuacct"
    files(root / "b", cfs_quota_us=250000, cfs_period_us=100000)
    point = str(root).replace(" ", "\\040")
    mounts = [
        f"/docker/5f2 {point} rw - cgroup cgroup rw,cpu,cpuacct",
        f"/ {tmp_path / 'memory'} rw - cgroup cgroup rw,memory",
    ]
    folder = proc(tmp_path, ["4:cpu,cpuacct:/docker/5f2/b", "3:memory:/x", "0::/"], mounts)
    assert cpu_quota(folder) == 2.5
    files(root / "b", cfs_quota_us=-1)
    assert cpu_quota(folder) is None


def test_no_control_groups_no_quota(tmp_path):
    assert cpu_quota(tmp_path / "nothing") is None
    (tmp_path / "proc2").mkdir()
    assert cpu_quota(proc(tmp_path, ["0::/a"], [f"/ {tmp_path / 'cg'} rw - cgroup2 cgroup rw"])) is None


@pytest.mark.parametrize(
    ("quota", "visible", "expected"), [(None, 8, 8), (2.0, 8, 2), (2.5, 8, 3), (0.5, 8, 1), (16.0, 4, 4)]
)
def test_processors(monkeypatch, quota, visible, expected):
    monkeypatch.setattr(threads, "cpu_quota", lambda: quota)
    monkeypatch.setattr(threads, "visible_processors", lambda: visible)
    assert threads.processors.__wrapped__() == expected


@pytest.mark.parametrize(("value", "expected"), [("1", 1), ("3,2", 3), ("99", 4), ("", 4), ("many", 4), ("0", 1)])
def test_the_environment_may_ask_for_fewer(monkeypatch, value, expected):
    set_num_threads(None)
    monkeypatch.setattr(threads, "processors", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    monkeypatch.setattr(threads, "_usual", threads._usual.__wrapped__)
    assert num_threads() == expected


def test_mounts_whose_names_are_no_ascii(tmp_path):
    (tmp_path / "cgroup").write_bytes(b"0::/\n")
    (tmp_path / "mountinfo").write_bytes(
        "1 2 0:1 / /Geräte rw - ext4 x rw\n".encode() + b"1 2 0:1 / /\xff rw - ext4 x rw\n"
    )
    program = (
        f"from pathlib import Path; from kobai.cpu import threads; threads._control_groups(Path({str(tmp_path)!r}))"
    )
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", program], env=ascii_only, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")

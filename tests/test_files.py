"""A folder belongs to one process at a time, and what a dead one left in it is told from all other files."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kobai.core import checksum, files
from kobai.core.files import LOCK, Lock, Process, append, sweep, this_process, write_atomically
from kobai.errors import DataError

HOLD = """
import sys, time
from pathlib import Path
from kobai.core.files import Lock
with Lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(120)
"""

USERS = [
    ".draft.md.tmp",
    ".next.safetensors.abc.tmp",
    "notes.tmp",
    ".tmp",
    ".kobai.tmp",
    ".kobai-notes-1-2-3.tmp",
    ".kobai-0123abcd-12-0123abcd-0123abcd.tmp.bak",
    "x.kobai-0123abcd-12-0123abcd-0123abcd.tmp",
]


def holder(folder: Path) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen) -> None:
    process.kill()
    process.communicate()


# --- locks ------------------------------------------------------------------------------------------------------------


def test_a_second_process_is_refused_and_told_the_owner_until_that_dies(tmp_path):
    process = holder(tmp_path)
    try:
        for _ in range(2):
            with pytest.raises(
                BlockingIOError, match=f"is in use by process {process.pid} on this machine since "
            ) as caught:
                Lock(tmp_path).acquire()
            assert caught.value.filename == str(tmp_path)
    finally:
        end(process)
    assert (tmp_path / LOCK).exists()  # left behind by a process that was killed, and nobody's
    with Lock(tmp_path):
        assert str(os.getpid()) in (tmp_path / LOCK).read_text().split("\n")
    assert list(tmp_path.iterdir()) == []


def test_a_thread_may_enter_again_and_another_may_not(tmp_path):
    refused = []

    def other():
        try:
            Lock(tmp_path).acquire()
        except BlockingIOError as error:
            refused.append(error)

    with Lock(tmp_path), Lock(tmp_path / "." / ""):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(refused) == 1
    with Lock(tmp_path):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_does_not_keep_the_lock_of_its_parent(tmp_path):
    code = (
        "import os, sys, time\nfrom pathlib import Path\nfrom kobai.core.files import Lock\n"
        "Lock(Path(sys.argv[1])).acquire()\n"
        "if os.fork() == 0:\n    print(os.getpid(), flush=True)\n    time.sleep(60)\nos._exit(0)\n"
    )
    done = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    child = int(done.stdout.readline())
    done.wait()
    try:
        with Lock(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        done.communicate()


@pytest.mark.parametrize("content", ["", "host", "host\n12\nx\nnever\n", "a\nb\nc\nd\ne\nf\n"])
def test_a_lock_file_that_holds_nothing_or_nonsense_is_nobodys(tmp_path, content):
    (tmp_path / LOCK).write_text(content)
    with Lock(tmp_path):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="flock")
def test_where_the_file_system_has_no_locks_the_owner_must_be_alive(tmp_path, monkeypatch):
    import fcntl

    def none(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    process = holder(tmp_path)
    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(BlockingIOError, match=f"process {process.pid}"):
        Lock(tmp_path).acquire()
    end(process)
    with Lock(tmp_path):
        pass
    (tmp_path / LOCK).write_text(f"elsewhere\n1\n\n{time.time()}\n")
    with pytest.raises(BlockingIOError, match="process 1 on elsewhere"):
        Lock(tmp_path).acquire()


def test_a_process_with_the_number_of_a_dead_one_is_not_taken_for_it():
    me = this_process()
    assert me.alive(0.0)  # silent for ever, and there
    if me.birth:
        assert not me._replace(birth="00000001").alive(time.time())
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    if sys.platform != "win32":
        assert not Process(me.host, dead.pid, "").alive(time.time())
        assert not Process(me.host, dead.pid, me.birth).alive(time.time())
    assert Process("elsewhere", 1, "").alive(time.time())
    assert not Process("elsewhere", 1, "").alive(time.time() - 2 * files.SILENCE)


# --- temporary files --------------------------------------------------------------------------------------------------


def test_only_temporary_files_of_dead_processes_are_swept(tmp_path):
    me = this_process()
    host = files._short(me.host)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = tmp_path / f".kobai-{host}-{dead.pid}-0123abcd-89abcdef.tmp"
    mine = tmp_path / f".kobai-{host}-{me.pid}-{me.birth or '0' * 8}-89abcdef.tmp"
    theirs, old = (tmp_path / f".kobai-{'0' * 8}-1-0123abcd-{name}.tmp" for name in ("89abcdef", "01234567"))
    for path in (left, mine, theirs, old, *(tmp_path / name for name in USERS)):
        path.write_text("text")
    os.utime(old, (1, 1))
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {mine.name, theirs.name, *USERS}


def test_a_write_that_was_killed_leaves_a_file_that_is_swept(tmp_path):
    code = (
        "import os, sys\nfrom kobai.core.files import write_atomically\nos.replace = lambda *a: os._exit(9)\n"
        "write_atomically(sys.argv[1], b'half')\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "f")]).returncode == 9
    (left,) = tmp_path.iterdir()
    assert files.is_ours(left.name)
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_name_as_long_as_names_may_be(tmp_path):
    write_atomically(tmp_path / ("n" * 255), b"x")


# --- lines ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [b"", b"first\n", b"first\n" + b"x" * 10_000, b"x" * 10_000])
def test_a_line_that_was_cut_off_gives_way_to_the_next(tmp_path, before):
    (tmp_path / "f").write_bytes(before)
    append(tmp_path / "f", b"next\n")
    assert (tmp_path / "f").read_bytes() == before[: before.rfind(b"\n") + 1] + b"next\n"


def test_a_line_that_could_not_be_written_is_not_there(tmp_path, monkeypatch):
    (tmp_path / "f").write_bytes(b"first\n")

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        append(tmp_path / "f", b"next\n")
    assert caught.value.filename == str(tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == b"first\n"


def test_json_is_read_with_and_without_a_checksum_and_not_when_damaged(tmp_path):
    path, content = tmp_path / "f.json", {"a": [1.5, None, "ü", {"b": True}], "c": checksum.BLANK}
    for indent in (None, 1):
        checksum.write_json(path, content, indent)
        assert checksum.read_json(path) == content
        whole = path.read_bytes()
        for place in range(len(whole)):
            for bit in range(8):
                with pytest.raises(ValueError):
                    checksum.from_json(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        path.write_bytes(whole.replace(b"1.5", b"2.5"))
        with pytest.raises(DataError, match=r"f\.json: is damaged: its content does not match its checksum"):
            checksum.read_json(path)
        path.write_bytes(whole[:-9])
        with pytest.raises(DataError, match=r"f\.json: is "):
            checksum.read_json(path)
    for other in (b'{"a": 1}', b"[1]", b'{"checksum": "crc32:00000000"}'):
        path.write_bytes(other)
        assert checksum.read_json(path)

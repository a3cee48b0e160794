"""Files that are whole at every moment, and folders locked by one process.

Everything Kobai writes to the folder of a run, a comparison or a search goes through :func:`write_atomically`, which replaces a
file, or :func:`append`, which adds whole lines to one. A process may die between any two of these calls. What it leaves
behind is a temporary file or a lock. Both name their owner, so that the next process can tell them from the user's files
and from those of a live process.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from kobai.core.untrusted import real

SILENCE = 600.0
"""Seconds of silence after which a process of another machine counts as dead."""

LOCK = ".kobai-lock"
_TEMPORARY = re.compile(r"\.kobai-([0-9a-f]{8})-([0-9]+)-([0-9a-f]{8})-[0-9a-f]{8}\.tmp")
"""``.kobai-<host>-<pid>-<birth>-<random>.tmp``: only Kobai uses such names."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""Errors of a file system without locks."""


# --- processes --------------------------------------------------------------------------------------------------------


class Process(NamedTuple):
    """A process of any machine. ``birth`` tells it from a later one with the same pid; empty if the system does not say."""

    host: str
    pid: int
    birth: str

    def alive(self, heard: float) -> bool:
        """Whether it runs; for one on another machine, whether it gave a sign of life in the last ``SILENCE`` seconds."""
        if self.host != _host() or sys.platform == "win32":  # there, os.kill(pid, 0) would end it
            return time.time() - heard < SILENCE
        if self.birth:
            return self.birth == _birth(self.pid)
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


def this_process() -> Process:
    """The calling process."""
    return _process(os.getpid())


@lru_cache(maxsize=2)
def _process(pid: int) -> Process:
    return Process(_host(), pid, _birth(pid))


def _host() -> str:
    import socket  # 10 ms, kept out of import kobai

    return socket.gethostname()


def _birth(pid: int) -> str:
    """When a process started, if the system says so (Linux)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return _short(f"{boot} {stat.rpartition(')')[2].split()[19]}")  # in ticks since that boot: man 5 proc


def _short(text: str) -> str:
    return f"{zlib.crc32(text.encode(errors='surrogateescape')):08x}"


# --- writing ----------------------------------------------------------------------------------------------------------


def write_atomically(path: str | os.PathLike[str], content: bytes | Iterable[bytes]) -> None:
    """Write a file so that the path holds all of the old content or all of the new, also after a crash or on a full disk.

    A symbolic link is kept and its target replaced; a device or a pipe is written to directly.
    """
    target = Path(path)
    if not (target.is_file() or target.is_dir()) and target.exists():
        with _errors_about(target), target.open("wb") as stream:
            stream.writelines([content] if isinstance(content, bytes) else content)
        return
    if target.is_symlink():
        target = real(target)
        if target.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(path))
    if target.parent not in _swept:
        sweep(target.parent)
    me = this_process()
    name = f".kobai-{_short(me.host)}-{me.pid}-{me.birth or '0' * 8}-{os.urandom(4).hex()}.tmp"
    temporary = target.parent / name
    with _errors_about(target):
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        try:
            try:
                for chunk in [content] if isinstance(content, bytes) else content:
                    _write(file, chunk)
                os.fsync(file)  # the rename must not reach the disk before the bytes do
            finally:
                os.close(file)
            os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):  # a full disk may refuse this too; sweep finds the file later
                os.unlink(temporary)
            raise


def append(path: str | os.PathLike[str], line: bytes) -> None:
    """Append a whole line, and flush it to disk. An incomplete last line is removed first."""
    with _errors_about(Path(path)):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        try:
            size = os.lseek(file, 0, os.SEEK_END)
            whole = _lines_end(file, size)
            if whole != size:
                os.ftruncate(file, whole)
            try:
                _write(file, line)
                os.fsync(file)
            except BaseException:  # for the caller, nothing was written
                with suppress(OSError):
                    os.ftruncate(file, whole)
                raise
        finally:
            os.close(file)


def _lines_end(file: int, size: int) -> int:
    """Where the last whole line ends."""
    end = size
    while end:
        begin = max(0, end - 4096)
        os.lseek(file, begin, os.SEEK_SET)
        found = os.read(file, end - begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def _write(file: int, content: bytes) -> None:
    left = memoryview(content)
    while len(left):
        left = left[os.write(file, left) :]


@contextmanager
def _errors_about(target: Path) -> Iterator[None]:
    """Errors of the system name the target, not the temporary file, which means nothing to the user."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(target)) from error


# --- what is left behind ----------------------------------------------------------------------------------------------


def is_ours(name: str) -> bool:
    """Whether this is the name of one of Kobai's locks or temporary files."""
    return name == LOCK or _TEMPORARY.fullmatch(name) is not None


_swept: set[Path] = set()
"""Folders that this process has swept."""


def sweep(folder: Path) -> None:
    """Remove the temporary files of dead processes; called when a process first writes to a folder."""
    me = this_process()
    _swept.add(folder)
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        found = _TEMPORARY.fullmatch(path.name)
        if found is None:
            continue
        host, pid, birth = found[1], int(found[2]), found[3].replace("0" * 8, "")
        with suppress(OSError):  # already gone, or no permission
            owner = Process(me.host if host == _short(me.host) else "elsewhere", pid, birth)
            if not owner.alive(path.stat().st_mtime):
                path.unlink()


# --- locking a folder -------------------------------------------------------------------------------------------------


class Lock:
    """Exclusive use of a folder by one thread of one process.

    The system locks the file ``.kobai-lock``, which names the owner; the lock ends with its process. Where the file system
    has no locks, the folder is taken as long as the owner is alive. A thread that holds the lock may take it again.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, Lock(Path(folder)):
    ...     (Path(folder) / LOCK).exists()
    True
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def acquire(self) -> None:
        """Lock the folder, which must exist; BlockingIOError naming the owner if another holds it."""
        key, me = os.path.realpath(self.folder), threading.get_ident()
        with _guard:
            held = _held.get(key)
            if held is not None and held.thread != me:
                raise _in_use(self.folder, this_process(), held.since)
            file = self._take() if held is None else held.file
            since, depth = (time.time(), 0) if held is None else (held.since, held.depth)
            _held[key] = _Held(file, me, since, depth + 1)

    def release(self) -> None:
        """Unlock the folder."""
        key = os.path.realpath(self.folder)
        with _guard:
            held = _held.pop(key)
            if held.depth > 1:
                _held[key] = held._replace(depth=held.depth - 1)
                return
            try:
                with suppress(OSError):  # the folder may be gone, and Windows does not remove open files
                    os.unlink(self.folder / LOCK)
            finally:
                os.close(held.file)

    def _take(self) -> int:
        path = self.folder / LOCK
        while True:
            with _errors_about(path):
                file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                free = _locked(file)
                owner, since = _read_owner(file)
                if free is None:
                    free = owner is None or not owner.alive(since)
                if not free:
                    raise _in_use(self.folder, owner, since)
                if _is_file(path, file):  # not one that its owner has just removed
                    os.ftruncate(file, 0)
                    os.lseek(file, 0, os.SEEK_SET)
                    host, pid, birth = this_process()
                    _write(file, f"{host}\n{pid}\n{birth}\n{time.time():.0f}\n".encode(errors="surrogateescape"))
                    return file
            except BaseException:
                os.close(file)
                raise
            os.close(file)


class _Held(NamedTuple):
    file: int
    thread: int
    since: float
    depth: int


_held: dict[str, _Held] = {}
_guard = threading.Lock()


def _forget() -> None:
    """A forked child inherits open files, and must not keep a lock that its parent releases."""
    global _guard
    _guard = threading.Lock()
    for held in _held.values():
        os.close(held.file)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _locked(file: int) -> bool | None:
    """Whether this process now holds the system's lock on an open file; None if the file system has no locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(file, 1 << 20, os.SEEK_SET)  # beyond the text, which others may read
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return None if error.errno in _NO_LOCKS else False
    return True


def _read_owner(file: int) -> tuple[Process | None, float]:
    """Who wrote the lock file, and when; None if the file is incomplete."""
    os.lseek(file, 0, os.SEEK_SET)
    try:
        host, pid, birth, since, _ = os.read(file, 4096).decode(errors="surrogateescape").split("\n")
        return Process(host, int(pid), birth), float(since)
    except ValueError:
        return None, 0.0


def _is_file(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False


def _in_use(folder: Path, owner: Process | None, since: float) -> BlockingIOError:
    who = "another process"
    if owner is not None:
        where = "this machine" if owner.host == _host() else owner.host
        who = f"process {owner.pid} on {where} since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(since))}"
    return BlockingIOError(
        errno.EWOULDBLOCK, f"is in use by {who}; wait until that has ended, or choose another folder", str(folder)
    )

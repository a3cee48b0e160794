"""One process compiles a kernel while others that need it wait, and then read it from disk.

Processes that begin together, such as those of a job, would else compile all kernels once each. A process holds a lock on the
kernel's place in a file beside the machine code: a byte range, numbered by a checksum of the kernel's name and types. The
system gives it back when the process ends, however it ends. A kernel is compiled before those that call it, so no two
processes wait for each other; where the checksums of two kernels are equal they might, which the system refuses (EDEADLK).
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: every process compiles for itself
    fcntl = None  # type: ignore[assignment]

FILE = "compiling.lock"

possible = fcntl is not None
"""Whether processes wait for each other here."""

_open: dict[Path, int] = {}
"""Descriptors of the files, one for each folder: to close one would give back all locks of the process in its file."""

Turn = tuple[int, int]
"""A descriptor, and the place that is locked."""


def take(folder: Path, kernel: str) -> Turn | None:
    """Wait until no other process compiles this kernel, and keep others from it; None where there are no locks."""
    if fcntl is None:
        return None
    place = zlib.crc32(kernel.encode())
    try:
        if folder not in _open:
            _open[folder] = os.open(folder / FILE, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        fcntl.lockf(_open[folder], fcntl.LOCK_EX, 1, place)
    except OSError:  # a file system without locks, or a folder that is no more: it is compiled twice
        return None
    return _open[folder], place


def give_back(turn: Turn) -> None:
    """Let others have the kernel."""
    fcntl.lockf(turn[0], fcntl.LOCK_UN, 1, turn[1])

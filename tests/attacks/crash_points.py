"""A process that dies, or a disk that is full, at every single call that changes something on the disk.

The calls of :data:`CALLS` below a folder are counted. At the k-th the process *dies*: the call is not done – of a write, half
of it is – and from then on nothing on the disk changes, whatever handlers still run, as if there were none. Or the disk is
*full*: from then on everything that takes room fails. Then the command is done again, and must come to what it would have
come to undisturbed.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import random
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from attacks.commands import COMMANDS, Command, perform, prepare
from kobai.core import files

CALLS = (
    "open",
    "write",
    "ftruncate",
    "fsync",
    "replace",
    "rename",
    "unlink",
    "remove",
    "mkdir",
    "rmdir",
    "symlink",
    "link",
)
TAKES_ROOM = ("open", "write", "fsync", "mkdir", "symlink", "link")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Died(BaseException):
    """The process is no more; what still runs of it changes nothing."""


class Disk:
    """Counts the calls that change something below ``root``, and has the ``at``-th of them go wrong, in one of two ways."""

    def __init__(self, root: Path, at: int = 0, how: str = "dies") -> None:
        self.root, self.at, self.how = os.path.realpath(root), at, how
        self.count, self.last, self.files = 0, "", set[int]()
        self.failed = False
        self.patches: list[Any] = []

    def __enter__(self) -> Disk:
        for name in CALLS:
            self.patches.append(mock.patch.object(os, name, self._counted(name, getattr(os, name))))
        self.patches.append(mock.patch.object(os, "close", self._closing(os.close)))
        self.patches += [mock.patch.object(module, "open", self._past(io.open)) for module in (io, builtins)]
        if self.how == "dies":  # what it leaves on the disk is a dead process's
            dead = files.this_process()._replace(birth="00000001")
            self.patches.append(mock.patch.object(files, "_process", mock.Mock(return_value=dead)))
        for patch in self.patches:
            patch.start()
        return self

    def __exit__(self, *error: object) -> None:
        for patch in reversed(self.patches):
            patch.stop()

    def _below(self, path: Any) -> bool:
        if isinstance(path, int):
            return path in self.files
        return (os.path.realpath(os.path.dirname(os.path.abspath(path))) + os.sep).startswith(self.root + os.sep)

    def _counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            flags = args[1] if name == "open" and len(args) > 1 else _WRITING
            where = args[1] if name in ("symlink", "link") else args[0]
            if not (self._below(where) and flags & _WRITING):
                return call(*args, **options)
            self.count += 1
            if self.at and self.count >= self.at:
                self.last = self.last or f"{name} {where}"
                if name == "write" and self.count == self.at:
                    call(args[0], bytes(args[1])[: len(args[1]) // 2])
                if self.how == "dies":
                    raise Died(name)
                if name in TAKES_ROOM:
                    self.failed = True
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            found = call(*args, **options)
            if name == "open":
                self.files.add(found)
            return found

        return counted

    def _closing(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def closing(file: int) -> None:
            self.files.discard(file)
            call(file)

        return closing

    def _past(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def opened(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            if set(mode) & set("wax+") and not isinstance(file, int) and self._below(file):
                raise AssertionError(f"{file} is written past the counted calls")
            return call(file, mode, *args, **options)

        return opened


def undisturbed(command: Command, given: Path, out: Path) -> tuple[int, Any]:
    """How many calls a command makes, and what it comes to."""
    command.before(given, out)
    with Disk(out.parent) as disk:
        code, told = perform(command, given, out)
    assert code == 0, told
    return disk.count, command.outcome(out)


def disturbed(command: Command, given: Path, out: Path, at: int, how: str, wanted: Any) -> str | None:
    """What is wrong after a command that was disturbed at its ``at``-th call was done again; None if nothing is."""
    command.before(given, out)
    there = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} if out.exists() else {}
    told = ""
    with Disk(out.parent, at, how) as disk:
        try:
            code, told = perform(command, given, out)
            if how == "dies":
                return "went on after its death"
            *before, last = told.splitlines() or [""]  # before: which file, epoch and data the command works on
            said = len(before) <= 1 and os.strerror(errno.ENOSPC) in last
            if disk.failed and (code == 0 or not said):
                return f"on a full disk ({disk.last}), exit code {code} and {told!r}"
        except Died:
            pass
        except BaseException:
            return f"at {disk.last}: {traceback.format_exc()}"
    files._swept.clear()  # as a new process begins
    for lock in out.rglob("*.lock"):  # Optuna waits for half a minute before it breaks it
        lock.unlink()
    again = command.again(out, at) if command.again is not None else None
    try:
        code, told = perform(command, given, out, again)
        if code != 0:
            return f"at {disk.last}; again: exit code {code}, {told!r}"
        found = command.outcome(out)
    except BaseException:
        return f"at {disk.last}; again: {traceback.format_exc()}"
    if found != wanted:
        return f"at {disk.last}; comes to something else: {found!r:.2000} is not {wanted!r:.2000}"
    if left := [path.name for path in out.rglob("*") if files.is_ours(path.name)]:
        return f"at {disk.last}; left behind: {left}"
    if gone := [path for path in there if not path.exists()]:
        return f"at {disk.last}; gone: {gone}"
    return None


def points(name: str, folder: Path, seed: int, share: float, say: Callable[[str], None]) -> list[str]:
    """Disturb one command at a ``share`` of its calls, in both ways."""
    command, failures = COMMANDS[name], []
    given = folder / "given"
    if not given.exists():
        given.mkdir()
        prepare(given)
    work = folder / name
    work.mkdir()
    count, wanted = undisturbed(command, given, work / "out")
    chance = random.Random(f"{seed} {name}")
    cases = [(at, how) for at in range(1, count + 1) for how in ("dies", "full")]
    cases = sorted(chance.sample(cases, max(min(4, len(cases)), round(share * len(cases)))))
    for at, how in cases:
        shutil.rmtree(work)
        work.mkdir()
        wrong = disturbed(command, given, work / "out", at, how, wanted)
        if wrong is not None:
            failures.append(f"{name}, {how} at call {at} of {count}: {wrong}")
            say(failures[-1])
    say(f"{name}: {count} calls, {len(cases)} of {2 * count} disturbances, {len(failures)} failures")
    return failures


def attack(seed: int, share: float, folder: Path, say: Callable[[str], None]) -> list[str]:
    """All commands."""
    return [failure for name in COMMANDS for failure in points(name, folder, seed, share, say)]

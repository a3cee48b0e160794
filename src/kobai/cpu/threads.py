"""How many processors there are for this process, and loops over large arrays split among them.

Kobai's own threads sleep on locks between loops. Where they take parts of products (:mod:`kobai.cpu.team`) they stay
awake for a millisecond before they do, but offer their processor to others meanwhile: threads of BLAS and OpenMP, which do
not, starve each other where two pools spin, and a step then takes sixteen times as long.
"""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Callable
from functools import cache
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from kobai.cpu import product, team

GRAIN = 1 << 20
"""Elements of an elementwise loop that are worth handing to another thread.

Measured on two cores: the other thread takes some 50 µs to wake up and one core nearly exhausts the memory, so that Adam on
2 M parameters gains (740 to 440 µs) and on 1 M does not; right after a product by OpenBLAS, whose own thread spins on the
other core for another 25 ms, neither does, and neither loses more than a tenth. Loops that compute (an exponential takes
2 ns) gain from 2¹⁷ elements on, which is for their callers to say.
"""


# --- how many ---------------------------------------------------------------------------------------------------------


@cache
def processors() -> int:
    """Processors that this process may keep busy: what its affinity allows, and its container's quota pays for."""
    quota = cpu_quota()
    allowed = visible_processors()
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def visible_processors() -> int:
    """Processors that this process may run on, whatever share of their time it is granted."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_quota(proc: Path = Path("/proc/self")) -> float | None:
    """Processors' worth of time that the control groups of this process grant it (Linux, version 1 or 2), None for no limit.

    Containers are limited so: the processors beyond the quota are visible, and threads on them are put to sleep.
    Each group from the process's own up to the root of what is mounted counts.
    (https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/scheduler/sched-bwc.html)
    """
    limits = []
    for folder, stop in _control_groups(proc):
        while True:
            limit = _limit(folder)
            if limit is not None:
                limits.append(limit)
            if folder == stop or folder == folder.parent:
                break
            folder = folder.parent
    return min(limits, default=None)


def _control_groups(proc: Path) -> list[tuple[Path, Path]]:
    """(folder of this process's group, mount point) of each hierarchy that can limit processors."""
    try:
        groups = [line.split(":", 2) for line in os.fsdecode((proc / "cgroup").read_bytes()).splitlines()]
        mounts = [line.partition(" - ") for line in os.fsdecode((proc / "mountinfo").read_bytes()).splitlines()]
    except OSError:  # not Linux, or no /proc
        return []
    found = []
    for left, _, right in mounts:
        kind, options = right.partition(" ")[0], right.rpartition(" ")[2]
        if kind not in ("cgroup", "cgroup2") or (kind == "cgroup" and "cpu" not in options.split(",")):
            continue
        root, point = (part.replace("\\040", " ") for part in left.split()[3:5])
        for _, controllers, path in groups:
            if (kind == "cgroup2") == (not controllers) and (not controllers or "cpu" in controllers.split(",")):
                # Seen from inside a container the group's path may lie above the mount: then the mount is the group.
                inside = path.removeprefix(root) if root != "/" and path.startswith(root) else path
                folder = Path(point) / inside.lstrip("/")
                found.append((folder if folder.is_dir() and ".." not in inside else Path(point), Path(point)))
    return found


def _limit(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        return None if quota == "max" or int(quota) <= 0 else int(quota) / int(period)
    except (OSError, ValueError):  # no such controller here, or a form that we do not know
        return None


_chosen: int | None = None


def num_threads() -> int:
    """Threads that :func:`run_split` uses, the caller's among them: as set, else ``OMP_NUM_THREADS`` within the processors."""
    return _usual() if _chosen is None else _chosen


@cache
def _usual() -> int:
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return max(1, min(processors(), int(wanted))) if wanted.isdecimal() else processors()


def set_num_threads(n: int | None) -> None:
    """Let :func:`run_split` use ``n`` threads; None for as many as there are processors."""
    global _chosen
    _chosen = n


# --- a loop among threads ---------------------------------------------------------------------------------------------


class _Loop:
    """One loop over [0, n): parts that whoever comes takes, so that a thread that wakes late delays nobody."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], n: int, step: int) -> None:
        self.function, self.args, self.n, self.step = function, args, n, step
        self.starts = deque(range(0, n, step))
        self.error: BaseException | None = None
        self.lock = threading.Lock()
        self.helpers, self.closed = 0, False
        self.left = threading.Lock()
        self.left.acquire()

    def work(self) -> None:
        while self.error is None:
            try:
                start = self.starts.popleft()
            except IndexError:
                return
            try:
                self.function(*self.args, start, min(start + self.step, self.n))
            except BaseException as error:
                self.error = error

    def help(self) -> None:
        """What another thread does; nothing if it comes when the caller has left."""
        with self.lock:
            if self.closed:
                return
            self.helpers += 1
        self.work()
        with self.lock:
            self.helpers -= 1
            last = self.closed and not self.helpers
        if last:
            self.left.release()

    def run(self) -> None:
        """What the caller does: its share, and then wait for the parts that others have taken."""
        over = False
        while not over:
            try:
                self.work()
                with self.lock:
                    self.closed, waits = True, self.helpers > 0
                if waits:
                    self.left.acquire()
                over = True
            except BaseException as interrupt:  # of a handler of signals: not before the others have stopped writing
                self.error = self.error or interrupt
        if self.error is not None:
            raise self.error


class _Pool:
    """Threads beside the caller's, and where they find work: loops in a queue, products on a board."""

    def __init__(self) -> None:
        self.free = threading.Lock()
        """Held by the thread whose loop has the pool. Others look first and do without; one that looks between
        another's look and its turn waits for it. It is taken by ``with`` alone: between ``acquire()`` and ``try`` an exception
        that a handler of signals raises would leave it locked for ever."""
        self.loops: SimpleQueue[_Loop | None] = SimpleQueue()
        self.threads = 0
        self.board: team.Board | None = None
        self.job = product.Product()

    def ask(self, loop: _Loop, helpers: int) -> None:
        """Have threads help with a loop."""
        self._have(helpers)
        for _ in range(helpers):
            self.loops.put(loop)
        if self.board is not None:
            team.change(self.board.address + team.CALLS, 1)

    def share(self, job: team.Job) -> None:
        """Do a job with the threads that are awake; as many as it has parts for are woken, but nobody waits for them."""
        helpers = min(job.parts, num_threads()) - 1
        if not helpers:
            team.alone(job.address, scratch())
            return
        if self.board is None:
            self.board = team.Board()
            for _ in range(self.threads):
                self.loops.put(None)
        self._have(helpers)
        board = self.board.address
        if lacking := team.share(board, job.address, self.threads, scratch()):
            for _ in range(team.take(board + team.ASLEEP, lacking)):
                self.loops.put(None)
            team.share(board, job.address, 0, scratch())

    def _have(self, helpers: int) -> None:
        while self.threads < helpers:
            name = f"kobai-{self.threads + 1}"
            threading.Thread(target=_serve, args=(self,), name=name, daemon=True).start()
            self.threads += 1

    # ASLEEP on the board: helpers that wait for the queue, less the Nones that are in it.

    def wait(self) -> _Loop | None:
        """Sleep until there is a loop to help with or, None, a product."""
        if self.board is None:
            return self.loops.get()
        asleep = self.board.address + team.ASLEEP
        team.change(asleep, 1)
        loop = self.loops.get()
        if loop is not None:
            team.change(asleep, -1)
        return loop

    def awake(self) -> _Loop | None:
        """Take parts of products until there is a loop to help with or, None, nothing for a while."""
        board = self.board
        while board is not None:
            calls = team.read(board.address + team.CALLS)
            try:
                loop = self.loops.get_nowait()
            except Empty:
                if not team.serve(board.address, calls, scratch()):
                    return None
                continue
            if loop is not None:
                return loop
            team.change(board.address + team.ASLEEP, 1)  # it was to wake another
        return None


def _serve(pool: _Pool) -> None:
    """The life of a helper."""
    while True:
        loop = pool.wait()
        while True:
            if loop is not None:
                loop.help()
            loop = pool.awake()
            if loop is None:
                break


_pool = _Pool()


def _forget() -> None:
    """In a forked child the parent's threads do not exist, and its locks may be held for ever."""
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def run_split(function: Callable[..., Any], n: int, *args: Any, grain: int = GRAIN) -> None:
    """Call ``function(*args, start, stop)`` for parts that make up [0, n), on several threads where that is faster.

    ``function`` is a compiled loop, which runs without the interpreter's lock, and must not depend on how [0, n) is parted.
    A part has at least ``grain`` items, about 50 µs of work. The caller works too; the loop is whole – ``function(*args, 0,
    n)`` – if it has fewer than two such parts, if there is one processor, or if another thread's loop has the pool. What
    a part raises is raised here, when no other part runs any more.
    """
    pool = _pool
    threads = 1 if n < 2 * grain else min(num_threads(), n // grain)
    if threads < 2 or pool.free.locked():
        function(*args, 0, n)
        return
    with pool.free:
        # More parts than threads: who is held up, by a spinning BLAS or by another process, leaves them to the others.
        parts = min(n // grain, 8 * threads)
        step = -(-n // parts)
        loop = _Loop(function, args, n, -(-step // 64) * 64 if step >= 1024 else step)
        try:
            pool.ask(loop, threads - 1)
            loop.run()
        except BaseException as error:  # before it ran: helpers may be at work
            loop.error = loop.error or error
            if not loop.closed:
                loop.run()
            raise


def share_job(job: team.Job) -> None:
    """Do each part of a job on a thread; all of them on this one if another thread's loop has the pool."""
    pool = _pool
    if pool.free.locked():
        team.alone(job.address, scratch())
        return
    with pool.free:
        pool.share(job)


def share_product(*factors: Any) -> bool:
    """As :func:`share_job` for a product that is done but once, described as to it; False if it is none of ours."""
    pool = _pool
    if pool.free.locked():
        job = product.Product()
        if described := job.describe(*factors):
            team.alone(job.address, scratch())
        return described
    with pool.free:
        if described := pool.job.describe(*factors):
            pool.share(pool.job)
        return described


class _Own(threading.local):
    """What each thread has for itself."""

    memory: Any = None
    address = 0


_own = _Own()


def scratch() -> int:
    """The address of memory that this thread needs for parts of jobs."""
    if not _own.address:
        _own.memory = product.scratch()
        _own.address = _own.memory.ctypes.data
    return _own.address

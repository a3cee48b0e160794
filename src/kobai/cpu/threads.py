"""How many processors this process has, and loops over large arrays split among threads.

A loop over [0, n) is cut into more parts than there are threads. Whoever is free takes the next one, the caller too, so a
thread that wakes late, or has lost its processor to another program, delays nobody:

    parts      | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 |
    caller       #       #   #       #       #       does what nobody else has taken, then waits for the parts that others have
    kobai-1          #           #       #           woken 50 µs later through the queue

Between loops a helper sleeps on the queue. With Numba it first stays awake for a millisecond to take parts of products, which
are too short to be woken for; that is :mod:`kobai.cpu.team`, of which the pool knows only what :class:`Awake` says. It never
spins for longer: threads of BLAS and OpenMP do, and where two such pools meet a step takes sixteen times as long.
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
from typing import Any, Protocol

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


class Awake(Protocol):
    """What a helper may do before it goes to sleep, if there is such a thing (:class:`kobai.cpu.team.Board`)."""

    def calls(self) -> int:
        """How many times :meth:`call` was called."""

    def call(self) -> None:
        """There is a loop in the queue: whoever serves is to come and look."""

    def serve(self, calls: int) -> bool:
        """Work; True once there are more ``calls``, False when there has been no work for a while."""

    def asleep(self, by: int) -> None:
        """So many more helpers sleep, or fewer."""


class Pool:
    """Threads beside the caller's, and the queue on which they sleep. None in the queue wakes a helper for ``awake``."""

    def __init__(self) -> None:
        self.free = threading.Lock()
        """Held by the thread whose work has the pool. Others look first and do without; one that looks between
        another's look and its turn waits for it. It is taken by ``with`` alone: between ``acquire()`` and ``try`` an exception
        that a handler of signals raises would leave it locked for ever."""
        self.queue: SimpleQueue[_Loop | None] = SimpleQueue()
        self.threads = 0
        self.awake: Awake | None = None

    def have(self, helpers: int) -> None:
        """Start threads until there are so many."""
        while self.threads < helpers:
            name = f"kobai-{self.threads + 1}"
            threading.Thread(target=self._serve, name=name, daemon=True).start()
            self.threads += 1

    def wake(self, helpers: int) -> None:
        """Let so many helpers that sleep take part in what ``awake`` is."""
        for _ in range(helpers):
            self.queue.put(None)

    def ask(self, loop: _Loop, helpers: int) -> None:
        """Have threads help with a loop."""
        self.have(helpers)
        for _ in range(helpers):
            self.queue.put(loop)
        if self.awake is not None:
            self.awake.call()

    def _serve(self) -> None:
        """The life of a helper."""
        while True:
            loop = self._sleep()
            while True:
                if loop is not None:
                    loop.help()
                loop = self._stay_awake()
                if loop is None:
                    break

    # Helpers count as asleep while they wait for the queue, less the Nones that are in it.

    def _sleep(self) -> _Loop | None:
        """Until there is a loop to help with or, None, a job for those who are awake."""
        awake = self.awake
        if awake is None:
            return self.queue.get()
        awake.asleep(1)
        loop = self.queue.get()
        if loop is not None:
            awake.asleep(-1)
        return loop

    def _stay_awake(self) -> _Loop | None:
        """Until there is a loop to help with or, None, nothing for a while."""
        awake = self.awake
        while awake is not None:
            calls = awake.calls()
            try:
                loop = self.queue.get_nowait()
            except Empty:
                if not awake.serve(calls):
                    return None
                continue
            if loop is not None:
                return loop
            awake.asleep(1)  # it was to wake another
        return None


pool = Pool()


def _forget() -> None:
    """In a forked child the parent's threads do not exist, and its locks may be held for ever."""
    global pool
    pool = Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def run_split(function: Callable[..., Any], n: int, *args: Any, grain: int = GRAIN) -> None:
    """Call ``function(*args, start, stop)`` for parts that make up [0, n), on several threads where that is faster.

    ``function`` is a compiled loop, which runs without the interpreter's lock, and must not depend on how [0, n) is parted.
    A part has at least ``grain`` items, about 50 µs of work. The caller works too; the loop is whole – ``function(*args, 0,
    n)`` – if it has fewer than two such parts, if there is one processor, or if another thread's work has the pool. What
    a part raises is raised here, when no other part runs any more.
    """
    own = pool
    threads = 1 if n < 2 * grain else min(num_threads(), n // grain)
    if threads < 2 or own.free.locked():
        function(*args, 0, n)
        return
    with own.free:
        # More parts than threads: who is held up, by a spinning BLAS or by another process, leaves them to the others.
        parts = min(n // grain, 8 * threads)
        step = -(-n // parts)
        loop = _Loop(function, args, n, -(-step // 64) * 64 if step >= 1024 else step)
        try:
            own.ask(loop, threads - 1)
            loop.run()
        except BaseException as error:  # before it ran: helpers may be at work
            loop.error = loop.error or error
            if not loop.closed:
                loop.run()
            raise

"""``kobai.profiler``: where a program spends its time, by Python's own profiler, under PyTorch's names.

Rows are functions, Kobai's among them, and blocks named by :class:`record_function`; times are seconds of this thread. What
runs on a GPU later is not seen: synchronise before a block ends.
"""

from __future__ import annotations

import cProfile
import json
import os
import time
from collections.abc import Callable, Iterable
from contextlib import ContextDecorator
from enum import Enum
from typing import Any, Self

from kobai.compat.absent import within

__all__ = [
    "ProfilerAction",
    "ProfilerActivity",
    "profile",
    "record_function",
    "schedule",
    "supported_activities",
    "tensorboard_trace_handler",
]

_open: list[profile] = []
"""The profiles that are running, for the blocks that are named in them."""


_PYTORCHS = frozenset(
    "use_cuda use_device use_cpu use_kineto experimental_config execution_trace_observer acc_events "
    "custom_trace_id_callback".split()
)
"""Arguments that choose what PyTorch's profiler looks at."""


class ProfilerActivity(Enum):
    """What PyTorch's profiler may look at. Here it is the CPU, always."""

    CPU = 0
    XPU = 1
    CUDA = 2
    MTIA = 3
    HPU = 4


class ProfilerAction(Enum):
    """What a :func:`schedule` has done in a step."""

    NONE = 0
    WARMUP = 1
    RECORD = 2
    RECORD_AND_SAVE = 3


def supported_activities() -> set[ProfilerActivity]:
    """The CPU."""
    return {ProfilerActivity.CPU}


def schedule(
    *, wait: int, warmup: int, active: int, repeat: int = 0, skip_first: int = 0, skip_first_wait: int = 0
) -> Callable[[int], ProfilerAction]:
    """By number of the step what is done in it: ``wait``, then ``warmup``, then ``active`` steps, ``repeat`` times (0: always).

    >>> plan = schedule(wait=1, warmup=1, active=2, repeat=1)
    >>> [plan(step).name for step in range(5)]
    ['NONE', 'WARMUP', 'RECORD', 'RECORD_AND_SAVE', 'NONE']
    """
    if active < 1 or min(wait, warmup, repeat, skip_first) < 0:
        raise ValueError(f"schedule: expected active of at least 1 and no negative number, got active={active}")
    length = wait + warmup + active

    def action(step: int) -> ProfilerAction:
        step -= skip_first
        if skip_first_wait and step >= 0:
            step += wait
        if step < 0 or (repeat and step >= repeat * length):
            return ProfilerAction.NONE
        step %= length
        if step < wait:
            return ProfilerAction.NONE
        if step < wait + warmup:
            return ProfilerAction.WARMUP
        return ProfilerAction.RECORD if step < length - 1 else ProfilerAction.RECORD_AND_SAVE

    return action


class Row:
    """A function or a named block: how often it ran, and for how many microseconds, with what it called and without."""

    def __init__(self, key: str, count: int, total: float, own: float) -> None:
        self.key, self.count = key, count
        self.cpu_time_total, self.self_cpu_time_total = 1e6 * total, 1e6 * own

    @property
    def cpu_time(self) -> float:
        """Microseconds a call."""
        return self.cpu_time_total / self.count


class Rows(list[Row]):
    """What was measured; :meth:`table` shows it."""

    def total_average(self) -> Row:
        """All of it as one row."""
        return Row("Total", sum(r.count for r in self), self.self_cpu_time_total / 1e6, self.self_cpu_time_total / 1e6)

    @property
    def self_cpu_time_total(self) -> float:
        """Microseconds of all functions."""
        return sum(row.self_cpu_time_total for row in self)

    def table(self, sort_by: str | None = None, row_limit: int = 100, **options: Any) -> str:
        """A table, by the first as its largest: ``cpu_time_total``, ``self_cpu_time_total``, ``cpu_time`` or ``count``."""
        named = (sort_by or "self_cpu_time_total").replace("cuda_", "cpu_").replace("device_", "cpu_")
        if named not in ("cpu_time_total", "self_cpu_time_total", "cpu_time", "count"):
            raise ValueError(f"table: expected sort_by to be cpu_time_total or another of the columns, got {sort_by!r}")
        rows = sorted(self, key=lambda row: getattr(row, named), reverse=True)
        lines = [f"{'Name':<60}{'Self CPU (us)':>15}{'CPU total (us)':>15}{'Calls':>9}"]
        lines += [
            f"{row.key[-58:]:<60}{row.self_cpu_time_total:>15.1f}{row.cpu_time_total:>15.1f}{row.count:>9}"
            for row in (rows if row_limit < 0 else rows[:row_limit])
        ]
        return "\n".join([*lines, f"Self CPU time total: {self.self_cpu_time_total / 1e3:.3f}ms"])

    __str__ = table


class profile(ContextDecorator):  # PyTorch's spelling
    """Measures what its block runs; ``schedule`` says in which steps, which :meth:`step` ends, and then calls
    ``on_trace_ready(self)``. The other arguments ask PyTorch for more than times, of which there is nothing here.

    >>> import kobai
    >>> with kobai.profiler.profile() as measured:
    ...     with kobai.profiler.record_function("sums"):
    ...         _ = kobai.ones(3).sum()
    >>> [row.count for row in measured.key_averages() if row.key == "sums"]
    [1]
    """

    def __init__(
        self,
        enabled: bool = True,
        *,
        activities: Iterable[ProfilerActivity] | None = None,
        schedule: Callable[[int], ProfilerAction] | None = None,
        on_trace_ready: Callable[..., Any] | None = None,
        record_shapes: bool = False,
        profile_memory: bool = False,
        with_stack: bool = False,
        with_flops: bool = False,
        with_modules: bool = False,
        **options: Any,
    ) -> None:
        if not options.keys() <= _PYTORCHS:
            raise TypeError(f"profile: unexpected arguments {sorted(options.keys() - _PYTORCHS)}")
        always = ProfilerAction.RECORD if enabled else ProfilerAction.NONE
        self._plan = schedule or (lambda step: always)
        self._ready = on_trace_ready
        self.step_num = 0
        self._forget()

    def _forget(self) -> None:
        self._profile = cProfile.Profile()
        self._on = False
        self.blocks: list[tuple[str, float, float]] = []

    def _do(self, action: ProfilerAction) -> None:
        on = action in (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE)
        if on and not self._on:
            self._forget()
            self._profile.enable()
        elif self._on and not on:
            self._profile.disable()
        self._on = on

    def start(self) -> None:
        """Begin, as entering the block does."""
        _open.append(self)
        self._do(self._plan(self.step_num))

    def stop(self) -> None:
        """End, as leaving the block does."""
        ready = self._on
        self._do(ProfilerAction.NONE)
        _open.remove(self)
        if ready and self._ready is not None:
            self._ready(self)

    def step(self) -> None:
        """End a step."""
        if self._plan(self.step_num) is ProfilerAction.RECORD_AND_SAVE:
            self._do(ProfilerAction.NONE)
            if self._ready is not None:
                self._ready(self)
        self.step_num += 1
        self._do(self._plan(self.step_num))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.stop()

    def key_averages(self, group_by_input_shape: bool = False, group_by_stack_n: int = 0) -> Rows:
        """A :class:`Row` for each function and each name of a block."""
        self._profile.create_stats()
        stats: Any = self._profile.stats
        rows = Rows(
            Row(name if file == "~" else f"{os.path.basename(file)}:{line} {name}", calls, total, own)
            for (file, line, name), (_, calls, own, total, _) in stats.items()
        )
        names = dict.fromkeys(name for name, _, _ in self.blocks)
        for named in names:
            spans = [span for name, _, span in self.blocks if name == named]
            rows.append(Row(named, len(spans), sum(spans), 0.0))
        return rows

    def events(self) -> Rows:
        """As :meth:`key_averages`."""
        return self.key_averages()

    def table(self, sort_by: str | None = None, row_limit: int = 100, **options: Any) -> str:
        """The table of :meth:`key_averages`."""
        return self.key_averages().table(sort_by, row_limit)

    def __str__(self) -> str:
        return self.table()

    def export_chrome_trace(self, path: str) -> None:
        """Write the named blocks as a trace that Chrome and Perfetto show."""
        events = [
            {"name": name, "ph": "X", "ts": 1e6 * start, "dur": 1e6 * span, "pid": os.getpid(), "tid": 0}
            for name, start, span in self.blocks
        ]
        with open(path, "w") as file:
            json.dump({"traceEvents": events}, file)


def tensorboard_trace_handler(
    dir_name: str, worker_name: str | None = None, use_gzip: bool = False
) -> Callable[[profile], None]:
    """For ``on_trace_ready``: writes a trace into ``dir_name``."""

    def write(measured: profile) -> None:
        os.makedirs(dir_name, exist_ok=True)
        name = f"{worker_name or os.getpid()}.{time.time_ns()}.pt.trace.json"
        measured.export_chrome_trace(os.path.join(dir_name, name))

    return write


class record_function(ContextDecorator):  # PyTorch's spelling
    """Block, or decorator, that gives its time a ``name`` in the profiles that are running. It changes nothing.

    >>> import kobai
    >>> with kobai.profiler.record_function("forward"):
    ...     kobai.ones(1)
    tensor([1.])
    """

    def __init__(self, name: str, args: str | None = None) -> None:
        self.name, self.args = name, args

    def __enter__(self) -> record_function:
        self._start = time.perf_counter()
        return self

    def __exit__(self, *error: Any) -> None:
        """Tell the profiles."""
        for measured in _open:
            if measured._on:
                measured.blocks.append((self.name, self._start, time.perf_counter() - self._start))


__getattr__ = within(
    __name__,
    """
    DeviceType EnforceUnique EventList ExecutionTraceObserver FunctionEvent ProfilerConfig ProfilerState RecordScope
    emit_itt emit_nvtx itt kineto_available load_nvprof
    """,
)

"""``kobai.utils.benchmark``: how long a statement takes, by ``timeit``, with PyTorch's names."""

from __future__ import annotations

import statistics
import timeit
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from kobai import cuda
from kobai.compat.absent import within as _within
from kobai.errors import ArgumentError
from kobai.runtime import get_num_threads, set_num_threads

__all__ = ["Measurement", "Timer", "timer"]


def timer() -> float:
    """The time in seconds once the GPU, if there is one, has done all that it was given."""
    if cuda.is_available():
        cuda.synchronize()
    return timeit.default_timer()


class Measurement:
    """What a :class:`Timer` has found: ``times``, in seconds for one run of the statement, and figures of them.

    >>> from kobai.utils.benchmark import Measurement
    >>> m = Measurement(10, [0.02, 0.03, 0.08], title="x + 1")
    >>> round(m.median, 6), round(m.mean, 6), m
    (0.003, 0.004333, <Measurement of x + 1: median 3 ms, quartiles 2.5 to 5.5 ms, 3 times 10 runs, 1 thread>)
    """

    def __init__(self, number_per_run: int, raw_times: Sequence[float], title: str = "", num_threads: int = 1) -> None:
        self.number_per_run, self.raw_times = number_per_run, list(raw_times)
        self.title, self.num_threads = title, num_threads

    @cached_property
    def times(self) -> list[float]:
        """Seconds for one run, of each measurement."""
        return [t / self.number_per_run for t in self.raw_times]

    @property
    def mean(self) -> float:
        """The mean of the times."""
        return statistics.fmean(self.times)

    @property
    def median(self) -> float:
        """The median of the times."""
        return statistics.median(self.times)

    @property
    def iqr(self) -> float:
        """The range between the quartiles."""
        low, high = self._quartiles()
        return high - low

    def _quartiles(self) -> tuple[float, float]:
        if len(self.times) == 1:
            return self.times[0], self.times[0]
        low, _, high = statistics.quantiles(self.times, n=4, method="inclusive")
        return low, high

    def __repr__(self) -> str:
        name, unit = next((pair for pair in _UNITS if self.median >= pair[1]), _UNITS[-1])
        low, middle, high = (f"{t / unit:.4g}" for t in (self._quartiles()[0], self.median, self._quartiles()[1]))
        threads = f"{self.num_threads} thread" + "s" * (self.num_threads != 1)
        return (
            f"<Measurement of {self.title}: median {middle} {name}, quartiles {low} to {high} {name}, "
            f"{len(self.times)} times {self.number_per_run} runs, {threads}>"
        )


_UNITS = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9))


class Timer:
    """Times a statement on ``num_threads`` threads, as :class:`timeit.Timer` does, and waits for the GPU.

    Arguments:
        stmt, setup, globals: as in ``timeit``; ``stmt`` may also be a function without arguments.
        timer: what tells the time.
        label, sub_label, description: words for the measurement, which shows them instead of the statement.

    >>> import kobai
    >>> from kobai.utils.benchmark import Timer
    >>> m = Timer("x + 1", globals={"x": kobai.ones(3)}).timeit(100)
    >>> m.number_per_run, 0 < m.mean < 1
    (100, True)
    """

    def __init__(
        self,
        stmt: str | Callable[[], Any] = "pass",
        setup: str | Callable[[], Any] = "pass",
        timer: Callable[[], float] = timer,
        globals: dict[str, Any] | None = None,
        label: str | None = None,
        sub_label: str | None = None,
        description: str | None = None,
        num_threads: int = 1,
    ) -> None:
        if num_threads < 1:
            raise ArgumentError(f"Timer: expected num_threads >= 1, got {num_threads}")
        names = {**(globals or {})}
        if isinstance(stmt, str) or isinstance(setup, str):
            import kobai

            names.setdefault("kobai", kobai)
            names.setdefault("torch", kobai)  # which PyTorch's Timer lets statements name
        self._timer = timeit.Timer(stmt, setup, timer, names)
        self._num_threads = num_threads
        words = [word for word in (label, sub_label, description) if word]
        self._title = ": ".join(words) or (stmt if isinstance(stmt, str) else getattr(stmt, "__name__", "a function"))

    def _seconds(self, number: int) -> float:
        before = get_num_threads()
        set_num_threads(self._num_threads)
        try:
            return self._timer.timeit(number)
        finally:
            set_num_threads(before)

    def _measured(self, number: int, times: Sequence[float]) -> Measurement:
        return Measurement(number, times, self._title, self._num_threads)

    def timeit(self, number: int = 1_000_000) -> Measurement:
        """One measurement of ``number`` runs, after a hundredth of them, and two at least, to warm up."""
        self._seconds(max(number // 100, 2))
        return self._measured(number, [self._seconds(number)])

    def blocked_autorange(
        self, callback: Callable[[int, float], Any] | None = None, min_run_time: float = 0.2
    ) -> Measurement:
        """Measurements of as many runs as take a thousandth of ``min_run_time``, until they take that time together.

        ``callback(number, seconds)`` is told of each.
        """
        number = 1
        while (taken := self._seconds(number)) < min_run_time / 1000:
            number *= 10
        times = [taken]
        while sum(times) < min_run_time:
            times.append(self._seconds(number))
            if callback is not None:
                callback(number, times[-1])
        return self._measured(number, times)


__getattr__ = _within(__name__, "Compare CallgrindStats FunctionCounts Fuzzer FuzzedParameter FuzzedTensor")

"""The time that a Doctor may take: a share of the processor time that the training itself takes, counted as it goes on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ADVANCE = 60.0
"""Seconds of the training that is still to come, of which the share may be taken in advance."""

LEAST = 0.01
"""Seconds that are always there: the share of an eighth of a second."""


class Postponed(Exception):
    """There is no time for this now."""


class Budget:
    """What is spent on examinations, beside what the training takes.

    A step that is observed takes longer; what it takes beyond the next one that is not is spent too.

    Args:
        share: part of the training's processor time that may be spent.
        clock: seconds of processor time.
    """

    def __init__(self, share: float, clock: Callable[[], float] = time.process_time) -> None:
        self.share, self.clock = share, clock
        self.training = self.spent = 0.0
        self.pace = math.inf
        """Seconds of a step, where it took least."""
        self.left_to_do = 0
        """Steps that are planned."""
        self._mark = clock()
        self._observed: float | None = None

    def begin(self) -> None:
        """What was done until now is no part of a training."""
        self._mark = self.clock()

    @property
    def asks(self) -> bool:
        """Whether the next step is to be timed alone."""
        return self._observed is not None

    @contextmanager
    def examining(self) -> Iterator[None]:
        """Of the time since the last examination the training has had all; what is done now is spent."""
        now = self.clock()
        self.training += now - self._mark
        self._mark = now
        try:
            yield
        finally:
            self.lap()

    def lap(self) -> None:
        """While examining: what was done until now is spent already."""
        now = self.clock()
        self.spent += now - self._mark
        self._mark = now

    def steps(self, count: int, observed: bool, more: int) -> None:
        """So many steps have been made since the last examination, one if it was ``observed``; ``more`` are planned.

        To be called before :meth:`examining`.
        """
        took = (self.clock() - self._mark) / count
        self.left_to_do = more
        if observed:
            self._observed = took
            return
        self.pace = min(self.pace, took)
        if self._observed is not None:
            excess = max(0.0, self._observed - took)
            self.training -= excess
            self.spent += excess
            self._observed = None

    def left(self, least: float = 0.0) -> float:
        """Seconds that may be spent now.

        >>> seconds = iter([0.0, 10.0, 10.5])
        >>> budget = Budget(0.1, lambda: next(seconds))
        >>> with budget.examining():
        ...     pass
        >>> budget.left()
        0.5
        """
        if math.isinf(self.share):
            return math.inf
        planned = self.left_to_do * self.pace if self.left_to_do else 0.0
        return max(self.share * (self.training + min(planned, ADVANCE)), least) - self.spent

    def affords(self, seconds: float) -> bool:
        """Whether so many seconds may be spent now, where the training is not over before it has paid for them."""
        return self.left() >= seconds

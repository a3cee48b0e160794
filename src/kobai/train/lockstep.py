"""Works that take turns, each up to where all of them need one sum: the shards of a step that synchronise statistics.

A forward pass is a Python function, which cannot be left in its middle and gone on with later, but from a thread of its own.
So each work has one, and never do two of them run at a time::

    work 0 ──► brings x₀ ┐
    work 1 ──► brings x₁ ├─► Σ ──► work 0 ──► brings …
    work 2 ──► brings x₂ ┘

What is computed, and in which order, is the same in every run, so that a captured step can note it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from contextvars import copy_context
from threading import Semaphore, Thread, get_ident
from typing import Any

from kobai import cuda
from kobai.core import anomaly, autocast, grad_mode
from kobai.core.tensor import Tensor
from kobai.nn import data_parallel
from kobai.xp import Array, default_device, sessions

Work = Callable[[], Any]


def in_turn(works: Sequence[Work], turn: Callable[[int], None]) -> Iterator[Any]:
    """The results of works that need nothing of each other, one after another; ``turn(i)`` comes before that of work i."""
    for i, work in enumerate(works):
        turn(i)
        yield work()


def run(works: Sequence[Work], turn: Callable[[int], None], met: Callable[[list[Array]], Array]) -> list[Any]:
    """The results of works whose SyncBatchNorms meet: ``met`` makes one array of those that all have come to.

    Raises:
        RuntimeError: one has ended, or needs a sum of another shape, while others wait. What a work raises ends all.
    """
    fibers = [_Fiber(work) for work in works]
    try:
        while not fibers[0].ended:
            for i, fiber in enumerate(fibers):
                turn(i)
                fiber.go_on()
            wanted = [fiber.brought for fiber in fibers]
            kinds = [None if array is None else (array.shape, array.dtype) for array in wanted]
            if len(set(kinds)) > 1:
                told = ", ".join("nothing" if kind is None else f"{kind[1]} {tuple(kind[0])}" for kind in kinds)
                raise RuntimeError(
                    f"SyncBatchNorm: expected the same layers in all shards of a step, but they sum {told}"
                )
            if wanted[0] is not None:
                total = met(wanted)
                for fiber in fibers:
                    fiber.total = total
        return [fiber.result for fiber in fibers]
    finally:
        for fiber in fibers:
            fiber.end()


class _Ended(BaseException):
    """Raised in a work that will not go on."""


class _Fiber(Thread):
    """One work in a thread, which runs only while the thread that made it waits, and as part of that thread's step."""

    def __init__(self, work: Work) -> None:
        super().__init__(daemon=True, name="shard")
        self.ended = self._dropped = self._at_work = False
        self.brought: Array | None = None
        self.total: Any = None
        self.result: Any = None
        self._error: BaseException | None = None
        self._go, self._back = Semaphore(0), Semaphore(0)
        self._work, self._context, self._session = work, copy_context(), sessions.get(get_ident())
        self._modes = [(state, dict(vars(state))) for state in (autocast.state, anomaly.state)]
        self._grad = grad_mode.state.grad
        self._stream = cuda.current_stream() if default_device().type == "cuda" else None
        self.start()

    def go_on(self) -> None:
        """Let the work run up to its next sum or its end; raises what it raises."""
        self.brought, self._at_work = None, True
        self._go.release()
        self._back.acquire()
        self._at_work = False
        if self._error is not None:
            raise self._error

    def end(self) -> None:
        """Leave the work where it is, once it waits: a signal may have come in its middle."""
        if self._at_work:
            self._back.acquire()
        self._dropped = True
        if not self.ended:
            self._go.release()
        self.join()

    def run(self) -> None:
        self._go.acquire()
        try:
            if not self._dropped:
                self.result = self._context.run(self._as_there)
        except BaseException as error:  # raised in the thread that waits
            self._error = error
        finally:
            self.ended = True
            self._back.release()

    def _as_there(self) -> Any:
        """The work, in the modes of the thread that made it."""
        for state, modes in self._modes:
            vars(state).update(modes)
        grad_mode.state.grad = self._grad
        data_parallel.shards_met.set(self._meet)
        with cuda.stream(self._stream), nullcontext() if self._session is None else self._session.joined():
            return self._work()

    def _meet(self, x: Tensor) -> Tensor:
        self.brought = x._array
        self._back.release()
        self._go.acquire()
        if self._dropped:
            raise _Ended
        total: Tensor = Tensor._wrap(self.total)
        return total

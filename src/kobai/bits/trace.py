"""What a training computed, in order: a digest of every primitive's result, of every gradient, and of each update."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np

from kobai.bits.digest import Digest
from kobai.bits.nets import Net, training
from kobai.core.primitive import RUNNERS

__all__ = ["DIGITS", "Event", "first_difference", "trace"]

DIGITS = 8
"""Of a digest that are kept."""

Note = Callable[..., None]
"""Called with the name of what was computed, and arrays."""


class Event(NamedTuple):
    """Something that was computed."""

    name: str
    """Such as ``ops.linear._linear forward``."""
    digest: str


def trace(net: Net) -> list[Event]:
    """All events of a training. Noting them changes no bits."""
    events: list[Event] = []

    def note(what: str, *arrays: Any) -> None:
        events.append(Event(what, str(Digest(*(a for a in arrays if isinstance(a, np.ndarray))))[:DIGITS]))

    with _noted(note):
        training(net, lambda what, changed: note(what, *(x.numpy() for x in changed)))
    return events


def first_difference(here: list[Event], expected: list[Event]) -> tuple[int, Event, Event] | None:
    """The place of the first event that is another, this event, and the expected one; None if all are equal.

    What came in was equal, for all before it was.
    """
    none = Event("nothing", "")
    for i in range(max(len(here), len(expected))):
        one, other = (events[i] if i < len(events) else none for events in (here, expected))
        if one != other:
            return i, one, other
    return None


@contextmanager
def _noted(note: Note) -> Iterator[None]:
    """Within, primitives on host arrays note what they give."""
    RUNNERS[np.ndarray] = _runner(note)
    try:
        yield
    finally:
        del RUNNERS[np.ndarray]


def _runner(note: Note) -> Callable[..., Any]:
    def run(key: str, function: Callable[..., Any], kind: type, *arrays: Any, **options: Any) -> Any:
        value, vjp = function(*arrays, **options)
        note(f"{key} forward", value, *arrays)  # it may have written into its arguments
        if vjp is None:
            return value, None

        @wraps(vjp)
        def noting(dy: Any) -> list[Any]:
            return [_gradient(f"{key} backward, gradient {i}", g, note) for i, g in enumerate(vjp(dy))]

        return value, noting

    return run


def _gradient(name: str, gradient: Any, note: Note) -> Any:
    """The entry of a vjp, which notes itself when it is computed."""
    if type(gradient) is FunctionType:

        def computed() -> Any:
            found = gradient()
            note(name, found)
            return found

        return computed
    if gradient is not None:
        note(name, gradient)
    return gradient

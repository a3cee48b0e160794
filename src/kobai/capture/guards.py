"""What was read from Python: how to read it again, what it was, and whether it is still the same.

An :class:`Entry` is a reading that can be repeated: a callable and the values it gave. :class:`Guards` are all entries of a
program; they are read again before each replay. Almost always nothing has changed, so this case takes three calls into C::

    entry.get()  entry.get()  ...  ──►  one long list  ──►  each value *is* the one of before?  ──►  replay
                                                              no: equal, of the same type?      ──►  replay, and keep the new
                                                              no:                                    record again

Readings that create new objects, such as an array's bytes, are compared by value only. Readings that are empty or None, as
hooks mostly are, only have to stay that way.
"""

from __future__ import annotations

import math
import operator
import types
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

ATOMS = (np.generic, np.dtype, *map(type, (None, False, 0, 0.0, 0j, "", b"", range(0), ..., NotImplemented)))
"""Types whose objects are immutable and contain no others."""


WHOLE = (chain, dict.values)
"""Ways to read a whole table, in which each value has a name."""


class Entry(NamedTuple):
    """Something that was read: how to read it again, what it was, and how to describe it."""

    get: Callable[[], Iterable[Any]]
    values: tuple[Any, ...]
    names: tuple[str, ...]
    """The last names by which code reaches it: one for each value, or one for all."""
    what: str
    by_value: bool = False
    """Whether each reading creates new objects, so that identity means nothing."""
    nothing: bool = False
    """Whether all of it is empty, None or False, which is quick to check."""

    def holders(self) -> Iterator[tuple[Any, str | None]]:
        """The objects that hold the values, and under which names; None for the contents of a container."""
        get = self.get
        if not isinstance(get, partial):
            yield getattr(get, "__self__", None), None
        elif get.func in WHOLE:
            yield from ((get.args[0], name) for name in self.names)
        elif get.func is not map:
            yield get.args[0], None
        elif hasattr(get.args[0], "__self__"):  # a table's get, and names
            yield from ((get.args[0].__self__, name) for name in self.names)
        else:  # one way of reading, and things
            yield from zip(get.args[1], self.names, strict=True)

    def is_as_before(self) -> bool:
        """Whether it is what it was; values of immutable types need only be equal."""
        try:
            now = tuple(self.get())
        except (AttributeError, KeyError, ValueError, RuntimeError):
            return False
        return len(now) == len(self.values) and all(map(equal, now, self.values))

    def changed(self) -> str:
        """The name of the part that has changed."""
        if len(self.names) == len(self.values):
            for name, now, before in zip(self.names, self.get(), self.values, strict=False):
                if not equal(now, before):
                    return name
        return self.names[0]


def equal(a: Any, b: Any) -> bool:
    """Whether two values are equal in every respect that an operation could notice."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return (a == b and math.copysign(1, a) == math.copysign(1, b)) or (a != a and b != b)
    if isinstance(a, (tuple, frozenset)):
        if isinstance(a, frozenset):
            return bool(a == b) and all(isinstance(part, ATOMS) for part in a)
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, np.generic):
        return bool(a.tobytes() == b.tobytes())
    if isinstance(a, types.MethodType):
        return a.__func__ is b.__func__ and a.__self__ is b.__self__
    return isinstance(a, ATOMS) and bool(a == b)


UNSET = object()


class Guards:
    """What a program depends on, compared in C. An equal object with another identity replaces the one from before."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        entries = list(entries)
        self.entries = [entry for entry in entries if not (entry.by_value or entry.nothing)]
        self.by_value = [entry for entry in entries if entry.by_value]
        self._nothing_entries = [entry for entry in entries if entry.nothing]
        self._nothing = [entry.get for entry in self._nothing_entries]
        self._renew()

    def all_entries(self) -> list[Entry]:
        """All entries."""
        return [*self.entries, *self.by_value, *self._nothing_entries]

    def _renew(self) -> None:
        self._gets = [entry.get for entry in self.entries]
        self._values = list(chain.from_iterable(entry.values for entry in self.entries))

    def hold(self) -> bool:
        """Whether everything is as it was."""
        if self.by_value and not all(entry.is_as_before() for entry in self.by_value):
            return False
        if any(map(any, map(operator.call, self._nothing))):
            return False
        try:
            now = list(chain.from_iterable(map(operator.call, self._gets)))
        except (AttributeError, KeyError, ValueError, RuntimeError):
            return False
        values = self._values
        if len(now) == len(values) and all(map(operator.is_, now, values)):
            return True
        if not all(entry.is_as_before() for entry in self.entries):
            return False
        self.entries = [entry._replace(values=tuple(entry.get())) for entry in self.entries]
        self._renew()
        return True

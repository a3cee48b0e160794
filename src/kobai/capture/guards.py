"""What was read from Python: how to read it again, what it was, and whether it still is.

An :class:`Entry` is a reading that can be repeated: a callable and the values that it gave. :class:`Guards` are a program's
entries, read at every call before the replay. Nearly always nothing has changed, so that this case is three calls into C::

    entry.get()  entry.get()  ...  ──►  one long list  ──►  each value *is* the one of before?  ──►  replay
                                                              no: equal, of the same type?      ──►  replay, and keep the new
                                                              no:                                    record again

What is made anew at each reading, as an array's bytes are, is compared by value alone; what is empty or None, as hooks mostly
are, by being so.
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
"""Types whose objects stay what they are and hold nothing else."""


WHOLE = (chain, dict.values)
"""How all of a table is read, whose values each have a name."""


class Entry(NamedTuple):
    """Something that was read: how to read it again, what it was, and how to speak of it."""

    get: Callable[[], Iterable[Any]]
    values: tuple[Any, ...]
    names: tuple[str, ...]
    """The last names on the way there, by which code reaches it: one for each value, or one for all."""
    what: str
    by_value: bool = False
    """Whether reading it makes new objects, so that comparing by identity says nothing."""
    nothing: bool = False
    """Whether it is empty, None or False in every part, which is quick to see."""

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
        """Whether it is what it was, compared by value where that is known not to change by itself."""
        try:
            now = tuple(self.get())
        except (AttributeError, KeyError, ValueError, RuntimeError):
            return False
        return len(now) == len(self.values) and all(map(equal, now, self.values))

    def changed(self) -> str:
        """The name of what has changed of it."""
        if len(self.names) == len(self.values):
            for name, now, before in zip(self.names, self.get(), self.values, strict=False):
                if not equal(now, before):
                    return name
        return self.names[0]


def equal(a: Any, b: Any) -> bool:
    """Whether a value is another one's equal in every respect that an operation could see."""
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
    """What a program rests on, compared in C. An equal value of other identity is taken for the new one."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        entries = list(entries)
        self.entries = [entry for entry in entries if not (entry.by_value or entry.nothing)]
        self.by_value = [entry for entry in entries if entry.by_value]
        self._nothing_entries = [entry for entry in entries if entry.nothing]
        self._nothing = [entry.get for entry in self._nothing_entries]
        self._renew()

    def all_entries(self) -> list[Entry]:
        """Everything that is compared."""
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

"""What a step reads from Python: found in the code that it runs, remembered, and compared before each replay.

A replay runs no Python. A number that the step looked up during the recording – a weight on a loss object, an entry of a
configuration, a closure variable – would keep its old value. So :class:`Watch` follows a step in three passes:

1. *Before* the recording it walks through everything that the step's code can reach by the names in it, and remembers it.
   What is different afterwards was changed by the step itself, and a replay would not change it.
2. *During* the recording a profile function notes which code runs and on which objects, and sees calls that a replay would
   skip: clocks, files, output, random numbers.
3. *Afterwards* it walks again, along the names in the code that has run. The result is the program's guards: containers,
   attributes, closures, globals and defaults, compared before each replay by identity, in C, and by value where that differs.

::

    Walk (before) ─────► step runs, recorded ─────► Walk (after)
      │                    │ code that ran  ─────────►│
      └── changes ◄────────┘                          └── Guards, for the replays

``reads`` is about code, ``kinds`` about objects, ``walk`` leads from one to the other, ``guards`` keeps the result. Watching
too much costs time at the recording; watching too little gives wrong results. So the walk watches more when in doubt: where
code computes the names of attributes (``getattr``, ``vars``), all attributes count.
"""

from __future__ import annotations

import logging
import random
import sys
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from kobai.capture.guards import Entry, equal
from kobai.capture.kinds import kind_of
from kobai.capture.reads import is_library, is_of_program, is_ours, line_of_change
from kobai.capture.walk import Ran, Walk

_CLOCKS = frozenset(
    "time time_ns perf_counter perf_counter_ns monotonic monotonic_ns process_time process_time_ns thread_time".split()
)
_PURE = frozenset("fspath getpid cpu_count".split())
_READS_AND_WRITES = frozenset("write writelines read readline readlines readinto flush seek".split())


_TELLING = frozenset((logging.__file__, warnings.__file__))


def _skipped(function: Any) -> str | None:
    """What a replay would miss if this builtin function is called; None if nothing."""
    owner, name, module = getattr(function, "__self__", None), function.__name__, function.__module__
    if isinstance(owner, random.Random) and name not in ("getstate", "__reduce__"):
        return "random numbers of Python's random are drawn"
    if module == "time" and name in _CLOCKS:
        return f"time.{name}() reads the clock"
    if isinstance(owner, type) and owner.__module__ == "datetime" and name in ("now", "utcnow", "today"):
        return f"datetime.{name}() reads the clock"
    if module == "builtins" and name in ("print", "input"):
        return f"{name}() is called"
    if module in ("io", "_io") and name == "open":
        return "a file is opened"
    if module == "posix" and name not in _PURE:
        return "random bytes of the system are drawn" if name == "urandom" else f"os.{name}() asks the system"
    if name in _READS_AND_WRITES and type(owner).__module__ == "_io":
        return f"a file's {name}() is called"
    return None


def _reports_unraisable(frame: types.FrameType | None) -> bool:
    """Whether this is done to report an exception of a destructor, which the step has no part in."""
    hook = getattr(sys.unraisablehook, "func", sys.unraisablehook)  # which may be a partial function
    code = getattr(hook, "__code__", None)
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


class Watch:
    """One recording of a step, as Python sees it; see the module."""

    def __init__(self, step: Callable[..., Any], args: Any, known: Iterable[types.CodeType] = ()) -> None:
        self.step, self.roots = step, roots_of(step, args)
        self.before = Walk(self.roots, known=known)
        self._ran: dict[types.CodeType, Ran] | None = {}
        self._fail: Callable[[str, str], None] = lambda place, message: None
        self._previous: Any = None
        self._observing = self._paused = False
        self.moved: dict[int, set[str | None]] = {}
        """What repeated actions have changed: names by the id of their holder, None for the contents of a container."""
        self.actions: list[Callable[[], Any]] = []
        """The host's actions that replays repeat."""

    def begin(self, fail: Callable[[str, str], None]) -> None:
        """Note from now on which code runs in this thread; report calls that a replay skips to ``fail(place, message)``."""
        self._previous = sys.getprofile()
        if self._previous is not None and not isinstance(self._previous, types.FunctionType):
            self._ran = None  # a profiler written in C cannot share: all code that may run counts as run
            return
        self._fail, self._observing = fail, True
        sys.setprofile(self._event)

    def end(self) -> None:
        """Stop noting. Calling it twice is safe."""
        if self._observing:
            sys.setprofile(self._previous)
            self._observing = False

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Block in which the code that runs in this thread, another one than the step's, is noted too."""
        if not self._observing:
            yield
            return
        sys.setprofile(self._event)
        try:
            yield
        finally:
            sys.setprofile(None)

    def _event(self, frame: types.FrameType, event: str, arg: Any) -> None:
        if self._paused:
            return
        if event == "call":
            self._called(frame)
        elif event == "c_call":
            what = _skipped(arg)
            if what is None or _reports_unraisable(frame):
                return
            caller: types.FrameType | None = frame
            told = False  # whether logging or warnings made the call: then its caller is at fault, not a handler
            while caller is not None and (told or is_library(caller.f_code.co_filename)):
                file = caller.f_code.co_filename
                if told and (is_ours(file) or is_of_program(file)):
                    break
                told |= file in _TELLING
                caller = caller.f_back
            if caller is not None and not is_ours(caller.f_code.co_filename):
                self._fail(
                    f"{caller.f_code.co_filename}:{caller.f_lineno}",
                    f"captured step: {what} inside the step, which a replay would not do again; do it outside, and pass "
                    "what it gives to the step as a tensor",
                )

    def _called(self, frame: types.FrameType) -> None:
        code, outside, ran = frame.f_code, self.before.seen, self._ran
        file = code.co_filename
        root = code is getattr(self.step, "__code__", None)
        if ran is None or is_library(file):
            return
        ours = is_ours(file) and not root
        variables = frame.f_locals
        if ours and (id(variables.get("self")) not in outside or hasattr(type(variables["self"]), "_capture_watch")):
            return
        run = ran.get(code)
        if run is None:
            run = ran[code] = Ran(frame.f_globals, {}, root)
        for name, value in variables.items():
            if id(value) in outside and (not ours or name == "self"):
                known = run.variables.setdefault(name, [])
                if not any(value is other for other in known):
                    known.append(value)

    def unforeseen(self) -> set[types.CodeType]:
        """Code of installed packages that has run without being examined before: its changes have gone unnoticed."""
        return {
            code
            for code in self._ran or ()
            if code not in self.before.codes and not (is_ours(code.co_filename) or is_of_program(code.co_filename))
        }

    def changes(self) -> list[tuple[str, str]]:
        """What the step has changed in what it can reach, each with the file and line."""
        changed = [entry for entry in self.before.entries if not entry.is_as_before()]
        drawn = [(generator, draw) for generator, draw in self.before.draws if not draw.is_as_before()]
        if drawn:  # by the step or by another thread: it was the step if code that has run names the generator
            after = self.after().seen
            changed += [draw for generator, draw in drawn if id(generator) in after]
        return [self._told(entry) for entry in changed]

    def _told(self, entry: Entry, name: str | None = None) -> tuple[str, str]:
        name = name or entry.changed()
        place = line_of_change(self._ran or (), name) or line_of_change(self.before.codes, name)
        if place is None:
            code = getattr(self.step, "__code__", None)
            place = "in the step" if code is None else f"{code.co_filename}:{code.co_firstlineno}"
        return f"{entry.what}{name}", place

    def repeated(self, action: Callable[[], Any]) -> Any:
        """Do what every replay repeats: its changes do not count as the step's, and what it reads needs no guard."""
        self.actions.append(action)
        entries = self.before.entries
        same = [entry.is_as_before() for entry in entries]
        self._paused = True
        try:
            return action()
        finally:
            self._paused = False
            for i, (entry, before) in enumerate(zip(entries, same, strict=True)):
                if not before or entry.is_as_before():
                    continue
                now = tuple(entry.get())
                for j, (holder, name) in enumerate(entry.holders()):
                    if name is None or len(entry.names) != len(now) or not equal(now[j], entry.values[j]):
                        self.moved.setdefault(id(holder), set()).add(name)
                entries[i] = entry._replace(values=now)

    def read_and_moved(self, walk: Walk) -> Iterator[tuple[str, str]]:
        """What the step both reads and advances, as a schedule does: a replay would advance it without reading it."""
        for entry in walk.entries:
            for holder, name in entry.holders():
                names = self.moved.get(id(holder), ())
                if name in names or (names and None in (name, *names)):
                    yield self._told(entry, name)
                    break

    def after(self, *more: Any) -> Walk:
        """What the program depends on; ``more``: what the step has touched besides what its code names."""
        return Walk([*self.roots, *((thing, kind_of(thing)) for thing in more)], self._ran)


def roots_of(step: Callable[..., Any], args: Any) -> list[tuple[Any, str]]:
    """Where a walk begins: the step and its arguments, except tensors, which are its data."""
    objects = [value for value in leaves(args) if not hasattr(type(value), "requires_grad")]
    return [(step, getattr(step, "__name__", "step")), *((value, "an argument") for value in objects)]


def leaves(value: Any) -> Iterator[Any]:
    """The leaves of nested tuples, lists and dicts, in order."""
    if isinstance(value, dict):
        for part in value.values():
            yield from leaves(part)
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from leaves(part)
    else:
        yield value

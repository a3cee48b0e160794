"""What a step reads from Python: found in the code that it runs, remembered, and compared before each replay.

A replay runs no Python, so that a number which the step looked up when it was recorded – a weight on a loss object, an entry
of a configuration, a closure's variable – would stay what it was. :class:`Watch` follows a step in three passes:

1. *Before* the recording it walks through everything that the step's code can reach, by the names in that code, and
   remembers it. What is different *after* the recording was changed by the step itself, which a replay would not do.
2. *While* the step is recorded, a profile function notes which code runs and on which objects, and sees the calls that a replay
   would skip: clocks, files, output, random numbers.
3. *Afterwards* it walks again, along the names in the code that has run. What it finds are the program's guards: containers,
   attributes, closures, globals, defaults, compared before each replay by identity, in C, and by value where that differs.

Over-watching costs a recording more; the walk therefore errs on the side of more, and where code looks attributes up by
names that it makes (``getattr``, ``vars``), all attributes count.
"""

from __future__ import annotations

import array as _array
import dis
import logging
import math
import operator
import os
import random
import sys
import types
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from functools import cached_property, lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_HERE = str(Path(__file__).resolve().parents[1]) + "/"
_STDLIB = (os.path.dirname(os.path.abspath(os.__file__)) + "/", "<frozen")
_PACKAGES = tuple(f"/{place}-packages/" for place in ("site", "dist"))
_ENGINES = tuple(
    f"{place}{name}/" for place in _PACKAGES for name in ("numpy", "numba", "llvmlite", "cupy", "cupyx", "nvmath")
)

_ATOMS = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    range,
    type(...),
    type(NotImplemented),
    np.generic,
    np.dtype,
)
_DYNAMIC = frozenset("getattr setattr delattr vars eval exec globals locals dir attrgetter asdict astuple".split())
_GLOBALS = frozenset("globals eval exec".split())
_IMPORTS = frozenset("modules import_module __import__".split())
_CHANGES = frozenset(
    "append extend insert add update pop popleft appendleft remove clear setdefault discard sort".split()
)

_MOST = 100_000
"""Objects that a walk looks at, in about a second; a step whose code can reach more is not captured."""

_LARGEST = 1 << 20
"""Bytes of a host array that are compared before each replay; a step that reads a larger one is not captured."""


def _is_of_library(kind: type) -> bool:
    module = sys.modules.get(kind.__module__)
    return module is not None and _is_library(getattr(module, "__file__", None) or "<frozen")


@lru_cache(maxsize=65536)
def _is_library(file: str) -> bool:
    """Whether code in this file keeps no state that a step reads: the standard library, and what computes."""
    if any(place in file for place in _PACKAGES):
        return any(engine in file for engine in _ENGINES)
    return file.startswith(_STDLIB)


def _is_ours(file: str) -> bool:
    return file.startswith(_HERE)


def _is_of_program(file: str) -> bool:
    """Whether this is code of the program itself, and of no installed package."""
    return not (_is_library(file) or _is_ours(file) or any(place in file for place in _PACKAGES))


# --- what code reads --------------------------------------------------------------------------------------------------


class Reads(NamedTuple):
    """The names in a code object: dotted paths from a variable, and attributes of what is computed."""

    paths: tuple[tuple[str, str, tuple[str, ...]], ...]
    """(kind of the variable: ``global``, ``closure`` or ``local``; its name; the attributes read from there)"""
    attributes: frozenset[str]
    dynamic: bool
    """Whether attributes are looked up by names that are not in the code."""
    imported: frozenset[str]
    """Modules that it imports or may look up among those imported."""
    all_globals: bool
    stored: frozenset[str]
    """Attributes that it sets."""
    globals_stored: frozenset[str]


@lru_cache(maxsize=4096)
def reads(code: types.CodeType) -> Reads:
    """The names that ``code`` reads, that of functions within it not included."""
    paths: list[tuple[str, str, list[str]]] = []
    attributes: set[str] = set()
    imported: set[str] = set()
    stored: set[str] = set()
    globals_stored: set[str] = set()
    path: list[str] | None = None
    for step in dis.get_instructions(code):
        name, value = step.opname, step.argval
        if name in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"):
            attributes.add(value) if path is None else path.append(value)
        elif name.startswith(("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FAST")):
            kind = "local" if "FAST" in name else "closure" if "DEREF" in name else "global"
            for variable in value if isinstance(value, tuple) else (value,):
                path = []
                paths.append((kind, variable, path))
        elif name == "MATCH_CLASS":
            attributes.update(
                n for const in code.co_consts if isinstance(const, tuple) for n in const if type(n) is str
            )
        elif name not in ("CACHE", "EXTENDED_ARG", "NOP", "PUSH_NULL"):
            path = None
            if name == "IMPORT_NAME":
                imported.add(value)
            elif name == "IMPORT_FROM":
                attributes.add(value)
            elif name in ("STORE_ATTR", "DELETE_ATTR"):
                stored.add(value)
            elif name in ("STORE_GLOBAL", "DELETE_GLOBAL"):
                globals_stored.add(value)
    if not _IMPORTS.isdisjoint(code.co_names):
        imported.update(const for const in code.co_consts if isinstance(const, str))
    dynamic = not _DYNAMIC.isdisjoint(code.co_names) or not {"__dict__", "deepcopy"}.isdisjoint(code.co_names)
    all_globals = not _GLOBALS.isdisjoint(code.co_names)
    return Reads(
        tuple((kind, root, tuple(names)) for kind, root, names in paths),
        frozenset(attributes),
        dynamic,
        frozenset(imported),
        all_globals,
        frozenset(stored),
        frozenset(globals_stored),
    )


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from _nested(const)


def _line_of_change(codes: Iterable[types.CodeType], name: str) -> str | None:
    """File and line where one of ``codes`` changes what it reaches by ``name``: a store, else a call such as ``append``."""
    weaker = None
    for code in codes:
        line, before = code.co_firstlineno, ""
        for step in dis.get_instructions(code):
            line = step.positions.lineno or line if step.positions is not None else line
            if step.argval == name and step.opname.startswith(("STORE_", "DELETE_")) and "FAST" not in step.opname:
                return f"{code.co_filename}:{line}"
            if step.opname in ("STORE_SUBSCR", "DELETE_SUBSCR") or step.argval in _CHANGES:
                if before == name:
                    return f"{code.co_filename}:{line}"
            elif step.argval == name:
                weaker = weaker or f"{code.co_filename}:{line}"
            if step.opname.startswith("LOAD_") and step.opname != "LOAD_CONST" and isinstance(step.argval, str):
                before = step.argval
    return weaker


# --- what is remembered -----------------------------------------------------------------------------------------------


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
        return len(now) == len(self.values) and all(map(_same, now, self.values))

    def changed(self) -> str:
        """The name of what has changed of it."""
        if len(self.names) == len(self.values):
            for name, now, before in zip(self.names, self.get(), self.values, strict=False):
                if not _same(now, before):
                    return name
        return self.names[0]


def _same(a: Any, b: Any) -> bool:
    """Whether a value is another one's equal in every respect that an operation could see."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return (a == b and math.copysign(1, a) == math.copysign(1, b)) or (a != a and b != b)
    if isinstance(a, (tuple, frozenset)):
        if isinstance(a, frozenset):
            return bool(a == b) and all(isinstance(part, _ATOMS) for part in a)
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, np.generic):
        return bool(a.tobytes() == b.tobytes())
    if isinstance(a, types.MethodType):
        return a.__func__ is b.__func__ and a.__self__ is b.__self__
    return isinstance(a, _ATOMS) and bool(a == b)


_UNSET = object()
_CELL_CONTENTS = operator.attrgetter("cell_contents")
_CODE = operator.attrgetter("__code__")
_FORWARD, _CALL = map(operator.attrgetter, ("forward", "__call__"))
_TABLES = frozenset("_parameters _buffers _modules".split())
_DEFAULTS = operator.attrgetter("__defaults__")


def _slots(thing: Any, names: tuple[str, ...]) -> list[Any]:
    found = []
    for name in names:
        try:
            found.append(object.__getattribute__(thing, name))
        except AttributeError:
            found.append(_UNSET)
    return found


def _content(host: Any) -> tuple[Any, ...]:
    return (host.dtype.str, host.shape, host.tobytes()) if isinstance(host, np.ndarray) else (bytes(host),)


def _state_of(generator: Any) -> tuple[Any, ...]:
    """The state of a random generator that is not Kobai's, as something to compare."""
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, np.random.RandomState):
        return tuple(
            repr(part) if not isinstance(part, np.ndarray) else part.tobytes() for part in generator.get_state()
        )
    return (repr(getattr(generator, "bit_generator", generator).state),)


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


# --- the walk ---------------------------------------------------------------------------------------------------------


class Walk:
    """Everything that code can reach from some functions and objects, as :class:`Entry` objects.

    ``ran``: the code that has run, with its globals and the objects that its variables named; only its names count then.
    Without it those of all code that is found count, of installed packages only what is ``known`` to run.

    Classes of Kobai whose objects rest on more than their attributes say so in a method ``_capture_watch(walk)``.
    """

    def __init__(
        self,
        roots: Iterable[tuple[Any, str]],
        ran: Mapping[types.CodeType, Ran] | None = None,
        known: Iterable[types.CodeType] = (),
    ) -> None:
        self.ran, self.known = ran, frozenset(known)
        self.entries: list[Entry] = []
        self.seen: dict[int, Any] = {}
        """All objects found, by id, which also keeps them alive."""
        self.codes: dict[types.CodeType, None] = {}
        self._iterators: list[str] = []
        self._too_large: list[str] = []
        self.draws: list[tuple[Any, Entry]] = []
        """Random generators that are not Kobai's, and their states."""
        self._names: set[str] = set()
        self._stored: set[str] = set()
        self._all = False
        self._own: dict[int, set[str]] = {}
        self._called: dict[int, set[str]] = {}  # methods of a class that Kobai may call
        self._tables: dict[int, tuple[Any, Mapping[str, Any], str]] = {}  # things with attributes
        self._looked_up: dict[int, set[str]] = {}
        self._globals: dict[int, tuple[dict[str, Any], set[str]]] = {}
        self._together: dict[tuple[Callable[[Any], Any], str, bool], list[tuple[Any, str]]] = {}
        self._queue: deque[tuple[Any, str]] = deque(roots)
        for root, _ in list(self._queue):
            if isinstance(root, (types.FunctionType, types.MethodType)):
                self.codes[root.__code__] = None
        self._run()

    def _run(self) -> None:
        if self.ran is not None:
            for code, run in self.ran.items():
                self.codes[code] = None
                self._explore(code, run.globals, run.variables, ours=_is_ours(code.co_filename) and not run.root)
        while True:
            while self._queue and not self.too_many:
                self._visit(*self._queue.popleft())
            for key in list(self._tables):
                self._look_up(key)
            if not self._queue or self.too_many:
                break
        for key, (thing, table, name) in self._tables.items():
            names = tuple(sorted(self._looked_up[key] | self._absent(key)))
            if names:
                self._picked(table, names, f"{name}." if isinstance(thing, types.ModuleType) else f"{_kind(thing)}.")
        for table, found in self._globals.values():
            self._picked(table, tuple(sorted(found)), "the global ")
        for (read, what, nothing), things in self._together.items():
            read_from, names = zip(*things, strict=True)
            get = partial(map, read, read_from)
            self.entries.append(Entry(get, tuple(get()), names, what, nothing=nothing))

    def _picked(self, table: Mapping[str, Any], names: tuple[str, ...], what: str) -> None:
        if table.keys() <= set(names):  # all that is there, so that nothing can join it unseen
            self.watch(table.values, tuple(table), what)
        else:
            self.watch(partial(map, table.get, names, (_UNSET,) * len(names)), names, what)

    def watch(
        self, get: Callable[[], Iterable[Any]], names: str | tuple[str, ...], what: str, by_value: bool = False
    ) -> None:
        """Remember what ``get()`` gives; ``what`` and the name of what differs tell of a change."""
        self.entries.append(Entry(get, tuple(get()), _as_tuple(names), what, by_value))

    def iterators(self) -> list[tuple[str, str]]:
        """Iterators on the way, whose positions cannot be watched, and where code names them."""
        return [(name, _line_of_change(self.codes, name) or "in the step") for name in self._iterators]

    def too_large(self) -> list[tuple[str, str]]:
        """Host arrays on the way that are too large to be compared, and where code names them."""
        return [(name, _line_of_change(self.codes, name) or "in the step") for name in self._too_large]

    def watch_with_others(
        self, read: Callable[[Any], Any], thing: Any, name: str, what: str, nothing: bool = False
    ) -> None:
        """Remember ``read(thing)``, a single value; what is read alike is compared in one go.

        ``nothing``: it is None, False or 0 now, and whichever of these it becomes makes no difference.
        """
        self._together.setdefault((read, what, nothing), []).append((thing, name))

    def attributes(self, thing: Any, names: Iterable[str]) -> None:
        """Watch these attributes of ``thing``, whoever reads them, and walk into them."""
        self._own.setdefault(id(thing), set()).update(names)

    @property
    def too_many(self) -> bool:
        """Whether so much can be reached that the walk was broken off."""
        return len(self.seen) > _MOST

    def push(self, value: Any, name: str) -> None:
        """Walk into ``value``, which is reached by ``name``."""
        if type(value) not in _ATOM_TYPES and id(value) not in self.seen:
            self._queue.append((value, name))

    def contents(self, container: Any, name: str) -> None:
        """Watch what a dict, list, set or deque holds, and walk into it."""
        fixed = isinstance(container, (tuple, frozenset))
        if not container and not fixed:
            self.watch_with_others(len, container, name, f"the {_kind(container)} ", nothing=True)
        elif isinstance(container, (dict, types.MappingProxyType)):
            values = container.values if type(container) is dict else partial(_values, container)
            self.watch(values, name, f"the {_kind(container)} ")
            if name not in _TABLES:  # members of a module are found by what they are
                self.watch(container.__iter__, name, f"the {_kind(container)} ")
            for value in list(_values(container)):
                self.push(value, name)
        elif not fixed:
            self.watch(container.__iter__, name, f"the {_kind(container)} ")
        for value in list(container):
            self.push(value, name)

    # --- one object

    def _visit(self, thing: Any, name: str) -> None:
        if isinstance(thing, _ATOMS) or id(thing) in self.seen:
            return
        self.seen[id(thing)] = thing
        if not self._as_its_kind(thing, name):
            self._instance(thing, name)

    def _as_its_kind(self, thing: Any, name: str) -> bool:
        """Watch what only things of this kind have; whether that is all, and attributes of its own do not count."""
        if isinstance(thing, np.ndarray):
            if thing.nbytes > _LARGEST:
                self._too_large.append(name)
            else:
                self.watch(partial(_content, thing), name, "the numpy.ndarray ", by_value=True)
        elif isinstance(thing, (bytearray, _array.array)):
            self.watch(partial(_content, thing), name, f"the {_kind(thing)} ", by_value=True)
        elif isinstance(thing, (random.Random, np.random.RandomState, np.random.Generator, np.random.BitGenerator)):
            get = partial(_state_of, thing)
            self.draws.append((thing, Entry(get, tuple(get()), (name,), "the state of the random generator ")))
        elif isinstance(thing, types.FunctionType):
            self._function(thing, name)
            return True
        elif isinstance(thing, types.MethodType):
            self.push(thing.__func__, name)
            self.push(thing.__self__, name)
            return True  # attributes of a method are its function's
        elif isinstance(thing, types.ModuleType):
            file = getattr(thing, "__file__", None) or ""
            known = thing.__name__ in sys.builtin_module_names or thing.__name__ in sys.stdlib_module_names
            if not (known or _is_library(file) or _is_ours(file)):
                self._tables[id(thing)] = (thing, vars(thing), thing.__name__)
            return True
        elif isinstance(thing, type):
            self._class(thing, name)
            return True
        elif isinstance(thing, (staticmethod, classmethod)):
            self.push(thing.__func__, name)
        elif isinstance(thing, property):
            for function in (thing.fget, thing.fset):
                self.push(function, name)
        elif isinstance(thing, cached_property):
            self.push(thing.func, name)
        elif isinstance(thing, partial):
            self.push(thing.func, name)
            self.push(thing.args, name)
            self.push(thing.keywords, name)
        elif isinstance(thing, types.CellType):
            value = _cell(thing)
            if value[0] is _UNSET:
                self.watch(partial(_cell, thing), name, "the variable ")
            else:
                self.watch_with_others(_CELL_CONTENTS, thing, name, "the variable ")
            self.push(value[0], name)
        elif isinstance(thing, (operator.attrgetter, operator.methodcaller)):
            names = [part for part in thing.__reduce__()[1] if isinstance(part, str)]
            self._names.update(n for dotted in names for n in dotted.split("."))
        elif isinstance(thing, weakref.ref):
            self.push(thing(), name)
        elif isinstance(thing, _CACHED):  # what is cached stands for what the function reads
            function = thing.__wrapped__
            self.push(function, name)
            if self.ran is not None and isinstance(function, types.FunctionType):
                self._explore(function.__code__, function.__globals__, _enclosed(function))
        elif isinstance(thing, ContextVar):
            self.watch(partial(_context, thing), name, "the context variable ")
            self.push(_context(thing)[0], name)
        elif isinstance(thing, types.BuiltinMethodType):
            if not isinstance(thing.__self__, types.ModuleType):
                self.push(thing.__self__, name)
            return True
        elif hasattr(type(thing), "__next__") and not hasattr(type(thing), "_capture_watch"):
            self._iterators.append(name)
            return True
        return False

    def _instance(self, thing: Any, name: str) -> None:
        kind = type(thing)
        if isinstance(thing, (dict, list, tuple, set, frozenset, deque, types.MappingProxyType)):
            self.contents(thing, name)
        watch = getattr(kind, "_capture_watch", None)
        if watch is not None:
            watch(thing, self)
        table = getattr(thing, "__dict__", None)
        if isinstance(table, dict):
            self._tables[id(thing)] = (thing, table, name)
        slots = tuple(
            slot
            for base in kind.__mro__
            if not _is_builtin(base)
            for slot in _as_tuple(base.__dict__.get("__slots__", ()))
            if slot not in ("__dict__", "__weakref__")
        )
        if slots and watch is None:
            slots = tuple(
                f"_{kind.__name__.lstrip('_')}{s}" if s.startswith("__") and s[-2:] != "__" else s for s in slots
            )
            self.watch(partial(_slots, thing, slots), slots, f"{_kind(thing)}.")
            for value in _slots(thing, slots):
                self.push(value, name)
        if not _is_builtin(kind):
            self.watch_with_others(type, thing, name, "the class of ")
        self.push(kind, name)

    def _function(self, function: types.FunctionType, name: str) -> None:
        code, file = function.__code__, function.__code__.co_filename
        if function is os.getenv or (not _is_library(file) and (self.ran is None or code in self.ran)):
            self.watch_with_others(_CODE, function, name, "the code of ")
            self.watch_with_others(_DEFAULTS, function, name, "defaults of ")
            if function is os.getenv:
                self.push(os.environ, name)
            if function.__kwdefaults__:
                self.push(function.__kwdefaults__, name)
            for value in function.__defaults__ or ():
                self.push(value, name)
        for variable, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            self.push(cell, variable)
        if function.__dict__:
            self._tables[id(function)] = (function, function.__dict__, name)
        if self.ran is None and (code in self.codes or code in self.known or _is_of_program(file)):
            variables = _enclosed(function)
            for inner in _nested(code):
                self.codes[inner] = None
                self._explore(inner, function.__globals__, variables)

    def _class(self, kind: type, name: str) -> None:
        self.push(type(kind), name)
        if hasattr(kind, "forward"):  # what a layer does may be replaced for all of its class, or of one above it
            self.watch_with_others(_FORWARD, kind, "forward", "a method of ")
            self.watch_with_others(_CALL, kind, "__call__", "a method of ")
        for base in kind.__mro__:
            if _is_builtin(base) or id(base) in self._tables:
                continue
            file = getattr(sys.modules.get(base.__module__), "__file__", None) or ""
            if _is_library(file):
                continue
            self.seen[id(base)] = base
            if _is_ours(file):
                continue
            self._tables[id(base)] = (base, base.__dict__, base.__name__)
            # Kobai calls methods that no code of the program names: forward, backward, __call__, an event of a callback.
            called = {
                n for n, value in base.__dict__.items() if (n.startswith("__") and callable(value)) or n in _BY_KOBAI
            }
            if self.ran is not None:
                called |= {n for n, v in base.__dict__.items() if getattr(v, "__code__", None) in self.ran}
            self._own.setdefault(id(base), set()).update(called)
            self._called[id(base)] = called

    # --- names

    def _explore(
        self, code: types.CodeType, names: dict[str, Any], variables: Mapping[str, list[Any]], ours: bool = False
    ) -> None:
        """Follow the names in ``code``. Of Kobai's own code only those count that it reads from objects of the program."""
        read = reads(code)
        if not ours:
            self._names |= read.attributes
            self._all |= read.dynamic
            if self.ran is None:  # what it sets and does not read is seen by comparing before and after alone
                self._names |= read.stored
                self._stored |= read.stored
                self._globals.setdefault(id(names), (names, set()))[1].update(read.globals_stored)
            for module in read.imported:
                self.push(sys.modules.get(module), module)
            if read.all_globals:
                for variable in list(names):
                    if not variable.startswith("__"):
                        self._globals.setdefault(id(names), (names, set()))[1].add(variable)
                        self.push(names[variable], variable)
        for kind, variable, path in read.paths:
            if kind == "global":
                if ours or variable not in names:
                    continue
                self._globals.setdefault(id(names), (names, set()))[1].add(variable)
                self._follow(names[variable], variable, path)
            elif variable in variables:
                for value in variables[variable]:
                    self._follow(value, variable, path)
            elif not ours:
                self._names.update(path)

    def _follow(self, value: Any, name: str, path: tuple[str, ...]) -> None:
        self.push(value, name)
        for i, attribute in enumerate(path):
            if isinstance(value, _ATOMS):
                return
            for holder in (value, *type(value).__mro__, *(value.__mro__ if isinstance(value, type) else ())):
                self._own.setdefault(id(holder), set()).add(attribute)
            value = _peek(value, attribute)
            if value is _UNSET:
                self._names.update(path[i:])
                return
            self.push(value, attribute)

    def _look_up(self, key: int) -> None:
        """Walk into the attributes of a thing that names found so far lead to."""
        thing, table, _ = self._tables[key]
        done = self._looked_up.setdefault(key, set())
        own = self._own.get(key, set())
        whole = self._all and not isinstance(thing, (types.ModuleType, type)) and not _is_of_library(type(thing))
        whole |= type(thing).__module__ in _CONTAINERS  # their code, which is not looked at, reads all of them
        hidden = str(type(thing).__module__).startswith("kobai.")
        if hidden and self.ran is None and not hasattr(type(thing), "_capture_watch"):
            whole, hidden = True, False
        tensor = hasattr(type(thing), "requires_grad")
        for attribute in list(table):
            if attribute in done or not isinstance(attribute, str):
                continue
            if tensor and attribute.startswith("_"):
                continue
            if attribute in own or (not hidden and (whole or attribute in self._names)):
                done.add(attribute)
                self.push(table[attribute], attribute)

    def _absent(self, key: int) -> set[str]:
        """Names that are looked for in a thing and not there: one of the class may come to be hidden, or one be made."""
        thing, table, _ = self._tables[key]
        kind = type(thing)
        if isinstance(thing, (types.ModuleType, type, types.FunctionType)) or hasattr(kind, "requires_grad"):
            return set()
        read = set(self._own.get(key, ()))
        if not str(kind.__module__).startswith("kobai."):
            read |= self._stored
            read.update(name for base in kind.__mro__[:-1] for name in self._names.intersection(base.__dict__))
            for base in kind.__mro__:
                read |= self._called.get(id(base), set())
        return {name for name in read if name not in table and not name.startswith("__")}


class Ran(NamedTuple):
    """A code object that has run: its globals, objects of the program that its variables named, whether it is the step's."""

    globals: dict[str, Any]
    variables: dict[str, list[Any]]
    root: bool


_ATOM_TYPES = frozenset(_ATOMS)
_CACHED = type(lru_cache(_nested))
_CONTAINERS = frozenset("collections types argparse configparser dataclasses string functools os".split())
_BY_KOBAI = frozenset("forward backward setup_context vjp jvp step measure update".split())


def _kind(thing: Any) -> str:
    return thing.__name__ if isinstance(thing, type) else type(thing).__name__


def _values(table: Any) -> Iterable[Any]:
    return dict.values(table) if isinstance(table, dict) else table.values()


def _cell(cell: types.CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:  # not yet assigned
        return (_UNSET,)


def _enclosed(function: types.FunctionType) -> dict[str, list[Any]]:
    """What the variables of enclosing functions hold, by name."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {variable: list(_cell(cell)) for variable, cell in cells}


def _context(variable: ContextVar[Any]) -> tuple[Any, ...]:
    return (variable.get(_UNSET),)


def _is_builtin(kind: type) -> bool:
    return kind.__module__ == "builtins" or not kind.__flags__ & (1 << 9)


def _as_tuple(names: Any) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _peek(thing: Any, name: str) -> Any:
    """The attribute ``name`` without running any code of the program; ``_UNSET`` where that cannot be known."""
    table = getattr(thing, "__dict__", {})
    if isinstance(thing, type):
        for base in thing.__mro__:
            if name in base.__dict__:
                return base.__dict__[name]
        return _UNSET
    if name in table:
        return table[name]
    for inner in ("_modules", "_parameters", "_buffers"):
        if name in table.get(inner, ()):
            return table[inner][name]
    for base in type(thing).__mro__:
        if name in base.__dict__:
            value = base.__dict__[name]
            return value if isinstance(value, types.FunctionType) or not hasattr(type(value), "__get__") else _UNSET
    return _UNSET


# --- a step -----------------------------------------------------------------------------------------------------------

_CLOCKS = frozenset(
    "time time_ns perf_counter perf_counter_ns monotonic monotonic_ns process_time process_time_ns thread_time".split()
)
_PURE = frozenset("fspath getpid cpu_count".split())
_READS_AND_WRITES = frozenset("write writelines read readline readlines readinto flush seek".split())


_TELLING = frozenset((logging.__file__, warnings.__file__))


def _skipped(function: Any) -> str | None:
    """What a replay would leave out of a call of this builtin function, if it is one that matters."""
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


class Watch:
    """One recording of a step as Python sees it; see the module."""

    def __init__(self, step: Callable[..., Any], args: Any, known: Iterable[types.CodeType] = ()) -> None:
        self.step = step
        objects = [value for value in leaves(args) if not hasattr(type(value), "requires_grad")]  # tensors are its data
        self.roots = [(step, getattr(step, "__name__", "step")), *((value, "an argument") for value in objects)]
        self.before = Walk(self.roots, known=known)
        self._ran: dict[types.CodeType, Ran] | None = {}
        self._fail: Callable[[str, str], None] = lambda place, message: None
        self._previous: Any = None
        self._observing = self._paused = False
        self.moved: dict[int, set[str | None]] = {}
        """What repeated actions have changed: names by the id of what holds them, None for the contents of a container."""
        self.actions: list[Callable[[], Any]] = []
        """What replays do on the host as well."""

    def begin(self, fail: Callable[[str, str], None]) -> None:
        """Note from now on which code runs in this thread; ``fail(place, message)`` hears of calls that a replay leaves out."""
        self._previous = sys.getprofile()
        if self._previous is not None and not isinstance(self._previous, types.FunctionType):
            self._ran = None  # a profiler in C, which cannot be asked to share: all code that may run counts as run
            return
        self._fail, self._observing = fail, True
        sys.setprofile(self._event)

    def end(self) -> None:
        """Note nothing more; may be called again."""
        if self._observing:
            sys.setprofile(self._previous)
            self._observing = False

    def _event(self, frame: types.FrameType, event: str, arg: Any) -> None:
        if self._paused:
            return
        if event == "call":
            self._called(frame)
        elif event == "c_call":
            what = _skipped(arg)
            if what is None:
                return
            caller: types.FrameType | None = frame
            told = False  # by logging or warnings, and then those who listen are not who did it
            while caller is not None and (told or _is_library(caller.f_code.co_filename)):
                file = caller.f_code.co_filename
                if told and (_is_ours(file) or _is_of_program(file)):
                    break
                told |= file in _TELLING
                caller = caller.f_back
            if caller is not None and not _is_ours(caller.f_code.co_filename):
                self._fail(
                    f"{caller.f_code.co_filename}:{caller.f_lineno}",
                    f"captured step: {what} inside the step, which a replay would not do again; do it outside, and pass "
                    "what it gives to the step as a tensor",
                )

    def _called(self, frame: types.FrameType) -> None:
        code, outside, ran = frame.f_code, self.before.seen, self._ran
        file = code.co_filename
        root = code is getattr(self.step, "__code__", None)
        if ran is None or _is_library(file):
            return
        ours = _is_ours(file) and not root
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
        """Code of installed packages that has run and was not looked into before: what it changes has not been seen."""
        return {
            code
            for code in self._ran or ()
            if code not in self.before.codes and not (_is_ours(code.co_filename) or _is_of_program(code.co_filename))
        }

    def changes(self) -> list[tuple[str, str]]:
        """What the step changed of what it could reach, each with its place, file and line."""
        changed = [entry for entry in self.before.entries if not entry.is_as_before()]
        drawn = [(generator, draw) for generator, draw in self.before.draws if not draw.is_as_before()]
        if drawn:  # by the step, or by another thread: only what code that has run names is the step's
            after = self.after().seen
            changed += [draw for generator, draw in drawn if id(generator) in after]
        return [self._told(entry) for entry in changed]

    def _told(self, entry: Entry) -> tuple[str, str]:
        name = entry.changed()
        place = _line_of_change(self._ran or (), name) or _line_of_change(self.before.codes, name)
        if place is None:
            code = getattr(self.step, "__code__", None)
            place = "in the step" if code is None else f"{code.co_filename}:{code.co_firstlineno}"
        return f"{entry.what}{name}", place

    def repeated(self, action: Callable[[], Any]) -> Any:
        """Do what replays do as well: what it changes is no change of the step's, and what it reads is read anew."""
        self.actions.append(action)
        entries = self.before.entries
        same = [entry.is_as_before() for entry in entries]
        self._paused = True
        try:
            return action()
        finally:
            self._paused = False
            moved = [before and not entry.is_as_before() for entry, before in zip(entries, same, strict=True)]
            for entry in (entry for entry, has_moved in zip(entries, moved, strict=True) if has_moved):
                now = tuple(entry.get())
                for i, (holder, name) in enumerate(entry.holders()):
                    if len(entry.names) != len(now) or not _same(now[i], entry.values[i]):
                        self.moved.setdefault(id(holder), set()).add(name)
            self.before.entries = [
                entry._replace(values=tuple(entry.get())) if has_moved else entry
                for entry, has_moved in zip(entries, moved, strict=True)
            ]

    def read_and_moved(self, walk: Walk) -> Iterator[tuple[str, str]]:
        """What the step reads and moves on itself, as a schedule's step does: a replay would find it moved, and not read it."""
        for entry in walk.entries:
            for holder, name in entry.holders():
                names = self.moved.get(id(holder), ())
                if name in names or (names and None in (name, *names)):
                    yield self._told(entry)
                    break

    def after(self, *more: Any) -> Walk:
        """What the program rests on; ``more`` is what the step has touched besides what its code names."""
        return Walk([*self.roots, *((thing, _kind(thing)) for thing in more)], self._ran)


def leaves(value: Any) -> Iterator[Any]:
    """What stands in tuples, lists and dicts, one after the other."""
    if isinstance(value, dict):
        for part in value.values():
            yield from leaves(part)
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from leaves(part)
    else:
        yield value

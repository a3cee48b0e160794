"""The walk through everything that code can reach."""

from __future__ import annotations

import array as _array
import operator
import os
import random
import sys
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from functools import cached_property, lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from kobai.capture.guards import ATOMS, UNSET, Entry
from kobai.capture.reads import is_library, is_of_library, is_of_program, is_ours, line_of_change, nested, reads

_MOST = 100_000
"""Objects that a walk looks at, in about a second; a step whose code can reach more is not captured."""

_LARGEST = 1 << 20
"""Bytes of a host array that are compared before each replay; a step that reads a larger one is not captured."""

_CELL_CONTENTS = operator.attrgetter("cell_contents")
_CODE = operator.attrgetter("__code__")
_FORWARD, _CALL = map(operator.attrgetter, ("forward", "__call__"))
_TABLES = frozenset("_parameters _buffers _modules".split())
_DEFAULTS = operator.attrgetter("__defaults__")


def in_slots(thing: Any, names: tuple[str, ...]) -> list[Any]:
    found = []
    for name in names:
        try:
            found.append(object.__getattribute__(thing, name))
        except AttributeError:
            found.append(UNSET)
    return found


def content(host: Any) -> tuple[Any, ...]:
    return (host.dtype.str, host.shape, host.tobytes()) if isinstance(host, np.ndarray) else (bytes(host),)


def state_of(generator: Any) -> tuple[Any, ...]:
    """The state of a random generator that is not Kobai's, as something to compare."""
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, np.random.RandomState):
        return tuple(
            repr(part) if not isinstance(part, np.ndarray) else part.tobytes() for part in generator.get_state()
        )
    return (repr(getattr(generator, "bit_generator", generator).state),)


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
                self._explore(code, run.globals, run.variables, ours=is_ours(code.co_filename) and not run.root)
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
                self._picked(table, names, f"{name}." if isinstance(thing, types.ModuleType) else f"{kind_of(thing)}.")
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
            self.watch(partial(map, table.get, names, (UNSET,) * len(names)), names, what)

    def watch(
        self, get: Callable[[], Iterable[Any]], names: str | tuple[str, ...], what: str, by_value: bool = False
    ) -> None:
        """Remember what ``get()`` gives; ``what`` and the name of what differs tell of a change."""
        self.entries.append(Entry(get, tuple(get()), _as_tuple(names), what, by_value))

    def iterators(self) -> list[tuple[str, str]]:
        """Iterators on the way, whose positions cannot be watched, and where code names them."""
        return [(name, line_of_change(self.codes, name) or "in the step") for name in self._iterators]

    def too_large(self) -> list[tuple[str, str]]:
        """Host arrays on the way that are too large to be compared, and where code names them."""
        return [(name, line_of_change(self.codes, name) or "in the step") for name in self._too_large]

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
            self.watch_with_others(len, container, name, f"the {kind_of(container)} ", nothing=True)
        elif isinstance(container, (dict, types.MappingProxyType)):
            values = container.values if type(container) is dict else partial(_values, container)
            self.watch(values, name, f"the {kind_of(container)} ")
            if name not in _TABLES:  # members of a module are found by what they are
                self.watch(container.__iter__, name, f"the {kind_of(container)} ")
            for value in list(_values(container)):
                self.push(value, name)
        elif not fixed:
            self.watch(container.__iter__, name, f"the {kind_of(container)} ")
        for value in list(container):
            self.push(value, name)

    # --- one object

    def _visit(self, thing: Any, name: str) -> None:
        if isinstance(thing, ATOMS) or id(thing) in self.seen:
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
                self.watch(partial(content, thing), name, "the numpy.ndarray ", by_value=True)
        elif isinstance(thing, (bytearray, _array.array)):
            self.watch(partial(content, thing), name, f"the {kind_of(thing)} ", by_value=True)
        elif isinstance(thing, (random.Random, np.random.RandomState, np.random.Generator, np.random.BitGenerator)):
            get = partial(state_of, thing)
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
            if not (known or is_library(file) or is_ours(file)):
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
            value = in_cell(thing)
            if value[0] is UNSET:
                self.watch(partial(in_cell, thing), name, "the variable ")
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
                self._explore(function.__code__, function.__globals__, enclosed(function))
        elif isinstance(thing, ContextVar):
            self.watch(partial(in_context, thing), name, "the context variable ")
            self.push(in_context(thing)[0], name)
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
            self.watch(partial(in_slots, thing, slots), slots, f"{kind_of(thing)}.")
            for value in in_slots(thing, slots):
                self.push(value, name)
        if not _is_builtin(kind):
            self.watch_with_others(type, thing, name, "the class of ")
        self.push(kind, name)

    def _function(self, function: types.FunctionType, name: str) -> None:
        code, file = function.__code__, function.__code__.co_filename
        if function is os.getenv or (not is_library(file) and (self.ran is None or code in self.ran)):
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
        if self.ran is None and (code in self.codes or code in self.known or is_of_program(file)):
            variables = enclosed(function)
            for inner in nested(code):
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
            if is_library(file):
                continue
            self.seen[id(base)] = base
            if is_ours(file):
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
            if isinstance(value, ATOMS):
                return
            for holder in (value, *type(value).__mro__, *(value.__mro__ if isinstance(value, type) else ())):
                self._own.setdefault(id(holder), set()).add(attribute)
            value = peek(value, attribute)
            if value is UNSET:
                self._names.update(path[i:])
                return
            self.push(value, attribute)

    def _look_up(self, key: int) -> None:
        """Walk into the attributes of a thing that names found so far lead to."""
        thing, table, _ = self._tables[key]
        done = self._looked_up.setdefault(key, set())
        own = self._own.get(key, set())
        whole = self._all and not isinstance(thing, (types.ModuleType, type)) and not is_of_library(type(thing))
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


_ATOM_TYPES = frozenset(ATOMS)
_CACHED = type(lru_cache(nested))
_CONTAINERS = frozenset("collections types argparse configparser dataclasses string functools os".split())
_BY_KOBAI = frozenset("forward backward setup_context vjp jvp step measure update".split())


def kind_of(thing: Any) -> str:
    return thing.__name__ if isinstance(thing, type) else type(thing).__name__


def _values(table: Any) -> Iterable[Any]:
    return dict.values(table) if isinstance(table, dict) else table.values()


def in_cell(cell: types.CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:  # not yet assigned
        return (UNSET,)


def enclosed(function: types.FunctionType) -> dict[str, list[Any]]:
    """What the variables of enclosing functions hold, by name."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {variable: list(in_cell(cell)) for variable, cell in cells}


def in_context(variable: ContextVar[Any]) -> tuple[Any, ...]:
    return (variable.get(UNSET),)


def _is_builtin(kind: type) -> bool:
    return kind.__module__ == "builtins" or not kind.__flags__ & (1 << 9)


def _as_tuple(names: Any) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def peek(thing: Any, name: str) -> Any:
    """The attribute ``name`` without running any code of the program; ``UNSET`` where that cannot be known."""
    table = getattr(thing, "__dict__", {})
    if isinstance(thing, type):
        for base in thing.__mro__:
            if name in base.__dict__:
                return base.__dict__[name]
        return UNSET
    if name in table:
        return table[name]
    for inner in ("_modules", "_parameters", "_buffers"):
        if name in table.get(inner, ()):
            return table[inner][name]
    for base in type(thing).__mro__:
        if name in base.__dict__:
            value = base.__dict__[name]
            return value if isinstance(value, types.FunctionType) or not hasattr(type(value), "__get__") else UNSET
    return UNSET

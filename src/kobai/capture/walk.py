"""The walk through everything that code can reach.

The search alternates between code and objects. From a function it goes to the objects that the names in its code lead to, and
from an object to what it holds according to its kind (``kinds.py``), including other functions. A path that can be followed,
such as ``self.optimizer.step``, is followed object by object. Attributes of computed values count for every object that was
reached. So a new name may lead into objects that were passed before, and a new object may bring code with new names::

      names  ──── explore, _look_up ────►  objects
        ▲                                    │
        └────── a function's code ◄──────────┘     until nothing is new

The findings are entries (``guards.py``). For an object with attributes these are the ones that code names, and those that code
looks for in vain, because they may appear later.
"""

from __future__ import annotations

import sys
import types
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

from kobai.capture.guards import ATOMS, UNSET, Entry
from kobai.capture.kinds import MEMBERS_OF_MODULES, kind_of, visit
from kobai.capture.reads import is_of_library, is_ours, line_of_change, reads

_ATOMS = frozenset(ATOMS)
_MOST = 100_000
"""Most objects a walk visits, in about a second; a step whose code can reach more is not captured."""


class Walk:
    """Everything that code can reach from some functions and objects, as :class:`~kobai.capture.guards.Entry` objects.

    ``ran``: the code that has run, with its globals and the objects that its variables named; then only its names count.
    Without it the names in all code that is found count, except for installed packages, of which only ``known`` code does.

    Kobai's classes whose objects depend on more than their attributes say so in a method ``_capture_watch(walk)``. With
    ``state`` the walk also finds what Kobai's optimizers and generators update themselves, on which no replay depends.
    """

    def __init__(
        self,
        roots: Iterable[tuple[Any, str]],
        ran: Mapping[types.CodeType, Ran] | None = None,
        known: Iterable[types.CodeType] = (),
        state: bool = False,
    ) -> None:
        self.ran, self.known, self.state = ran, frozenset(known), state
        self.entries: list[Entry] = []
        self.seen: dict[int, Any] = {}
        """All objects found, by id, which also keeps them alive."""
        self.reached_by: dict[int, str] = {}
        """The name by which each was first reached."""
        self.codes: dict[types.CodeType, None] = {}
        self._refused: list[tuple[str, str]] = []
        self.draws: list[tuple[Any, Entry]] = []
        """Random generators that are not Kobai's, and their states."""
        self.names: set[str] = set()
        """Attributes that code reads from unknown objects."""
        self._stored: set[str] = set()
        self._all = False
        self._own: defaultdict[int, set[str]] = defaultdict(set)  # names that count in one thing
        self._called: dict[int, frozenset[str]] = {}  # methods of a class that Kobai may call
        self.tables: dict[int, tuple[Any, Mapping[str, Any], str]] = {}  # things with attributes
        self._looked_up: defaultdict[int, set[str]] = defaultdict(set)
        self._globals: dict[int, tuple[dict[str, Any], set[str]]] = {}
        self._together: dict[tuple[Callable[[Any], Any], str, bool], list[tuple[Any, str]]] = {}
        self._queue: deque[tuple[Any, str]] = deque()
        for root, name in roots:
            self.push(root, name)
            if isinstance(root, (types.FunctionType, types.MethodType)):
                self.codes[root.__code__] = None
        self._run()

    def _run(self) -> None:
        if self.ran is not None:
            for code, run in self.ran.items():
                self.codes[code] = None
                self.explore(code, run.globals, run.variables, ours=is_ours(code.co_filename) and not run.root)
        while True:
            while self._queue and not self.too_many:
                thing, name = self._queue.popleft()
                if id(thing) not in self.seen and not isinstance(thing, ATOMS):
                    self.seen[id(thing)], self.reached_by[id(thing)] = thing, name
                    visit(self, thing, name)
            for key in list(self.tables):
                self._look_up(key)
            if not self._queue or self.too_many:
                break
        for key, (thing, table, name) in self.tables.items():
            names = tuple(sorted(self._looked_up[key] | self._absent(key)))
            if names:
                what = f"{name}." if isinstance(thing, types.ModuleType) else f"{kind_of(thing)}."
                self._picked(table, names, what, fixed=hasattr(type(thing), "_capture_watch"))
        for table, found in self._globals.values():
            self._picked(table, tuple(sorted(found)), "the global ")
        for (read, what, nothing), things in self._together.items():
            read_from, names = zip(*things, strict=True)
            get = partial(map, read, read_from)
            self.entries.append(Entry(get, tuple(get()), names, what, nothing=nothing))

    def _picked(self, table: Mapping[str, Any], names: tuple[str, ...], what: str, fixed: bool = False) -> None:
        """Watch what a table holds under these names. ``fixed``: its class has set all names, so none replaces another."""
        if table.keys() <= set(names):  # watch the whole table, so that additions are seen too
            if fixed and isinstance(table, dict):
                self.watch(partial(dict.values, table), tuple(table), what)
            else:
                self.watch(partial(chain, table, table.values()), (*table, *table), what)
        else:
            self.watch(partial(map, table.get, names, (UNSET,) * len(names)), names, what)

    def watch(
        self, get: Callable[[], Iterable[Any]], names: str | tuple[str, ...], what: str, by_value: bool = False
    ) -> None:
        """Remember what ``get()`` gives; ``what`` and the name of the changed part describe a change."""
        self.entries.append(Entry(get, tuple(get()), (names,) if isinstance(names, str) else names, what, by_value))

    def refuse(self, name: str, message: str) -> None:
        """Note that something cannot be watched."""
        self._refused.append((name, message))

    def refused(self) -> list[tuple[str, str]]:
        """For everything that cannot be watched: the place where code names it, and the message."""
        return [(line_of_change(self.codes, name) or "in the step", message) for name, message in self._refused]

    def watch_with_others(
        self, read: Callable[[Any], Any], thing: Any, name: str, what: str, nothing: bool = False
    ) -> None:
        """Remember ``read(thing)``, a single value; things with the same ``read`` are compared together.

        ``nothing``: it is None, False or 0 now, and may change from one of these to another.
        """
        self._together.setdefault((read, what, nothing), []).append((thing, name))

    def attributes(self, thing: Any, names: Iterable[str]) -> None:
        """Watch these attributes of ``thing``, no matter who reads them, and walk into them."""
        self._own[id(thing)].update(names)

    @property
    def too_many(self) -> bool:
        """Whether the walk was stopped because too much can be reached."""
        return len(self.seen) > _MOST

    def push(self, value: Any, name: str) -> None:
        """Walk into ``value``, which was reached by ``name``."""
        if type(value) not in _ATOMS and id(value) not in self.seen:
            self._queue.append((value, name))

    def has_attributes(self, thing: Any, table: Mapping[str, Any], name: str, called: Iterable[str] = ()) -> None:
        """``thing`` has these attributes. They count if code names them; ``called`` count anyway, because Kobai calls them."""
        self.tables[id(thing)] = (thing, table, name)
        if called:
            self._own[id(thing)].update(called)
            self._called[id(thing)] = frozenset(called)

    # --- names

    def explore(
        self, code: types.CodeType, names: dict[str, Any], variables: Mapping[str, list[Any]], ours: bool = False
    ) -> None:
        """Follow the names in ``code``. In Kobai's own code only reads from the program's objects count."""
        read = reads(code)
        if not ours:
            self.names |= read.attributes
            self._all |= read.dynamic
            if self.ran is None:  # names that are only set matter when before and after are compared
                self.names |= read.stored
                self._stored |= read.stored
                self._read_globals(names, *read.globals_stored)
            for module in read.imported:
                self.push(sys.modules.get(module), module)
            if read.all_globals:
                for variable in [name for name in names if not name.startswith("__")]:
                    self._read_globals(names, variable)
                    self.push(names[variable], variable)
        for kind, variable, path in read.paths:
            if kind == "global":
                if ours or variable not in names:
                    continue
                self._read_globals(names, variable)
                self._follow(names[variable], variable, path)
            elif variable in variables:
                for value in variables[variable]:
                    self._follow(value, variable, path)
            elif not ours:
                self.names.update(path)

    def _read_globals(self, table: dict[str, Any], *variables: str) -> None:
        self._globals.setdefault(id(table), (table, set()))[1].update(variables)

    def _follow(self, value: Any, name: str, path: tuple[str, ...]) -> None:
        self.push(value, name)
        for i, attribute in enumerate(path):
            if isinstance(value, ATOMS):
                return
            for holder in (value, *type(value).__mro__, *(value.__mro__ if isinstance(value, type) else ())):
                self._own[id(holder)].add(attribute)
            value = peek(value, attribute)
            if value is UNSET:
                self.names.update(path[i:])
                return
            self.push(value, attribute)

    def _look_up(self, key: int) -> None:
        """Walk into those attributes of a thing that the names found so far lead to."""
        thing, table, _ = self.tables[key]
        done = self._looked_up[key]
        own = self._own.get(key, set())
        whole = self._all and not isinstance(thing, (types.ModuleType, type)) and not is_of_library(type(thing))
        whole |= type(thing).__module__ in _CONTAINERS  # their own code reads all of them, and is not examined
        module = str(type(thing).__module__)
        hidden = module.startswith("kobai.")
        stateful = self.state and module.startswith(_STATEFUL)
        if stateful or (hidden and self.ran is None and not hasattr(type(thing), "_capture_watch")):
            whole, hidden = True, False
        tensor = hasattr(type(thing), "requires_grad")
        for attribute in list(table):
            if attribute in done or not isinstance(attribute, str):
                continue
            if (tensor and attribute.startswith("_")) or (stateful and attribute in _MADE_AGAIN):
                continue
            if attribute in own or (not hidden and (whole or attribute in self.names)):
                done.add(attribute)
                self.push(table[attribute], attribute)

    def _absent(self, key: int) -> set[str]:
        """Names that code looks for in a thing and does not find there: setting one could hide the class's or add one."""
        thing, table, _ = self.tables[key]
        kind = type(thing)
        if isinstance(thing, (types.ModuleType, type, types.FunctionType)) or hasattr(kind, "requires_grad"):
            return set()
        read = set(self._own.get(key, ()))
        if not str(kind.__module__).startswith("kobai."):
            read |= self._stored
            read.update(name for base in kind.__mro__[:-1] for name in self.names.intersection(base.__dict__))
            for base in kind.__mro__:
                read |= self._called.get(id(base), frozenset())
        return {name for name in read if name not in table and not name.startswith("__")}


_STATEFUL = ("kobai.optim", "kobai.random", "kobai.grad_scaler")
_MADE_AGAIN = frozenset(("_launchers",))  # from the rest, when it is needed


class Ran(NamedTuple):
    """Code that has run: its globals, the program's objects that its variables named, and whether it is the step itself."""

    globals: dict[str, Any]
    variables: dict[str, list[Any]]
    root: bool


_CONTAINERS = frozenset(
    "collections types argparse configparser dataclasses string functools os queue weakref _weakrefset".split()
)


def peek(thing: Any, name: str) -> Any:
    """The attribute ``name``, found without running the program's code; ``UNSET`` if that is impossible."""
    kind = thing if isinstance(thing, type) else type(thing)
    if kind is not thing:
        table = getattr(thing, "__dict__", {})
        for held in (table, *(table.get(members, {}) for members in MEMBERS_OF_MODULES)):
            if name in held:
                return held[name]
    value = next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), UNSET)
    computed = kind is not thing and hasattr(type(value), "__get__") and not isinstance(value, types.FunctionType)
    return UNSET if computed else value

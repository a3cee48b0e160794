"""Kinds of things: which part of a thing is watched, and where the walk continues from it.

The walk (``walk.py``) meets things of every kind: a list, a bound method, a random generator, an object with slots. Three
rules handle most of them without knowing their kind. The contents of ``__dict__`` are found by the names that code reads.
*Members* – slots of Python classes, fields of C classes – are walked into, and watched if they can be set. Whatever exposes
its memory (the buffer protocol) is compared by content::

    thing ──┬── its kind's rule, from the table below     a dict's items, a function's closure, a generator's state
            ├── members                                   slots; partial.func, property.fget, defaultdict.default_factory
            ├── buffer                                    numpy.ndarray, bytearray, array.array, memoryview, ctypes
            ├── __dict__                                  by name, in walk.py
            └── its class                                 methods, defaults of attributes

A rule gets the walk, the thing and the name by which code reaches it. Some kinds stand *alone*, because their rule covers
everything: the ``__dict__`` of a bound method is that of its function. State that Python keeps elsewhere needs a line in the
table.

For things that can change, the table also says how to copy what they hold and how to put it back: an audit (``audit.py``)
runs a step twice from the same state.
"""

from __future__ import annotations

import operator
import os
import random
import sys
import types
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from functools import cache, lru_cache, partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from kobai.capture.guards import UNSET, Entry
from kobai.capture.reads import is_library, is_of_program, is_ours, nested

_HEAP, _IMMUTABLE = 1 << 9, 1 << 8  # flags of classes: not a static one of C, without attributes to be set

_LARGEST = 1 << 20
"""Bytes of host memory that are compared before each replay; a step that reads more of one thing is not captured."""

_CELL_CONTENTS, _CODE, _DEFAULTS, _FORWARD, _CALL = map(
    operator.attrgetter, ("cell_contents", "__code__", "__defaults__", "forward", "__call__")
)
MEMBERS_OF_MODULES = frozenset("_parameters _buffers _modules".split())
_BY_KOBAI = frozenset("forward backward setup_context vjp jvp step measure update".split())


def kind_of(thing: Any) -> str:
    """The name of a class, or of a thing's class."""
    return thing.__name__ if isinstance(thing, type) else type(thing).__name__


# --- rules ------------------------------------------------------------------------------------------------------------


def _contents(walk: Any, container: Any, name: str) -> None:
    """Watch the contents of a container, and walk into them."""
    what = f"the {kind_of(container)} "
    if isinstance(container, (dict, types.MappingProxyType)) and container:
        walk.watch(container.values if type(container) is dict else partial(_values, container), name, what)
        for value in list(_values(container)):
            walk.push(value, name)
        keyed = name not in MEMBERS_OF_MODULES  # those are found by what they are
    else:
        keyed = not isinstance(container, (tuple, frozenset))
    if keyed and not container:
        walk.watch_with_others(len, container, name, what, nothing=True)
    elif keyed:
        walk.watch(container.__iter__, name, what)
    for value in list(container):
        walk.push(value, name)


def _values(table: Any) -> Iterable[Any]:
    return dict.values(table) if isinstance(table, dict) else table.values()


def _generator(walk: Any, generator: Any, name: str) -> None:
    get = partial(_state_of, generator)
    walk.draws.append((generator, Entry(get, tuple(get()), (name,), "the state of the random generator ")))


def _state_of(generator: Any) -> list[Any]:
    """The state of a random generator, in a form that can be compared."""
    state = _state(generator)
    parts = state if isinstance(state, tuple) else (state,)
    return [part.tobytes() if isinstance(part, np.ndarray) else repr(part) for part in parts]


def _state(generator: Any) -> Any:
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, np.random.RandomState):
        return generator.get_state()
    return getattr(generator, "bit_generator", generator).state


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    else:
        getattr(generator, "bit_generator", generator).state = state


def _function(walk: Any, function: types.FunctionType, name: str) -> None:
    code, file = function.__code__, function.__code__.co_filename
    if function is os.getenv or (not is_library(file) and (walk.ran is None or code in walk.ran)):
        walk.watch_with_others(_CODE, function, name, "the code of ")
        walk.watch_with_others(_DEFAULTS, function, name, "defaults of ")
        if function is os.getenv:
            walk.push(os.environ, name)
        if function.__kwdefaults__:
            walk.push(function.__kwdefaults__, name)
        for value in function.__defaults__ or ():
            walk.push(value, name)
    for variable, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        walk.push(cell, variable)
    if function.__dict__:
        walk.has_attributes(function, function.__dict__, name)
    if walk.ran is None and (code in walk.codes or code in walk.known or is_of_program(file)):
        for inner in nested(code):
            walk.codes[inner] = None
            walk.explore(inner, function.__globals__, _enclosed(function))


def _enclosed(function: types.FunctionType) -> dict[str, list[Any]]:
    """The values of a function's closure variables, by name."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {variable: list(in_cell(cell)) for variable, cell in cells}


def _cell(walk: Any, cell: types.CellType, name: str) -> None:
    (value,) = in_cell(cell)
    if value is UNSET:
        walk.watch(partial(in_cell, cell), name, "the variable ")
    else:
        walk.watch_with_others(_CELL_CONTENTS, cell, name, "the variable ")
        walk.push(value, name)


def in_cell(cell: types.CellType) -> tuple[Any]:
    """The value of a closure variable; ``UNSET`` if it has none yet."""
    try:
        return (cell.cell_contents,)
    except ValueError:
        return (UNSET,)


def _fill_cell(cell: types.CellType, held: tuple[Any]) -> None:
    if held[0] is UNSET:
        del cell.cell_contents
    else:
        cell.cell_contents = held[0]


def _refill(container: Any, held: Any) -> None:
    """Give a dict, list, set or deque its former contents, unless it has them."""
    now, then = (chain.from_iterable(c.items()) if isinstance(c, dict) else c for c in (container, held))
    if len(container) != len(held) or not all(map(operator.is_, now, then)):
        container.clear()
        (container.update if isinstance(container, (dict, set)) else container.extend)(held)


def _objects(walk: Any, array: np.ndarray[Any, Any], name: str) -> None:
    for part in array.ravel().tolist() if array.dtype.hasobject else ():
        walk.push(part, name)


def _write(array: np.ndarray[Any, Any], held: np.ndarray[Any, Any]) -> None:
    if array.flags.writeable:
        array[...] = held


def _cached(walk: Any, cache: Any, name: str) -> None:
    """A cached result stands for whatever the function reads."""
    function = cache.__wrapped__
    walk.push(function, name)
    if walk.ran is not None and isinstance(function, types.FunctionType):
        walk.explore(function.__code__, function.__globals__, _enclosed(function))


def _class(walk: Any, kind: type, name: str) -> None:
    walk.push(type(kind), name)
    if hasattr(kind, "forward"):  # a layer's method may be replaced on its class, or on a base class
        walk.watch_with_others(_FORWARD, kind, "forward", "a method of ")
        if any("__call__" in base.__dict__ for base in kind.__mro__):  # a Function has none but that of classes
            walk.watch_with_others(_CALL, kind, "__call__", "a method of ")
    for base in kind.__mro__:
        if _is_builtin(base) or id(base) in walk.tables:
            continue
        file = getattr(sys.modules.get(base.__module__), "__file__", None) or ""
        if is_library(file):
            continue
        walk.seen[id(base)] = base
        if is_ours(file):
            continue
        # Kobai calls methods that no code of the program names: forward, backward, __call__, an event of a callback.
        called = {n for n, value in base.__dict__.items() if (n.startswith("__") and callable(value)) or n in _BY_KOBAI}
        if walk.ran is not None:
            called |= {n for n, v in base.__dict__.items() if getattr(v, "__code__", None) in walk.ran}
        walk.has_attributes(base, base.__dict__, base.__name__, called)


def _is_builtin(kind: type) -> bool:
    return kind.__module__ == "builtins" or not kind.__flags__ & _HEAP


def _module(walk: Any, module: types.ModuleType, name: str) -> None:
    file = getattr(module, "__file__", None) or ""
    known = module.__name__ in sys.builtin_module_names or module.__name__ in sys.stdlib_module_names
    if not (known or is_library(file) or is_ours(file)):
        walk.has_attributes(module, vars(module), module.__name__)


def _context(walk: Any, variable: ContextVar[Any], name: str) -> None:
    walk.watch(partial(_in_context, variable), name, "the context variable ")
    walk.push(variable.get(None), name)


def _in_context(variable: ContextVar[Any]) -> tuple[Any]:
    return (variable.get(UNSET),)


def _names(walk: Any, reader: Any, name: str) -> None:
    walk.names.update(part for text in reader.__reduce__()[1] if isinstance(text, str) for part in text.split("."))


def leads_to(*paths: str) -> Callable[[Any, Any, str], None]:
    """The rule for a thing that stands for another one, permanently."""

    def rule(walk: Any, thing: Any, name: str) -> None:
        for path in paths:
            walk.push(operator.attrgetter(path)(thing), name)

    return rule


class Kind(NamedTuple):
    """A row of the table: what is done with things of some types."""

    types: type | tuple[type, ...]
    rule: Callable[[Any, Any, str], None]
    alone: bool = False
    """Whether the rule covers everything."""
    copy: Callable[[Any], Any] | None = None
    """Copies what the thing holds now; None if that cannot change."""
    put_back: Callable[[Any, Any], None] = _refill
    """Gives the thing that content back."""


@cache
def kinds() -> tuple[Kind, ...]:
    """All rows; a thing can be of several kinds. (Made at the first call: ``np.random`` takes milliseconds to import.)"""
    generators = (random.Random, np.random.RandomState, np.random.Generator, np.random.BitGenerator)
    return (
        Kind((dict, list, set, deque), _contents, copy=operator.methodcaller("copy")),
        Kind((tuple, frozenset, types.MappingProxyType), _contents),
        Kind((type({}.keys()), type({}.values()), type({}.items())), leads_to("mapping"), alone=True),
        Kind(generators, _generator, copy=_state, put_back=_set_state),
        Kind(np.ndarray, _objects, copy=np.copy, put_back=_write),
        Kind(types.FunctionType, _function, alone=True),
        Kind(types.MethodType, leads_to("__func__", "__self__"), alone=True),
        Kind((types.BuiltinMethodType, types.MethodWrapperType), leads_to("__self__"), alone=True),
        Kind(types.ModuleType, _module, alone=True),
        Kind(type, _class, alone=True),
        Kind(types.CellType, _cell, alone=True, copy=in_cell, put_back=_fill_cell),
        Kind((operator.attrgetter, operator.methodcaller), _names),
        Kind(weakref.ref, lambda walk, reference, name: walk.push(reference(), name)),
        Kind(weakref.ProxyTypes, leads_to("__init__.__self__"), alone=True),
        Kind(type(lru_cache(nested)), _cached),
        Kind(ContextVar, _context, alone=True),
    )


def kinds_of(thing: Any) -> Iterator[Kind]:
    """The rows for a thing. (``isinstance`` would ask a weak proxy about the object behind it.)"""
    return (kind for kind in kinds() if issubclass(type(thing), kind.types))


# --- everything else --------------------------------------------------------------------------------------------------


def visit(walk: Any, thing: Any, name: str) -> None:
    """Watch what can change in ``thing``, and walk into it."""
    kind, own_rule = type(thing), getattr(type(thing), "_capture_watch", None)
    for known in kinds_of(thing):
        known.rule(walk, thing, name)
        if known.alone:
            return
    if own_rule is not None:
        own_rule(thing, walk)
    elif hasattr(kind, "__next__"):
        walk.refuse(
            name,
            f"captured step: it uses the iterator {name}, which a replay would not move on; take from it outside, and pass "
            "what it gives to the step",
        )
        return
    else:
        _memory(walk, thing, name)
        _members(walk, thing, name)
    table = getattr(thing, "__dict__", None)
    if isinstance(table, dict):
        walk.has_attributes(thing, table, name)
    if not _is_builtin(kind):
        walk.watch_with_others(type, thing, name, "the class of ")
    walk.push(kind, name)


def _memory(walk: Any, thing: Any, name: str) -> None:
    try:
        nbytes = thing.nbytes if isinstance(thing, np.ndarray) else memoryview(thing).nbytes
    except (TypeError, ValueError):
        return
    if nbytes > _LARGEST:
        walk.refuse(
            name,
            f"captured step: it reads the host array {name}, which is too large to be compared before each replay; pass what "
            "it needs of it as a tensor",
        )
        return
    walk.watch(partial(_content, thing), name, f"the {kind_of(thing)} ", by_value=True)


def _content(thing: Any) -> tuple[Any, ...]:
    if isinstance(thing, np.ndarray):
        return thing.dtype.str, thing.shape, thing.tobytes()
    return (memoryview(thing).tobytes(),)


def _members(walk: Any, thing: Any, name: str) -> None:
    kind: Any = type(thing)
    for names, gets, fixed in _members_of(kind):
        read = partial(_in_members, thing, gets)
        for value in read():
            walk.push(value, name)
        if not fixed:
            walk.watch(read, names, f"{kind_of(thing)}.")


@lru_cache(maxsize=1024)
def _members_of(kind: Any) -> list[tuple[tuple[str, ...], tuple[Callable[[Any], Any], ...], bool]]:
    """For each base class with members: their names, how to read them, and whether they are read-only."""
    found: list[tuple[tuple[str, ...], tuple[Callable[[Any], Any], ...], bool]] = []
    for owner in kind.__mro__:
        members = {n: m.__get__ for n, m in vars(owner).items() if isinstance(m, types.MemberDescriptorType)}
        members.pop("__dict__", None)
        if members:
            fixed = bool(owner.__flags__ & _IMMUTABLE) and owner is not defaultdict
            found.append((tuple(members), tuple(members.values()), fixed))
    return found


def _in_members(thing: Any, gets: tuple[Callable[[Any], Any], ...]) -> list[Any]:
    found = []
    for get in gets:
        try:
            found.append(get(thing))
        except AttributeError:  # not set
            found.append(UNSET)
    return found

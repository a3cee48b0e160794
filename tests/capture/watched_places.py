"""Places in Python from which a step can read a value, each with a way to change it."""

from __future__ import annotations

import argparse
import array
import collections
import ctypes
import functools
import operator
import queue
import threading
import types
import weakref

import numpy as np
from watched_objects import (
    Box,
    ByName,
    Callable_,
    Drawing,
    Kind,
    Nested,
    Placed,
    Slotted,
    Weights,
    WithProperty,
    with_default,
    with_keyword,
)

GLOBAL = 1.0
TABLE = {"weights": [1.0, {"k": 1.0}]}
SETTINGS = types.ModuleType("settings_of_a_program")
SETTINGS.__file__ = __file__


def in_a_closure() -> Placed:
    k = 1.0

    def change(value):
        nonlocal k
        k = value

    return Placed(lambda: k, change)


def in_a_global() -> Placed:
    globals()["GLOBAL"] = 1.0
    return Placed(lambda: GLOBAL, lambda value: globals().__setitem__("GLOBAL", value))


def in_an_object(thing) -> Placed:
    thing.k = 1.0
    return Placed(lambda: thing.k, lambda value: setattr(thing, "k", value))


def in_a_property() -> Placed:
    thing = WithProperty()
    return Placed(lambda: thing.k, lambda value: setattr(thing, "hidden", value))


def in_a_class() -> Placed:
    kind = type("Loss", (), {"k": 1.0})
    thing = kind()
    return Placed(lambda: thing.k, lambda value: setattr(kind, "k", value))


def hiding_the_class() -> Placed:
    thing = Box()
    return Placed(lambda: thing.k, lambda value: setattr(thing, "k", value))


def in_a_container(container, key) -> Placed:
    return Placed(lambda: container[key], lambda value: operator.setitem(container, key, value))


def in_a_nested_table() -> Placed:
    TABLE["weights"][1]["k"] = 1.0
    return Placed(lambda: TABLE["weights"][1]["k"], lambda value: TABLE["weights"][1].__setitem__("k", value))


def in_a_module() -> Placed:
    SETTINGS.k = 1.0
    return Placed(lambda: SETTINGS.k, lambda value: setattr(SETTINGS, "k", value))


def in_a_length() -> Placed:
    seen: list[int] = [0]
    return Placed(lambda: 1.0 / len(seen), lambda value: seen.extend([0] * 4))


def in_a_dataclass() -> Placed:
    outer = Nested(Slotted())
    return Placed(lambda: outer.inner.k, lambda value: setattr(outer.inner, "k", value))


def in_a_replaced_object() -> Placed:
    outer = types.SimpleNamespace(inner=Box())

    def change(value):
        outer.inner = Box()
        outer.inner.k = value

    return Placed(lambda: outer.inner.k, change)


def in_an_enum() -> Placed:
    outer = Box()
    outer.kind = Kind.PLAIN
    return Placed(lambda: outer.kind.value, lambda value: setattr(outer, "kind", Kind.FIFTH))


def in_an_array() -> Placed:
    weights = np.ones(3)
    return Placed(lambda: float(weights[1]), lambda value: weights.__setitem__(1, value))


def in_a_scalar_array() -> Placed:
    weight = np.array(1.0, np.float32)
    return Placed(lambda: weight, lambda value: weight.__setitem__((), value))


def in_defaults() -> Placed:
    with_default.__defaults__ = (1.0,)
    return Placed(lambda: with_default(1.0), lambda value: setattr(with_default, "__defaults__", (value,)))


def in_keyword_defaults() -> Placed:
    with_keyword.__kwdefaults__["k"] = 1.0
    return Placed(lambda: with_keyword(1.0), lambda value: with_keyword.__kwdefaults__.__setitem__("k", value))


def in_a_partial() -> Placed:
    function = functools.partial(with_default, k=1.0)
    return Placed(lambda: function(1.0), lambda value: function.keywords.__setitem__("k", value))


def in_a_default_factory() -> Placed:
    table = collections.defaultdict(lambda: 1.0)
    return Placed(lambda: table.default_factory(), lambda value: setattr(table, "default_factory", lambda: value))


def behind_a_view(view) -> Placed:
    table = {"k": 1.0}
    seen = view(table)
    return Placed(lambda: dict(seen)["k"] if view is dict.items else max(seen), lambda value: table.update(k=value))


def in_the_keys_behind_a_view() -> Placed:
    table = {1.0: None}
    seen = table.keys()

    def change(value):
        table.clear()
        table[value] = None

    return Placed(lambda: max(seen), change)


def in_shared_memory(make) -> Placed:
    shared, write = make()
    return Placed(lambda: float(shared[1]), write)


def in_a_memoryview():
    owner = array.array("d", [0.0, 1.0])
    return memoryview(owner), lambda value: operator.setitem(owner, 1, value)


def in_an_array_of_ctypes():
    owner = (ctypes.c_double * 2)(0.0, 1.0)
    return owner, lambda value: operator.setitem(owner, 1, value)


def in_a_number_of_ctypes() -> Placed:
    weight = ctypes.c_double(1.0)
    return Placed(lambda: weight.value, lambda value: setattr(weight, "value", value))


def in_an_array_of_objects() -> Placed:
    things = np.array([Box(), Box()], object)
    return Placed(lambda: things[1].k, lambda value: setattr(things[1], "k", value))


def behind_a_weak_reference(refer) -> Placed:
    thing = Box()
    read = refer(thing)
    return Placed(lambda: read().k, lambda value: setattr(thing, "k", value))


def behind_a_proxy() -> Placed:
    thing = Box()
    proxy = weakref.proxy(thing)
    placed = Placed(lambda: proxy.k, lambda value: setattr(thing, "k", value))
    placed.alive = thing
    return placed


def in_a_weak_table() -> Placed:
    table = weakref.WeakValueDictionary(k=(thing := Box()))
    placed = Placed(lambda: table["k"].k, lambda value: setattr(thing, "k", value))
    placed.alive = thing
    return placed


def in_a_queue() -> Placed:
    waiting: queue.Queue = queue.Queue()
    waiting.put(1.0)
    return Placed(lambda: waiting.queue[0], lambda value: operator.setitem(waiting.queue, 0, value))


def in_a_partial_method() -> Placed:
    kind = type("Loss", (), {"k": functools.partialmethod(lambda self, k: k, k=1.0)})
    thing = kind()
    return Placed(lambda: thing.k(), lambda value: vars(kind)["k"].keywords.update(k=value))


def in_what_a_property_rests_on() -> Placed:
    settings = Box()
    kind = type("Loss", (), {"k": property(functools.partial(lambda box, self: box.k, settings))})
    thing = kind()
    return Placed(lambda: thing.k, lambda value: setattr(settings, "k", value))


def in_a_static_method() -> Placed:
    def read():
        return read.weight

    read.weight = 1.0
    kind = type("Loss", (), {"k": staticmethod(read)})
    return Placed(kind.k, lambda value: setattr(read, "weight", value))


def in_a_mangled_slot() -> Placed:
    class Hidden:
        __slots__ = ("__k",)

        def k(self):
            return self.__k

        def put(self, value):
            self.__k = value

    thing = Hidden()
    thing.put(1.0)
    return Placed(lambda: thing.k(), thing.put)


def in_a_slot_of_a_base() -> Placed:
    thing = type("Below", (Slotted,), {"__slots__": ("other",)})()
    thing.k = 1.0
    return in_an_object(thing)


def in_a_dispatcher() -> Placed:
    weight = functools.singledispatch(lambda x: 1.0)
    weight(1)
    return Placed(lambda: weight(1), lambda value: weight.register(int, lambda x: value))


def in_a_table_of_a_thread() -> Placed:
    return in_an_object(threading.local())


def in_a_chain() -> Placed:
    first: dict = {}
    chain = collections.ChainMap(first, {"k": 1.0})
    return Placed(lambda: chain["k"], lambda value: first.update(k=value))


def in_a_descriptor() -> Placed:
    thing = functools.cached_property(lambda self: None)
    thing.k = 1.0
    return in_an_object(thing)


def in_a_method_of_the_class() -> Placed:
    kind = type("Loss", (), {"k": lambda self: 1.0})
    thing = kind()
    return Placed(lambda: thing.k(), lambda value: setattr(kind, "k", lambda self: value))


def in_a_method_of_the_object() -> Placed:
    kind = type("Loss", (), {"k": lambda self: 1.0})
    thing = kind()
    return Placed(lambda: thing.k(), lambda value: setattr(thing, "k", lambda: value))


def in_what_a_callable_holds() -> Placed:
    weight = Callable_()
    return Placed(lambda: weight(), lambda value: setattr(weight, "w", value))


def by_a_name_that_is_made() -> Placed:
    thing = ByName()
    return Placed(lambda: thing.k(), lambda value: setattr(thing, "w_1", value))


def by_an_attrgetter() -> Placed:
    thing, get = Box(), operator.attrgetter("k")
    return Placed(lambda: get(thing), lambda value: setattr(thing, "k", value))


def in_vars() -> Placed:
    thing = types.SimpleNamespace(k=1.0)
    return Placed(lambda: vars(thing)["k"], lambda value: setattr(thing, "k", value))


def by_another_name() -> Placed:
    thing = Box()

    def read():
        same = thing
        return same.k

    return Placed(read, lambda value: setattr(thing, "k", value))


def in_a_set() -> Placed:
    flags: set[str] = set()
    return Placed(lambda: 0.2 if "small" in flags else 1.0, lambda value: flags.add("small"))


def in_a_context_variable() -> Placed:
    import contextvars

    variable = contextvars.ContextVar("weight", default=1.0)
    return Placed(variable.get, variable.set)


def in_the_type_of_a_number() -> Placed:
    """1 and 1.0 and True are equal, and not the same to an operation."""
    thing = types.SimpleNamespace(k=1.0)
    return Placed(lambda: 1.0 if isinstance(thing.k, float) else 0.2, lambda value: setattr(thing, "k", 1))


PLACES = {
    "closure": in_a_closure,
    "global": in_a_global,
    "attribute of an object": lambda: in_an_object(types.SimpleNamespace()),
    "argparse": lambda: in_an_object(argparse.Namespace()),
    "attribute of a class": in_a_class,
    "attribute that hides one of the class": hiding_the_class,
    "slot": lambda: in_an_object(Slotted()),
    "property": in_a_property,
    "dict": lambda: in_a_container({"k": 1.0}, "k"),
    "ordered dict": lambda: in_a_container(collections.OrderedDict(k=1.0), "k"),
    "user dict": lambda: in_a_container(collections.UserDict(k=1.0), "k"),
    "list": lambda: in_a_container([0.0, 1.0], 1),
    "deque": lambda: in_a_container(collections.deque([0.0, 1.0]), 1),
    "nested table": in_a_nested_table,
    "module": in_a_module,
    "length": in_a_length,
    "dataclass": in_a_dataclass,
    "replaced object": in_a_replaced_object,
    "enum": in_an_enum,
    "array": in_an_array,
    "array of no dimension": in_a_scalar_array,
    "defaults": in_defaults,
    "keyword defaults": in_keyword_defaults,
    "partial": in_a_partial,
    "attribute of a function": lambda: in_an_object(lambda: None),
    "attribute of a partial": lambda: in_an_object(functools.partial(with_default)),
    "attribute of a cached function": lambda: in_an_object(functools.lru_cache(with_default)),
    "attribute of a descriptor": in_a_descriptor,
    "default factory": in_a_default_factory,
    "values of a dict": lambda: behind_a_view(dict.values),
    "items of a dict": lambda: behind_a_view(dict.items),
    "keys of a dict": in_the_keys_behind_a_view,
    "array of the standard library": lambda: in_a_container(array.array("d", [0.0, 1.0]), 1),
    "memory view": lambda: in_shared_memory(in_a_memoryview),
    "array of ctypes": lambda: in_shared_memory(in_an_array_of_ctypes),
    "number of ctypes": in_a_number_of_ctypes,
    "array of objects": in_an_array_of_objects,
    "weak reference": lambda: behind_a_weak_reference(weakref.ref),
    "proxy": behind_a_proxy,
    "weak table": in_a_weak_table,
    "queue": in_a_queue,
    "partial method": in_a_partial_method,
    "what a property rests on": in_what_a_property_rests_on,
    "static method": in_a_static_method,
    "mangled slot": in_a_mangled_slot,
    "slot of a base": in_a_slot_of_a_base,
    "dispatcher": in_a_dispatcher,
    "table of a thread": in_a_table_of_a_thread,
    "chain of dicts": in_a_chain,
    "attribute of an array": lambda: in_an_object(np.zeros(2).view(Weights)),
    "attribute of a generator": lambda: in_an_object(Drawing()),
    "method of the class": in_a_method_of_the_class,
    "method of the object": in_a_method_of_the_object,
    "callable object": in_what_a_callable_holds,
    "name that is made": by_a_name_that_is_made,
    "attrgetter": by_an_attrgetter,
    "vars": in_vars,
    "another name": by_another_name,
    "set": in_a_set,
    "context variable": in_a_context_variable,
    "type of a number": in_the_type_of_a_number,
}

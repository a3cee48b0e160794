"""Which names a code object reads and sets, and whose code a file holds.

CPython compiles ``self.config.weight * k`` to instructions that name what they look up. Read in order, they give paths::

    LOAD_FAST   self      local   self  . config . weight
    LOAD_ATTR   config
    LOAD_ATTR   weight
    LOAD_DEREF  k         closure k
    BINARY_OP   *

An attribute of anything but a variable, as in ``f(x).weight``, is a name without a path. If code computes names (``getattr``,
``vars``), any attribute may be meant, and :class:`Reads` says so.
"""

from __future__ import annotations

import dis
import os
import sys
import types
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

_HERE = str(Path(__file__).resolve().parents[1]) + "/"
_STDLIB = (os.path.dirname(os.path.abspath(os.__file__)) + "/", "<frozen")
_PACKAGES = tuple(f"/{place}-packages/" for place in ("site", "dist"))
_ENGINES = tuple(
    f"{place}{name}/" for place in _PACKAGES for name in ("numpy", "numba", "llvmlite", "cupy", "cupyx", "nvmath")
)
_DYNAMIC = frozenset("getattr setattr delattr vars eval exec globals locals dir attrgetter asdict astuple".split())
_GLOBALS = frozenset("globals eval exec".split())
_IMPORTS = frozenset("modules import_module __import__".split())
_CHANGES = frozenset(
    "append extend insert add update pop popleft appendleft remove clear setdefault discard sort".split()
)


def is_of_library(kind: type) -> bool:
    module = sys.modules.get(kind.__module__)
    return module is not None and is_library(getattr(module, "__file__", None) or "<frozen")


@lru_cache(maxsize=65536)
def is_library(file: str) -> bool:
    """Whether code in this file has no state that a step reads: the standard library and array libraries."""
    if any(place in file for place in _PACKAGES):
        return any(engine in file for engine in _ENGINES)
    return file.startswith(_STDLIB)


def is_ours(file: str) -> bool:
    return file.startswith(_HERE)


def is_of_program(file: str) -> bool:
    """Whether this is the program's own code, and not that of an installed package."""
    return not (is_library(file) or is_ours(file) or any(place in file for place in _PACKAGES))


class Reads(NamedTuple):
    """The names in a code object: dotted paths from a variable, and attributes of computed values."""

    paths: tuple[tuple[str, str, tuple[str, ...]], ...]
    """(kind of the variable: ``global``, ``closure`` or ``local``; its name; the attributes read from there)"""
    attributes: frozenset[str]
    dynamic: bool
    """Whether it looks attributes up by names that are not in the code."""
    imported: frozenset[str]
    """Modules that it imports, or may look up among the imported ones."""
    all_globals: bool
    stored: frozenset[str]
    """Attributes that it sets."""
    globals_stored: frozenset[str]


@lru_cache(maxsize=4096)
def reads(code: types.CodeType) -> Reads:
    """The names that ``code`` reads, without those of functions within it."""
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


def nested(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from nested(const)


def line_of_change(codes: Iterable[types.CodeType], name: str) -> str | None:
    """File and line where one of ``codes`` changes what it reaches by ``name``: a store, or else a call such as ``append``."""
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

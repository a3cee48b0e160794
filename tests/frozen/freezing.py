"""What users see, in text files beside this one: a test compares it with today's, ``pytest --freeze`` writes it anew.

The files are to be read in a diff. A line that is gone or changed breaks somebody's program; a line that is new is a promise.
"""

from __future__ import annotations

import difflib
import json
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from kobai.bench import facts

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]


def check(request: pytest.FixtureRequest, name: str, lines: Iterable[str]) -> None:
    """Fail with a diff if ``lines`` are not those of the file called ``name``; with ``--freeze``, write them."""
    path, now = FOLDER / name, list(lines)
    if request.config.getoption("--freeze"):
        path.write_text("".join(f"{line}\n" for line in now), encoding="utf-8")
        return
    before = path.read_text(encoding="utf-8").splitlines()
    if complaint := difference(name, before, now):
        command = f"python -m pytest -n 0 {request.path.relative_to(ROOT)} --freeze"
        pytest.fail(f"{complaint}\nTo accept it: {command}", pytrace=False)


def difference(name: str, before: list[str], now: list[str]) -> str:
    """What changed and what to do about it; empty if nothing did."""
    if before == now:
        return ""
    shown = list(difflib.unified_diff(before, now, f"tests/frozen/{name}", "now", n=1, lineterm=""))
    gone = sum(line.startswith("-") for line in shown[2:])
    what = (
        f"{gone} line{'s' * (gone != 1)} gone or changed, on which programs may rely: restore, or say why in the commit"
        if gone
        else "new, and a promise from now on"
    )
    return "\n".join([f"{name}: {what}.", *shown])


def machine(request: pytest.FixtureRequest) -> str:
    """Where numbers may be expected bit for bit."""
    found = facts()
    versions = {name: found["packages"].get(name) for name in ("numpy", "numba")}
    kinds = sorted({name.partition(",")[0].split()[-1] for name in found["blas"]})  # of processor, as the BLAS sees it
    without = request.config.getoption("--without-numba")
    return json.dumps([found["processor"], platform.machine(), versions, kinds, without])


def form(value: Any) -> Any:
    """The form of a JSON value: names with the kinds of their values; the kinds of a list's items taken together.

    Where some of several values are null, the form is that of the others: whether a number is there may depend on numbers.

    >>> form({"a": 1, "b": [0.5, None], "c": [{"d": "x"}, {"d": None, "e": True}]})
    {'a': 'int', 'b': ['float'], 'c': [{'d': 'str', 'e?': 'bool'}]}
    """
    if isinstance(value, dict):
        return {key: form(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return _united([form(item) for item in value]) if value else []
    return "null" if value is None else type(value).__name__


def _united(forms: list[Any]) -> list[Any]:
    """The different forms among several; tables are made one, in which a name that some lack has a question mark."""
    different = [f for f in forms if not isinstance(f, (dict, list)) and f != "null"]
    different = sorted(set(different))
    if lists := [f for f in forms if isinstance(f, list)]:
        different.append(_united([item for f in lists for item in f]) if any(lists) else [])
    if tables := [f for f in forms if isinstance(f, dict)]:
        different.append(_joined(tables))
    return different or ["null"]


def _joined(tables: list[dict[str, Any]]) -> dict[str, Any]:
    found = {}
    for name in sorted({name.removesuffix("?") for table in tables for name in table}):
        there = [table[key] for table in tables for key in (name, f"{name}?") if key in table]
        kinds = _united(there)
        found[name if all(name in table for table in tables) else f"{name}?"] = kinds[0] if len(kinds) == 1 else kinds
    return found


def lines_of(tree: Any, indent: int = 0) -> list[str]:
    """A form as indented lines."""
    pad, lines = "  " * indent, []
    for name, kind in tree.items():
        while isinstance(kind, list) and len(kind) == 1:
            name, kind = f"{name}[]", kind[0]
        if isinstance(kind, dict):
            lines += [f"{pad}{name}:", *lines_of(kind, indent + 1)]
        else:
            lines.append(f"{pad}{name}: {kind if isinstance(kind, str) else ' | '.join(map(str, kind)) or 'empty'}")
    return lines

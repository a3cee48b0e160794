"""What users see, in text files beside this one: a test compares it with today's, ``pytest --freeze`` writes it anew.

The files are to be read in a diff. A line that is gone or changed breaks somebody's program; a line that is new is a promise.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent
COMMAND = "python -m pytest -n 0 tests/frozen --freeze"


def check(request: pytest.FixtureRequest, name: str, lines: Iterable[str]) -> None:
    """Fail with a diff if ``lines`` are not those of the file called ``name``; with ``--freeze``, write them."""
    path, now = FOLDER / name, list(lines)
    if request.config.getoption("--freeze"):
        path.write_text("".join(f"{line}\n" for line in now), encoding="utf-8")
        return
    before = path.read_text(encoding="utf-8").splitlines()
    if complaint := difference(name, before, now):
        pytest.fail(complaint, pytrace=False)


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
    return "\n".join([f"{name}: {what}.", *shown, f"To accept it: {COMMAND}"])


def form(value: Any) -> Any:
    """The form of a JSON value: names with the kinds of their values; the kinds of a list's items taken together.

    >>> form({"a": 1, "b": [0.5, None], "c": [{"d": "x"}, {"e": True}]})
    {'a': 'int', 'b': ['float', 'null'], 'c': [{'d?': 'str', 'e?': 'bool'}]}
    """
    if isinstance(value, dict):
        return {key: form(entry) for key, entry in value.items()}
    if not isinstance(value, list):
        return "null" if value is None else type(value).__name__
    forms = [form(item) for item in value]
    tables = [f for f in forms if isinstance(f, dict)]
    others = {repr(f): f for f in forms if not isinstance(f, dict)}
    kinds = [others[key] for key in sorted(others)]
    return kinds + ([_united(tables)] if tables else [])


def _united(tables: list[dict[str, Any]]) -> dict[str, Any]:
    """One form for several: a name that some lack has a question mark, several kinds stand side by side."""
    names = sorted({name.removesuffix("?") for table in tables for name in table})
    found = {}
    for name in names:
        there = [table.get(name, table.get(f"{name}?")) for table in tables if name in table or f"{name}?" in table]
        always = all(name in table for table in tables)
        kinds = {repr(kind): kind for kind in there}
        inner = [kind for kind in there if isinstance(kind, dict)]
        if len(inner) == len(there):
            kind = _united(inner)
        else:
            kind = (
                there[0] if len(kinds) == 1 else " | ".join(sorted(k if isinstance(k, str) else repr(k) for k in there))
            )
            kind = " | ".join(sorted(set(str(kind).split(" | ")))) if len(kinds) > 1 else kind
        found[name if always else f"{name}?"] = kind
    return found


def lines_of(tree: Any, indent: int = 0) -> list[str]:
    """A form as indented lines."""
    pad = "  " * indent
    if not isinstance(tree, (dict, list)):
        return [f"{pad}{tree}"]
    if isinstance(tree, list):
        return [line for item in tree for line in lines_of(item, indent)] or [f"{pad}(empty)"]
    lines = []
    for name, kind in tree.items():
        if isinstance(kind, dict) or (isinstance(kind, list) and any(isinstance(k, (dict, list)) for k in kind)):
            lines += [f"{pad}{name}:{' list of' * isinstance(kind, list)}", *lines_of(kind, indent + 1)]
        elif isinstance(kind, list):
            lines.append(f"{pad}{name}: list of {' | '.join(kind) or 'nothing'}")
        else:
            lines.append(f"{pad}{name}: {kind}")
    return lines

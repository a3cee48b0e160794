"""Names of columns: one for each, and the one that is meant."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kobai.errors import DataError, nearest


def unique(first: list[str]) -> tuple[list[str], list[str]]:
    """A name for each column, none twice, and notes on those that were."""
    names: list[str] = []
    notes = []
    for i, cell in enumerate(first):
        name = cell or f"column {i}"
        if name in names:
            number = 2
            while f"{name} ({number})" in names:
                number += 1
            fresh = f"{name} ({number})"
            notes.append(f"more than one column is called {name!r}: here column {i} is {fresh!r}")
            name = fresh
        names.append(name)
    return names, notes


def column_of(names: Sequence[str], wanted: str | int | None, who: str, what: str = "target") -> str:
    """The name of a column that is given by its name or its place, by default the last; DataError if there is none."""
    if isinstance(wanted, str):
        if wanted in names:
            return wanted
        alike = [name for name in names if name.strip().lower() == wanted.strip().lower()]
        if len(alike) == 1:
            return alike[0]
        if not re.fullmatch(r"-?\d+", wanted):
            listed = f" Columns: {', '.join(names[:12])}{', …' * (len(names) > 12)}"
            raise DataError(f"{who}: no column named {wanted!r}, for the {what}.{nearest(wanted, names)}{listed}")
    position = -1 if wanted is None else int(wanted)
    if not -len(names) <= position < len(names):
        raise DataError(f"{who}: {what} column {position} is out of range for {len(names)} columns")
    return names[position]

"""What a column is to a model: a number, a category, a date; or nothing, and why."""

from __future__ import annotations

import re

import numpy as np

from kobai.data.tables.values import Host, as_text, kind_of, missing

LEVELS = 50
"""Categories of a column that have an input of their own, the most frequent ones."""

DIFFERENT = 0.5
"""Text of which a greater share is different is no category."""

WORDS = 4
"""Text of so many words on average is free text, if little of it is repeated."""

ID = re.compile(
    r"(?i)(^|[_\W])(id|uuid|guid|key|index|row|nr|no|number|record|code)([_\W]|$)|id$|^unnamed|^column 0$|nummer$"
)
CAMEL = re.compile(r"[a-z](Id|ID|Nr|No)$")

FEWEST = 20
"""Of fewer rows, nothing is said to be an id or free text because all its values differ, unless its name says so."""


def useless(name: str, values: Host, positions: Host | None = None) -> str:
    """Why a column can teach a model nothing, or "" if it can. ``positions`` are its values in the order of the table."""
    there = values[~missing(values)]
    if not len(there):
        return "empty"
    kind = kind_of(values)
    different = len(np.unique(there.astype(str) if kind == "text" else there))
    if different == 1 and len(there) == len(values):
        return f"the same in every row ({as_text(there[:1])[0]})"
    if kind == "number":
        return _id_of_numbers(name, there, different, values if positions is None else positions)
    if kind == "date":
        return ""
    return _no_category(name, there, different)


def _id_of_numbers(name: str, there: Host, different: int, positions: Host) -> str:
    if different < len(there) or not np.equal(np.mod(there, 1), 0).all():
        return ""
    whole = positions[~missing(positions)]
    counts_rows = len(whole) >= FEWEST and len(np.unique(whole)) == len(whole) and np.ptp(whole) == len(whole) - 1
    steady = counts_rows and (np.all(np.diff(whole) == 1) or np.all(np.diff(whole) == -1))
    if steady:
        return "it numbers the rows"
    named = ID.search(name) or CAMEL.search(name)
    return "an id: different in every row" if named and len(there) > 2 else ""


def _no_category(name: str, there: Host, different: int) -> str:
    share = different / len(there)
    words = np.mean([len(text.split()) for text in there[:2000]])
    named = bool(ID.search(name) or CAMEL.search(name))
    if share > DIFFERENT and named and len(there) > 2:
        return "an id: different in almost every row"
    if len(there) < FEWEST:
        return ""
    if words >= WORDS and share > DIFFERENT / 5 and different > LEVELS / 2:
        return "free text"
    if share > DIFFERENT:
        return "names or free text: most values occur once" if share < 1 else "names or ids: different in every row"
    return ""


MANY = 10
"""Of more categories than this, a learnt vector can say more than an input for each."""


def levels_of(values: Host, most: int = LEVELS) -> tuple[str, ...]:
    """The categories of a column, sorted: the ``most`` frequent, without those that occur once among many."""
    names, counts = np.unique(values[~missing(values)].astype(str), return_counts=True)
    if len(names) > LEVELS // 2:
        often = np.argsort(-counts, kind="stable")[:most]
        often = often[counts[often] > 1]
        names = names[np.sort(often)]
    return tuple(names.tolist())

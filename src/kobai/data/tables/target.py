"""The target of a table: classes or amounts, and why."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kobai.data.tables.reading import Columns
from kobai.data.tables.values import MISSING, Host, as_text, kind_of, missing
from kobai.errors import DataError, nearest

TASKS = ("auto", "classification", "regression")

FEW = 20
"""More different whole numbers than this are amounts."""

REPEATED = 4
"""Whole numbers that are classes occur so often on average."""


@dataclass(frozen=True)
class Target:
    """The target of the rows that have one.

    ``classes`` are the names of the classes, () in a regression; ``values`` (N,) are class indices int64, or float64;
    ``rows`` are the places of these rows; ``why`` says what the target was taken for, and for what reason.
    """

    name: str
    classes: tuple[str, ...]
    values: Host
    rows: Host
    why: str

    @property
    def task(self) -> str:
        """``classification`` or ``regression``."""
        return "classification" if self.classes else "regression"

    @property
    def doubtful(self) -> list[str]:
        """Classes that may mean "not known"."""
        return sorted(text for text in self.classes if text.lower() in MISSING)


def target_of(table: Columns, name: str, task: str = "auto") -> Target:
    """The target in column ``name``, as classes or as amounts.

    DataError if there is nothing to learn in it: no value, one class, classes of a single row each.
    """
    if task not in TASKS:
        raise ValueError(f"task: expected one of {', '.join(TASKS)}, got {task!r}.{nearest(task, TASKS)}")
    values = table.values[name]
    rows = np.flatnonzero(~missing(values))
    there = values[rows]
    if not len(there):
        raise DataError(
            f"{table.name}: column {name!r} is empty, and the target is in it; is it another column (--target)?"
        )
    kind = kind_of(values)
    if kind == "date":
        raise DataError(
            f"{table.name}: column {name!r} holds dates, and a target is a class or a number; choose another column (--target)"
        )
    classes, why = _decide(table, name, kind, there, task)
    if not classes:
        if there.min() == there.max():
            raise DataError(
                f"{table.name}: column {name!r} holds one value only, {there[0]:g}: there is nothing to learn"
            )
        return Target(name, (), there.astype(np.float64), rows, why)
    names = _sorted(there, kind)
    if len(names) < 2:
        raise DataError(f"{table.name}: column {name!r} holds one class only, {names[0]!r}: there is nothing to learn")
    index = {text: i for i, text in enumerate(names)}
    labels = np.array([index[text] for text in as_text(there)], dtype=np.int64)
    if len(names) > 2 and 2 * (np.bincount(labels) == 1).sum() > len(names):
        raise DataError(
            f"{table.name}: column {name!r} holds {len(names)} different values in {len(labels)} rows, most of them once: "
            "these are no classes, but names or ids. Is the target another column (--target)?"
        )
    return Target(name, names, labels, rows, why)


def _decide(table: Columns, name: str, kind: str, there: Host, task: str) -> tuple[bool, str]:
    """Whether the target is one of classes, and the reason in words."""
    if task == "regression":
        if kind == "text":
            raise DataError(
                f"{table.name}: column {name!r} holds text ({there[0]!r}), and a regression needs numbers; leave --task out "
                "for classes"
            )
        return False, f"{name} is a number, as asked"
    if kind == "text":
        return True, f"{name} holds text: classes"
    k, n = len(np.unique(there)), len(there)
    if task == "classification":
        return True, f"{name} holds {k} classes, as asked"
    if k <= 2:
        return True, f"{name} holds {k} different numbers: classes"
    if not np.equal(np.mod(there, 1), 0).all():
        return False, f"{name} holds numbers with fractions: a regression (--task classification otherwise)"
    if k <= FEW and n >= REPEATED * k:
        return True, (
            f"{name} holds {k} whole numbers, each {n // k} times on average: classes (--task regression if they are amounts)"
        )
    return False, (
        f"{name} holds {k} different whole numbers in {n} rows: a regression (--task classification if they are classes)"
    )


def _sorted(there: Host, kind: str) -> tuple[str, ...]:
    """The classes in order: of numbers, or of the alphabet."""
    return tuple(as_text(np.unique(there))) if kind == "number" else tuple(sorted(set(there)))

"""From columns to the inputs of a net: fitted on training rows, kept in the checkpoint as JSON, applied everywhere alike."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from kobai.data.tables.kinds import MANY, levels_of, useless
from kobai.data.tables.reading import Columns, read
from kobai.data.tables.target import Target
from kobai.data.tables.values import Host, as_text, kind_of, missing
from kobai.errors import DataError, nearest

PERIODS = {"month": 12, "weekday": 7, "hour": 24}
"""Parts of a date that come round again, each as a sine and a cosine."""

FARTHEST = 20.0
"""Standardised numbers are cut off so far from the middle: a slip of the keyboard must not drown all else."""


@dataclass(frozen=True)
class Column:
    """One column of the table and its inputs.

    number: (x − ``shift``) / ``scale``, with ``fill`` for a missing x, and an input that is 1 there if any was missing in
    training (``gaps``). category: 1 for its level, 0 for the others. embedded: i / (1 + n) for level i of n, 0 for one that
    is not known; the net has a learnt vector for each. date: the time since ``shift``, and the ``parts``.
    """

    name: str
    kind: str
    shift: float = 0.0
    scale: float = 1.0
    fill: float = 0.0
    gaps: bool = False
    levels: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""
        if self.kind == "category":
            found = [f"{self.name} = {level}" for level in self.levels]
        else:
            found = [self.name, *(f"{self.name}: {part} ({f})" for part in self.parts for f in ("sine", "cosine"))]
        return (*found, *[f"{self.name} is missing"] * self.gaps)

    def __call__(self, values: Host, into: Host) -> None:
        """Write the inputs of raw ``values`` (N,) into (N, inputs)."""
        gone = missing(values)
        if self.gaps:
            into[:, -1] = gone
        if self.levels:
            places = {level: i for i, level in enumerate(self.levels)}
            at = np.array([places.get(v, -1) for v in values], dtype=np.int64)
            if self.kind == "embedded":
                into[:, 0] = (at + 1) / (1 + len(self.levels))
                return
            known = np.flatnonzero(at >= 0)
            into[known, at[known]] = 1
            return
        numbers = _seconds(values) if self.kind == "date" else values
        into[:, 0] = np.clip((np.where(gone, self.fill, numbers) - self.shift) / self.scale, -FARTHEST, FARTHEST)
        for i, part in enumerate(self.parts):
            angle = 2 * np.pi * _part(values, part) / PERIODS[part]
            into[:, 1 + 2 * i] = np.where(gone, 0, np.sin(angle))
            into[:, 2 + 2 * i] = np.where(gone, 0, np.cos(angle))

    def answered(self, values: Host) -> tuple[Host, str]:
        """The column of another table in this one's kind, and what had to be done about it, in words."""
        kind = kind_of(values)
        if self.levels:
            values = as_text(values)
            strange = sorted({v for v in values if v is not None} - set(self.levels))
            return values, f"{self.name}: not seen in training: {_few(strange)}" if strange and len(
                self.levels
            ) < 50 else ""
        if kind == {"number": "number", "date": "date"}[self.kind]:
            return values, ""
        empty = (
            np.full(len(values), np.nan) if self.kind == "number" else np.full(len(values), np.datetime64("NaT", "us"))
        )
        if missing(values).all():
            return empty, ""
        if self.kind == "date":
            return empty, f"{self.name}: holds no dates, as it did in training: read as missing"
        raise DataError(
            f"column {self.name!r} holds {'text' if kind == 'text' else 'dates'} "
            f"({as_text(values[~missing(values)][:1])[0]!r}), and numbers in training"
        )


@dataclass(frozen=True)
class Preparation:
    """How the rows of a table become inputs (N, F) of a net, and its outputs answers.

    Everything in it was measured on training rows. ``shift`` and ``scale`` are those of the target of a regression. ``named``:
    the table had a header; without one, its ``width`` columns are known by their places.

    >>> from kobai.data import table
    >>> x = [None if i % 7 == 0 else i**0.5 for i in range(40)]
    >>> data = table({"x": x, "hue": ["red", "blue"] * 20, "y": ["a", "b", "b", "a"] * 10})
    >>> data.preparation.inputs
    ('x', 'x is missing', 'hue = blue', 'hue = red')
    >>> data.preparation({"hue": ["blue"], "x": [0.5]})[0].shape
    (1, 4)
    """

    target: str
    classes: tuple[str, ...]
    columns: tuple[Column, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    shift: float = 0.0
    scale: float = 1.0
    named: bool = True
    width: int = 0

    @property
    def task(self) -> str:
        """``classification`` or ``regression``."""
        return "classification" if self.classes else "regression"

    @cached_property
    def embedded(self) -> tuple[int, ...]:
        """Levels, that which is not known included, of the columns whose numbers are the last inputs."""
        return tuple(1 + len(column.levels) for column in self.columns if column.kind == "embedded")

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of the F inputs."""
        return tuple(name for column in self.columns for name in column.inputs)

    def __call__(self, source: Any) -> tuple[Host, list[str]]:
        """Inputs float32 (N, F) of a file, a DataFrame or columns, and notes on what did not fit.

        Columns are found by name. A missing one is an error, a level that is not known is none of the known ones.
        """
        table = source if isinstance(source, Columns) else self.read(source)
        found, notes = self.matched(table)
        return self.apply(found), [*table.notes, *notes]

    def read(self, source: Any) -> Columns:
        """Another table, its columns named as those of the table that was trained on."""
        if self.named:
            return read(source, target=self.target, header=True)
        table = read(source)
        n = len(table.values)
        if n not in (self.width, self.width - 1):
            raise DataError(
                f"{table.name}: expected {self.width} columns, or {self.width - 1} without the target, got {n}"
            )
        places = [i for i in range(self.width) if n == self.width or f"column {i}" != self.target]
        return replace(table, values={f"column {i}": v for i, v in zip(places, table.values.values(), strict=True)})

    def answers(self, table: Columns) -> tuple[list[Any] | None, list[str]]:
        """The true answers in a table, None where one is missing, and notes; None for all if it has no column for them.

        Classes are text, as in ``classes``; values are floats.
        """
        names = {name.strip().lower(): name for name in table.values}
        name = self.target if self.target in table.values else names.get(self.target.strip().lower())
        if name is None:
            return None, []
        values = table.values[name]
        gone = missing(values)
        notes = [f"{int(gone.sum())} rows have no {self.target}: not compared"] if gone.any() and not gone.all() else []
        if self.classes:
            found = [None if text is None else self._class(text) for text in as_text(values)]
            strange = [(i, text) for i, text in enumerate(found) if text is not None and text not in self.classes]
            if strange and not self.named:
                raise DataError(
                    f"{table.name}: {name} is the target by its place, and row {strange[0][0] + 1} holds {strange[0][1]!r} "
                    f"there, which is no class ({_few(self.classes)})"
                )
            return found, notes
        if kind_of(values) != "number":
            raise DataError(f"{table.name}: column {name!r} is the target, and holds no numbers, as it did in training")
        return [None if none else v for v, none in zip(values.tolist(), gone, strict=True)], notes

    def _class(self, text: str) -> str:
        """A label in the spelling of the classes: ``1.0`` is ``1``."""
        if text not in self.classes and re.fullmatch(r"[-+]?\d+\.0*", text):
            return str(int(float(text)))
        return text

    def apply(self, table: Mapping[str, Host]) -> Host:
        """Inputs float32 (N, F) of columns that are known to fit."""
        n = len(next(iter(table.values())))
        inputs = np.zeros((n, len(self.inputs)), dtype=np.float32)
        at = 0
        for column in self.columns:
            width = len(column.inputs)
            column(table[column.name], inputs[:, at : at + width])
            at += width
        return inputs

    def matched(self, table: Columns) -> tuple[dict[str, Host], list[str]]:
        """The columns that the model was trained on, in its kinds, and notes; DataError if one is missing."""
        known = {name.strip().lower(): name for name in table.values}
        found, notes, lacking, used = {}, [], [], {self.target.strip().lower()}
        for column in self.columns:
            name = column.name if column.name in table.values else known.get(column.name.strip().lower())
            if name is None:
                lacking.append(column.name)
                continue
            used.add(name.strip().lower())
            try:
                found[column.name], note = column.answered(table.values[name])
            except DataError as error:
                raise DataError(f"{table.name}: {error}") from None
            notes += [note] * bool(note)
        if lacking:
            which = f"no column named {lacking[0]!r}" if len(lacking) == 1 else f"no columns named {_few(lacking)}"
            raise DataError(
                f"{table.name}: {which}, which the model was trained on.{nearest(lacking[0], table.values)}"
            )
        used |= {name.strip().lower() for name, _ in self.left_out}
        others = [name for name in table.values if name.strip().lower() not in used]
        if others:
            notes.append(
                f"not used, as the model was not trained on {'it' if len(others) == 1 else 'them'}: {_few(others)}"
            )
        return found, notes

    def to_dict(self) -> dict[str, Any]:
        """As JSON, for the checkpoint."""
        return {**asdict(self), "columns": [_plain(column) for column in self.columns]}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Preparation:
        """From :meth:`to_dict`."""
        kept: list[dict[str, Any]] = [
            {k: tuple(v) if isinstance(v, list) else v for k, v in c.items()} for c in values["columns"]
        ]
        columns = tuple(Column(**column) for column in kept)
        left_out = tuple((name, why) for name, why in values["left_out"])
        given = {"columns": columns, "left_out": left_out, "classes": tuple(values["classes"])}
        return Preparation(**{**values, **given})


def fit(
    table: Columns, training: Host, target: Target, names: Sequence[str], asked: bool, embed: bool = False
) -> Preparation:
    """The preparation of the columns ``names``, by the rows ``training`` alone; ``asked``: they are wanted in any case;
    ``embed``: columns of many categories as embeddings, which come last.
    """
    columns, left_out = [], []
    for name in names:
        whole = table.values[name]
        values = whole[training]
        why = useless(name, values, whole)
        if why and not (asked and not why.startswith(("empty", "the same"))):
            left_out.append((name, why))
        else:
            columns.append(_fitted(name, values, embed))
    if not columns:
        reasons = "; ".join(f"{name} ({why})" for name, why in left_out[:5])
        raise DataError(
            f"{table.name}: no column is left to learn from: {reasons or 'the target is the only one'}. "
            "--columns names what to use"
        )
    columns.sort(key=lambda column: column.kind == "embedded")
    shift, scale = 0.0, 1.0
    if not target.classes:
        known = np.isin(target.rows, training, assume_unique=True)
        shift, scale = float(target.values[known].mean()), float(target.values[known].std()) or 1.0
    return Preparation(
        target.name, target.classes, tuple(columns), tuple(left_out), shift, scale, table.named, len(table.values)
    )


def _fitted(name: str, values: Host, embed: bool) -> Column:
    gone = missing(values)
    gaps = bool(gone.any())
    kind = kind_of(values)
    if kind == "text":
        levels = levels_of(values, len(values)) if embed else ()
        if len(levels) > MANY:
            return Column(name, "embedded", levels=levels)
        return Column(name, "category", gaps=gaps, levels=levels_of(values))
    there = values[~gone]
    numbers = _seconds(there) if kind == "date" else there
    fill = float(np.median(numbers))
    filled = np.append(numbers, np.full(int(gone.sum()), fill))
    parts = tuple(p for p in PERIODS if kind == "date" and len(np.unique(_part(there, p))) > 1)
    return Column(name, kind, float(filled.mean()), float(filled.std()) or 1.0, fill, gaps, parts=parts)


def _seconds(values: Host) -> Host:
    found: Host = values.astype("datetime64[s]").astype(np.float64)
    return found


def _part(values: Host, part: str) -> Host:
    if part == "month":
        return values.astype("datetime64[M]").astype(np.int64) % 12
    if part == "weekday":
        return values.astype("datetime64[D]").astype(np.int64) % 7
    return values.astype("datetime64[h]").astype(np.int64) % 24


def _plain(column: Column) -> dict[str, Any]:
    usual = {field.name: field.default for field in fields(Column)}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(column).items() if v != usual[k]}


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + f" and {len(names) - 5} more" * (len(names) > 5)

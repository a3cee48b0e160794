"""What the cells of a text column are: numbers in many spellings, dates, or text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kobai.data.tables.needs import pandas

Host = np.ndarray[Any, Any]

MISSING = ("", "na", "n/a", "nan", "null", "none", "nil", "#n/a", "<na>", "?", "-", "--", ".", "nat")
"""Cells that mean "no value" among numbers and dates, in lower case."""

NO_TEXT = ("", "na", "n/a", "nan", "null", "#n/a", "<na>", "?")
"""Those among text, where others may be names."""

MOSTLY = 0.95
"""The share of a column's cells that must be numbers for the others to be read as missing."""

COMMA = re.compile(r"[-+−]?(\d{1,3}([.\s'’]\d{3})+|\d+),\d+")
THOUSANDS = re.compile(r"[-+−]?\d{1,3}([,\s'’]\d{3})+(\.\d+)?")
NUMBER = re.compile(r"[-+−]?[\d.,\s'’]*\d[\d.,\s'’]*([eE][-+]?\d+)?")
DOTTED = re.compile(r"[-+]?\d{1,3}(\.\d{3})+")
UNITS = r"^\s*(?:[€$£¥]|EUR|USD|CHF|GBP)\s*|\s*(?:[€$£¥%]|EUR|USD|CHF|GBP)\s*$"

DAYS: tuple[str, ...] = (
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%d.%m.%Y",
    "%d.%m.%y",
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%d-%m-%Y",
    "%m/%d/%y",
    "%d/%m/%y",
    "%Y%m%d",
)
DAYS += ("%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%d-%b-%Y", "%d-%b-%y", "%Y-%m")
TIMES = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", "T%H:%M", "T%H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
LIKE_DATE = re.compile(r"\d{1,4}[-/. ](\d{1,2}|[A-Za-z]{3,9})([-/. ]\d{1,4})?|[A-Za-z]{3,9} \d{1,2}, \d{4}")


@dataclass
class Parser:
    """Reads text columns. ``comma``: whether numbers have decimal commas, None until a column tells; ``notes`` for the user."""

    comma: bool | None = None
    notes: list[str] = field(default_factory=list)

    def __call__(self, name: str, cells: Any, none: Sequence[str] = NO_TEXT) -> Host:
        """A pandas Series of text as float64 (NaN: missing), datetime64 (NaT) or str objects (None); ``none`` is no text."""
        pd = pandas()
        if self.comma is not True:
            try:  # most columns are plain numbers
                return self._finite(name, pd.to_numeric(cells.to_numpy(dtype=object)).astype(np.float64))
            except (ValueError, TypeError):
                pass
        text = cells.astype(object).where(cells.notna(), "").astype(str).str.strip()
        lower = text.str.lower()
        missing = lower.isin(MISSING)
        if missing.all():
            return np.full(len(text), np.nan)
        numbers = self._numbers(pd, name, text, missing)
        if numbers is not None:
            return numbers
        dates = self._dates(pd, name, text, missing)
        if dates is not None:
            return dates
        found: Host = text.to_numpy(dtype=object).copy()
        found[lower.isin(none).to_numpy()] = None
        return found

    def _numbers(self, pd: Any, name: str, text: Any, missing: Any) -> Host | None:
        first = text[~missing].iloc[:SAMPLE]
        if first.str.replace(UNITS, "", regex=True).str.fullmatch(NUMBER).mean() < 0.5:
            return None
        plain = self._read(pd, text, missing, self.comma is True and self._grouped(text[~missing]))
        failing = plain.isna() & ~missing
        if failing.any():
            bare = text.str.replace(UNITS, "", regex=True)
            odd = bare[failing]
            groups = odd.str.fullmatch(THOUSANDS)
            comma = odd.str.fullmatch(COMMA) & ~(groups & (self.comma is False))
            if comma.mean() >= MOSTLY:
                self.comma = True
                bare = bare.str.replace(r"[.\s'’]", "", regex=True).str.replace(",", ".")
            elif groups.any():
                bare = bare.mask(bare.str.fullmatch(THOUSANDS), bare.str.replace(r"[,\s'’]", "", regex=True))
            plain = self._read(pd, bare.str.replace("−", "-"), missing, False)
            failing = plain.isna() & ~missing
        if failing.any():
            if failing.sum() > (1 - MOSTLY) * (~missing).sum() or text[failing].nunique() > 20:
                return None
            which = ", ".join(repr(cell) for cell in text[failing].unique()[:3])
            self.notes.append(f"{name}: {_cells(int(failing.sum()))} no number ({which}): read as missing")
        return self._finite(name, plain.to_numpy(dtype=np.float64).copy())

    def _finite(self, name: str, values: Host) -> Host:
        if (endless := int(np.isinf(values).sum())) > 0:
            values[np.isinf(values)] = np.nan
            self.notes.append(f"{name}: {_cells(endless)} infinite: read as missing")
        return values

    @staticmethod
    def _grouped(cells: Any) -> bool:
        """Whether all dots are between groups of three digits, as where decimals have a comma."""
        dotted = cells[cells.str.contains(".", regex=False)]
        return bool(len(dotted) and dotted.str.fullmatch(DOTTED).all())

    @staticmethod
    def _read(pd: Any, text: Any, missing: Any, grouped: bool) -> Any:
        text = text.str.replace(".", "") if grouped else text
        return pd.to_numeric(text.mask(missing | text.str.contains("_", regex=False)), errors="coerce")

    def _dates(self, pd: Any, name: str, text: Any, missing: Any) -> Host | None:
        there = text[~missing]
        sample = there.drop_duplicates().head(SAMPLE)
        if sample.str.match(LIKE_DATE).mean() < MOSTLY:
            return None
        shapes = sorted(
            ((_parsed(pd, sample, shape).notna().mean(), -i, shape) for i, shape in enumerate(FORMATS)), reverse=True
        )
        for share, _, shape in shapes[:3]:
            found = _parsed(pd, there, shape) if share >= MOSTLY else None
            if found is not None and found.notna().mean() >= MOSTLY:
                values = np.full(len(text), np.datetime64("NaT", "us"))
                values[~missing.to_numpy()] = found.to_numpy(dtype="datetime64[us]")
                if bad := int(found.isna().sum()):
                    self.notes.append(f"{name}: {_cells(bad)} no date: read as missing")
                return values
        return None


SAMPLE = 100
FORMATS = ("ISO8601", *(day + time for day in DAYS for time in TIMES))


def _parsed(pd: Any, text: Any, shape: str) -> Any:
    found = pd.to_datetime(text, format=shape, errors="coerce", utc=True)
    return found.dt.tz_localize(None)


def _cells(n: int) -> str:
    return f"{n} cell is" if n == 1 else f"{n} cells are"


def as_text(values: Host) -> Host:
    """A column as text, None where it is missing: whole numbers without a decimal point, dates in ISO form."""
    if values.dtype == object:
        return values
    found = np.full(len(values), None, dtype=object)
    for i in np.flatnonzero(~missing(values)):
        v = values[i]
        found[i] = str(v) if values.dtype.kind == "M" else str(int(v)) if float(v).is_integer() else repr(float(v))
    return found


def missing(values: Host) -> Host:
    """Where a column has no value."""
    found: Host
    if values.dtype == object:
        found = (values == np.array(None)).astype(bool)
    else:
        found = np.isnan(values) if values.dtype.kind == "f" else np.isnat(values)
    return found


def kind_of(values: Host) -> str:
    """``number``, ``date`` or ``text``."""
    return {"f": "number", "M": "date"}.get(values.dtype.kind, "text")

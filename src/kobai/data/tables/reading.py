"""Tables as columns: text files, Parquet, Excel, and the DataFrames of pandas, polars and Arrow."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kobai.core.untrusted import regular
from kobai.data.tables.decoding import Text, decode
from kobai.data.tables.naming import column_of, unique
from kobai.data.tables.needs import check_engine, narwhals, pandas
from kobai.data.tables.values import MISSING, NO_TEXT, Host, Parser
from kobai.errors import DataError

BAD = 0.01
"""A greater share of rows with cells too many is no slip: the file is read wrongly."""


@dataclass
class Columns:
    """The columns of a table by name, in order: float64, datetime64 or str objects, with NaN, NaT and None for "missing".

    ``named``: whether the names are the table's own; ``notes``: what the user should know of how it was read.
    """

    name: str
    values: dict[str, Host]
    named: bool = True
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(next(iter(self.values.values()), ()))

    def rows(self, index: Host) -> Columns:
        """These rows alone."""
        return Columns(self.name, {name: values[index] for name, values in self.values.items()}, self.named, self.notes)


def read(
    source: Any,
    *,
    target: str | int | None = None,
    header: bool | None = None,
    separator: str | None = None,
    no_target: Iterable[str] | None = None,
) -> Columns:
    """The columns of a file or a DataFrame. A first line that holds the name of the ``target`` is a header.

    ``no_target``: text that means "not known" in the column of the target; by default NaN alone, as others may be classes.
    """
    none = ("", "nan") if no_target is None else ("", *(text.strip().lower() for text in _each(no_target)))
    if not isinstance(source, (str, Path)):
        return _of_frame(source, "table", target, none)
    path = Path(source).expanduser()
    ending = path.suffix.lower()
    if ending in (".parquet", ".pq"):
        return _of_frame(_binary(path, "read_parquet", "pyarrow"), str(path), target, none)
    if ending in (".xlsx", ".xlsm"):
        return _of_frame(_binary(path, "read_excel", "openpyxl"), str(path), target, none)
    return _of_text(path, target, header, separator, none)


def _wanted(names: list[str], target: str | int | None, who: str) -> str | None:
    """The column of the target; a table that is only to be answered may lack it."""
    try:
        return column_of(names, target, who)
    except DataError:
        return None


def _each(words: Iterable[str]) -> Iterable[str]:
    return [words] if isinstance(words, str) else words


def _binary(path: Path, how: str, engine: str) -> Any:
    pd = pandas()
    check_engine(engine, f"reading {path.suffix} files")
    try:
        return getattr(pd, how)(io.BytesIO(regular(path).read_bytes()), engine=engine)
    except OSError as error:
        if error.strerror:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        raise DataError(f"{path}: no readable {path.suffix} file ({error})") from error
    except Exception as error:  # each engine has its own kinds
        raise DataError(f"{path}: no readable {path.suffix} file ({error})") from error


def _of_frame(frame: Any, name: str, target: str | int | None, none: Sequence[str]) -> Columns:
    nw, pd = narwhals(), pandas()
    if isinstance(frame, dict):
        frame = pd.DataFrame(frame)
    try:
        table = nw.from_native(frame, eager_only=True)
    except TypeError:
        raise TypeError(
            f"table: expected a path, a dict of columns, or a DataFrame of pandas, polars or Arrow, got {type(frame).__name__}"
        ) from None
    if not len(table):
        raise DataError(f"{name}: no rows")
    parse, found = Parser(), {}
    wanted = _wanted([str(label) for label in table.columns], target, name)
    for label in table.columns:
        values = _of_series(nw, pd, parse, str(label), table[label], none if str(label) == wanted else NO_TEXT)
        if values is None:
            parse.notes.append(f"{label}: holds {table[label].dtype}, which is no number, text or date: left out")
        else:
            found[str(label)] = values
    return Columns(name, found, notes=parse.notes)


def _of_series(nw: Any, pd: Any, parse: Parser, name: str, series: Any, none: Sequence[str]) -> Host | None:
    kind = series.dtype
    if kind.is_numeric():
        values: Host = np.asarray(series.cast(nw.Float64).to_numpy(), dtype=np.float64).copy()
        values[np.isinf(values)] = np.nan
        return values
    if kind in (nw.Datetime, nw.Date):
        moments = pd.to_datetime(pd.Series(series.to_list(), dtype=object), utc=True, errors="coerce")
        dates: Host = moments.dt.tz_localize(None).to_numpy(dtype="datetime64[us]")
        return dates
    if kind in (nw.String, nw.Categorical, nw.Enum, nw.Boolean, nw.Object, nw.Unknown):
        cells = [None if v is None or v != v else v for v in series.to_list()]
        if any(isinstance(v, (list, dict, tuple, set, np.ndarray)) for v in cells[:100]):
            return None
        return parse(name, pd.Series([None if v is None else str(v) for v in cells], dtype=object), none)
    return None


def _of_text(
    path: Path, target: str | int | None, header: bool | None, separator: str | None, none: Sequence[str]
) -> Columns:
    text = decode(path, separator)
    first = [cell.strip() for cell in text.first]
    named = bool(text.short) or (_is_header(first, target) if header is None else header)
    raw, notes = _cells(path, text, named)
    if text.short:
        first = ["", *first] if text.short == "first" else [*first, ""]
    names, renamed = unique(first if named else [""] * text.width)
    raw.columns = names
    if named:
        alike = np.flatnonzero(raw[names[-1]].fillna("").str.strip() == first[-1])
        again = [i for i in alike if [str(cell).strip() for cell in raw.iloc[i].fillna("")] == first]
        if n := len(again):
            raw = raw.drop(raw.index[again])
            notes.append(f"the header stands in {n} {'row' if n == 1 else 'rows'} below too: left out")
    for name in [
        n for n in names if n.startswith("column ") and n not in first and not raw[n].fillna("").str.strip().any()
    ]:
        del raw[name]  # separators at the end of rows
    if not len(raw):
        raise DataError(f"{path}: no rows" + (" below the header" if named else ""))
    parse = Parser(comma=False if text.separator == "," else None)
    wanted = _wanted(list(raw.columns), target, str(path))
    cells = {name: (raw[name], none if name == wanted else NO_TEXT) for name in raw.columns}
    values = {name: parse(name, *column) for name, column in cells.items()}
    if parse.comma:  # a later column has told how an earlier one is to be read
        parse.notes.clear()
        values = {name: parse(name, *column) for name, column in cells.items()}
        notes.append("numbers are read with decimal commas")
    return Columns(str(path), values, named, [*text.notes, *notes, *renamed, *parse.notes])


def _cells(path: Path, text: Text, named: bool) -> tuple[Any, list[str]]:
    """All rows as text, and a note on those that are left out."""
    pd = pandas()
    content, above = (text.below, text.next_line) if named else (text.content, text.line)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            raw = pd.read_csv(
                io.StringIO(content),
                sep=text.separator,
                header=None,
                dtype=str,
                keep_default_na=False,
                skipinitialspace=True,
                on_bad_lines="warn",
                low_memory=False,
            )
        except pd.errors.EmptyDataError:
            return pd.DataFrame({i: pd.Series(dtype=str) for i in range(text.width)}), []
        except pd.errors.ParserError as error:
            raise DataError(
                f"{path}: not a table of text ({' '.join(str(error).split())}); is a quotation mark unclosed?"
            ) from error
    bad = re.findall(r"line (\d+): expected \d+ fields, saw (\d+)", " ".join(str(w.message) for w in caught))
    if len(raw.columns) != text.width or len(bad) > max(BAD * len(raw), 1):
        at = above + (int(bad[0][0]) if bad else 1)
        seen = bad[0][1] if bad else len(raw.columns)
        raise DataError(f"{path}: line {at} has {seen} cells, expected {text.width}; is a quotation mark missing?")
    notes = []
    if bad:
        which = ", ".join(str(int(n) + above) for n, _ in bad[:3])
        notes.append(f"{len(bad)} {'line has' if len(bad) == 1 else 'lines have'} cells too many ({which}): left out")
    return raw, notes


def _is_header(first: list[str], target: str | int | None) -> bool:
    """Whether the first row names the columns: it names the target, or none of its cells is a number or missing."""
    if isinstance(target, str):
        if target in first or not re.fullmatch(r"-?\d+", target):
            return True
        target = int(target)
    others = [cell for i, cell in enumerate(first) if target is None or i != target % len(first)]
    if target is None:
        others = others[:-1] or others
    return not any(_is_number(cell) or (cell.lower() in MISSING and i > 0) for i, cell in enumerate(others))


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return False
    return "_" not in cell

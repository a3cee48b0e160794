"""From the bytes of a file to the text of a table: what is no table, encodings, separators, and lines above the header."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from kobai.core.untrusted import regular
from kobai.data.tables.needs import charset_normalizer
from kobai.errors import DataError

SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}
"""In order of preference: decimal commas split the lines of a table as evenly as its semicolons do."""

SAMPLE = 200
"""Lines that separator and first line are found by."""

KEPT = 0.9
"""A separator must split so many of the lines alike, compared with the best one."""

SIGNATURES = {
    b"PK\x03\x04": "is a ZIP archive, perhaps an Excel file; name it .xlsx if it is one, or unpack it",
    b"\xd0\xcf\x11\xe0": "is an Excel file of the kind before 2007; save it as .xlsx or .csv",
    b"PAR1": "is a Parquet file; name it .parquet",
    b"\x1f\x8b": "is compressed; unpack it",
    b"%PDF": "is a PDF, which holds no table that can be read; export the table as CSV",
    b"SQLite format 3": "is a database; export the table as CSV",
}


@dataclass(frozen=True)
class Text:
    """The text of a table from its first row on, how it is separated, and how many cells a row has.

    ``first`` is the first row, after ``line`` lines of the file, and ``below`` the text under it. ``short``: where the first
    row lacks one cell, "first" or "last" says which, else "".
    """

    content: str
    below: str
    separator: str
    width: int
    short: str
    first: list[str]
    line: int
    next_line: int
    notes: tuple[str, ...]


def decode(path: Path, separator: str | None = None) -> Text:
    """The text of a file, as a table; DataError, which says what to do, if it is none."""
    content, notes = _decoded(path, _content(path))
    lines = content.splitlines(keepends=True) if len(content) < 1 << 20 else content[: 1 << 20].splitlines(True)[:-1]
    head = lines[: 4 * SAMPLE]
    if not any(line.strip() for line in head):
        raise DataError(f"{path}: the file is empty")
    _refuse_markup(path, content)
    separator = separator or _separator(path, head)
    rows = _rows(head, separator)
    widths = Counter(len(row) for *_, row in rows)
    width = max(widths, key=lambda n: (widths[n] * (n > 1), n))
    begin, short = _begin(rows, width)
    if width < 2:
        raise DataError(
            f"{path}: found one column only, and a table needs the target and at least one more; cells are looked for between "
            f"{', '.join(SEPARATORS.values())}"
        )
    line, after, first = rows[begin]
    if line:
        notes.append(f"the first {line} lines are no rows of the table: left out")
    rest = content[sum(map(len, lines)) :]
    whole, below = ("".join(lines[n:]) + rest for n in (line, after))
    return Text(whole, below, separator, width, short, first, line, after, tuple(notes))


def _content(path: Path) -> bytes:
    try:
        content = regular(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if not content.strip():
        raise DataError(f"{path}: the file is empty")
    for signature, what in SIGNATURES.items():
        if content.startswith(signature):
            raise DataError(f"{path}: {what}")
    return content


def _decoded(path: Path, content: bytes) -> tuple[str, list[str]]:
    """The text, and a note where it is not UTF-8."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif b"\0" in content:
        raise DataError(f"{path}: is no text (byte {content.index(0)} is 0); export the table as CSV in UTF-8")
    else:
        encoding = "utf-8-sig"
    try:
        return content.decode(encoding), []
    except UnicodeDecodeError as error:
        if encoding == "utf-16":
            raise DataError(f"{path}: begins as UTF-16 and does not go on so (byte {error.start})") from error
    guess = charset_normalizer().from_bytes(content[: 1 << 16]).best()
    if guess is None or sum(byte < 9 or 13 < byte < 32 for byte in content[: 1 << 16]) > len(content[: 1 << 16]) / 100:
        raise DataError(f"{path}: is no text in an encoding that can be told; export the table as CSV in UTF-8")
    encoding = "cp1252" if guess.encoding in ("cp1250", "cp1252", "cp1254", "cp1257", "latin_1") else guess.encoding
    text = content.decode(encoding, errors="replace")
    return text, [f"the text is not UTF-8; read as {encoding}"]


def _refuse_markup(path: Path, content: str) -> None:
    begin = content[:1000].lstrip().lower()
    if begin.startswith(("<!doctype", "<html", "<?xml", "<head", "<table")):
        raise DataError(
            f"{path}: is a web page, perhaps of a login or an error, and no table; download the file itself or export it as CSV"
        )
    if begin.startswith(("{", "[{")):
        raise DataError(f"{path}: is JSON, and no table; write it as CSV, with pandas: pandas.read_json(…).to_csv(…)")


def _rows(lines: list[str], separator: str) -> list[tuple[int, int, list[str]]]:
    """Rows that are not blank, each with the number of lines above it, and of those down to its end."""
    rows: list[tuple[int, int, list[str]]] = []
    above = 0
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return rows
        except csv.Error:
            row = []
        if any(cell.strip() for cell in row):
            rows.append((above, reader.line_num, row))
        above = reader.line_num
        if len(rows) >= SAMPLE:
            return rows


def _separator(path: Path, lines: list[str]) -> str:
    """The separator that splits most lines into the same number of cells, of more than one."""
    shares = {}
    for separator in SEPARATORS:
        widths = Counter(len(row) for *_, row in _rows(lines, separator))
        shares[separator] = max((n for width, n in widths.items() if width > 1), default=0) / max(widths.total(), 1)
    best = max(shares.values())
    return next(separator for separator, share in shares.items() if share >= KEPT * best)


def _begin(rows: list[tuple[int, int, list[str]]], width: int) -> tuple[int, str]:
    """The place of the first row of the table; "first" or "last" if it lacks that cell of the others."""
    place = next(i for i, (*_, row) in enumerate(rows) if len(row) >= width)
    below = [row for *_, row in rows[place:] if len(row) == width]
    if (
        place
        and len(rows[place - 1][-1]) == width - 1
        and width > 2
        and all(cell.strip() for cell in rows[place - 1][-1])
    ):
        ends = all(not row[-1].strip() for row in below)  # a separator at the end of each row but the header
        return place - 1, "last" if ends else "first"
    return place, ""

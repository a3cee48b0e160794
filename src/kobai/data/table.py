"""Tables: a CSV file as a classification data set."""

from __future__ import annotations

import csv as csv_format
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from kobai.core.untrusted import regular
from kobai.data.splits import DataSplits, Host, make_splits, stratified
from kobai.errors import DataError, nearest, users_line

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?", "-"})
"""Cells that mean "no value" among numbers, in lower case."""

NO_LABEL = frozenset({"", "nan"})
"""Cells that mean "no label" among text labels, in lower case: others may be names, such as NA for Namibia."""

FEW = 10
"""More different whole numbers than this may be amounts rather than classes."""

TEST_SEED = 0


def csv(
    path: str | Path,
    *,
    label: str | int | None = None,
    header: bool | None = None,
    delimiter: str | None = None,
    test: float = 0.2,
    validation: float = 0.1,
    seed: int = 0,
    missing: Iterable[str] | None = None,
) -> DataSplits:
    """A table of numbers with one column of class labels; inputs are (columns − 1,).

    Args:
        path: a text file in UTF-8, one sample a line.
        label: the column of the class, by its name in the header or by its index (negative ones count from the end).
            Default: the last.
        header: whether the first line names the columns. Default: it does if none of its features is a number.
        delimiter: default: whichever of ``, ; tab |`` occurs most often in the first line.
        test: fraction of the rows in the test split, which is stratified and does not depend on ``seed``.
        validation, seed: fraction of the remaining rows held out for validation, and the seed of that draw.
        missing: what stands for "no label", besides an empty cell. Default: ``NaN``, and where the other labels are numbers
            also ``NA``, ``None``, ``null``, ``?`` and ``-``; among labels of text these are classes, and a warning says so.

    Labels are integers or any text; the classes are sorted, by number where all are integers. Every feature x becomes
    (x − μ) / σ, with mean and standard deviation of the *training* rows. Regression data are not read:
    fractional labels are an error, and so are classes that mostly have a single row; whole numbers that look like amounts give
    a warning.

    Raises :class:`~kobai.errors.DataError` with row and column for missing values, NaN, infinities and non-numbers.

    >>> import tempfile, pathlib
    >>> rows = "".join(f"{i},{i % 7},{'odd' if i % 2 else 'even'}\\n" for i in range(40))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "numbers.csv")
    ...     _ = file.write_text("a,b,kind\\n" + rows)
    ...     splits = csv(file, label="kind")
    >>> splits, splits.classes
    (DataSplits('numbers': 29 train, 3 validation, 8 test; 2 inputs, 2 classes), ('even', 'odd'))
    """
    path = Path(path)
    lines = _read(path, delimiter)
    named = _has_header(lines, label) if header is None else header
    if isinstance(label, str) and not named:
        raise DataError(f"{path}: label {label!r} is a name, but the first line is no header")
    names = [cell.strip() for cell in lines[0][1]] if named else [f"column {i}" for i in range(len(lines[0][1]))]
    rows = lines[1:] if named else lines
    if not rows:
        raise DataError(f"{path}: no rows" + (" below the header" if named else ""))
    column = _label_column(path, names, label)
    for number, cells in rows:
        if len(cells) != len(names):
            raise DataError(f"{path}: row {number} has {len(cells)} cells, expected {len(names)}")
    cells_of_label = [(number, cells[column].strip()) for number, cells in rows]
    missing = [missing] if isinstance(missing, str) else missing
    absent = None if missing is None else {"", *(text.strip().lower() for text in missing)}
    classes, labels = _classes(path, cells_of_label, names[column], absent)
    features = tuple(name for i, name in enumerate(names) if i != column)
    values = _features(path, [(number, cells[:column] + cells[column + 1 :]) for number, cells in rows], features)
    rest, apart = stratified(labels, test, TEST_SEED, f"{path}: test")
    training, held = (values[rest], labels[rest]), (values[apart], labels[apart])
    return make_splits(
        path.stem,
        training,
        held,
        classes,
        validation,
        seed,
        features=features if named else (),
        label=names[column] if named else "",
    )


def _read(path: Path, delimiter: str | None) -> list[tuple[int, list[str]]]:
    """Lines that are not blank, split into cells, each with its number in the file."""
    try:
        with regular(path).open(encoding="utf-8-sig", newline="") as file:
            if delimiter is None:
                first = file.readline()
                delimiter = max(",;\t|", key=first.count)
                file.seek(0)
            reader = csv_format.reader(file, delimiter=delimiter, skipinitialspace=True)
            lines = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not text in UTF-8 (byte {error.start})") from error
    except csv_format.Error as error:
        raise DataError(f"{path}: not a CSV file ({error})") from error
    if not lines:
        raise DataError(f"{path}: the file is empty")
    if len(lines[0][1]) < 2:
        raise DataError(f"{path}: expected at least one feature and one label column, got one column; see delimiter")
    return lines


def _has_header(lines: Sequence[tuple[int, list[str]]], label: str | int | None) -> bool:
    if isinstance(label, str):
        return True
    cells = list(lines[0][1])
    position = -1 if label is None else label
    if -len(cells) <= position < len(cells):
        del cells[position]
    return not any(_is_number(cell) or cell.strip().lower() in MISSING for cell in cells)


def _label_column(path: Path, names: list[str], label: str | int | None) -> int:
    if isinstance(label, str):
        if names.count(label) != 1:
            problem = "no column" if label not in names else "more than one column"
            raise DataError(f"{path}: {problem} named {label!r}.{nearest(label, set(names) - {label})}")
        return names.index(label)
    position = -1 if label is None else label
    if not -len(names) <= position < len(names):
        raise DataError(f"{path}: label column {position} is out of range for {len(names)} columns")
    return position % len(names)


def _classes(
    path: Path, cells: Sequence[tuple[int, str]], name: str, absent: set[str] | None
) -> tuple[tuple[str, ...], Host]:
    """Names of the classes, sorted, and the class index of each row; ``absent`` are the cells that are no label."""
    known = {cell for _, cell in cells}
    of_numbers = all(_is_number(cell) for cell in known if cell.lower() not in MISSING)
    if absent is None:  # of text, unless every label beside these is a number, and there is one
        numbers = of_numbers and any(cell.lower() not in MISSING for cell in known)
        none, doubtful = (MISSING, frozenset()) if numbers else (NO_LABEL, MISSING)
    else:
        none, doubtful = frozenset(absent), frozenset()
    for number, cell in cells:
        if cell.lower() in none:
            raise DataError(f"{path}: row {number} has no label (column {name!r} is {cell!r})")
    for cell in sorted(known):
        if cell.lower() in doubtful:
            _warn(
                f"{path}: {cell!r} in column {name!r} is taken for a class; if it means that there is no label, remove its rows"
            )
    if all(_is_number(cell) for cell in known):
        for number, cell in cells:
            if not float(cell).is_integer():
                raise DataError(
                    f"{path}: row {number} has the label {cell} (column {name!r}); expected classes, and this looks like "
                    "regression. Build a kobai.utils.data.TensorDataset for it"
                )
        text = {cell: str(int(float(cell))) for cell in known}  # "1", "1.0" and "01" are one class
        order = sorted(set(text.values()), key=int)
    else:
        text = {cell: cell for cell in known}
        order = sorted(known)
    if len(order) < 2:
        raise DataError(f"{path}: column {name!r} holds one class only, {order[0]!r}")
    _check_counts(path, Counter(text[cell] for _, cell in cells), order, name)
    index = {cell: i for i, cell in enumerate(order)}
    return tuple(order), np.array([index[text[cell]] for _, cell in cells], dtype=np.int64)


def _check_counts(path: Path, counts: Counter[str], order: Sequence[str], name: str) -> None:
    """DataError if most classes have a single row, from which nothing can be learned; a warning if they look like amounts."""
    rows, k = counts.total(), len(order)
    kinds = f"column {name!r} holds {k} different "
    if k > 2 and 2 * sum(n == 1 for n in counts.values()) > k:
        raise DataError(
            f"{path}: {kinds}labels in {rows} rows, most of them once: these are no classes. Is it another column (label)? For "
            "regression build a kobai.utils.data.TensorDataset"
        )
    numbers = [int(text) for text in order] if all(text.removeprefix("-").isdecimal() for text in order) else []
    if len(numbers) > FEW and (rows < FEW * k or numbers not in (list(range(k)), list(range(1, k + 1)))):
        _warn(
            f"{path}: {kinds}whole numbers, from {order[0]} to {order[-1]}, in {rows} rows: each is taken for a class. If they "
            "are amounts, this is regression; build a kobai.utils.data.TensorDataset for it"
        )


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=users_line())


def _features(path: Path, rows: Sequence[tuple[int, list[str]]], names: Sequence[str]) -> Host:
    """float64 (rows, features); DataError names the first bad cell and counts the others."""
    values = np.empty((len(rows), len(names)))
    problems = []
    for i, (number, cells) in enumerate(rows):
        try:
            values[i] = [float(cell) for cell in cells]
            clean = all(map(math.isfinite, values[i])) and "_" not in "".join(cells)  # float() reads 1_000
        except ValueError:
            clean = False
        if not clean:
            problems += [_problem(number, name, cell) for name, cell in zip(names, cells, strict=True) if _is_bad(cell)]
    if problems:
        more = f" (and {len(problems) - 1} more cells)" if len(problems) > 1 else ""
        raise DataError(f"{path}: {problems[0]}{more}")
    return values


def _problem(number: int, name: str, cell: str) -> str:
    if cell.strip().lower() in MISSING:
        what = f"a missing value ({cell.strip()!r})" if cell.strip() else "a missing value"
    elif _is_number(cell):
        what = f"{cell.strip()}, which is not finite"
    else:
        what = f"{cell.strip()!r}, which is not a number"
    return f"row {number}, column {name!r} holds {what}"


def _is_bad(cell: str) -> bool:
    return not _is_number(cell) or not math.isfinite(float(cell))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell

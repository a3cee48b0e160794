"""Tables as data sets: any file or DataFrame with a column to predict."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kobai.core.tensor import Tensor
from kobai.data.splits import DataSplits, Host, Scaling
from kobai.data.tables.doubts import Doubt, doubts
from kobai.data.tables.naming import column_of
from kobai.data.tables.parting import part
from kobai.data.tables.preparation import fit
from kobai.data.tables.reading import Columns, read
from kobai.data.tables.target import Target, target_of
from kobai.data.tables.values import as_text, kind_of, missing as gaps_of
from kobai.errors import DataError, users_line
from kobai.utils.data import TensorDataset
from kobai.xp import asarray, default_device

FEWEST = 5
"""Rows of a table that three parts can be made of."""

SHOWN = 8
"""Columns that a line names."""

CATEGORIES = ("one-hot", "embedding")
"""What columns of many categories become."""

ENDINGS = (".csv", ".tsv", ".txt", ".parquet", ".pq", ".xlsx", ".xlsm")


def is_table(path: str | Path) -> bool:
    """Whether this is the path of a table, by its ending or because it is a file."""
    return Path(path).suffix.lower() in ENDINGS or Path(path).expanduser().is_file()


def table(
    source: Any,
    target: str | int | None = None,
    *,
    task: str = "auto",
    columns: Sequence[str] | None = None,
    ignore: Sequence[str] = (),
    missing: str = "fill",
    categories: str = "one-hot",
    group: str | None = None,
    order: str | None = None,
    test: float = 0.2,
    validation: float = 0.1,
    seed: int = 0,
    header: bool | None = None,
    separator: str | None = None,
    no_target: Iterable[str] | None = None,
) -> DataSplits:
    """A table as a data set, inputs (F,): a CSV, TSV, Parquet or Excel file, or a DataFrame of pandas, polars or Arrow.

    Encoding, separator, header, decimal commas, dates and missing cells are recognised. Numbers are standardised, categories
    become one input each, dates their parts; gaps are filled by the median, with an input that says so. Ids, free text and
    constant columns are left out. All of it is fitted on the training rows and is in ``preparation``; ``notes`` says what was
    done.

    Args:
        source: a path, a DataFrame, or a dict of columns.
        target: the column to predict, by name or place; default: the last.
        task: ``"classification"`` or ``"regression"``; ``"auto"``: text and few repeated whole numbers are classes.
        columns, ignore: the columns to use, or not to.
        missing: ``"fill"``, or ``"drop"`` for leaving out the rows with a missing cell.
        categories: ``"one-hot"``, an input for each of a column's 50 most frequent ones; or ``"embedding"``: columns of more
            than 10 become an input each, the last ones, for :class:`~kobai.train.categories.Categories`; 0 is what training did
            not see twice.
        group: a column whose rows of one value stay in one part, such as a patient.
        order: a column of times or numbers; the last rows in it are the test.
        test, validation, seed: share of the test rows, which do not depend on ``seed``; of the rest, share held out for
            validation, and the seed of that draw. Classes keep their proportions.
        header, separator: whether the first line names the columns, and what is between cells; default: recognised.
        no_target: more cells that mean "not known" in a column of classes; such rows are left out.

    Raises :class:`~kobai.errors.DataError`, which says what to do. Doubts are warnings: rare classes, rows both in test and
    training, columns that give the target away.

    >>> rows = {"size": [1.5, 2.5, 9.0, None] * 10, "kind": ["oak", "elm"] * 20, "price": [10.5, 20.0, 91.0, 17.0] * 10}
    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")  # the four rows are repeated
    ...     data = table(rows, "price")
    >>> data
    DataSplits('table': 29 train, 3 validation, 8 test; 4 inputs, a regression of price)
    """
    whole = read(source, target=target, header=header, separator=separator, no_target=no_target)
    known = list(whole.values)
    wanted = target_of(whole, column_of(known, target, whole.name), task)
    names = _chosen(whole, wanted.name, columns, [*ignore, *([] if group is None else [group])])
    _one_of("missing", missing, ("fill", "drop"))
    _one_of("categories", categories, CATEGORIES)
    notes = [*whole.notes, wanted.why]
    wanted = _with_rows(whole, wanted, names if missing == "drop" else [], notes)
    if len(wanted.rows) < FEWEST:
        raise DataError(
            f"{whole.name}: {len(wanted.rows)} {'row has' if len(wanted.rows) == 1 else 'rows have'} a target, too few to "
            f"train, to choose and to test by; at least {FEWEST} are needed, and a hundred for a result to trust"
        )
    groups = (
        None
        if group is None
        else as_text(whole.values[column_of(known, group, whole.name, "group")])[wanted.rows].astype(str)
    )
    by = None if order is None else _ordered(whole, column_of(known, order, whole.name, "order"), wanted)
    parts = part(wanted, whole.name, test, validation, seed, groups, by)
    preparation = fit(whole, wanted.rows[parts[0]], wanted, names, columns is not None, categories == "embedding")
    notes += [f"{name}: left out, {why}" for name, why in _brief(preparation.left_out)]
    inputs = preparation.apply({name: values[wanted.rows] for name, values in whole.values.items()})
    for doubt in doubts(whole, wanted, parts, preparation):
        warnings.warn(f"{whole.name}: {doubt}", Doubt, stacklevel=users_line())
    targets = wanted.values if wanted.classes else ((wanted.values - preparation.shift) / preparation.scale)[:, None]
    targets = targets.astype(np.int64 if wanted.classes else np.float32)
    train, held, tested = (TensorDataset(_tensor(inputs[rows]), _tensor(targets[rows])) for rows in parts)
    name = Path(source).stem if isinstance(source, (str, Path)) else whole.name
    return DataSplits(
        name,
        train,
        held,
        tested,
        wanted.classes,
        (inputs.shape[1],),
        Scaling((0.0,), (1.0,)),
        preparation.inputs,
        wanted.name,
        preparation,
        tuple(notes),
    )


def _one_of(name: str, given: str, known: Sequence[str]) -> None:
    if given not in known:
        raise ValueError(f"{name}: expected {' or '.join(map(repr, known))}, got {given!r}")


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
    """:func:`table` of a text file, by older names: ``label`` is its ``target``, ``delimiter`` its ``separator``, and
    ``missing`` its ``no_target``.

    >>> import tempfile, pathlib
    >>> rows = "".join(f"{i % 11},{i % 7},{'odd' if i % 2 else 'even'}\\n" for i in range(40))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "numbers.csv")
    ...     _ = file.write_text("a,b,kind\\n" + rows)
    ...     splits = csv(file, label="kind")
    >>> splits, splits.classes
    (DataSplits('numbers': 29 train, 3 validation, 8 test; 2 inputs, 2 classes), ('even', 'odd'))
    """
    options: dict[str, Any] = {"test": test, "validation": validation, "seed": seed, "no_target": missing}
    return table(Path(path), label, header=header, separator=delimiter, **options)


def _chosen(whole: Columns, target: str, columns: Sequence[str] | None, ignore: Sequence[str]) -> list[str]:
    """The columns to look at, without the target."""
    names = (
        list(whole.values)
        if columns is None
        else [column_of(list(whole.values), name, whole.name, "inputs") for name in columns]
    )
    without = {target, *(column_of(list(whole.values), name, whole.name, "columns to ignore") for name in ignore)}
    return [name for name in names if name not in without]


def _with_rows(whole: Columns, target: Target, complete: Sequence[str], notes: list[str]) -> Target:
    """The target of the rows that are used, and a note on the others: those without one, and those with a gap."""
    n = len(whole)
    if (lost := n - len(target.rows)) > 0:
        notes.append(f"{lost} of {n} rows have no {target.name}: left out")
    full = np.ones(len(target.rows), dtype=bool)
    for name in complete:
        gone = gaps_of(whole.values[name])
        if not gone.all():
            full &= ~gone[target.rows]
    if (gaps := int((~full).sum())) > 0:
        notes.append(f"{gaps} rows have a missing cell: left out, as asked")
    return Target(target.name, target.classes, target.values[full], target.rows[full], target.why)


def _ordered(whole: Columns, name: str, target: Target) -> Host:
    values = whole.values[name]
    if kind_of(values) == "text":
        raise DataError(f"{whole.name}: column {name!r} holds text, and an order needs dates or numbers")
    found = values[target.rows]
    if gaps_of(found).any():
        raise DataError(
            f"{whole.name}: column {name!r} has missing cells, so that the order of these rows is not known"
        )
    return found


def _brief(left_out: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The columns left out, many of one reason in one line."""
    by: dict[str, list[str]] = {}
    for name, why in left_out:
        by.setdefault(why.partition(" (")[0], []).append(name)
    found = []
    for why, names in by.items():
        more = f" and {len(names) - SHOWN} more" * (len(names) > SHOWN)
        found.append((", ".join(names[:SHOWN]) + more, why))
    return found


def _tensor(host: Host) -> Tensor:
    tensor: Tensor = Tensor._wrap(asarray(np.ascontiguousarray(host), device=default_device()))
    return tensor

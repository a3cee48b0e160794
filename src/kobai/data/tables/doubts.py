"""What is doubtful about a table: classes that are rare, rows in two parts, columns that give the target away."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kobai.data.tables.kinds import useless
from kobai.data.tables.needs import pandas
from kobai.data.tables.preparation import Preparation
from kobai.data.tables.reading import Columns
from kobai.data.tables.target import Target
from kobai.data.tables.values import Host, kind_of, missing

RARE = 10
"""A class of fewer training rows is hardly learnt."""

UNEVEN = 10
"""The most frequent class has so many times the rows of the rarest."""

FEW_ROWS = 30
"""Of fewer rows, a column that goes with the target may do so by chance."""

SAMPLE = 1000
"""Of very many rows, the first tell whether to look at all."""

EXACTLY = 0.9999
"""The correlation of a number with the target from which on it is the target, in other units."""


class Doubt(UserWarning):
    """What is doubtful about a table; told to who trains on it, and not again to who uses what was trained."""


def doubts(table: Columns, target: Target, parts: tuple[Host, Host, Host], prepared: Preparation) -> list[str]:
    """Warnings about the rows and the columns that are used."""
    found = [*_classes(target, parts[0])]
    if not target.classes and (why := useless(target.name, table.values[target.name])):
        found.append(
            f"column {target.name!r} is the target, and {why}: a model can hardly know that; is it another column?"
        )
    if (again := _twice(table, target, parts, prepared)) > 0:
        n = len(parts[2])
        found.append(
            f"{again} of the {n} test rows {'is' if again == 1 else 'are'} in the training rows too, in all columns: the test "
            "says less about new rows; remove duplicates, or part by --group if rows belong together"
        )
    for name in (column.name for column in prepared.columns):
        if _gives_away(table.values[name][target.rows], target):
            found.append(
                f"column {name!r} determines the target {target.name!r}: if it is not known beforehand, leave it out "
                f"(--ignore '{name}')"
            )
    return found


def _classes(target: Target, training: Host) -> list[str]:
    if not target.classes:
        return []
    counts = np.bincount(target.values[training], minlength=len(target.classes))
    found = [
        f"{text!r} in column {target.name!r} is taken for a class; if it means that there is none, remove its rows"
        for text in target.doubtful
    ]
    rarest, most = int(counts.argmin()), int(counts.argmax())
    if counts[rarest] < RARE and len(training) >= 5 * RARE:
        which = [target.classes[i] for i in np.flatnonzero(counts < RARE)]
        few = ", ".join(which[:3]) + f" and {len(which) - 3} more" * (len(which) > 3)
        found.append(f"few training rows of {few} (least {counts[rarest]}): hardly to be learnt")
    elif counts[most] >= UNEVEN * counts[rarest]:
        share = 100 * counts[most] / counts.sum()
        found.append(
            f"classes are uneven: {share:.0f} % of the rows are {target.classes[most]}, so always saying so is right as often; "
            "look at the balanced accuracy, and try --class-weight balanced"
        )
    return found


def _twice(table: Columns, target: Target, parts: tuple[Host, Host, Host], prepared: Preparation) -> int:
    """How many test rows are among the training rows too, in every column but those that number the rows."""
    pd = pandas()
    counting = {name for name, why in prepared.left_out if why.startswith("it numbers")}
    hashes = np.zeros(len(target.rows), dtype=np.uint64)
    for name in table.values.keys() - counting:
        cells = table.values[name][target.rows]
        cells = np.where(missing(cells), "", cells) if cells.dtype == object else cells
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + pd.util.hash_array(cells)
    return int(np.isin(hashes[parts[2]], hashes[parts[0]]).sum())


def _gives_away(values: Host, target: Target) -> bool:
    """Whether the target can be read off one column."""
    there = ~missing(values)
    x, t = values[there], target.values[there]
    if len(x) < FEW_ROWS or len(x) < len(values) / 2:
        return False
    if len(x) > 2 * SAMPLE and not _gives_away(values[:SAMPLE], replace(target, values=target.values[:SAMPLE])):
        return False
    if kind_of(values) == "text":
        _, x = np.unique(x.astype(str), return_inverse=True)
        if not target.classes or x.max() > len(x) / 10 or x.max() == 0:
            return False
        pairs = np.unique(np.stack([x, t]), axis=1).shape[1]
        return pairs == x.max() + 1 and len(np.unique(t)) > 1
    x = x.astype("datetime64[s]").astype(np.float64) if kind_of(values) == "date" else x
    if not target.classes:
        spread = x.std() * t.std()
        return bool(spread > 0 and abs(((x - x.mean()) * (t - t.mean())).mean() / spread) > EXACTLY)
    ordered = t[np.lexsort((t, x))]
    runs = 1 + int(np.count_nonzero(np.diff(ordered)))
    return runs == len(np.unique(t)) and runs > 1

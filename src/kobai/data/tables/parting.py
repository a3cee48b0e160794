"""Training, validation and test rows: drawn, by groups, or by time."""

from __future__ import annotations

import numpy as np

from kobai.data.splits import TEST_SEED, stratified
from kobai.data.tables.target import Target
from kobai.data.tables.values import Host
from kobai.errors import DataError


def part(
    target: Target,
    who: str,
    test: float,
    validation: float,
    seed: int,
    groups: Host | None = None,
    order: Host | None = None,
) -> tuple[Host, Host, Host]:
    """Places of the training, the validation and the test rows among those of the target.

    Classes keep their proportions. All rows of a group are in one part; with an ``order`` the test rows are the last ones,
    and the validation rows those before them.
    """
    n = len(target.values)
    if order is not None:
        places = np.argsort(order, kind="stable")
        held, tested = _count(n, validation, who), _count(n, test, who)
        if held + tested >= n:
            raise DataError(f"{who}: {n} rows are too few to set {held + tested} of them apart")
        return (
            np.sort(places[: n - tested - held]),
            np.sort(places[n - tested - held : n - tested]),
            np.sort(places[n - tested :]),
        )
    rest, tested_rows = _two(target, np.arange(n), test, TEST_SEED, f"{who}: test", groups)
    kept, held_rows = _two(target, rest, validation, seed, f"{who}: validation", groups)
    return kept, held_rows, tested_rows


def _two(target: Target, rows: Host, share: float, seed: int, who: str, groups: Host | None) -> tuple[Host, Host]:
    if groups is not None:
        names = np.unique(groups[rows])
        if len(names) < 3:
            raise DataError(f"{who}: {len(names)} groups are too few to set one apart")
        kept, held = stratified(np.zeros(len(names), dtype=np.int64), max(share, 1 / len(names)), seed, who)
        apart = np.isin(groups[rows], names[held])
        return rows[~apart], rows[apart]
    labels = target.values[rows] if target.classes else np.zeros(len(rows), dtype=np.int64)
    kept, held = stratified(labels, share, seed, who)
    return rows[kept], rows[held]


def _count(n: int, share: float, who: str) -> int:
    if not isinstance(share, (int, float)) or not 0 < share < 1:
        raise ValueError(f"{who}: expected a fraction between 0 and 1, got {share!r}")
    return max(1, round(share * n))

"""The history of a training: a list of records, one for each epoch, which a notebook shows as curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kobai.core.markup import Markup

NOT_MEASURED = ("epoch", "lr", "time")
"""What is in a record beside loss and metrics."""


class Records(list[dict[str, Any]]):
    """A list with a dict for each epoch: ``epoch``, ``loss``, the metrics, ``val_…`` of both, ``lr``, ``time``.

    >>> Records([{"epoch": 1, "loss": 2.0, "lr": 0.1, "time": 0.5}])
    [{'epoch': 1, 'loss': 2.0, 'lr': 0.1, 'time': 0.5}]
    """

    def _repr_html_(self) -> str:
        from kobai.core.notebook import frame

        return frame(*shown(self))


def shown(records: Sequence[Mapping[str, Any]]) -> list[Markup]:
    """A chart of the loss and of each metric, and the values of the last epoch."""
    from kobai.core.markup import tag
    from kobai.core.notebook import curves, table

    if not records:
        return [tag("span", "no epoch yet", class_="quiet")]
    known = list(dict.fromkeys(name for record in records for name in record))
    names = [name for name in known if name not in NOT_MEASURED]
    charts: list[Markup] = []
    for name in (name for name in names if not name.startswith("val_")):
        both = {"training": name, "validation": f"val_{name}"}
        lines = {label: _line(records, key) for label, key in both.items() if key in names}
        if len(records) > 1:
            charts.append(curves(lines, name))
    last = records[-1]
    cells = [f"{last[name]:.4g}" if isinstance(last.get(name), (int, float)) else "–" for name in known]
    return [*charts, table(known, [cells], range(len(known)))]


def _line(records: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    values = [record.get(key) for record in records]
    return [record["epoch"] for record in records], [float("nan") if v is None else v for v in values]

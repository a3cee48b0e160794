"""The report on a comparison."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from kobai.errors import DataError
from kobai.lab import charts, plots
from kobai.lab.charts import Line
from kobai.lab.compare_figure import appearances
from kobai.lab.comparison import Comparison, Condition, Plan
from kobai.lab.markup import facts, table, tag
from kobai.lab.page import Page, environment, figure
from kobai.lab.running import Run
from kobai.train.settings import Settings

COMPARISON, LINES_SHOWN = "results.json", 8
"""The file that makes a folder a comparison's; conditions that a chart draws in colours, the best ones."""

_SHADES = {
    plots.BLUE: "blue",
    plots.VERMILION: "vermilion",
    plots.GREEN: "green",
    plots.PURPLE: "purple",
    plots.ORANGE: "orange",
    plots.SKY: "sky",
    plots.GREY: "grey",
    plots.YELLOW: "yellow",
    plots.BLACK: "black",
}
"""The page's own names of the lab's colours: it has a second shade of each, for the dark."""


def is_comparison(source: Path) -> bool:
    """Whether ``source`` is the folder of a comparison that has ended, or its file of results."""
    path = source / COMPARISON if source.is_dir() else source
    if path.name != COMPARISON or not path.is_file():
        return False
    return "ranking" in _json(path, "comparison")


def comparison(source: Path) -> Page:
    """The page on a comparison: who won, the curves, the ranking, how it was done."""
    path = source / COMPARISON if source.is_dir() else source
    content = _json(path, "comparison")
    try:
        return _comparison(content)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise DataError(f"{path}: is not the whole result of a comparison ({type(error).__name__}: {error})") from error


def _comparison(content: dict[str, Any]) -> Page:
    ranking, conditions = content["ranking"], content["conditions"]
    by_name = {condition["name"]: condition for condition in conditions}
    names = [place["name"] for place in ranking]
    best, last = ranking[0], ranking[-1]
    seeds = content["seeds"]
    page = Page(
        "Comparison",
        " × ".join(name.replace("_", " ") for name in content["vary"])
        + f" on {Path(content['settings']['data']).name}",
        lead=_verdict(ranking, len(seeds)),
        sub=f"{len(ranking)} conditions × {len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}, equal in all else",
        tiles=[
            (_percent(best["accuracy"]), f"validation accuracy of the best: {_named(best['name'])}"),
            (_percent(last["accuracy"]), f"of the last: {_named(last['name'])}"),
            (str(len(ranking)), "conditions"),
            (str(len(seeds)), "seed each" if len(seeds) == 1 else "seeds each"),
        ],
    )
    looks = _appearances(content)
    drawn = []
    for what, title, axis, percent in (
        ("train_loss", "Training loss", "loss (cross-entropy)", False),
        ("held_accuracy", "Validation accuracy", "accuracy", True),
    ):
        series = [_line(by_name[name], what, looks[name]) for name in reversed(names[:LINES_SHOWN])]
        values = [v for line in series for v in line.y if v is not None and math.isfinite(v) and v > 0]
        drawn.append(
            figure(
                charts.lines(
                    series,
                    alt=f"{title} by epoch. {content.get('alt', '')}",
                    x_label="epoch",
                    y_label=axis,
                    log=what == "train_loss" and bool(values) and max(values) > 30 * min(values),
                    percent=percent,
                    legend=False,
                ),
                title,
                "mean over seeds, with a band from the least to the greatest" if len(seeds) > 1 else "",
            )
        )
    keys = charts.key([(_named(name), _line(by_name[name], "train_loss", looks[name])) for name in names[:LINES_SHOWN]])
    hidden = len(names) - LINES_SHOWN
    page.section(
        "Learning curves",
        tag("div", drawn, class_="two"),
        keys,
        tag("p", f"{hidden} more conditions are in the table only.", class_="how") if hidden > 0 else None,
    )
    several = any(place["spread"] is not None for place in ranking)
    header = [
        "",
        "condition",
        "accuracy",
        *(["± points over seeds"] * several),
        "best on the way",
        "loss",
        "training loss",
    ]
    header += ["epochs to 90 %", "seconds"]
    rows = []
    for place in ranking:
        left = " (left the finite numbers)" if place["diverged"] else ""
        row = [place["rank"], tag("span", _named(place["name"]), tag("b", left)), _percent(place["accuracy"])]
        row += ["–" if place["spread"] is None else f"{100 * place['spread']:.1f}"] if several else []
        row += [_percent(place["best"]), _short(place["loss"]), _short(place["train_loss"])]
        rows.append([*row, _short(place["reached"]), _short(place["seconds"])])
    page.section(
        "Ranking",
        tag(
            "p",
            "By validation accuracy at the end. “Epochs to 90 %” is how soon a condition passes 90 % of the best final "
            "accuracy. "
            "The test split was not looked at: what is chosen by it would look better than it is.",
            class_="how",
        ),
        table(header, rows, numeric=[0, *range(2, len(header))], caption="Conditions, the best first"),
        tag("p", "This command trains as the best condition was trained, and looks at the test split once:"),
        tag("pre", tag("code", content["command"]), class_="wrap"),
    )
    settings = {name: value for name, value in content["settings"].items() if value is not None}
    varied = [(name.replace("_", " "), ", ".join(map(_spelt, values))) for name, values in content["vary"].items()]
    page.section(
        "How it was done",
        tag("h3", "What was varied"),
        facts(varied),
        tag("h3", "What all had in common"),
        facts([(name.replace("_", " "), _spelt(value)) for name, value in settings.items()]),
        tag("h3", "Environment"),
        environment(
            [
                ("Computed by", f"kobai {content.get('kobai', 'unknown')}"),
                ("Backend", ", ".join(sorted({run["backend"] for c in conditions for run in c["runs"]})) or None),
                ("Seeds", ", ".join(map(str, seeds))),
            ]
        ),
        tag("p", "Processor, system and packages are those of the machine that wrote this report.", class_="how"),
    )
    return page


def _verdict(ranking: list[dict[str, Any]], seeds: int) -> str:
    """Who won and by how much, and whether that is more than chance."""
    best = ranking[0]
    told = f"{_named(best['name'])} is best, with {_percent(best['accuracy'])} on the validation split."
    if len(ranking) == 1:
        return told
    second = ranking[1]
    gap = best["accuracy"] - second["accuracy"] if None not in (best["accuracy"], second["accuracy"]) else 0.0
    told += f" Next is {_named(second['name'])}, {100 * gap:.1f} points behind."
    spreads = [place["spread"] for place in (best, second) if place["spread"] is not None]
    if seeds == 1:
        told += " With a single seed, small differences may be chance; --repeat shows."
    elif spreads and gap < max(spreads):
        told += f" That is less than the spread over {seeds} seeds: the two are not told apart."
    gone = sum(bool(place["diverged"]) for place in ranking)
    return told + (f" {gone} left the finite numbers." if gone else "")


def _line(condition: dict[str, Any], what: str, look: tuple[str, int]) -> Line:
    runs = condition["runs"]
    longest = max(runs, key=lambda run: len(run["epoch"]))["epoch"]
    points = [[run[what][i] for run in runs if i < len(run[what])] for i in range(len(longest))]
    finite = [[v for v in values if v is not None] for values in points]
    means = [sum(v) / len(v) if len(v) == len(p) and v else None for v, p in zip(finite, points, strict=True)]
    band = None
    if len(runs) > 1:
        band = [min(v, default=None) for v in finite], [max(v, default=None) for v in finite]
    return Line(_named(condition["name"]), longest, means, *look, band=band)


def _appearances(content: dict[str, Any]) -> dict[str, tuple[str, int]]:
    """(colour, form) of each condition, as in the comparison's own figure."""
    conditions = tuple(
        Condition(c["name"], Settings.from_dict(c["settings"]), tuple(Run.from_dict(run) for run in c["runs"]))
        for c in content["conditions"]
    )
    looks = appearances(Comparison(Plan(conditions[0].settings, content["vary"], content["repeat"]), conditions))
    forms = [*plots.MARKERS]
    return {
        name: (_SHADES.get(look["color"], "grey"), forms.index(look["marker"]) if look["marker"] in forms else i)
        for i, (name, look) in enumerate(looks.items())
    }


def _named(name: str) -> str:
    return ", ".join(plots.title(part) for part in name.split(", "))


def _spelt(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _short(value: float | None) -> str:
    return "–" if value is None else charts.number(float(f"{value:.3g}"))


def _json(path: Path, what: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as the result of a {what} ({error})") from error
    return content if isinstance(content, dict) else {}

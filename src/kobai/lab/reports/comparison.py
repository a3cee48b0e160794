"""The report on a comparison."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from kobai.lab import plots
from kobai.lab.reports import charts
from kobai.lab.reports.axes import around, rounded, score, wide
from kobai.lab.reports.charts import Line
from kobai.lab.reports.markup import Markup, code, facts, table, tag
from kobai.lab.reports.page import Page, Source, common, environment, figure, how, more, of_json, told
from kobai.lab.sweep.compare_figure import SHOWN, appearances, summary
from kobai.lab.sweep.values import spelt
from kobai.train.progress import duration
from kobai.train.settings import RunSettings

SOURCE = Source("results.json", "ranking", "comparison.json", "comparison", "run", "kobai compare")

ROWS = 20
"""Places of the ranking that are not folded away."""

_COLOURS = ("blue", "vermilion", "green", "purple", "orange", "sky", "grey", "yellow", "black")
_SHADES = {getattr(plots, name.upper()): name for name in _COLOURS}
"""The page's names of the lab's colours; it has a second shade of each for dark mode."""


def page(source: Path) -> Page:
    """The page on a comparison: who won, the curves, the ranking, how it was done."""
    with SOURCE.results(source) as content:
        return _page(content)


def _page(content: dict[str, Any]) -> Page:
    ranking, conditions = content["ranking"], content["conditions"]
    best, last = ranking[0], ranking[-1]
    seeds, left = content["seeds"], content["left"]
    n, runs = len(ranking), [run for condition in conditions for run in condition["runs"]]
    measure = _measure(content)
    unfinished = f"{len(runs)} of {len(runs) + left} runs are done; kobai compare --resume goes on with it. So far: "
    page = Page(
        "Comparison",
        f"{' × '.join(map(told, content['vary']))} on {Path(content['settings']['data']).name}",
        lead=unfinished * bool(left) + _verdict(ranking, best["runs"], measure),
        sub=f"{n} {'condition' if n == 1 else 'conditions'} × {len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}, equal "
        "in all else",
        tiles=[
            (score(best["accuracy"], measure), f"validation {measure} of the best: {_named(best['name'])}"),
            *[(score(last["accuracy"], measure), f"of the last: {_named(last['name'])}")] * (n > 1),
            (str(n), "condition" if n == 1 else "conditions"),
            (str(len(seeds)), "seed each" if len(seeds) == 1 else "seeds each"),
            (duration(sum(run["seconds"] for run in runs)), "of training, all runs together"),
        ],
    )
    page.section("Learning curves", *_curves(content))
    page.section("Ranking", *_ranking(content))
    varied = {name: " | ".join(spelt(of_json(value)) for value in values) for name, values in content["vary"].items()}
    computed = [
        ("Computed by", f"kobai {content.get('kobai', 'unknown')}"),
        ("Backend", ", ".join(sorted({run["backend"] for run in runs})) or None),
        ("Seeds", ", ".join(map(str, seeds))),
    ]
    page.section(
        "How it was done",
        tag("h3", "What was varied"),
        facts((told(name), values) for name, values in varied.items()),
        *common(content["settings"], varied),
        tag("h3", "Environment"),
        environment(computed),
    )
    return page


def _measure(content: dict[str, Any]) -> str:
    """What the conditions are ranked by; results of earlier versions do not say it."""
    return str(content.get("measure", "accuracy"))


def _curves(content: dict[str, Any]) -> list[Any]:
    by_name = {condition["name"]: condition for condition in content["conditions"]}
    names = [place["name"] for place in content["ranking"]]
    shown, looks = names[:SHOWN], _appearances(content)
    drawn, measure = [], _measure(content)
    shares = measure == "accuracy"
    for what, title, axis in (
        ("train_loss", "Training loss", "loss (cross-entropy)" if shares else "loss (squared error)"),
        ("held_accuracy", f"Validation {measure}", measure),
    ):
        series = [_line(by_name[name], what, looks[name]) for name in reversed(shown)]
        values = [v for line in series for v in line.y if v is not None and math.isfinite(v) and v > 0]
        drawing = charts.lines(
            series,
            alt=f"{title} by epoch. {content.get('alt', '')}",
            x_label="epoch",
            y_label=axis,
            log=what == "train_loss" and wide(values),
            percent=shares and what == "held_accuracy",
            legend=False,
        )
        note = "mean over seeds, with a band from the least to the greatest" if len(content["seeds"]) > 1 else ""
        drawn.append(figure(drawing, title, note))
    keys = charts.names([_line(by_name[name], "train_loss", looks[name]) for name in shown])
    rest = len(names) - len(shown)
    left_out = how(f"The best {len(shown)}; {rest} more {'is' if rest == 1 else 'are'} in the table only.")
    return [tag("div", drawn, class_="two"), keys, left_out if rest else None]


def _ranking(content: dict[str, Any]) -> list[Any]:
    ranking, several, measure = content["ranking"], len(content["seeds"]) > 1, _measure(content)
    shares, goal = measure == "accuracy", score(content["goal"], measure)
    finals = {c["name"]: [run["held_accuracy"][-1] for run in c["runs"]] for c in content["conditions"]}
    scale = around([v for values in finals.values() for v in values])
    unequal = len({place["runs"] for place in ranking}) > 1

    def row(place: dict[str, Any]) -> list[tuple[str, Any]]:
        """Names of columns, and what stands in them."""
        left = tag("b", " (left the finite numbers)") if place["diverged"] else None
        return [
            ("", place["rank"]),
            ("condition", tag("span", _named(place["name"]), left, class_="name")),
            *[("runs", place["runs"])] * unequal,
            (measure, score(place["accuracy"], measure)),
            *[("± points" if shares else "±", _spread(place["spread"], shares))] * several,
            ("", charts.strip(finals[place["name"]], scale)),
            ("best on its way", score(place["best"], measure)),
            ("loss", rounded(place["loss"])),
            ("training loss", rounded(place["train_loss"])),
            (f"epochs to {goal}", "–" if place["reached"] is None else f"{place['reached']:.1f}"),
            ("time of a run", duration(place["seconds"])),
        ]

    def ranked(places: list[dict[str, Any]], caption: str) -> Markup:
        header = [name for name, _ in row(places[0])]
        numeric = [0, *(i for i, name in enumerate(header) if name not in ("", "condition"))]
        return table(header, [[cell for _, cell in row(place)] for place in places], numeric=numeric, caption=caption)

    dots = "each dot is a seed, the bar ends at their mean" if several else f"the bar is the {measure}"
    rest = ranking[ROWS:]
    parts = [
        how(
            f"By validation {measure} at the end; {dots}. “Epochs to {goal}” is how soon a condition passes 90 % of the best "
            f"final {measure}. The test split was not looked at: what is chosen by it would look better than "
            "it is."
        ),
        ranked(ranking[:ROWS], "Conditions, the best first" if not rest else f"The best {ROWS}"),
        more(f"The other {len(rest)}", ranked(rest, "The rest of the ranking")) if rest else None,
    ]
    if ranking[0]["diverged"]:
        return parts
    return [
        *parts,
        tag("p", "This command trains as the best condition was trained, and looks at the test split once:"),
        code(content["command"], wrap=True),
    ]


def _spread(value: float | None, shares: bool) -> str:
    """A standard deviation, of shares in points."""
    return "–" if value is None else f"{100 * value:.1f}" if shares else f"{value:.3f}"


def _verdict(ranking: list[dict[str, Any]], seeds: int, measure: str) -> str:
    """Who won and by how much, and whether that is more than chance."""
    best = ranking[0]
    if best["diverged"]:
        return "Every condition left the finite numbers: none of them trains. Try a smaller learning rate."
    what = "" if measure == "accuracy" else f"{measure} "
    text = f"{_named(best['name'])} is best, with {what}{score(best['accuracy'], measure)} on the validation split."
    if len(ranking) > 1:
        second = ranking[1]
        gap = best["accuracy"] - second["accuracy"]
        short = f"{100 * gap:.1f} points" if measure == "accuracy" else f"{gap:.3f}"
        behind = f"{short} behind" if gap else f"with the same {measure}"
        text += f" Next is {_named(second['name'])}, {behind}."
        spreads = [place["spread"] for place in (best, second) if place["spread"] is not None]
        if seeds == 1:
            text += " With a single seed, small differences may be chance; --repeat shows."
        elif spreads and gap < max(spreads):
            text += f" That is less than the spread over {seeds} seeds: the two are not told apart."
    gone = sum(bool(place["diverged"]) for place in ranking)
    return text + (f" {gone} left the finite numbers." if gone else "")


def _line(condition: dict[str, Any], what: str, look: tuple[str, int]) -> Line:
    runs = condition["runs"]
    longest = max(runs, key=lambda run: len(run["epoch"]))["epoch"]
    values = [[math.nan if v is None else v for v in run[what]] for run in runs]
    means, *band = summary([[v[i] for v in values if i < len(v)] for i in range(len(longest))])
    return Line(_named(condition["name"]), longest, means, *look, band=(band[0], band[1]) if len(runs) > 1 else None)


def _appearances(content: dict[str, Any]) -> dict[str, tuple[str, int]]:
    """(colour, form) of each condition, as in the comparison's own figure."""
    vary = {name: [of_json(value) for value in values] for name, values in content["vary"].items()}
    looks = appearances(vary, [(c["name"], RunSettings.from_dict(c["settings"])) for c in content["conditions"]])
    forms = {marker: i for i, marker in enumerate(plots.MARKERS)}
    return {
        name: (_SHADES.get(look["color"], "grey"), forms.get(look["marker"], i))
        for i, (name, look) in enumerate(looks.items())
    }


def _named(name: str) -> str:
    return ", ".join(plots.title(part) for part in name.split(", "))

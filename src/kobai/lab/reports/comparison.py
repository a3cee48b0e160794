"""The report on a comparison."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from kobai.core.checksum import read_json
from kobai.errors import DataError
from kobai.lab import plots
from kobai.lab.reports import charts
from kobai.lab.reports.axes import around, percent, rounded, wide
from kobai.lab.reports.charts import Line
from kobai.lab.reports.markup import Markup, facts, table, tag
from kobai.lab.reports.page import Page, common, environment, figure, how, more
from kobai.lab.sweep.compare_figure import SHOWN, appearances, summary
from kobai.lab.sweep.values import spelt
from kobai.train.progress import duration
from kobai.train.settings import Settings

COMPARISON, BEGUN = "results.json", "comparison.json"
"""The file that makes a folder a comparison's; the one that one has which is not at its end."""

ROWS = 20
"""Places of a ranking that are shown at once."""

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
    """Whether ``source`` is the folder of a comparison, or its file of results."""
    if source.is_dir():
        return (source / BEGUN).is_file() or is_comparison(source / COMPARISON)
    return source.name == COMPARISON and source.is_file() and "ranking" in read_json(source)


def page(source: Path) -> Page:
    """The page on a comparison: who won, the curves, the ranking, how it was done."""
    path = source / COMPARISON if source.is_dir() else source
    if not path.exists():
        raise DataError(
            f"{source}: no run of the comparison in it has come to its end; kobai compare --resume goes on with it"
        )
    content = read_json(path)
    try:
        return _page(content)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise DataError(f"{path}: is not the whole result of a comparison ({type(error).__name__}: {error})") from error


def _page(content: dict[str, Any]) -> Page:
    ranking, conditions = content["ranking"], content["conditions"]
    best, last = ranking[0], ranking[-1]
    seeds, left = content["seeds"], content["left"]
    n = len(ranking)
    page = Page(
        "Comparison",
        " × ".join(name.replace("_", " ") for name in content["vary"])
        + f" on {Path(content['settings']['data']).name}",
        lead=_unfinished(content) * bool(left) + _verdict(ranking, best["runs"]),
        sub=f"{n} {'condition' if n == 1 else 'conditions'} × {len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}, equal "
        "in all else",
        tiles=[
            (percent(best["accuracy"]), f"validation accuracy of the best: {_named(best['name'])}"),
            *[(percent(last["accuracy"]), f"of the last: {_named(last['name'])}")] * (n > 1),
            (str(n), "condition" if n == 1 else "conditions"),
            (str(len(seeds)), "seed each" if len(seeds) == 1 else "seeds each"),
            (duration(sum(run["seconds"] for c in conditions for run in c["runs"])), "of training, all runs together"),
        ],
    )
    page.section("Learning curves", *_curves(content))
    page.section("Ranking", *_ranking(content))
    page.section(
        "How it was done",
        tag("h3", "What was varied"),
        facts((name.replace("_", " "), " | ".join(map(_spelt, values))) for name, values in content["vary"].items()),
        *common(content["settings"], content["vary"]),
        tag("h3", "Environment"),
        environment(
            [
                ("Computed by", f"kobai {content.get('kobai', 'unknown')}"),
                ("Backend", ", ".join(sorted({run["backend"] for c in conditions for run in c["runs"]})) or None),
                ("Seeds", ", ".join(map(str, seeds))),
            ]
        ),
    )
    return page


def _unfinished(content: dict[str, Any]) -> str:
    done = sum(len(condition["runs"]) for condition in content["conditions"])
    return f"{done} of {done + content['left']} runs are done; kobai compare --resume goes on with it. So far: "


def _curves(content: dict[str, Any]) -> list[Any]:
    by_name = {condition["name"]: condition for condition in content["conditions"]}
    names = [place["name"] for place in content["ranking"]]
    shown, looks = names[:SHOWN], _appearances(content)
    drawn = []
    for what, title, axis in (
        ("train_loss", "Training loss", "loss (cross-entropy)"),
        ("held_accuracy", "Validation accuracy", "accuracy"),
    ):
        series = [_line(by_name[name], what, looks[name]) for name in reversed(shown)]
        values = [v for line in series for v in line.y if v is not None and math.isfinite(v) and v > 0]
        drawing = charts.lines(
            series,
            alt=f"{title} by epoch. {content.get('alt', '')}",
            x_label="epoch",
            y_label=axis,
            log=what == "train_loss" and wide(values),
            percent=what == "held_accuracy",
            legend=False,
        )
        note = "mean over seeds, with a band from the least to the greatest" if len(content["seeds"]) > 1 else ""
        drawn.append(figure(drawing, title, note))
    keys = charts.key([(_named(name), _line(by_name[name], "train_loss", looks[name])) for name in shown])
    rest = len(names) - len(shown)
    left_out = how(f"The best {len(shown)}; {rest} more {'is' if rest == 1 else 'are'} in the table only.")
    return [tag("div", drawn, class_="two"), keys, left_out if rest else None]


def _ranking(content: dict[str, Any]) -> list[Any]:
    ranking, several = content["ranking"], len(content["seeds"]) > 1
    finals = {c["name"]: [run["held_accuracy"][-1] for run in c["runs"]] for c in content["conditions"]}
    scale = around([v for values in finals.values() for v in values])
    columns: dict[str, str] = {"condition": "condition"}
    columns |= {"runs": "runs"} if len({place["runs"] for place in ranking}) > 1 else {}
    columns |= {"accuracy": "accuracy"}
    columns |= {"spread": "± points"} if several else {}
    columns |= {"strip": ""}
    columns |= {
        "best": "best on its way",
        "loss": "loss",
        "train_loss": "training loss",
        "reached": f"epochs to {percent(content['goal'])}",
        "seconds": "time of a run",
    }

    def row(place: dict[str, Any]) -> list[Any]:
        left = tag("b", " (left the finite numbers)") if place["diverged"] else None
        cells = {
            "condition": tag("span", _named(place["name"]), left, class_="name"),
            "runs": place["runs"],
            "strip": charts.strip(finals[place["name"]], scale),
            "accuracy": percent(place["accuracy"]),
            "spread": "–" if place["spread"] is None else f"{100 * place['spread']:.1f}",
            "best": percent(place["best"]),
            "loss": rounded(place["loss"]),
            "train_loss": rounded(place["train_loss"]),
            "reached": "–" if place["reached"] is None else f"{place['reached']:.1f}",
            "seconds": duration(place["seconds"]),
        }
        return [place["rank"], *(cells[name] for name in columns)]

    def ranked(places: list[dict[str, Any]], caption: str) -> Markup:
        numeric = [0, *(i for i, name in enumerate(columns, 1) if name not in ("condition", "strip"))]
        return table(["", *columns.values()], map(row, places), numeric=numeric, caption=caption)

    dots = "each dot is a seed, the bar ends at their mean" if several else "the bar is the accuracy"
    rest = ranking[ROWS:]
    parts = [
        how(
            f"By validation accuracy at the end; {dots}. “Epochs to {percent(content['goal'])}” is how soon a condition passes "
            "90 % of the best final accuracy. The test split was not looked at: what is chosen by it would look better than "
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
        tag("pre", tag("code", content["command"]), class_="wrap"),
    ]


def _verdict(ranking: list[dict[str, Any]], seeds: int) -> str:
    """Who won and by how much, and whether that is more than chance."""
    best = ranking[0]
    if best["diverged"]:
        return "Every condition left the finite numbers: none of them trains. Try a smaller learning rate."
    told = f"{_named(best['name'])} is best, with {percent(best['accuracy'])} on the validation split."
    if len(ranking) > 1:
        second = ranking[1]
        gap = best["accuracy"] - second["accuracy"]
        behind = f"{100 * gap:.1f} points behind" if gap else "with the same accuracy"
        told += f" Next is {_named(second['name'])}, {behind}."
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
    values = [[math.nan if v is None else v for v in run[what]] for run in runs]
    means, *band = summary([[v[i] for v in values if i < len(v)] for i in range(len(longest))])
    return Line(_named(condition["name"]), longest, means, *look, band=(band[0], band[1]) if len(runs) > 1 else None)


def _appearances(content: dict[str, Any]) -> dict[str, tuple[str, int]]:
    """(colour, form) of each condition, as in the comparison's own figure."""
    vary = {name: [_value(v) for v in values] for name, values in content["vary"].items()}
    looks = appearances(vary, [(c["name"], Settings.from_dict(c["settings"])) for c in content["conditions"]])
    forms = [*plots.MARKERS]
    return {
        name: (_SHADES.get(look["color"], "grey"), forms.index(look["marker"]) if look["marker"] in forms else i)
        for i, (name, look) in enumerate(looks.items())
    }


def _named(name: str) -> str:
    return ", ".join(plots.title(part) for part in name.split(", "))


def _value(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _spelt(value: Any) -> str:
    return spelt(_value(value))

"""The report on a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kobai.core.checksum import read_json
from kobai.lab.reports import search_charts
from kobai.lab.reports.axes import percent, rounded, whole_percent
from kobai.lab.reports.markup import Markup, code, facts, table, tag, wide
from kobai.lab.reports.page import Page, Source, common, environment, figure, how, more, of_json, told
from kobai.lab.sweep.tune_plan import METHODS, Trial, TunePlan, ranked
from kobai.lab.sweep.values import Range, spelt
from kobai.train.progress import duration

SOURCE = Source("search.json", "trials", "study.journal", "search", "trial", "kobai tune")

TEST = "test.json"
"""The file with the scores on the test split."""

ROWS = 10
"""Trials of the ranking that are not folded away."""

EDGE = 0.04
"""A best value this near to an end of its range, as a share of it, suggests better ones beyond."""


def page(source: Path) -> Page:
    """The page on a search: the best settings, its course, which settings mattered, how it was done."""
    test = (source if source.is_dir() else source.parent) / TEST
    tested = read_json(test) if test.exists() else None
    with SOURCE.results(source) as content:
        return _page(content, tested)


def _page(content: dict[str, Any], tested: dict[str, Any] | None) -> Page:
    plan = TunePlan.from_dict(content)
    trials = [Trial.from_dict(trial, plan) for trial in content["trials"]]
    ended = [t for t in trials if t.state in ("complete", "pruned")]
    pruned, gone = sum(t.state == "pruned" for t in ended), sum(t.diverged for t in ended)
    best = next((t for t in ranked(plan, trials) if not t.diverged), None)
    what = " × ".join(map(told, plan.space)) if len(plan.space) <= 4 else f"{len(plan.space)} settings"
    page = Page(
        "Search",
        f"{what} on {Path(plan.base.data).name}",
        lead=_verdict(plan, trials, best, content["importances"]),
        sub=f"{_method(plan)}, {len(ended)} {'trial' if len(ended) == 1 else 'trials'}, by {plan.score}",
    )
    if best is not None:
        page.tiles.append((_score(plan, best.value), f"{plan.score} of the best, trial {best.number}"))
        if tested is not None and _asked(plan, tested) == best.parameters:
            page.tiles.append(
                (_of_test(tested), f"test {'accuracy' if 'accuracy' in tested else 'R²'}, looked at once")
            )
    page.tiles += [
        (str(len(ended)), "trials"),
        *[(str(pruned), "of them pruned: ended early")] * (pruned > 0),
        *[(str(gone), "of them left the finite numbers")] * (gone > 0),
        (duration(sum(t.seconds or 0.0 for t in ended)), "of training, all trials together"),
    ]
    if best is not None:
        page.section("The best settings", *_chosen(plan, best, content["command"], tested))
    page.section("How the search went", *_course(plan, trials))
    if best is not None:
        page.section("What the settings did", *_settings(plan, trials, content["importances"], len(ended)))
    page.section("The trials", *_trials(plan, trials, best))
    page.section("How it was done", *_how(plan, content, ended))
    return page


# --- sections -----------------------------------------------------------------------------------------------------------


def _verdict(plan: TunePlan, trials: Sequence[Trial], best: Trial | None, shares: dict[str, float]) -> str:
    """What is best, and how sure that is."""
    if best is None:
        if any(t.diverged for t in trials):
            return "Every trial that came to its end left the finite numbers. Search smaller learning rates."
        return "No trial has come to its end yet."
    text = (
        f"Trial {best.number} is best, with a {plan.score} of {_score(plan, best.value)}: {_listed(best.parameters)}."
    )
    equal = [t for t in trials if t.state == "complete" and not t.diverged and t.value == best.value and t is not best]
    if equal:
        others = "another trial scores" if len(equal) == 1 else f"{len(equal)} other trials score"
        text += f" As well {others}; it has the least validation loss of them."
    if shares:
        name, part = max(shares.items(), key=lambda pair: pair[1])
        text += f" What mattered most is {told(name)} ({whole_percent(part)})."
    return text


def _chosen(plan: TunePlan, best: Trial, command: str, tested: dict[str, Any] | None) -> list[Any]:
    parts: list[Any] = [facts((told(name), _value(value)) for name, value in best.parameters.items())]
    for name, what in plan.space.items():
        if isinstance(what, Range):
            at = plan.axis(name).share(plan.place(name, best.parameters[name]))
            if at < EDGE or at > 1 - EDGE:
                end = "lower" if at < EDGE else "upper"
                said = f"{told(name)} is at the {end} end of what was searched, {_range(what)}; "
                parts.append(tag("p", tag("b", "At the edge. "), said, "better values may lie beyond."))
    if tested is None:
        said = (
            "The best of many scores is in part good luck, so this one is a little too good. The test split has not been "
            "looked at; kobai tune --resume FOLDER --test does so, once."
        )
        parts.append(how(said))
    else:
        said = f"Trained with these settings once more, the model scores {_of_test(tested)} on the test split"
        if (asked := _asked(plan, tested)) != best.parameters:
            said = (
                "The search has gone on since the test split was looked at. With the settings that were best then, "
                f"{_listed(asked)}, it gave {_of_test(tested)}"
            )
        parts.append(tag("p", f"{said} (loss {rounded(tested['loss'])}). No trial saw it, and it was looked at once."))
    return [*parts, tag("p", "This command trains with them:"), code(command, wrap=True)]


def _course(plan: TunePlan, trials: Sequence[Trial]) -> list[Any]:
    best = next((t for t in ranked(plan, trials) if not t.diverged), None)
    said = f" Trial {best.number} has the best, {_score(plan, best.value)}." if best is not None else ""
    history = search_charts.history(plan, trials, alt=f"The {plan.score} of each trial, and the best so far.{said}")
    curves = search_charts.curves(plan, trials, alt=f"The {plan.score} of each trial along its training.{said}")
    pruned = "; pruned trials where they ended" if plan.prune else ""
    drawn = [
        figure(history, "Score by trial", f"the line is the best so far{pruned}"),
        figure(curves, "Learning curves", f"{plan.measures} measurements along each trial"),
    ]
    return [search_charts.kinds(plan), tag("div", drawn, class_="two")]


def _settings(plan: TunePlan, trials: Sequence[Trial], shares: dict[str, float], ended: int) -> list[Any]:
    parts: list[Any] = []
    if shares:
        listed = ", ".join(f"{told(name)} {whole_percent(part)}" for name, part in shares.items())
        drawing = search_charts.importance(shares, alt=f"Importance of each setting: {listed}.")
        note = "share in what sets the best tenth of the trials apart"
        parts.append(figure(drawing, "Importance", note, "single"))
    elif len(plan.space) > 1:
        parts.append(how(f"Importances need ten trials that differ in their score; there are {ended}."))
    alts = {name: f"{plan.score} of the complete trials by {told(name)}." for name in plan.space}
    drawn = [figure(search_charts.slices(plan, trials, name, alt=alt)) for name, alt in alts.items()]
    below = "; strokes at the foot are pruned trials" if any(t.state == "pruned" for t in trials) else ""
    return [*parts, tag("h3", "Score by setting"), how(f"Complete trials{below}."), tag("div", drawn, class_="three")]


def _trials(plan: TunePlan, trials: Sequence[Trial], best: Trial | None) -> list[Any]:
    complete = ranked(plan, trials)
    rest = [*complete[ROWS:], *(t for t in trials if t.state != "complete")]
    parts: list[Any] = []
    if best is not None and len(plan.space) > 1:
        said = f"Each complete trial as a line through its settings to its {plan.score}."
        drawing = search_charts.parallel(plan, trials, alt=f"{said} The best: {_listed(best.parameters)}.")
        # A drawing with many axes is not made smaller than can be read; its box scrolls.
        room = tag("div", drawing, style=f"min-width:{max(600, 110 * len(plan.space))}px")
        note = "a line for each trial, from setting to setting to its score; the stronger, the better its rank"
        parts.append(figure(wide(room, "All trials at once"), "All at once", note))
    if complete:
        parts.append(_table(plan, complete[:ROWS], "The best trials" if len(complete) > 1 else "The complete trial"))
    if rest:
        parts.append(more(f"The other {len(rest)}", _table(plan, rest, "The rest of the trials")))
    return parts


def _how(plan: TunePlan, content: dict[str, Any], ended: Sequence[Trial]) -> list[Any]:
    spaces = [
        (told(name), _range(what) if isinstance(what, Range) else " | ".join(map(spelt, what)))
        for name, what in plan.space.items()
    ]
    pruning = (
        "by successive halving: after a ninth and a third of its training a trial goes on if it is among the best third, or as "
        "good already as the best one is in the end"
        if plan.prune
        else "none"
    )
    computed = [
        ("Computed by", f"kobai {content.get('kobai', 'unknown')}"),
        ("Backend", ", ".join(sorted({t.backend for t in ended if t.backend})) or None),
        ("Seed", str(plan.base.seed)),
    ]
    return [
        tag("h3", "What was searched"),
        facts(spaces),
        tag("h3", "How"),
        facts([("Sampler", _method(plan)), ("Judged by", plan.score), ("Pruning", pruning)]),
        how("No trial saw the test split."),
        *common(content["settings"], plan.space),
        tag("h3", "Environment"),
        environment(computed),
    ]


# --- small things -------------------------------------------------------------------------------------------------------


def _table(plan: TunePlan, trials: Sequence[Trial], caption: str) -> Markup:
    rows = []
    for t in trials:
        values = [_value(t.parameters[name]) if name in t.parameters else "–" for name in plan.space]
        state, took = "diverged" if t.diverged else t.state, "–" if t.seconds is None else duration(t.seconds)
        loss = [rounded(t.loss)] * plan.greatest
        rows.append([t.number, _score(plan, None if t.diverged else t.value), *loss, *values, state, took])
    scores = [plan.score, *["validation loss"] * plan.greatest]
    header = ["trial", *scores, *map(told, plan.space), "state", "time"]
    ranges = [i for i, what in enumerate(plan.space.values(), 1 + len(scores)) if isinstance(what, Range)]
    return table(header, rows, numeric=[*range(1 + len(scores)), *ranges, len(header) - 1], caption=caption)


def _method(plan: TunePlan) -> str:
    return METHODS[plan.method] + (f" of {len(plan.grid())}" if plan.method == "grid" else "")


def _asked(plan: TunePlan, tested: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with which the test split was looked at."""
    return plan.values({name: of_json(value) for name, value in tested["parameters"].items()})


def _listed(parameters: Mapping[str, Any]) -> str:
    return ", ".join(f"{told(name)} {_value(value)}" for name, value in parameters.items())


def _range(what: Range) -> str:
    return f"{spelt(what.low)} to {spelt(what.high)}{', logarithmic' if what.log else ''}"


def _score(plan: TunePlan, value: float | None) -> str:
    return percent(value) if plan.greatest else rounded(value)


def _value(value: Any) -> str:
    return rounded(value) if isinstance(value, float) else spelt(value)


def _of_test(tested: dict[str, Any]) -> str:
    """The accuracy on the test split, or the R² of a regression."""
    return percent(tested["accuracy"]) if "accuracy" in tested else f"R² {tested['r2']:.3f}"

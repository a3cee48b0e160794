"""What the lab's results look like in a notebook: diagnoses, treatments, comparisons, searches, experiments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kobai.core.markup import Markup, tag
from kobai.core.notebook import COLOURS, curves, frame, swatch, table

ROWS = 20
"""Lines of a table of trials or conditions at most; the best come first."""


def diagnosis(found: Any) -> str:
    """Verdict; for each finding where, evidence, cause and cure; what was right."""
    kind = "good" if found.healthy else "error" if found.errors else "warning"
    title = tag("p", tag("b", f"{found.model}: ", tag("span", found.verdict, class_=kind)))
    notes = [tag("p", note, class_="quiet") for note in found.notes]
    right = _folded("examined and found right", tag("ul", [tag("li", what) for what in found.examined]))
    return frame(title, [_finding(finding) for finding in found.findings], right if found.examined else None, notes)


def _finding(finding: Any) -> Markup:
    after = tag("span", f" (follows from: {finding.follows})", class_="quiet") if finding.follows else None
    heading = tag("b", tag("span", finding.severity, class_=finding.severity), f" {finding.title}", after)
    rows = [(tag("span", name, class_="quiet"), text) for name, text in finding.rows()]
    cure = tag("pre", finding.cure.code) if finding.follows is None and finding.cure.code else None
    return tag("div", heading, table((), rows), cure)


def treatment(done: Any) -> str:
    """The losses of the sick and the cured net, and the cures."""
    if not done.cured:
        return frame(tag("pre", str(done)))
    lines = {
        "before": (range(1, len(done.before) + 1), done.before),
        "after": (range(1, len(done.after) + 1), done.after),
    }
    rows = [
        ("before", f"{done.before[0]:.4g}", f"{done.loss_before:.4g}"),
        (tag("b", "after"), f"{done.after[0]:.4g}", f"{done.loss_after:.4g}"),
    ]
    cures = [(tag("p", tag("b", f"cure against {f.title}")), tag("pre", f.cure.code)) for f in done.cured]
    vain = [tag("p", f"tried in vain: the cure against {f.title}", class_="quiet") for f, _ in done.failed]
    losses = table(("", "first loss", f"after {len(done.after)} steps"), rows, [1, 2])
    return frame(curves(lines, "loss", "step"), losses, cures, vain)


def comparison(found: Any, columns: Mapping[str, str], cells: Callable[..., list[str]]) -> str:
    """Curves of the best conditions, and the ranking."""
    places = found.ranking()
    best = [next(c for c in found.conditions if c.name == place.name) for place in places[:COLOURS]]
    charts = []
    for what, title in (("train_loss", "training loss"), ("held_accuracy", f"validation {found.measure}")):
        lines = {c.name: (c.epochs, [sum(v) / len(v) for v in c.curve(what)]) for c in best}
        charts.append(curves(lines, title, width=440, legend=False))
    rows = [((swatch(i), f" {p.rank}"), p.name, *cells(p, columns)) for i, p in enumerate(places[:ROWS])]
    shown = table(("", "condition", *columns.values()), rows, range(2, 2 + len(columns)), best=0)
    return frame(charts, shown, _left_out(len(places)), tag("pre", found.command()))


def search(found: Any) -> str:
    """The best trial so far, trial by trial, and the ranking."""
    ended = [trial for trial in found.complete if trial.value is not None]
    title = tag("p", tag("b", repr(found)))
    if not ended or found.best is None:
        return frame(title)
    pick = max if found.best.value == max(t.value for t in ended if t.value is not None) else min
    values = [trial.value for trial in ended if trial.value is not None]
    record = [pick(values[: i + 1]) for i in range(len(values))]
    numbers = [trial.number for trial in ended]
    chart = curves({"trial": (numbers, values), "best so far": (numbers, record)}, found.plan.by, "trial", width=440)
    names = list(found.best.parameters)
    rows = [
        (t.number, f"{t.value:.4f}", *(str(t.parameters.get(n, "–")) for n in names)) for t in found.ranking()[:ROWS]
    ]
    shown = table(("trial", found.plan.by, *names), rows, [0, 1], best=0)
    return frame(title, chart, shown, _left_out(len(ended)), tag("pre", found.command()))


def experiment(result: Any) -> str:
    """What was found, and whether that is the claim."""
    passed = (
        tag("span", "shows the claim", class_="good")
        if result.passed
        else tag("span", "does not show it", class_="error")
    )
    settings = ", ".join(f"{name} {value}" for name, value in result.settings.items())
    files = [tag("li", path.name) for path in result.files]
    return frame(
        tag("p", tag("b", f"{result.name}: ", passed)),
        tag("p", result.finding),
        tag("p", settings, class_="quiet"),
        _folded("files", tag("ul", files)) if files else None,
    )


def _folded(title: str, content: Any) -> Markup:
    return tag("details", tag("summary", title), content)


def _left_out(n: int) -> Markup | None:
    return tag("p", f"… and {n - ROWS} more", class_="quiet") if n > ROWS else None

"""The report on a run of ``kobai train``: data, model, curves, activations, gradients, findings, environment."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from kobai.compat.versions import VERSION
from kobai.core.untrusted import from_json, regular
from kobai.errors import CheckpointError, DataError
from kobai.lab.plain import plain
from kobai.lab.reports import charts, depth
from kobai.lab.reports.axes import percent, rounded
from kobai.lab.reports.charts import Line
from kobai.lab.reports.data import Asked, ask, data_section, mistakes, residuals
from kobai.lab.reports.markup import code, table, tag
from kobai.lab.reports.page import Page, environment, figure, how, more
from kobai.lab.training.from_settings import command
from kobai.train import checkpoint, job
from kobai.train.own_models import short
from kobai.train.progress import duration
from kobai.train.settings import to_toml
from kobai.xp import backend, default_device, to_host

Say = Callable[[str], None]
History = list[dict[str, Any]]

LONG = 14
"""A table of more layers than this is folded away."""

NAMES = {"mlp": "multilayer perceptron", "r2": "R²"}


def is_run(source: Path) -> bool:
    """Whether ``source`` is a checkpoint, or a folder with the files of a run."""
    return source.suffix == ".safetensors" if source.is_file() else job.holds_run(source)


def page(source: Path, data_dir: str | None, model: str | None, say: Say, tell: Say) -> Page:
    """The page on a run, with its data from ``data_dir`` if that is given; ``tell`` gets a line on what is reported."""
    restored = job.restore(source, say, model)
    tell(f"{restored.which}, with the train, validation and test splits of {restored.settings.data}")
    state = checkpoint.read(restored.path, default_device())
    history = _history(source, state, say)
    asked = ask(restored, data_dir, say)
    settings = restored.settings
    best = _record(history, restored.epoch)
    parameters = sum(p.numel() for p in restored.model.parameters())
    result = Page(
        "Training report",
        f"{Path(settings.data).name}: {NAMES.get(settings.model, short(settings.model))}",
        lead=story(history, restored.epoch, settings.epochs),
        sub=f"{job.describe_shape(settings, restored)} · {job.describe_training(settings)}",
    )
    if asked.test is not None:
        result.tiles += _tested(restored, asked)
    for key, what in (("val_accuracy", "validation accuracy"), ("accuracy", "training accuracy")):
        if best is not None and _known(best.get(key)):
            result.tiles.append((percent(best[key]), f"{what}, epoch {restored.epoch}"))
    for key, what in (("val_r2", "R² on the validation split"), ("r2", "R² in training")):
        if best is not None and _known(best.get(key)):
            result.tiles.append((f"{best[key]:.3f}", f"{what}, epoch {restored.epoch}"))
    result.tiles += [(f"{parameters:,}", "parameters"), (str(len(history)), f"of {settings.epochs} epochs done")]
    result.section("Data", *data_section(restored, asked))
    result.section("Model", *_model(restored, asked, parameters))
    if history:
        result.tiles.append((duration(sum(r.get("time") or 0.0 for r in history)), "of training"))
        result.section("Learning curves", *_curves(history, restored))
    if asked.batch is not None:
        seen = depth.look(restored, state, asked.batch)
        result.section("Activations through depth", *depth.activations(seen))
        result.section("Gradient flow", *depth.gradients(seen))
        result.section("Findings and cures", *depth.findings(restored, seen))
    if asked.answers is not None:
        result.section("Mistakes", *(mistakes if restored.classes else residuals)(restored, asked))
    result.section("Environment", *_environment(restored, state))
    return result


def _tested(restored: job.Restored, asked: Asked) -> list[tuple[str, str]]:
    """Tiles of the test split, beside what a net would reach that always says the same."""
    assert asked.test is not None
    assert asked.splits is not None
    of = f"of {asked.tested:,} samples kept apart"
    if not restored.classes:
        r2, mae = asked.test["r2"], asked.test["mae"]
        said = "no better than always saying the mean" if r2 <= 0 else "0 is always saying the mean, 1 is exact"
        return [(f"{r2:.3f}", f"test R², {of}; {said}"), (rounded(mae), f"mean error of {restored.label} there")]
    counts = np.bincount(to_host(asked.splits.test.tensors[1].array), minlength=len(restored.classes))
    chance = counts.max() / counts.sum()
    guess = f"always saying {restored.classes[int(counts.argmax())]} is right in {percent(chance)}"
    worse = "this net guesses; " * bool(asked.test["accuracy"] <= chance)
    return [(percent(asked.test["accuracy"]), f"test accuracy, {of}; {worse}{guess}")]


def story(history: History, best: int, planned: int) -> str:
    """A run's course in a few sentences, computed from its history.

    >>> story([{"epoch": 1, "loss": 2.0, "val_accuracy": 0.5}, {"epoch": 2, "loss": 1.0, "val_accuracy": 0.9}], 2, 2)
    'In 2 epochs the training loss fell from 2 to 1. Validation accuracy was best in epoch 2, with 90.0 %.'
    """
    losses = [(r["epoch"], r["loss"]) for r in history if _known(r.get("loss"))]
    if not losses:
        return "No epoch of this run has ended yet."
    (_, first), (n, last) = losses[0], losses[-1]
    change = "fell" if last < 0.98 * first else "rose" if last > 1.02 * first else "stayed"
    span = f"from {rounded(first)} to {rounded(last)}" if change != "stayed" else f"at {rounded(last)}"
    told = [f"In {n} {'epoch' if n == 1 else 'epochs'} the training loss {change} {span}."]
    if len(losses) == 1:
        told = [f"After one epoch the training loss is {rounded(last)}."]
    if n < planned:
        told.append(f"It ended before the {planned} epochs that were planned.")
    record = _record(history, best)
    if record is not None and _known(here := record.get("val_accuracy")):
        greatest, epoch = max((r["val_accuracy"], r["epoch"]) for r in history if _known(r.get("val_accuracy")))
        if here >= greatest:
            told.append(f"Validation accuracy was best in epoch {best}, with {percent(here)}.")
        else:
            told.append(
                f"Validation accuracy was best in epoch {epoch}, with {percent(greatest)}; in epoch {best}, which is reported "
                f"on, it was {percent(here)}."
            )
        if _known(record.get("accuracy")) and (gap := record["accuracy"] - here) > 0.03:
            better = f"{100 * gap:.1f} points better"
            told.append(f"On the training data it was {better} there: the net knows some of them by heart.")
    held = [(r["epoch"], r["val_loss"]) for r in history if _known(r.get("val_loss"))]
    if len(held) > 3:
        at, least = min(held, key=lambda pair: pair[1])
        if held[-1][1] > 1.15 * least and at < held[-1][0] - 1:
            told.append(
                f"Validation loss was least in epoch {at} ({rounded(least)}) and has risen to {rounded(held[-1][1])} "
                "since: it overfits from there on."
            )
    return " ".join(told)


# --- sections -----------------------------------------------------------------------------------------------------------


def _model(restored: job.Restored, asked: Asked, parameters: int) -> list[Any]:
    shapes = depth.shapes(restored.model, asked.batch[0]) if asked.batch is not None else {}
    rows = []
    for path, module in depth.leaves(restored.model).items():
        count = sum(p.numel() for p in module.parameters(recurse=False))
        shape = "×".join(map(str, shapes[path])) if path in shapes else "–"
        rows.append([path or "model", type(module).__name__, shape, f"{count:,}" if count else "–"])
    whole = ["", "in all", "", f"{parameters:,}"]
    layers = table(["layer", "kind", "output", "parameters"], [*rows, whole], numeric=[3], caption="Layers")
    last = (
        "a score for each class; softmax makes probabilities of them" if restored.classes else "one value, standardised"
    )
    note = (
        "Each row is a layer, from the input to the output; findings and charts below name layers as the first "
        f"column does. The last layer gives {last}."
    )
    return [how(note), layers if len(rows) <= LONG else more(f"All {len(rows)} layers", layers)]


def _curves(history: History, restored: job.Restored) -> list[Any]:
    best = restored.epoch
    epochs = [float(r["epoch"]) for r in history]
    marks = [(float(best), f"this net: epoch {best}")] if _record(history, best) is not None else []
    drawn = []

    def draw(name: str, series: Sequence[Line], alt: str, **options: Any) -> None:
        drawing = charts.lines(series, alt=alt, x_label="epoch", whole=True, **options)
        drawn.append(figure(drawing, NAMES.get(name, name.capitalize())))

    columns = [name for name in history[0] if name not in ("epoch", "time")]
    for name in columns:
        pairs = [(name, "training", "blue", 0), (f"val_{name}", "validation", "vermilion", 1)]
        series = [
            Line(label, epochs, [r.get(key) for r in history], colour, form)
            for key, label, colour, form in pairs
            if key in columns
        ]
        values = [v for line in series for v in line.y if _known(v)]
        if name == "lr" or name.startswith("val_") or not values:
            continue
        log = name == "loss" and min(values) > 0 and max(values) > 50 * min(values)
        ends = "; ".join(f"{line.name} from {_end(line, 0, name)} to {_end(line, -1, name)}" for line in series)
        label, shares = _label(restored) if name == "loss" else NAMES.get(name, name), name == "accuracy"
        alt = f"{name} over {len(epochs)} epochs: {ends}."
        draw(name, series, alt, y_label=label, log=log, percent=shares, marks=marks)
    rates = [r.get("lr") for r in history]
    known = [r for r in rates if _known(r)]
    if known and max(known) > 1.001 * min(known):
        alt = f"Learning rate over the epochs, from {known[0]:.3g} to {known[-1]:.3g}."
        log = min(known) > 0 and max(known) > 20 * min(known)
        draw("learning rate", [Line("learning rate", epochs, rates, "green", 2)], alt, y_label="learning rate", log=log)
    rows = [[r["epoch"], *(rounded(v, 4) if _known(v := r.get(k)) else "–" for k in columns)] for r in history]
    header = ["epoch", *(name.replace("val_", "validation ") for name in columns)]
    note = (
        "Training values are means over the epoch, while the net still changes and with dropout at work; validation values "
        "are measured at its end. Where training goes on to improve and validation does not, the net learns by heart."
    )
    every = table(header, rows, numeric=range(len(header)), caption="History")
    return [how(note), tag("div", drawn, class_="two"), more("All epochs", every)]


def _label(restored: job.Restored) -> str:
    """The loss, by its name."""
    loss = restored.settings.loss
    usual = "cross-entropy" if restored.classes else "mse"
    return f"loss ({usual if loss in ('auto', 'cross_entropy') else loss})"


def _environment(restored: job.Restored, state: dict[str, Any]) -> list[Any]:
    settings, path = restored.settings, restored.path
    known = [
        ("Trained by", f"kobai {state['config'].get('kobai', 'unknown')}"),
        ("Reported by", f"kobai {VERSION}, backend {backend()}"),
        ("Seed", str(settings.seed)),
        ("Checkpoint", f"{path.parent.name}/{path.name}, epoch {restored.epoch}"),
        ("Written", time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))),
        ("Stopped", state.get("stop_reason")),
    ]
    return [
        tag("p", "This command repeats the run, bit for bit on the same machine:"),
        code(command(settings), wrap=True),
        environment(known),
        more("All settings", code(to_toml(settings.as_dict()).strip())),
    ]


# --- reading ------------------------------------------------------------------------------------------------------------


def _history(source: Path, state: dict[str, Any], say: Say) -> History:
    """The epochs of a run: those in its checkpoints, and one more that its history may have. Of a checkpoint alone, its own."""
    known = {record["epoch"]: dict(record) for record in state["history"]}
    path = source / job.HISTORY
    if source.is_dir() and path.exists():
        with suppress(CheckpointError):  # the best one may be all there is
            last = checkpoint.find(source, say=lambda line: None)[1]
            known |= {record["epoch"]: dict(record) for record in last["history"]}
        told: History = []
        try:
            for line in regular(path).read_bytes().splitlines():
                record = from_json(line)
                if not isinstance(record, dict) or not isinstance(record.get("epoch"), int):
                    raise DataError("a line without an epoch")
                if record["epoch"] in known and record != plain(known[record["epoch"]]):
                    raise DataError(f"epoch {record['epoch']} is not what the checkpoint says: the file is damaged")
                told.append(record)
        except (ValueError, OSError) as error:
            say(f"{path}: cannot be read beyond epoch {len(told)} ({error}); the rest is taken from the checkpoint")
        known = {record["epoch"]: record for record in told} | known
    return [known[epoch] for epoch in sorted(known)]


def _record(history: History, epoch: int) -> dict[str, Any] | None:
    return next((r for r in history if r["epoch"] == epoch), None)


def _known(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _end(line: Line, place: int, name: str) -> str:
    known = [v for v in line.y if v is not None and _known(v)]
    if not known:
        return "nothing"
    return percent(known[place]) if name == "accuracy" else f"{known[place]:.3g}"

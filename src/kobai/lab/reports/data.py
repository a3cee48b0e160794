"""What a report says about a run's data, and about the mistakes of its model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

import kobai
from kobai import ops
from kobai.core.tensor import Tensor
from kobai.data import DataSplits, Preparation
from kobai.errors import DataError
from kobai.lab.reports import charts, count_charts
from kobai.lab.reports.axes import rounded
from kobai.lab.reports.markup import Markup, data_uri, facts, png, table, tag
from kobai.lab.reports.page import figure, how, more
from kobai.train import inference, scores
from kobai.train.job import Restored
from kobai.xp import to_host

BATCH = 256
"""Training samples that go through the model."""

PICTURES, MISTAKES = 20, 20

SHOWN = 500
"""Points of a cloud at most."""

Host = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Asked:
    """A run's data and its model's answers; ``problem`` says why there are none."""

    splits: DataSplits | None
    problem: str = ""
    batch: tuple[Tensor, Tensor] | None = None
    answers: inference.Answers | None = None
    test: dict[str, float] | None = None
    tested: int = 0


def ask(restored: Restored, data_dir: str | None, say: Callable[[str], None]) -> Asked:
    """Read the run's data and evaluate its model: on the validation split sample by sample, on the test split once."""
    settings = restored.settings if data_dir is None else replace(restored.settings, data_dir=data_dir)
    try:
        splits = inference.load_known(replace(settings, download=False))
        if (splits.input_shape, splits.classes) != (restored.input_shape, restored.classes):
            raise DataError(f"{settings.data}: the data are not those that the model was trained on")
    except (DataError, ImportError, OSError) as error:
        say(f"the report does without the data: {error}")
        return Asked(None, str(error))
    x, t = splits.train.tensors
    n = min(BATCH, len(x))
    picked = np.random.default_rng([settings.seed, 3]).permutation(len(x))[:n]
    index = kobai.tensor(picked, device=x.device)
    batch = ops.index_select(x, 0, index), ops.index_select(t, 0, index)
    answers = inference.answers(restored, inference.of_split(splits, "validation"))
    asked = inference.of_split(splits, "test")
    return Asked(splits, "", batch, answers, inference.score(restored, asked), len(asked.inputs))


def data_section(restored: Restored, asked: Asked) -> list[Any]:
    """Splits, classes, their numbers of samples, and some samples."""
    shape = "×".join(map(str, restored.input_shape))
    classes = ", ".join(restored.classes[:12]) + ", …" * (len(restored.classes) > 12)
    known = [
        ("Data set", restored.settings.data),
        ("One input", f"{shape} numbers"),
        ("Classes", f"{len(restored.classes)}: {classes}")
        if restored.classes
        else ("Target", f"{restored.label}, a number"),
    ]
    if asked.splits is None:
        problem = f"The data could not be read, so the report shows nothing that needs them: {asked.problem}"
        return [facts(known), tag("p", problem)]
    splits = asked.splits
    x, t = (to_host(part.array) for part in (splits.train.tensors[0][:10000], splits.train.tensors[1]))
    names = {"train": "To train on", "validation": "To choose by", "test": "Kept apart to the end"}
    known += [(name, f"{len(getattr(splits, part)):,} samples") for part, name in names.items()]
    spread = f"mean {rounded(x.mean(), 2)}, standard deviation {rounded(x.std(), 2)}"
    known.append(("What the model sees", f"{spread}, from {rounded(x.min())} to {rounded(x.max())}"))
    features = splits.features and more(f"The {len(splits.features)} inputs", tag("p", ", ".join(splits.features)))
    done = splits.notes and more("How the table was read", [tag("p", note) for note in splits.notes])
    if splits.preparation is not None and not splits.classes:
        return [facts(known), _spread_of_target(splits.preparation, t), features, done]
    counts = np.bincount(t, minlength=len(splits.classes)).tolist()
    least, most = min(counts), max(counts)
    balance = (
        f"Training samples of each class: from {least:,} ({splits.classes[counts.index(least)]}) to {most:,} "
        f"({splits.classes[counts.index(most)]})."
    )
    chart = count_charts.bars(splits.classes, counts, alt=balance, x_label="class", y_label="training samples")
    drawn = figure(chart, "Training samples of each class", class_="single")
    return [facts(known), _pictures(splits, t), drawn, features, done]


def _spread_of_target(preparation: Preparation, t: Host) -> Markup:
    values = scores.values(preparation, t)
    counts, edges = np.histogram(values, bins=8)
    told = (
        f"{preparation.target} of the training samples: mean {rounded(values.mean())}, from {rounded(values.min())} to "
    )
    told += f"{rounded(values.max())}."
    names = [rounded((low + high) / 2) for low, high in pairwise(edges.tolist())]
    chart = count_charts.bars(names, counts.tolist(), alt=told, x_label=preparation.target, y_label="training samples")
    return figure(chart, "Training samples by their target", told, "single")


def residuals(restored: Restored, asked: Asked) -> list[Any]:
    """Values said and true on the validation split, and the farthest from one another."""
    assert asked.splits is not None
    assert asked.answers is not None
    assert asked.answers.values is not None
    assert restored.preparation is not None
    said = asked.answers.values
    true = scores.values(restored.preparation, to_host(asked.splits.validation.tensors[1].array))
    error = said - true
    half = float(np.median(abs(error)))
    told = f"Half of the {len(true):,} validation samples are predicted within {rounded(half)} of the true {restored.label}."
    note = (
        "These are samples of the validation split: the test split must stay what nobody looked at. Points on the line are "
        "predicted exactly; what is said of points above it is too much."
    )
    picked = np.random.default_rng(0).permutation(len(true))[:SHOWN]
    cloud = list(zip(true[picked].tolist(), said[picked].tolist(), strict=True))
    drawing = charts.dots(cloud, alt=told, x_label=f"true {restored.label}", y_label="predicted", diagonal=True)
    rest = list(zip(said[picked].tolist(), error[picked].tolist(), strict=True))
    left = charts.dots(
        rest, alt="What is left, over what is predicted.", x_label="predicted", y_label="predicted − true"
    )
    worst = np.argsort(-abs(error), kind="stable")[: MISTAKES // 2]
    rows = [[rounded(true[i]), rounded(said[i]), rounded(error[i])] for i in worst]
    drawn = [
        figure(drawing, "Predicted and true", told),
        figure(left, "Residuals", "a pattern here is something not learnt"),
    ]
    farthest = table(["true", "predicted", "error"], rows, numeric=range(3), caption="The farthest from the truth")
    return [how(note), tag("div", drawn, class_="two"), farthest]


def mistakes(restored: Restored, asked: Asked) -> list[Any]:
    """The confusion matrix of the validation split, and the mistakes that the model was surest of."""
    assert asked.splits is not None
    assert asked.answers is not None
    inputs, true = (to_host(part.array) for part in asked.splits.validation.tensors)
    said, sure, classes = asked.answers.classes, asked.answers.probabilities, restored.classes
    k = len(classes)
    matrix = np.zeros((k, k), dtype=np.int64)
    np.add.at(matrix, (true, said), 1)
    wrong = np.flatnonzero(true != said)
    wrong = wrong[np.argsort(-sure[wrong], kind="stable")]
    told = f"{len(wrong):,} of {len(true):,} validation samples {'is' if len(wrong) == 1 else 'are'} taken for another class."
    note = (
        "These are samples of the validation split: whoever looks at mistakes acts on them, and the test split must stay "
        f"what nobody looked at. {told}"
    )
    pairs = [(classes[i], classes[j], int(matrix[i, j])) for i in range(k) for j in range(k) if i != j and matrix[i, j]]
    pairs.sort(key=lambda pair: -pair[2])
    worst = ", ".join(f"{one} for {other} ({n}×)" for one, other, n in pairs[:3])
    often = f" Most often taken: {worst}." if worst else ""
    if k <= 40:
        drawing = count_charts.confusion(classes, matrix.tolist(), alt=f"Confusion matrix. {told}{often}")
        read = f"each row: one true class, and what it was taken for.{often}"
        most = figure(drawing, "Confusion matrix", read, "single")
    else:
        most = table(["class", "taken for", "times"], pairs[:20], numeric=[2], caption="The most frequent mistakes")
    shown = wrong[:MISTAKES].tolist()
    taken = [(classes[true[i]], classes[said[i]], f"{100 * sure[i]:.0f} %") for i in shown]
    captions = [[f"{one} → {other}", tag("br"), share] for one, other, share in taken]
    alts = [f"a {one}, taken for {other} with {share}" for one, other, share in taken]
    heading = tag("h3", f"The {len(shown)} mistakes it was surest of" if len(shown) > 1 else "The mistake")
    strip = _strip(inputs[shown], asked.splits, captions, alts) if shown else None
    return [how(note), most, *([heading, strip] if strip else [])]


def _pictures(splits: DataSplits, labels: Host) -> Markup | None:
    """A sample or two of each class, where samples are pictures."""
    each = 2 if len(splits.classes) <= PICTURES // 2 else 1
    chosen = [
        int(i)
        for turn in range(each)
        for k in range(len(splits.classes))
        for i in np.flatnonzero(labels == k)[turn : turn + 1]
    ][:PICTURES]
    x = np.stack([to_host(splits.train.tensors[0][i].array) for i in chosen])
    names = [splits.classes[labels[i]] for i in chosen]
    return _strip(x, splits, names, [f"a training sample of class {name}" for name in names])


def _strip(x: Host, splits: DataSplits, captions: list[Any], alts: list[str]) -> Markup | None:
    """A row of pictures (n, C, H, W); None where samples are not pictures."""
    if x.ndim != 4 or x.shape[1] not in (1, 3) or min(x.shape[2:]) < 2:
        return None
    scale, shift = np.array([splits.scaling.scale, splits.scaling.shift], np.float32)  # of pictures: one number each
    raw = x * scale + shift
    low, high = float(raw.min()), float(raw.max())
    level = (raw - low) / ((high - low) or 1.0)
    pixels = np.rint(255 * np.clip(level, 0, 1)).astype(np.uint8)
    shown = []
    for image, caption, alt in zip(pixels, captions, alts, strict=True):
        grey = image.shape[0] == 1
        content = png(image[0] if grey else image.transpose(1, 2, 0))
        # Grey pictures are bright strokes on black: a light page inverts them.
        picture = tag("img", src=data_uri(content, "image/png"), alt=alt, class_="ink" if grey else None)
        shown.append(tag("figure", tag("span", picture), tag("figcaption", caption)))
    return tag("div", shown, class_="samples")

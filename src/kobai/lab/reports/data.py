"""What a report says of a run's data, and of the mistakes its model makes on them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kobai import ops
from kobai.core.tensor import Tensor
from kobai.data import DataSplits
from kobai.errors import DataError
from kobai.lab.reports import count_charts
from kobai.lab.reports.axes import rounded
from kobai.lab.reports.markup import Markup, data_uri, facts, png, table, tag
from kobai.lab.reports.page import figure, how, more
from kobai.train import inference
from kobai.train.job import Restored, load_data
from kobai.utils.data import TensorDataset
from kobai.xp import asarray, to_host

BATCH = 256
"""Training samples that the model is asked about."""

PICTURES, MISTAKES = 20, 20

Host = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Asked:
    """The data of a run and what its model says to them; ``problem`` tells why there are none."""

    splits: DataSplits | None
    problem: str = ""
    batch: tuple[Tensor, Tensor] | None = None
    answers: inference.Answers | None = None
    test: dict[str, float] | None = None
    tested: int = 0


def ask(restored: Restored, data_dir: str | None, say: Callable[[str], None]) -> Asked:
    """Read the run's data and ask its model: about the validation split sample by sample, about the test split once."""
    settings = restored.settings if data_dir is None else replace(restored.settings, data_dir=data_dir)
    try:
        splits = load_data(replace(settings, download=False))
        if splits.input_shape != restored.input_shape or splits.classes != restored.classes:
            raise DataError(f"{settings.data}: the data are not those that the model was trained on")
    except (DataError, ImportError, OSError) as error:
        say(f"the report does without the data: {error}")
        return Asked(None, str(error))
    x, t = splits.train.tensors
    n = min(BATCH, len(x))
    picked = np.random.default_rng([settings.seed, 3]).permutation(len(x))[:n]
    index: Tensor = Tensor._wrap(asarray(picked.astype(np.int64), device=x.device))
    batch = ops.index_select(x, 0, index), ops.index_select(t, 0, index)
    answers = inference.answers(restored, _questions(splits, "validation"))
    asked = _questions(splits, "test")
    return Asked(splits, "", batch, answers, inference.score(restored, asked), len(asked.inputs))


def _questions(splits: DataSplits, split: str) -> inference.Questions:
    part: TensorDataset = getattr(splits, split)
    inputs, target = part.tensors
    labels = [splits.classes[k] for k in to_host(target.array).tolist()]
    return inference.Questions(splits.name, inputs, labels, split)


def data_section(restored: Restored, asked: Asked) -> list[Any]:
    """Splits, classes and how many samples each has, the look of some of them."""
    shape = "×".join(map(str, restored.input_shape))
    known = [("Data set", restored.settings.data), ("One input", f"{shape} numbers"), ("Classes", _classes(restored))]
    if asked.splits is None:
        return [
            facts(known),
            tag("p", f"The data could not be read, so the report shows nothing that needs them: {asked.problem}"),
        ]
    splits = asked.splits
    counts = _counts(splits.train, len(splits.classes))
    sizes = [(name, f"{len(getattr(splits, name)):,} samples") for name in ("train", "validation", "test")]
    x = to_host(splits.train.tensors[0][:10000].array)
    scaled = f"mean {rounded(x.mean(), 2)}, standard deviation {rounded(x.std(), 2)}, from "
    scaled += f"{rounded(x.min())} to {rounded(x.max())}"
    least, most = min(counts), max(counts)
    balance = (
        f"Training samples of each class: from {least:,} ({splits.classes[counts.index(least)]}) to {most:,} "
        f"({splits.classes[counts.index(most)]})."
    )
    chart = count_charts.bars(splits.classes, counts, alt=balance, x_label="class", y_label="training samples")
    names = {"train": "To train on", "validation": "To choose by", "test": "Kept apart to the end"}
    parts: list[Any] = [
        facts([*known, *((names[name], size) for name, size in sizes), ("What the model sees", scaled)]),
    ]
    pictures = _pictures(splits)
    parts.append(pictures)
    parts.append(figure(chart, "Training samples of each class", class_="single"))
    if splits.features:
        parts.append(more(f"The {len(splits.features)} features", tag("p", ", ".join(splits.features))))
    return parts


def mistakes(restored: Restored, asked: Asked) -> list[Any]:
    """The confusion matrix of the validation split, and the mistakes that the model was surest of."""
    assert asked.splits is not None
    assert asked.answers is not None
    inputs, target = asked.splits.validation.tensors
    true, said, sure = to_host(target.array), asked.answers.classes, asked.answers.probabilities
    k = len(restored.classes)
    matrix = np.zeros((k, k), dtype=np.int64)
    np.add.at(matrix, (true, said), 1)
    wrong = np.flatnonzero(true != said)
    wrong = wrong[np.argsort(-sure[wrong], kind="stable")]
    told = f"{len(wrong):,} of {len(true):,} validation samples {'is' if len(wrong) == 1 else 'are'} taken for another class."
    parts: list[Any] = [
        how(
            "These are samples of the validation split: whoever looks at mistakes acts on them, and the test split must stay "
            f"what nobody looked at. {told}"
        )
    ]
    pairs = [(int(matrix[i, j]), i, j) for i in range(k) for j in range(k) if i != j and matrix[i, j]]
    worst = [
        f"{restored.classes[i]} for {restored.classes[j]} ({n}×)" for n, i, j in sorted(pairs, key=lambda p: -p[0])[:3]
    ]
    often = f" Most often taken: {', '.join(worst)}." if worst else ""
    if k <= 40:
        drawing = count_charts.confusion(restored.classes, matrix.tolist(), alt=f"Confusion matrix. {told}{often}")
        parts.append(
            figure(
                drawing, "Confusion matrix", f"each row: one true class, and what it was taken for.{often}", "single"
            )
        )
    else:
        rows = [[restored.classes[i], restored.classes[j], n] for n, i, j in sorted(pairs, key=lambda p: -p[0])[:20]]
        parts.append(table(["class", "taken for", "times"], rows, numeric=[2], caption="The most frequent mistakes"))
    if len(wrong):
        x = to_host(inputs.array)
        shown = wrong[:MISTAKES].tolist()
        captions = [
            [f"{restored.classes[true[i]]} → {restored.classes[said[i]]}", tag("br"), f"{100 * sure[i]:.0f} %"]
            for i in shown
        ]
        alts = [
            f"a {restored.classes[true[i]]}, taken for {restored.classes[said[i]]} with {100 * sure[i]:.0f} %"
            for i in shown
        ]
        strip = _strip(x[shown], asked.splits, captions, alts)
        if strip:
            parts += [
                tag("h3", f"The {len(shown)} mistakes it was surest of" if len(shown) > 1 else "The mistake"),
                strip,
            ]
    return parts


def _classes(restored: Restored) -> str:
    names = restored.classes
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"{len(names)}: {shown}"


def _counts(part: TensorDataset, classes: int) -> list[int]:
    labels = to_host(part.tensors[1].array)
    return [int(n) for n in np.bincount(labels, minlength=classes)]


def _pictures(splits: DataSplits) -> Markup | None:
    """A sample or two of each class, where samples are pictures."""
    labels = to_host(splits.train.tensors[1].array)
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
    """Pictures (n, C, H, W) beside one another; None where samples are none."""
    if x.ndim != 4 or x.shape[1] not in (1, 3) or min(x.shape[2:]) < 2:
        return None
    raw = x * _as_image(splits.scaling.scale, x) + _as_image(splits.scaling.shift, x)
    low, high = float(raw.min()), float(raw.max())
    level = (raw - low) / ((high - low) or 1.0)
    pixels = np.rint(255 * np.clip(level, 0, 1)).astype(np.uint8)
    shown = []
    for image, caption, alt in zip(pixels, captions, alts, strict=True):
        grey = image.shape[0] == 1
        content = png(np.ascontiguousarray(image[0] if grey else image.transpose(1, 2, 0)))
        # Grey pictures are bright strokes on black: the page turns them where it is light itself.
        picture = tag("img", src=data_uri(content, "image/png"), alt=alt, class_="ink" if grey else None)
        shown.append(tag("figure", tag("span", picture), tag("figcaption", caption)))
    return tag("div", shown, class_="samples")


def _as_image(numbers: tuple[float, ...], x: Host) -> Host:
    """Shift or scale, one for all or one for each channel or number, in a shape that fits (n, C, H, W)."""
    values = np.array(numbers, dtype=np.float32)
    if values.size == 1:
        return values.reshape(1, 1, 1, 1)
    if values.size == x.shape[1]:
        return values.reshape(1, -1, 1, 1)
    return (
        values.reshape(1, *x.shape[1:]) if values.size == math.prod(x.shape[1:]) else np.ones((1, 1, 1, 1), np.float32)
    )

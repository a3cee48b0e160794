"""Rules of kinds that are taken for numbers, and of words that the net takes for one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np

from kobai import nn, ops
from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Cure
from kobai.lab.doctor.findings import Disease, Evidence, Finding
from kobai.lab.doctor.flow import mode
from kobai.lab.doctor.rules.dependence import outputs_of
from kobai.lab.doctor.rules.neighbours import UNSURE, flat, gathered, nearest, reference
from kobai.lab.doctor.rules.relations import Numbers
from kobai.lab.doctor.rules.view import View
from kobai.lab.doctor.trials import undisturbed
from kobai.xp import to_host

ENOUGH, COLUMNS, DEEP = 200, 64, 5
"""Samples that are needed; columns that are looked at, at most; samples of a kind that are needed on average."""
FEWEST, STEPPED = 6, 0.02
"""Fewest values of a column of kinds, and how far their distances may be from whole multiples of the least one."""
TOLD, ORDERED, COMMON = 0.2, 0.25, 0.5
"""What a kind must explain of the targets; and the part of that which its number explains, below which order says nothing;
and the share of the samples above which one value is no kind among others."""
CLASSES, NEARER = 6, 1.5
"""Fewest classes, and standard deviations by which neighbours' labels must be nearer than under another numbering."""
TOGETHER, OWN, OTHERS = 0.75, 0.08, 0.6
"""Neighbours within two classes that look the same, those of the own class above chance, and those of other classes."""
MANY, CHOICES, LOWER, STANDS_OUT, USUAL = 16, 5, 0.7, 8.0, 3.0
"""Samples and labels that are needed; the loss with another label over the median, and deviations from that of both."""
INSIDE = 0.5
"""Rows with the number of the padding between others, of those that have it, above which it is no padding."""
WORDS, PLACES, APART = 48, 4, 1 / 3
"""Words that are tried, places that they are put at, and the part of them that must give outputs of their own."""

KINDS_AS_NUMBER = Disease(
    "kinds-as-number",
    "a category that is given as one number",
    f"of {ENOUGH} or more samples, a column of {FEWEST} or more equidistant values with {DEEP} samples each on "
    f"average, none of which {COMMON:.0%} of the samples have: the mean target of each value, taken from one half of "
    f"the samples, explains more than {TOLD:.0%} of the targets of the other; a "
    f"line and a cubic of the value, and the mean of the two neighbouring values, each explain less than {ORDERED:.0%} of that",
    "A net of one number is smooth in it, and has to bend between any two values. Where kind 7 lies no more between 6 and 8 "
    "than anywhere else, the number's order is none of the data: an input for each kind, or a vector, needs one weight each.",
    "Guo and Berkhahn, Entity embeddings of categorical variables, arXiv:1604.06737, 2016",
    ("non-finite", "wrong-labels", "no-signal"),
)
LABELS_AS_NUMBERS = Disease(
    "labels-as-numbers",
    "classes that are fitted as numbers",
    f"one output for each sample, and targets of {CLASSES} to 50 whole numbers: the five nearest samples of other classes have "
    f"labels whose distance |k − l| is not below that under other numberings of the classes by {NEARER:g} standard deviations, "
    "while neighbours have the same label twice as often as chance has it",
    "The squared error of a label's number says that class 9 is far from 0 and near to 8. Where what is alike has labels that "
    "are no nearer than others, the best guess between two classes is a third one.",
    "Hastie, Tibshirani, Friedman, The elements of statistical learning, 2009, section 4.2 (linear regression of an indicator)",
    ("non-finite", "wrong-labels", "mixed-targets", "labels-unrelated"),
)
WORDS_ALIKE = Disease(
    "words-alike",
    "different words that are one to the net",
    f"up to {WORDS} whole numbers of the inputs, eight or more, put at one place after the other: at none of {PLACES} "
    "places do "
    f"more than {APART:.0%} of them give outputs of their own, in evaluation mode",
    "What the first layer maps to one row no later layer tells apart. Of n words hashed into b rows about n(1 − 1/b)ⁿ⁻¹ have "
    "one of their own; a function with few values leaves most rows unused.",
    "Weinberger et al., Feature hashing for large scale multitask learning, ICML 2009; Svenstrup et al., Hash embeddings, 2017",
    ("non-finite", "signal-lost", "collapsed", "no-signal"),
    certain=True,
)

PADDING_IS_A_WORD = Disease(
    "padding-is-a-word",
    "a word whose vector is never trained",
    f"an embedding with a padding_idx, looked up {ENOUGH} times or more: of the rows of numbers that hold it, more than "
    f"{INSIDE:.0%} have it inside, between other numbers, or it is looked up alone; and its row is 0",
    "The row at padding_idx begins at 0 and its gradient is put to 0, so that padding says nothing. A word, kind or "
    "entity with "
    "that number is never learnt: it says nothing either. Padding fills the end of a row, or its beginning.",
    "PyTorch's and Kobai's documentation of nn.Embedding (padding_idx)",
    ("non-finite",),
    certain=True,
)

CLASSES_ALIKE = Disease(
    "classes-alike",
    "two classes that look the same",
    f"{ENOUGH} samples or more of three classes or more: of two classes at least {TOGETHER:.0%} of the five nearest "
    "neighbours are "
    f"in these two, and of these the own class is no more than {OWN:.0%} above its share, while the others have "
    f"{OTHERS:.0%} of their neighbours in their own class; and a reference net of two layers tells the two apart in "
    "new samples "
    f"by less than {UNSURE:g} standard deviations above chance",
    "What makes two classes the same cannot be learnt back: a mirrored arrow to the left is one to the right, and a 6 turned "
    "round is a 9. An augmentation has to keep the label; and labels of one class drawn at random look so, too.",
    "Shorten and Khoshgoftaar, A survey on image data augmentation, 2019 (safety of an augmentation: whether it keeps "
    "the label)",
    ("non-finite", "wrong-labels", "no-signal", "labels-unrelated"),
    fact=True,
)


def classes_alike(view: View) -> Finding | None:
    """Which classes neighbours, and a small net, do not tell apart, while they tell others."""
    both = gathered(view.seen) if (view.classes or 0) > 2 and not view.whole_numbers else None
    if both is None or len(both[0]) < ENOUGH or not np.isfinite(both[0]).all():
        return None
    x, label = both[0], both[1][:, 0].astype(int)
    kinds = np.unique(label)
    if not 3 <= len(kinds) <= 20 or kinds[0] < 0:
        return None
    near = label[nearest(x, x, alone=True, count=5)]
    counts = np.array([(label == kind).sum() for kind in kinds])
    table = np.array([[(near[label == a] == b).mean() for b in kinds] for a in kinds])
    for i, j in combinations(range(len(kinds)), 2):
        together = min(table[i, i] + table[i, j], table[j, i] + table[j, j])
        others = [table[k, k] for k in range(len(kinds)) if k not in (i, j)]
        if min(counts[i], counts[j]) < ENOUGH // 8 or together < TOGETHER or float(np.mean(others)) < OTHERS:
            continue
        prior = counts[i] / (counts[i] + counts[j])
        above = [
            table[i, i] / (table[i, i] + table[i, j]) - prior,
            table[j, j] / (table[j, i] + table[j, j]) - (1 - prior),
        ]
        if not float(np.mean(above)) < OWN or _told_apart(view, int(kinds[i]), int(kinds[j])):
            continue
        a, b = int(kinds[i]), int(kinds[j])
        return CLASSES_ALIKE.found(
            Evidence(
                f"neighbours of the own class, of those in classes {a} and {b}, above chance",
                float(np.mean(above)), OWN, False, share=True, severity="warning",
            ),
            cause=f"Two of the classes, {a} and {b}, look the same: neighbours of either are as often of the other, "
            "while those of "
            f"the other classes are of the same class in {float(np.mean(others)):.0%} of cases. Does an augmentation, such as "
            "a flip or a turn, make one of them the other? Or their labels are mixed up.",
            cure=Cure(
                "# leave out what turns one class into the other, as RandomHorizontalFlip for arrows to the left and "
                "right, or\n"
                "# exchange the label with the picture: t = where(flipped, swapped[t], t). Look at a few of both:\n"
                f"print(x[t == {a}][:3], x[t == {b}][:3])"
            ),
        )  # fmt: skip
    return None


def _told_apart(view: View, a: int, b: int) -> bool:
    """Whether a reference net tells two classes in samples that it has not seen."""
    pairs: list[tuple[Tensor, Tensor]] = []
    for first, *_, target in view.seen:
        rows = [i for i, label in enumerate(target.tolist()) if label in (a, b)]
        if rows:
            pairs.append((first[rows], target[rows]))
    x, t = (ops.cat(list(part)) for part in zip(*pairs, strict=True))
    half = len(x) // 2
    return reference(view, [(x[:half], t[:half])], [(x[half:], t[half:])]) >= UNSURE


ANOTHER_LABEL = Disease(
    "another-label",
    "one label for all, and another one that fits",
    f"all labels of {MANY} samples or more are one number, and the loss takes {CHOICES} to {WORDS} such numbers: with "
    "one of the "
    f"others for all samples the loss of the first outputs is below {LOWER:g} of the median, and {STANDS_OUT:g} deviations "
    f"(1.48 times the median one) below it, while with the label as it is it is within {USUAL:g}",
    "A loss of contrasts compares each sample with its partner and with strangers, and its label is the place of the partner, "
    "0 where that comes first, not 1 for 'yes'. Even before training partners are more alike than strangers.",
    "van den Oord, Li, Vinyals, arXiv:1807.03748, equation 4; He et al., Momentum contrast, CVPR 2020, algorithm 1 (labels 0)",
    ("non-finite", "refused-by-the-loss"),
    certain=True,
)


def another_label(view: View) -> Finding | None:
    """The loss of the first outputs, with each number as the label of all samples."""
    assert view.ledger is not None
    t = view.target
    if not isinstance(t, Tensor) or t.is_floating_point() or t.ndim != 1 or len(t) < MANY or t.dtype.name == "bool":
        return None
    own = int(t[0].item())
    if own < 0 or not bool((t == own).all().item()):
        return None
    with undisturbed(), mode(view.ledger.fresh, training=True):
        output = view.ledger.fresh(*view.inputs)
        costs = []
        for label in range(WORDS):
            cost = view.cost(output, ops.full_like(t, label))
            if not np.isfinite(cost):
                break
            costs.append(cost)
    if not len(costs) >= CHOICES or not own < len(costs):
        return None
    each, best = np.array(costs), int(np.argmin(costs))
    middle = float(np.median(each))
    spread = 1.48 * float(np.median(np.abs(each - middle))) + 1e-6 * abs(middle)
    out, usual = (middle - each[best]) / spread, abs(middle - each[own]) / spread
    if best == own or not each[best] < LOWER * middle or not out > STANDS_OUT or usual > USUAL:
        return None
    return ANOTHER_LABEL.found(
        Evidence(
            f"loss of the first outputs with label {own}, over that with {best}",
            each[own] / each[best],
            1 / LOWER,
            True,
        ),
        cause=f"The label is {own} for all samples, and {best} fits even before training: the loss is {each[best]:.3g} "
        "with it, "
        f"{each[own]:.3g} as it is, and about {middle:.3g} with any other. The positive, a sample's own partner, "
        "stands in column "
        f"{best}, and the label is its place.",
        cure=Cure(f"t = kobai.full_like(t, {best})  # the place of the right one among the scores"),
    )


def kinds_as_number(view: View) -> Finding | None:
    """Columns whose values tell the target each by itself, and not by their order."""
    both = gathered(view.seen) if len(view.inputs) and not view.whole_numbers and view.inputs[0].ndim == 2 else None
    if both is None or len(both[0]) < ENOUGH or both[0].shape[1] > COLUMNS:
        return None
    x, t = both[0].astype(np.float64), both[1].astype(np.float64)
    if not np.isfinite(x).all() or not np.isfinite(t).all():
        return None
    if view.classes is not None:
        t = (t == np.unique(t)[:16]).astype(np.float64)
    t = t - t.mean(0)
    for column, kind in _stepped(x):
        own, others = _explained(kind, t)
        if own > TOLD and others < ORDERED * own:
            return KINDS_AS_NUMBER.found(
                Evidence("what a kind alone explains of the targets of new samples", own, TOLD, True, True, "warning"),
                Evidence("what its number explains, of that", max(0.0, others / own), ORDERED, False, True, "warning"),
                cause=f"Column {column} of the inputs holds {kind.max() + 1} equidistant values, which tell the target "
                "each for "
                "itself; those next to one another have no more in common than any two. It is a category, as of shops, "
                "colours or users, given as one number, as if 7 lay between 6 and 8.",
                cure=Cure(
                    f"# column {column} as whole numbers from 0, through a table of vectors, or one input for each kind:\n"
                    "embed = nn.Embedding(kinds, 8)  # in __init__; in forward: kobai.cat([embed(kind), rest], 1)\n"
                    "# or F.one_hot(kind, kinds).float()"
                ),
            )  # fmt: skip
    return None


def _stepped(x: Numbers) -> Iterator[tuple[int, Numbers]]:
    """Columns of few equidistant values, and for each sample the number of its value."""
    for column in range(x.shape[1]):
        values, counts = np.unique(x[:, column], return_counts=True)
        if counts.max() > COMMON * len(x) or not FEWEST <= len(values) <= len(x) // DEEP:
            continue
        places = (values - values[0]) / np.diff(values).min()
        if np.abs(places - places.round()).max() < STEPPED and places[-1] < 2 * len(values):
            yield column, places.round().astype(int)[np.searchsorted(values, x[:, column])]


def _explained(kind: Numbers, t: Numbers) -> tuple[float, float]:
    """Shares of the targets of each half that the other half's means of each value explain, and at best those of its order."""
    rng, found = np.random.default_rng(0), []
    order = rng.permutation(len(t))
    half = len(t) // 2
    for a, b in ((order[:half], order[half:]), (order[half:], order[:half])):
        total = ((t[b] - t[a].mean(0)) ** 2).sum()
        count = np.bincount(kind[a], minlength=kind.max() + 3).astype(np.float64)
        sums = np.stack([np.bincount(kind[a], column, kind.max() + 3) for column in t[a].T], 1)
        means = sums / (count[:, None] + 1)
        beside = (np.roll(sums, 1, 0) + np.roll(sums, -1, 0)) / (np.roll(count, 1) + np.roll(count, -1) + 1)[:, None]
        u = 2 * kind / max(1, kind.max()) - 1
        powers = np.stack([u**0, u, u**2, u**3], 1)
        fits = [powers[b, :n] @ np.linalg.lstsq(powers[a, :n], t[a], rcond=None)[0] for n in (2, 4)]
        said = [1 - ((t[b] - each) ** 2).sum() / max(total, 1e-30) for each in (means[kind[b]], beside[kind[b]], *fits)]
        found.append((said[0], max(said[1:])))
    return float(np.mean([own for own, _ in found])), float(np.mean([order for _, order in found]))


def labels_as_numbers(view: View) -> Finding | None:
    """Whether labels of samples that are alike are near to one another."""
    t, layers = view.target, view.reading.layers
    if (
        not isinstance(t, Tensor)
        or not layers
        or view.whole_numbers
        or layers[-1].output.size != t.numel()
        or t.numel() != len(t)
    ):
        return None
    both = gathered(view.seen)
    if both is None or len(both[0]) < ENOUGH or not all(np.isfinite(part).all() for part in both):
        return None
    x, labels = both[0], both[1][:, 0]
    values, label = np.unique(labels, return_inverse=True)
    if not CLASSES <= len(values) <= 50 or (values % 1).any() or len(x) < DEEP * len(values):
        return None
    places = nearest(x, x, alone=True, count=5)
    same = float((label[places] == label[:, None]).mean())
    chance = float(((np.bincount(label) / len(label)) ** 2).sum())
    if same < 2 * chance:
        return None
    pairs = []
    for kind in range(len(values)):
        own, others = label == kind, label != kind
        found = label[others][nearest(x[own], x[others], count=5)]
        pairs.append(np.stack([np.full(found.size, kind), found.ravel()]))
    a, b = np.concatenate(pairs, 1)
    rng = np.random.default_rng(0)
    drawn = [
        float(np.abs(number[a] - number[b]).mean()) for number in (rng.permutation(len(values)) for _ in range(200))
    ]
    below = (float(np.mean(drawn)) - float(np.abs(a - b).mean())) / max(float(np.std(drawn)), 1e-9)
    if not below < NEARER:
        return None
    return LABELS_AS_NUMBERS.found(
        Evidence("how much nearer neighbours' labels are than chance, in deviations", below, NEARER, False, severity="warning"),
        cause=f"The loss compares one number with labels of {len(values)} classes, as if they were a quantity; but "
        "samples that "
        "are alike have labels that are no nearer to one another than those of any two. They are names of classes.",
        cure=Cure(
            f"# one score for each class in place of one number, {len(values)} outputs in the last layer, and\n"
            "loss_fn = nn.functional.cross_entropy  # of labels as whole numbers from 0, t.long()"
        ),
    )  # fmt: skip


def words_alike(view: View) -> Finding | None:
    """How many words give outputs of their own, in the place of others."""
    assert view.ledger is not None
    xs = view.ledger.few
    if len(xs) != 1 or not isinstance(xs[0], Tensor) or xs[0].is_floating_point() or xs[0].ndim > 2:
        return None
    if xs[0].dtype.name == "bool":
        return None
    x = to_host(xs[0].array)
    values = np.unique(x)
    if len(values) < 8:
        return None
    values = values[np.linspace(0, len(values) - 1, min(WORDS, len(values))).astype(int)]
    rng, best = np.random.default_rng(0), 0
    for _ in range(PLACES):
        row = np.repeat(x[rng.integers(len(x))][None], len(values), 0)
        if row.ndim == 1:
            row = values.astype(x.dtype)
        else:
            row[:, rng.integers(row.shape[1])] = values
        try:
            rows = ops.from_numpy(np.ascontiguousarray(row)).to(xs[0].device, xs[0].dtype)
            outputs = np.concatenate([flat(ops.from_numpy(y)) for y in outputs_of(view.ledger.fresh, [rows])], 1)
        except Exception:  # a net that takes no other batch, or other words
            return None
        size = max(float(np.abs(outputs).max()), 1e-30)
        best = max(best, len(np.unique((outputs / size).round(5), axis=0)))
        if best > APART * len(values):
            return None
    if best < 2:  # nothing is said of any word, as by a last layer of zeros
        return None
    return WORDS_ALIKE.found(
        Evidence("words that give outputs of their own, of those tried", best / len(values), APART, False, share=True),
        cause=f"Put in one place, {len(values)} different words give {best} different outputs: most words are the same row to "
        "the net, and it cannot tell them apart, however it is trained; their numbers collide on the way to the table.",
        cure=Cure(
            "# what is done to the numbers before the embedding? A hash, modulus or clamp that has few values, or a "
            "vocabulary\n"
            "# in which most words are unknown, leaves few rows in use: print(kobai.unique(words_as_looked_up).numel())"
        ),
        severity="warning",
    )


def padding_is_a_word(view: View) -> Finding | None:
    """Where in what an embedding looks up the number of its padding stands."""
    assert view.ledger is not None
    looked: list[tuple[str, nn.Embedding, Numbers]] = []

    def hook(name: str, module: nn.Embedding) -> Any:
        return lambda own, args, output: looked.append((name, module, to_host(args[0].array))) if args else None

    layers = [(name, module) for name, module in view.ledger.fresh.named_modules() if isinstance(module, nn.Embedding)]
    handles = [
        module.register_forward_hook(hook(name, module)) for name, module in layers if module.padding_idx is not None
    ]
    if not handles:
        return None
    with mode(view.ledger.fresh, training=False):
        view.ledger.fresh(*view.ledger.few)
    for handle in handles:
        handle.remove()
    for name, module, words in looked:
        there = words == module.padding_idx
        if words.ndim not in (1, 2) or words.size < ENOUGH // 4 or there.sum() < 2:
            continue
        row = module.weight.detach()[module.padding_idx]
        rows = there if there.ndim == 2 else there[:, None]
        having = rows[rows.any(1)]
        # Padding is one run that touches an end of its row; a row of one number holds nothing beside it.
        runs = (np.diff(having.astype(int), axis=1) != 0).sum(1)
        inside = float(((runs > 1) | ((runs == 0) & (rows.shape[1] == 1))).mean())
        if inside > INSIDE and not bool(row.any().item()):
            return PADDING_IS_A_WORD.found(
                Evidence("rows with the padding's number inside, of those that hold it", inside, INSIDE, True, True, "warning"),
                cause=f"{name!r} has padding_idx={module.padding_idx}, and that number stands among the others in "
                f"{there.mean():.0%} of all places: it is a word like any other, but its row is kept at 0 and gets no "
                "gradient.",
                cure=Cure(f"# nn.Embedding({module.num_embeddings}, {module.embedding_dim}), no padding_idx; or words from 1"),
                where=[name],
            )  # fmt: skip
    return None

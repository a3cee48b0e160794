"""Rules of what a net can express: found by mixing its inputs, by ranks, by what training mode puts to 0, and by heart."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from kobai import nn
from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Cure
from kobai.lab.doctor.cures_of_capacity import activate, drop_less, widen
from kobai.lab.doctor.findings import Disease, Evidence, Finding, graded
from kobai.lab.doctor.flow import Passage, flow
from kobai.lab.doctor.rules.course import guessing
from kobai.lab.doctor.rules.data import FAULTS
from kobai.lab.doctor.rules.view import LEARNT, NORMALISERS, View
from kobai.lab.doctor.trials import by_adam, taken
from kobai.nn import init as initialisers
from kobai.random import manual_seed
from kobai.xp import to_host

BENT, MIXTURES, FITS = 1e-3, (0.5, -1.0), 0.02
FEW_DIMENSIONS, WIDE, RANK = 3, 8, 1e-4
DROPPED, DROPPED_SOME, KEPT = 0.85, 0.7, 200
BY_HEART, UNFIT, UNFIT_SOME = 32, 0.9, 0.6
RATES = (1e-2, 1e-3)

NO_ACTIVATION = Disease(
    "no-activation",
    "no activation between layers",
    "two or more layers with weights, the last of which depends on the inputs as one affine map: "
    f"f(a x + (1 − a) y) = a f(x) + (1 − a) f(y) within {BENT:g} of what f varies, in evaluation mode, with new weights and "
    "standardised inputs (an error if the loss of a trial is no better than guessing; a note if a hidden layer is narrower "
    "than inputs and outputs, if the loss of a trial is below "
    f"{FITS:.0%} of that of guessing, or if ReLU between the layers does not help)",
    "A product of matrices is a matrix: W₂(W₁x + b₁) + b₂ = (W₂W₁)x + (W₂b₁ + b₂). However many layers there are, the net is "
    "one linear layer, which can tell apart only what a plane separates.",
    "Minsky and Papert, Perceptrons, 1969; Goodfellow, Bengio, Courville, Deep Learning, 2016, section 6.1",
    FAULTS,
)
BOTTLENECK = Disease(
    "bottleneck",
    "a bottleneck",
    f"between two layers at least {WIDE} wide on both sides, what differs between samples and positions has at most "
    f"{FEW_DIMENSIONS} dimensions (singular values above {RANK:g} of the largest), though the inputs have {WIDE} or more; not "
    "for targets of the inputs' shape (an autoencoder); a note if more units do not help",
    "All that later layers know of a sample are these few numbers; a rectifier of one unit even says 0 of half of the samples, "
    "and no gradient passes there.",
    "Tishby and Zaslavsky, Deep learning and the information bottleneck principle, 2015; Szegedy et al., Rethinking the "
    "Inception architecture, CVPR 2016, section 2 (principle 1)",
    (*FAULTS, "symmetric", "no-activation"),
)
DROPOUT = Disease(
    "dropout",
    "dropout that leaves next to nothing",
    f"of the numbers that are not 0 in evaluation mode, training mode puts {DROPPED:.0%} (warning: {DROPPED_SOME:.0%}) to 0; "
    "a note if less does not help",
    "Dropout puts each number to 0 with probability p and multiplies the others by 1/(1 − p): the noise has p/(1 − p) times "
    "the signal's power, 1 at p = 0.5 and 19 at 0.95. p is the probability to drop; as one to keep, 0.95 leaves 5 %.",
    "Srivastava et al., Dropout, JMLR 2014, section 7 and appendix A.4 (p from 0.2 to 0.5)",
    ("non-finite", "wrong-labels", "input-scale", "target-scale"),
)
CANNOT_FIT = Disease(
    "cannot-fit",
    f"a net that cannot learn {BY_HEART} samples by heart",
    f"copies trained by Adam at rates {' and '.join(f'{rate:g}' for rate in RATES)} on {BY_HEART} samples alone, standardised, "
    f"keep {UNFIT:.0%} (warning: {UNFIT_SOME:.0%}) of the loss of one output for all of these; only asked where the loss of a "
    f"trial is as high, and of nets with at least {BY_HEART} weights for each number of an output",
    "A net with more weights than numbers to learn can learn these by heart, even wrong ones. One that cannot does not "
    "show its outputs to the loss, or its inputs to its outputs: the fault lies in the net or the loss, not in the data or "
    "the rate.",
    "Zhang et al., Understanding deep learning requires rethinking generalization, ICLR 2017; Karpathy, A recipe for training "
    "neural networks, 2019",
    (
        *FAULTS,
        *"bounded-scores symmetric saturated exploding-activations collapsed dying-relu vanishing-gradient".split(),
        *"mixed-samples unused-inputs order-unseen not-registered cut-off frozen standing".split(),
        *"no-activation bottleneck dropout exploding-gradient".split(),
        *"no-offset only-a-plane one-place diagonal-alone words-alike padding-is-a-word fades-in-time".split(),
    ),
    certain=True,
)


def no_activation(view: View) -> Finding | None:
    """Deviation of f(a x + (1 − a) y) from a f(x) + (1 − a) f(y), over what f varies, for the last layer with weights."""
    assert view.ledger is not None
    xs = [standardised(x) for x in view.ledger.few]
    if not xs or not all(x.is_floating_point() for x in xs) or len(xs[0]) < 2 or reconstructs(view):
        return None
    model = _redrawn(view)
    ys = [x.roll(1, 0) for x in xs]
    layers, at_x = _last(model, xs)
    if len(layers) < 2 or at_x is None:
        return None
    _, at_y = _last(model, ys)
    bent = 0.0
    for a in MIXTURES:
        _, at_both = _last(model, [a * x + (1 - a) * y for x, y in zip(xs, ys, strict=True)])
        if at_y is None or at_both is None or at_both.shape != at_x.shape:
            return None
        spread = float(np.sqrt(np.mean((at_x - at_x.mean(0)) ** 2)))
        off = float(np.sqrt(np.mean((at_both - a * at_x - (1 - a) * at_y) ** 2)))
        if not spread > 0 or not math.isfinite(off):
            return None
        bent = max(bent, off / spread)
    if not bent < BENT:
        return None
    hidden = layers[:-1]
    # A hidden layer that is narrower than both sides makes a map of low rank, which may well be meant.
    sizes = {layer.name: layer.output.size // layer.output.samples for layer in view.reading.layers}
    narrow = min((sizes[name] for name in hidden if name in sizes), default=0)
    low = narrow < min(math.prod(xs[0].shape[1:]), math.prod(at_x.shape[1:]))
    return NO_ACTIVATION.found(
        Evidence("how far the net is from one linear map, of what its outputs vary", bent, BENT, False),
        cause=f"The {len(layers)} layers {', '.join(hidden[:3])}{'…' * (len(hidden) > 3)} and {layers[-1]} have no activation "
        "between them: together they are one linear layer.",
        cure=activate(hidden),
        where=hidden,
        severity="note" if low or fits(view) else severity(view),
    )


def bottleneck(view: View) -> Finding | None:
    """The dimensions of what goes into each layer: singular values above a part of the largest."""
    assert view.ledger is not None
    model, xs = view.ledger.fresh, view.ledger.few
    if reconstructs(view) or not xs:
        return None
    passages = [p for p in flow(model, xs)[0] if p.weight is not None]
    ranks = [_rank(passage) for passage in passages]
    if len(ranks) < 2 or len({p.name for p in passages}) < len(passages):
        return None
    for i in range(1, len(passages)):
        before, here, rank = passages[i - 1], passages[i], ranks[i]
        wide, outputs = before.weight, here.weight
        assert wide is not None
        assert outputs is not None
        sides, units = min(wide[0].numel(), outputs.shape[0]), outputs.shape[1]
        if rank == 0 and units <= FEW_DIMENSIONS:  # dead, as few units easily are
            rank = units
        if not rank or rank > FEW_DIMENSIONS or sides < WIDE or max(earlier or 0 for earlier in ranks[:i]) < WIDE:
            continue
        linear = isinstance(before.module, nn.Linear) and isinstance(here.module, nn.Linear)
        simple = linear and wide.shape[0] == units and not _normalised_between(view, before.name, here.name)
        better = min(sides, 64)
        return BOTTLENECK.found(
            Evidence(f"dimensions of what goes into {here.name!r}", rank, FEW_DIMENSIONS + 1, False),
            cause=f"Between {before.name} ({wide[0].numel()} inputs) and {here.name} ({outputs.shape[0]} outputs) only {rank} "
            f"number{'s' * (rank > 1)} of each sample {'get' if rank > 1 else 'gets'} through"
            + (f": {before.name} has {units} unit{'s' * (units > 1)}." if simple else ": the net is narrow there."),
            cure=widen(before.name, here.name, (wide.shape[1], better, outputs.shape[0]))
            if simple
            else Cure(
                f"# make the net wider between {before.name} and {here.name}: more units, or no mean or sum over them"
            ),
            where=[before.name],
            severity=severity(view),
        )
    return None


def dropout(view: View) -> Finding | None:
    """The share of numbers that training mode alone puts to 0, in a layer or on the way from one to the next."""
    assert view.ledger is not None
    model, xs = view.ledger.fresh, view.ledger.few
    there, here = flow(model, xs)[0], flow(model, xs, training=True)[0]
    if [p.name for p in there] != [p.name for p in here]:
        return None
    shares: dict[tuple[str, bool], float] = {}
    for i, (calm, noisy) in enumerate(zip(there, here, strict=True)):
        own = _zeros(noisy.input, noisy.output), _zeros(calm.input, calm.output)
        way = (_zeros(here[i - 1].output, noisy.input), _zeros(there[i - 1].output, calm.input)) if i else (None, None)
        for (dropped, anyway), name, inside in ((own, calm.name, True), (way, there[i - 1].name, False)):
            if dropped is not None and anyway is not None and anyway < 1:
                shares[name, inside] = max(shares.get((name, inside), 0.0), (dropped - anyway) / (1 - anyway))
    bad = {place: share for place, share in shares.items() if share > DROPPED_SOME}
    if not bad:
        return None
    (name, inside), share = max(bad.items(), key=lambda pair: pair[1])
    paths = [path for path, within in bad if within]
    p = round(min(0.5, 1 - share), 2)
    able = len(paths) == len(bad) and all(isinstance(getattr(view.modules[path], "p", None), float) for path in paths)
    return DROPOUT.found(
        graded(
            f"numbers put to 0 {'by' if inside else 'behind'} {name!r} in training",
            share,
            DROPPED,
            DROPPED_SOME,
            share=True,
        ),
        cause=f"In training dropout leaves {1 - share:.0%} of the numbers: the noise has "
        f"{share / max(1 - share, 1e-3):.2g} times the power of the signal.",
        cure=drop_less(paths, p)
        if able
        else Cure(f"# in forward(), F.dropout(…, p={p:g}, training=self.training): p is the probability to put to 0"),
        where=list(dict.fromkeys(path for path, _ in bad)),
    )


def cannot_fit(view: View) -> Finding | None:
    """Whether a copy learns a few samples by heart, by another optimiser than the user's."""
    assert view.trials is not None
    trials, batch = view.trials, view.trials.case.batch
    n = min(BY_HEART, len(batch[0]))
    *inputs, target = (part[:n] for part in batch)
    some = (*map(standardised, inputs), target)
    if any(len(part) != len(batch[0]) for part in batch) or not view.losses or not _distinct(some):
        return None
    if view.ledger is None or not any(t.wanted and t.reached for t in view.ledger.trainees):
        return None  # nothing is trained, whatever the samples
    if not taken(trials.case, [some]):
        return None
    guess, usual = (
        min((g for g in view.guesses([t]) if g > 0), default=None) for t in (some[-1], trials.fitted[0][-1])
    )
    weights = sum(p.numel() for p in view.model.parameters() if p.requires_grad)
    outputs = view.reading.layers[-1].output if view.reading.layers else None
    if guess is None or usual is None or outputs is None or weights < BY_HEART * outputs.size / outputs.samples:
        return None
    if trials.course().end < UNFIT_SOME * usual or trials.explained(LEARNT * usual):
        return None
    least = math.inf
    for rate in RATES:
        course = trials.course(f"{n} samples by heart, Adam {rate:g}", partial(by_adam, rate), batches=[some])
        left = trials.loss(course.patient, [some])
        least = min(least, course.end, math.inf if left is None else left)
        if least < UNFIT_SOME * guess:
            return None
    return CANNOT_FIT.found(
        graded(
            f"loss of {n} samples after learning them alone, over that of guessing", least / guess, UNFIT, UNFIT_SOME
        ),
        cause=f"Trained by Adam on {n} samples alone, at two rates, the loss stays at {least:.3g}, and one output for all "
        f"costs {guess:.3g}: the fault is in the net or the loss, not in the data or the learning rate.",
        cure=Cure(
            "# print(model(x)[:5], t[:5]): do the outputs differ from sample to sample, have they the targets' shape, and can\n"
            "# they reach them? Then follow x through forward(): where does what differs between samples get lost?"
        ),
    )


# --- what they measure


def reconstructs(view: View) -> bool:
    """Whether the targets have the shape of an input, and many numbers: an autoencoder, whose code is narrow on purpose."""
    t = view.target
    return t.is_floating_point() and t.numel() >= WIDE * len(t) and any(t.shape == x.shape for x in view.inputs)


def standardised(x: Tensor) -> Tensor:
    """Inputs of mean 0 and standard deviation 1, all features alike; what is no number stays as it is."""
    if not x.is_floating_point():
        return x
    spread = float(x.std().item()) if x.numel() > 1 else 0.0
    return (x - x.mean()) / spread if spread > 0 else x


def _redrawn(view: View) -> nn.Module:
    """A copy with new weights, whose activations are in their bent range: those of the net may be too small for that."""
    assert view.ledger is not None
    model = copy.deepcopy(view.ledger.fresh)
    manual_seed(0)
    with no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                initialisers.normal_(parameter, std=1.5 / math.sqrt(parameter[0].numel()))
    return model


def _last(model: nn.Module, inputs: Sequence[Any]) -> tuple[list[str], np.ndarray[Any, Any] | None]:
    """Names of the layers with weights that lead to the last one, in order of their calls, and its output."""
    passages = [passage for passage in flow(model, inputs)[0] if passage.weight is not None]
    names = list(dict.fromkeys(passage.name for passage in passages))
    read = passages[-1].input if passages else None
    if read is not None and any(x.shape == read.shape and bool((x == read).all().item()) for x in inputs):
        names = names[-1:]  # it is called last, as a gate may be, and reads the net's inputs
    return names, to_host(passages[-1].output.array).astype(np.float64) if passages else None


ROUNDED = 1e-5
"""Differences between samples, over their size, of which float32's rounding is a part that counts."""


def _rank(passage: Passage) -> int | None:
    """Dimensions of the inputs of a dense layer or convolution: of its features, or channels, over samples and positions."""
    x, weight = passage.input, passage.weight
    if x is None or weight is None or not bool(x.isfinite().all().item()):
        return None
    features = to_host((x if weight.ndim == 2 else x.movedim(1, -1)).array).astype(np.float64)
    rows = features.reshape(-1, features.shape[-1])
    rows = rows[:: max(1, len(rows) // 256)][:512, :512]
    values = np.linalg.svd(rows - rows.mean(0), compute_uv=False)
    if 0 < values[0] < ROUNDED * np.abs(rows).max() * len(rows) ** 0.5:
        return None  # what differs between samples is rounding: the signal has collapsed
    return int((values > RANK * values[0]).sum()) if len(rows) > WIDE else None


def _normalised_between(view: View, first: str, second: str) -> bool:
    names = [layer.name for layer in view.reading.layers]
    if first not in names or second not in names:
        return False
    return any(
        isinstance(view.modules.get(n), NORMALISERS) for n in names[names.index(first) + 1 : names.index(second)]
    )


def _zeros(before: Tensor | None, after: Tensor | None) -> float | None:
    """The share of 0 among numbers that were none before; None where these are not the same numbers, or few."""
    if before is None or after is None or before.shape != after.shape:
        return None
    some = before != 0
    count = int(some.sum().item())
    return float(((after == 0) & some).sum().item()) / count if count >= KEPT else None


def _distinct(batch: Sequence[Tensor]) -> bool:
    """Whether no two samples have the same inputs: they might have different targets."""
    with no_grad():
        inputs = np.concatenate([to_host(x.array).reshape(len(x), -1).astype(np.float64) for x in batch[:-1]], axis=1)
    return len(np.unique(inputs, axis=0)) == len(inputs)


def severity(view: View) -> str:
    """An error where a trial shows that the net does not learn, else a warning."""
    seen = guessing(view) if view.trials is not None else None
    return "error" if seen is not None and seen.disease == "no-better-than-guessing" else "warning"


def fits(view: View) -> bool:
    """Whether a trial leaves nothing to learn."""
    if view.trials is None:
        return False
    course, guess = view.trials.course(), min(view.guesses([b[-1] for b in view.trials.fitted]), default=0.0)
    return max(course.end, course.held or 0.0) < FITS * guess

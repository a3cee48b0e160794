"""Rules of batch statistics: batches too small for them, averages that evaluation cannot use, and layers that lose all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from kobai import nn, ops
from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Cure
from kobai.lab.doctor.cures_of_batches import average_anew, group_norm, without
from kobai.lab.doctor.findings import Disease, Evidence, Finding
from kobai.lab.doctor.ledger import tensors
from kobai.lab.doctor.rules.view import LEARNT, NORMALISERS, STANDARDISERS, View
from kobai.lab.doctor.trials import copy_of, undisturbed
from kobai.random import manual_seed
from kobai.train.batches import device_of
from kobai.train.step import computing

SMALL_BATCH, COMPANY = 4, 0.1
APART, USELESS = 0.2, 0.98
LEARNT_SOMETHING = 0.8
"""Of the loss of guessing: above it evaluation has nothing to lose."""
NOTHING = 1e-6
SLOW = 0.01
"""Momentum below which running statistics need hundreds of batches."""
HASTY = 0.5
"""Momentum above which running statistics are those of the last batch or two."""
LAST, LOST = 12, 0.03
"""Last batches whose averages are tried; what these may cost, of the loss of guessing."""
STEADY = 0.2
"""Of the difference of the two modes: a loss that changes by more from one look to the next tells nothing of them."""
MODES = 8
"""Batches, at most, on which training and evaluation are compared."""

FEW_SAMPLES = Disease(
    "few-samples",
    "batch statistics of few samples",
    f"in training mode, batches of {SMALL_BATCH} samples or fewer, in which an output changes by more than {COMPANY:.0%} of "
    "what differs between samples when the other samples of its batch are replaced by copies of its own; layers that "
    "compute batch statistics are the reason if the outputs do not change in evaluation mode, or their operation is on "
    "the tape",
    "A mean and a variance of n samples have errors of 1/√n of the spread. Of two values a and b, (a − mean)/std is +1 and "
    "−1 whatever they are, so that the net sees only which is the larger, and no gradient passes.",
    "Wu and He, Group normalization, ECCV 2018, figure 1; Ioffe, Batch renormalization, 2017",
    ("non-finite", "wrong-labels"),
    certain=True,
)
MODES_APART = Disease(
    "evaluation-differs",
    "evaluation is worse than training on the same samples",
    f"of a net that has learnt (in training mode a loss below {LEARNT_SOMETHING:g} of that of knowing nothing), the loss "
    f"of the same weights and samples is larger in evaluation mode by more than {APART:g} of that (an error where "
    f"it is above {USELESS:g} of that); now, or after the steps of a trial; at a momentum above {HASTY:g} by {LOST:g}, on the "
    f"averages that {LAST} random halves of the samples leave",
    "In evaluation, batch norm takes running averages in place of the batch's statistics: avg ← (1 − m) avg + m batch. "
    "They follow within some 1/m batches, and hold only for inputs like those they were averaged of. Dropout in front of a "
    "batch norm changes the variance that it averages.",
    "Ioffe and Szegedy 2015, section 3.1; Li et al., Understanding the disharmony between dropout and batch "
    "normalization, CVPR 2019",
    ("non-finite", "wrong-labels", "few-samples"),
    fact=True,
)
SIGNAL_LOST = Disease(
    "signal-lost",
    "all that differs between samples is lost in one layer",
    f"outputs that differ between samples by less than {NOTHING:g} of their size, though inputs differ: the first layer from "
    f"which on it is so, if it passes on less than {NOTHING:g} of what differs before it; rectifiers (see dying ReLU) and "
    "layers whose weights are 0 are left out",
    "A norm over a single number is 0 for every sample, since the number is its own mean. A wrong index, or a reduction over "
    "all samples, leaves nothing to tell them apart either.",
    "definition of the normalisation, (x − mean)/√(var + eps); Ulyanov, Vedaldi, Lempitsky, arXiv:1607.08022",
    ("non-finite", "wrong-labels", "no-signal", "symmetric"),
    certain=True,
)


def small_batches(view: View) -> Finding | None:
    """In a batch of few samples, outputs that depend on the other samples: by batches made of copies of one sample."""
    data = view.trials.case.data if view.trials is not None else ()
    inputs = list(data[0][:-1]) if data else list(view.inputs)
    if not inputs or any(not isinstance(x, Tensor) or not x.ndim or len(x) != len(inputs[0]) for x in inputs):
        return None
    n = len(inputs[0])
    if not 2 <= n <= SMALL_BATCH:
        return None
    with undisturbed(), computing(view.precision, device_of(view.model).type):
        model, _ = copy_of(view.model)
        change, normed = _company(model.train(), inputs)
        if not change > COMPANY or not (normed or _company(model.eval(), inputs)[0] < COMPANY * change):
            return None
    layers = [(name, m.num_features) for name, m in view.modules.items() if isinstance(m, STANDARDISERS[1:])]
    if not layers or not data:  # with one batch alone nothing can be tried: two samples are told apart by any norm
        cure = Cure(
            "# take larger batches, or a norm that looks at each sample alone: nn.GroupNorm(1, channels) for nn.BatchNorm2d\n"
            "# and nn.BatchNorm1d, F.layer_norm(h, h.shape[1:]) for F.batch_norm\n"
            "loader = kobai.utils.data.DataLoader(data, batch_size=32, shuffle=True, drop_last=True)"
        )
    else:
        cure = group_norm(layers)
    return FEW_SAMPLES.found(
        Evidence("samples in a batch", n, SMALL_BATCH + 1, False, severity="error" if n == 2 else "warning"),
        Evidence("change of an output when its companions change, of what differs", change, COMPANY, True, share=True),
        cause=f"Mean and variance are taken from a batch of {n} samples, so that an output tells as much of the other samples "
        "in its batch as of its own.",
        cure=cure,
        where=[name for name, _ in layers],
    )


def _company(model: nn.Module, inputs: Sequence[Any]) -> tuple[float, bool]:
    """How much outputs change when all samples of the batch become copies of their own, relative to what differs between
    samples; and whether batch statistics are among the operations of the outputs.

    Random numbers are the same for the same place in the batch, so that dropout changes nothing.
    """
    n = len(inputs[0])
    manual_seed(0)
    output = next(tensors(model(*inputs)), None)
    if output is None or len(output) != n:
        return 0.0, False
    normed = _on_tape(output, "batch_norm")
    with no_grad():
        whole = output.detach().reshape(n, -1).double()
        changed = []
        for i in range(n):
            manual_seed(0)
            alone = next(tensors(model(*[ops.cat([x[i : i + 1]] * n) for x in inputs])))
            changed.append(alone.reshape(n, -1)[i].double() - whole[i])
        change = math.sqrt(float((ops.stack(changed) ** 2).mean().item()))
        differs = math.sqrt(float(((whole - whole.mean(0)) ** 2).mean().item()))
    return change / max(change, differs) if change > 0 else 0.0, normed


def _on_tape(output: Tensor, name: str) -> bool:
    """Whether an operation is among those that an output was computed by."""
    seen: set[int] = set()
    nodes = [output.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if getattr(node, "name_", "").strip("_") == name:
            return True
        nodes += getattr(node, "edges", ())
    return False


def lost(view: View) -> Finding | None:
    """Outputs without signal: the first layer from which on nothing differs between samples, though the inputs differ."""
    first, layers = view.reading.input, view.reading.layers
    if not layers or first is None or not first.signal > 0 or not all(layer.output.finite for layer in layers):
        return None
    alike = [layer.output.signal <= NOTHING * layer.output.rms for layer in layers]
    if not alike[-1] or layers[-1].output.samples < 2:
        return None
    at = len(layers) - (alike[::-1].index(False) if False in alike else len(layers))
    layer, module = layers[at], view.modules.get(layers[at].name)
    weights = [] if module is None else [p for p in module.parameters(recurse=False) if p.ndim > 1]
    if layer.activation is not None or (layer.output.rms == 0 and weights) or any(_zero(weight) for weight in weights):
        return None
    last = layers[at - 1].output if at else first
    if layer.output.signal > NOTHING * last.signal:  # lost layer by layer: see collapsed activations
        return None
    before = layers[at - 1].name if at else "the input"
    norm = isinstance(module, NORMALISERS)
    place = f"{layer.kind} {layer.name!r}" if norm else f"what is computed between {before!r} and {layer.name!r}"
    why = (
        "It normalises over a single number, and x − mean of one number is 0."
        if norm
        else "Look at what is done there."
    )
    return SIGNAL_LOST.found(
        Evidence(f"what differs between samples, of the size of the outputs of {layer.name!r}", 0.0, NOTHING, False),
        cause=f"After {place} the output is the same for every sample, whatever the input. {why}",
        cure=without([layer.name]) if norm else Cure(
            f"# in forward(), between {before} and {layer.name}: print(h[0], h[1]) – after which line are they alike?\n"
            "# A norm over one number gives 0, softmax over one gives 1; a mean over dim 0 mixes the samples"
        ),
        where=[layer.name],
    )  # fmt: skip


def _zero(weight: Tensor) -> bool:
    """Whether a weight is 0 everywhere, as the last one of many residual blocks in the beginning."""
    return not bool((weight.detach() != 0).any().item())


def modes_apart(view: View) -> Finding | None:
    """The loss of the same weights on the same samples in training and in evaluation mode, beside that of guessing."""
    trials = view.trials
    # Outputs that are no tensor cannot be guessed: the loss before the first step is that of knowing nothing.
    chance = view.chance if view.chance is not None else view.losses[0] if view.losses else math.inf
    if (
        not math.isfinite(chance) or not view.losses or len(view.inputs[0]) <= SMALL_BATCH
    ):  # of so few samples nothing is right
        return None
    with undisturbed(), computing(view.precision, device_of(view.model).type):
        now = trials.case.model if trials is not None else view.model
        found = _gap(now, [(*view.inputs, view.target)], view, chance) if view.losses[0] < LEARNT * chance else None
        when = ""
        if found is None and trials is not None and view.optimizer is not None:
            course = trials.course()
            found = _gap(course.patient.model, trials.fitted[:MODES], view, chance)
            when = f", after {len(course.losses)} steps of a trial"
    if found is None:
        return None
    training, evaluation, (cause, cure) = found
    gap = (evaluation - training) / chance
    return MODES_APART.found(
        Evidence(
            f"loss in evaluation mode less that in training mode{when}, over that of knowing nothing",
            gap,
            APART if gap > APART else LOST,
            True,
            severity="error" if evaluation > USELESS * chance else "warning",
        ),
        cause=f"With the same weights and samples the loss is {training:.3g} in training mode and {evaluation:.3g} in "
        f"evaluation mode: {cause}.",
        cure=cure,
        where=[name for name, module in view.modules.items() if getattr(module, "running_mean", None) is not None],
    )


def _gap(
    model: nn.Module, batches: Sequence[Any], view: View, chance: float
) -> tuple[float, float, tuple[str, Cure]] | None:
    """The losses in training and evaluation mode, why they differ, and the cure; None where they do not."""
    copy, _ = copy_of(model)
    training = _loss(copy.train(), batches, view)
    copy, _ = copy_of(model)
    norms = [module for module in copy.modules() if getattr(module, "running_mean", None) is not None]
    hasty = [m.momentum for m in norms if m.momentum is not None and m.momentum > HASTY]
    evaluation = _after_halves(copy, batches, view) if hasty else _loss(copy.eval(), batches, view)
    limit = LOST if hasty else APART
    if not 0 <= training < LEARNT_SOMETHING * chance or not evaluation - training > limit * chance:
        return None
    again = evaluation if hasty else _loss(copy, batches, view)
    if abs(again - evaluation) > STEADY * (evaluation - training):  # the loss draws numbers of its own
        return None
    closed = training + limit * chance
    inputs = batches[0][:-1]
    if hasty and _averaged(copy, batches, view, dropout=True) < closed:
        return training, evaluation, (
            f"at momentum={max(hasty):g} the running averages are those of the last batch alone, and as chance has drawn it",
            Cure(
                "for module in model.modules():\n"
                '    if getattr(module, "running_mean", None) is not None:\n'
                "        module.momentum = 0.1  # each batch counts a tenth; another library's momentum may be 1 less this"
            ),
        )  # fmt: skip
    if norms and _averaged(copy, batches, view, dropout=True) < closed:
        slow = [m.momentum for m in norms if m.momentum is not None and m.momentum < SLOW]
        updates = max(int(m.num_batches_tracked.item()) for m in norms if m.num_batches_tracked is not None)
        why = (
            f"at momentum={slow[0]:g} the running averages need some {1 / slow[0]:,.0f} batches, and have seen {updates}"
            if slow and slow[0] > 0
            else "momentum=0 keeps the running averages where they began"
            if slow
            else f"the running averages, of {updates} batches, are not those of these samples"
        )
        return training, evaluation, (why + "; measured anew they are right", average_anew(inputs))
    if norms and _averaged(copy, batches, view, dropout=False) < closed:
        return training, evaluation, (
            "dropout in front of a batch norm changes the variance that it averages, and evaluation has no dropout",
            Cure("# put nn.Dropout behind the last batch norm, or lower its p, and train again"),
        )  # fmt: skip
    return training, evaluation, (
        "a layer computes something else than what was trained",
        Cure("print([name for name, m in model.named_modules() if not m.training])  # which of them ask for self.training?"),
    )  # fmt: skip


def _after_halves(model: nn.Module, batches: Sequence[Any], view: View) -> float:
    """Mean loss in evaluation mode, with running statistics as several random halves of the first batch leave them."""
    *inputs, target = batches[0]
    losses = []
    for seed in range(LAST):
        manual_seed(seed)
        rows = ops.randperm(len(inputs[0]), device=inputs[0].device)[: max(2, len(inputs[0]) // 2)]
        with no_grad():
            model.train()(*[x[rows] for x in inputs])
        losses.append(_loss(model.eval(), [(*inputs, target)], view))
    return sum(losses) / len(losses)


def _loss(model: nn.Module, batches: Sequence[Any], view: View) -> float:
    """Mean loss over batches, in the mode that the model is in; infinite if it is not a number."""
    manual_seed(0)
    with no_grad():
        losses = [view.cost(model(*inputs), target) for *inputs, target in batches]
    mean = sum(losses) / len(losses)
    return mean if math.isfinite(mean) else math.inf


def _averaged(model: nn.Module, batches: Sequence[Any], view: View, dropout: bool) -> float:
    """The loss in evaluation mode with running statistics measured anew, with or without dropout."""
    copy, _ = copy_of(model)
    copy.train()
    norms = [module for module in copy.modules() if getattr(module, "running_mean", None) is not None]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    if not dropout:
        copy.eval()
        for norm in norms:
            norm.train()
    _loss(copy, batches, view)
    return _loss(copy.eval(), batches, view)

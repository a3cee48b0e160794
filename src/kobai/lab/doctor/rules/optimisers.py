"""Rules of what the optimiser does by itself: copies are trained with one of its options changed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kobai.core.grad_mode import no_grad
from kobai.lab.doctor.cures import Action, Cure, Patient, set_rate
from kobai.lab.doctor.cures_of_optimisers import descend, set_option, with_option
from kobai.lab.doctor.findings import Case, Disease, Evidence, Finding, better
from kobai.lab.doctor.rules.data import FAULTS
from kobai.lab.doctor.rules.epochs import GONE, SCHEDULE_ENDED
from kobai.lab.doctor.rules.losses import no_least_loss
from kobai.lab.doctor.rules.view import LEARNT, View
from kobai.lab.doctor.trials import copied, undisturbed
from kobai.optim import LBFGS
from kobai.optim.groups import learning_rate, set_learning_rate
from kobai.train.batches import device_of
from kobai.train.step import computing

COSTS, COSTS_OF_START = 3.0, 0.1
"""Times by which decay makes the loss of samples held out larger, and what that is at least, of the loss in the beginning."""
NEVER = 1e-3
"""Part of its rate at which no schedule begins."""
TWICE = 0.01
"""How near a rate is to the square of the first one that was multiplied by it twice."""
TAKEN = 0.5
"""Share of what the net learns without an option that the option takes away."""
HIGH, USUAL, RUNAWAY = 0.95, 0.9, 0.2
"""Momentum that is looked at, what it is compared with, and the part of a weight that steps under one gradient add up to."""
SWEEP, SWEPT = (1e-3, 1e-2, 0.1, 10.0, 100.0, 1e3), 40
"""Multiples of the learning rate, and the steps with each."""
SHORT = 1e-5
"""A step that changes no weight by this part of its size cannot be too long: smaller rates are not tried."""
ENOUGH = 0.8
"""Part of what the best rate of a sweep lowers the loss by, which a smaller, and safer, one may reach."""
SLOW = 0.05
"""A rate is too small if 200 steps lower the loss by less than this part of what 40 steps at a better one do."""

WEIGHT_DECAY = Disease(
    "weight-decay-too-large",
    "weight decay that outweighs the gradient",
    f"of what a copy without weight decay learns in as many steps, decay takes away more than {TAKEN:.0%}; or the loss of "
    f"samples held out is more than {COSTS:g} times that of this copy (a warning), and by {COSTS_OF_START:.0%} of the first",
    "Each step takes the part η λ of every weight, and the gradient must put back as much. With λ of the gradient's size per "
    "weight nothing is left to learn: the weights, and the outputs, go to 0.",
    "Krogh and Hertz, NeurIPS 1991; Loshchilov and Hutter, ICLR 2019",
    (*FAULTS,),
    certain=True,
)
MOMENTUM = Disease(
    "momentum-too-high",
    "momentum too high",
    f"momentum of {HIGH:g} or more, which takes away more than {TAKEN:.0%} of what a copy with {USUAL:g} learns; in "
    f"training: under a lasting gradient steps that add up to {RUNAWAY:g} of a weight, while the loss does not fall",
    "Under a lasting gradient momentum m multiplies the rate by 1/(1 − m), 100 at 0.99; a step in the wrong direction lasts as "
    "long, and the weights overshoot and swing before units die of it.",
    "Sutskever, Martens, Dahl, Hinton, ICML 2013; Goh, Distill 2017",
    (*FAULTS,),
    certain=True,
)

UPHILL = Disease(
    "steps-uphill",
    "steps that go uphill",
    "the first step of a copy, without weight decay and with nothing left of earlier steps: the cosine between it and the "
    "gradient is above 0, while the loss is one that is to become small",
    "A step along −∇L lowers the loss L, for (−∇L)·∇L < 0. One along +∇L raises it, whatever the rate: maximize=True is for "
    "scores, such as a reward, and a negative rate turns every step around.",
    "Cauchy 1847; Robbins and Monro 1951",
    ("non-finite", "wrong-labels", "no-least-loss"),
    certain=True,
)


def uphill(view: View) -> Finding | None:
    """The cosine between the first step of a copy and its gradient."""
    assert view.ledger is not None
    if isinstance(view.optimizer, LBFGS) or no_least_loss(view) is not None:
        return None
    cosine = _cosine(view.ledger.case)
    if not cosine > 0:
        return None
    rates = [learning_rate(group) for group in view.optimizer.param_groups] if view.optimizer is not None else []
    climbs = _option(view, "maximize") > 0
    turned = any(rate < 0 for rate in rates)
    why = "maximize=True" if climbs else "a learning rate below 0" if turned else "what the optimizer does by itself"
    return UPHILL.found(
        Evidence("cosine between step and gradient", cosine, 0.0, True),
        cause=f"The optimizer climbs: its steps go along the gradient, not against it, by {why}, so that the loss grows.",
        cure=descend()
        if climbs
        else set_rate(max(map(abs, rates)), min(rates))
        if turned
        else Cure(
            "# look at the step of the optimizer, and at hooks that change gradients: which of them turns the sign?"
        ),
    )


def _cosine(case: Case) -> float:
    """Of the first step of a copy and its gradient; −1 where there is none."""
    model, optimizer = copied(case)
    optimizer.state.clear()
    patient = Patient(model, optimizer)
    with_option("weight_decay", 0.0)(patient)
    with_option("momentum", 0.0)(patient)
    *inputs, target = case.batch
    with undisturbed(), computing(case.precision, device_of(model).type):
        loss = case.loss_fn(model(*inputs), target)
        if not loss.requires_grad:
            return -1.0
        loss.backward()
        held = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        before = [(p.detach().clone(), p.grad.detach().clone()) for p in held]
        optimizer.step()
        with no_grad():
            steps = [(p - was, slope) for p, (was, slope) in zip(held, before, strict=True)]
            dot, step, slope = (
                sum(float((a.double() * b.double()).sum().item()) for a, b in pairs)
                for pairs in (steps, [(a, a) for a, _ in steps], [(b, b) for _, b in steps])
            )
    size = math.sqrt(step * slope)
    return dot / size if size > 0 and math.isfinite(size) else -1.0


def schedule_left(view: View) -> Finding | None:
    """A rate that a schedule has left at next to nothing, beside a copy that goes on with the one it began with."""
    optimizer = view.optimizer
    if optimizer is None or view.live or view.learnt:
        return None
    group = optimizer.param_groups[0]
    rate, first = learning_rate(group), float(group.get("initial_lr", 0.0))
    if not 0 <= rate < GONE * first:
        return None
    # A schedule that warms up begins so as well, though not at a thousandth or less, unless at 0.
    own = view.ledger.case.optimizer if view.ledger is not None else None
    begun = own is not None and bool(own.state or getattr(own, "_step_called", False))
    twice = math.isclose(rate, first**2, rel_tol=TWICE)  # as where a function gives a rate, and is to give a factor
    if not begun and not 0 < rate < NEVER * first and not twice:
        return None
    cure = set_rate(first, rate)
    evidence = [Evidence("learning rate over that which the schedule began with", rate / first, GONE, False)]
    if view.trials is not None:
        base, other = view.trials.course(), view.trials.course(f"rate {first:g}, as at first", cure.apply)
        start = base.losses[0]
        learnt = start - other.end
        if not learnt > 0.1 * abs(start) or not start - base.end < TAKEN * learnt:
            return None
        evidence.append(Evidence("loss of a copy after training at this rate", base.end, other.end, True))
    return SCHEDULE_ENDED.found(
        *evidence,
        cause=f"The schedule has lowered the learning rate from {first:.3g} to {rate:.2g}, which is too small to learn: "
        + (
            f"{rate:.2g} is {first:.3g} times {first:.3g}, as if the function of a LambdaLR gave the rate itself, where it "
            "is to give a factor of it."
            if twice and not begun
            else "it has ended, or was stepped for each batch in place of each epoch."
        ),
        cure=cure,
        severity="error" if view.trials is not None and (begun or not twice) else "warning",
    )


def takes(view: View, name: str, change: Action) -> tuple[float, float, float] | None:
    """The share of what a copy learns with a change that is lost without it, and where the loss ends with and without it."""
    assert view.trials is not None
    base, other = view.trials.course(), view.trials.course(name, change)
    start = base.losses[0]
    learnt = start - other.end
    if not math.isfinite(other.end) or not learnt > 0.1 * abs(start):
        return None
    lost = (base.end - other.end) / learnt
    return (lost, other.end, base.end) if lost > TAKEN else None


def costs(view: View, name: str, change: Action) -> tuple[float, float, float] | None:
    """By how much the loss of samples held out is larger without a change, and where the loss ends with and without it.

    What takes less than half of what is learnt may leave a regression many times the error that it could have.
    """
    assert view.trials is not None
    base, other = view.trials.course(), view.trials.course(name, change)
    if base.held is None or other.held is None or not 0 < other.held < math.inf or not other.end < base.end:
        return None
    times = base.held / other.held
    far = base.held - other.held > COSTS_OF_START * abs(base.losses[0])
    return (times, other.end, base.end) if times > COSTS and far else None


def decay(view: View) -> Finding | None:
    """Whether the net learns without weight decay, and not with it."""
    value = _option(view, "weight_decay")
    if not value or view.trials is None:
        return None
    without_it = "without weight decay", with_option("weight_decay", 0.0)
    taken, costly = takes(view, *without_it), costs(view, *without_it)
    if taken is None and costly is None:
        return None
    lost, without, now = taken or costly or (0.0, 0.0, 0.0)
    less = next(
        (
            part
            for part in (0.1, 0.01)
            if view.trials.course(f"{part:g} of the decay", with_option("weight_decay", part * value)).end
            < without + 0.2 * (now - without if math.isfinite(now) else abs(without))
        ),
        0.0,
    )
    return WEIGHT_DECAY.found(
        Evidence(
            "part of what is learnt without weight decay that it takes away",
            lost,
            TAKEN,
            True,
            share=math.isfinite(lost),
        )
        if taken is not None
        else Evidence("loss of samples held out over that without weight decay", lost, COSTS, True, severity="warning"),
        cause=f"With weight_decay={value:g} the loss of a copy ends at {now:.3g}, and without it at {without:.3g}: each "
        "step takes more from the weights than the gradient gives them.",
        cure=set_option("weight_decay", less * value, value),
    )


def momentum(view: View) -> Finding | None:
    """Whether the net learns with usual momentum, and not with its own; without trials, how far a lasting gradient leads."""
    value = _option(view, "momentum")
    if value < HIGH:
        return None
    cure = set_option("momentum", USUAL, value)
    if view.trials is None:
        far = max(
            (
                weight.gradient.norm / view.scale * float(view.rate or 0) / (1 - min(value, 0.9999)) / norm
                for weight in view.reading.weights
                if weight.gradient is not None and (norm := weight.value.rms * math.sqrt(math.prod(weight.shape))) > 0
            ),
            default=0.0,
        )
        if not far > RUNAWAY or view.learnt:
            return None
        return MOMENTUM.found(
            Evidence("steps under a lasting gradient, over the weights", far, RUNAWAY, True),
            cause=f"Momentum {value:g} multiplies the learning rate {view.rate:g} by {1 / (1 - min(value, 0.9999)):.0f}: the "
            "weights run past where they should stop.",
            cure=cure,
        )
    taken = takes(view, f"momentum {USUAL:g}", with_option("momentum", USUAL))
    if taken is None:
        return None
    lost, usual, now = taken
    return MOMENTUM.found(
        Evidence(
            f"part of what is learnt at momentum {USUAL:g} that is lost", lost, TAKEN, True, share=math.isfinite(lost)
        ),
        cause=f"With momentum {value:g} the loss of a copy ends at {now:.3g}, and with {USUAL:g} at {usual:.3g}: it multiplies "
        f"the learning rate by {1 / (1 - min(value, 0.9999)):.0f}, and the weights run past where they should stop.",
        cure=cure,
    )


def _option(view: View, name: str) -> float:
    """The largest value of an option in any group; 0 if it has none."""
    groups = view.optimizer.param_groups if view.optimizer is not None else []
    values = [group[name] for group in groups if isinstance(group.get(name), (int, float))]
    return max(map(float, values), default=0.0)


def best_rate(view: View) -> tuple[float, float] | None:
    """The least rate, of multiples of the own one, rounded to 1 or 3, that lowers a copy's loss by ENOUGH of what the best
    does; and that loss.

    None without trials, and where the net learns at its own rate, or with the cure of what was found already.
    """
    if view.trials is None or view.optimizer is None or isinstance(view.optimizer, LBFGS) or view.settling:
        return None
    own = abs(float(view.rate or 0.0))
    base = view.trials.course()
    chance = view.chance
    if chance is not None and (base.end < LEARNT * chance or view.trials.explained(LEARNT * chance)):
        return None
    ends: dict[float, float] = {}

    def end(rate: float) -> float:
        if rate not in ends:
            assert view.trials is not None
            ends[rate] = view.trials.course(f"rate {rate:g}", with_rate(rate), steps=SWEPT).end
        return ends[rate]

    longest = max((weight.ratio for weight in view.reading.weights if weight.ratio >= 0), default=1.0)
    factors = [factor for factor in SWEEP if factor > 1 or longest > SHORT]
    best = min(sorted(_rounded((own or 1e-3) * factor) for factor in factors), key=end)
    outwards = {max(ends): 10.0, min(ends): 0.1}.get(best, 1.0)  # a rate that is off by more than the sweep is wide
    while end(_rounded(best * outwards)) < ends[best]:
        best = _rounded(best * outwards)
    for near in (_rounded(best * 3), _rounded(best / 3)):
        end(near)
    least = min(ends.values())
    if not 0 <= least < math.inf:  # a loss that falls below 0 may fall on for ever, the faster the larger the rate
        return None
    enough = base.losses[0] - ENOUGH * (base.losses[0] - least)
    rate = min((rate for rate, end in ends.items() if end <= enough), default=best)
    return rate, ends[rate]


def with_rate(rate: float) -> Action:
    """One rate for all groups."""

    def change(patient: Patient) -> None:
        for group in patient.optimizer.param_groups:
            set_learning_rate(group, rate)

    return change


def _rounded(rate: float) -> float:
    """To 1, 3, 10, 30, …

    >>> _rounded(0.05), _rounded(0.0021), _rounded(7e-5)
    (0.03, 0.003, 0.0001)
    """
    power = math.floor(math.log10(rate))
    return min((float(f"{digit}e{power}") for digit in (1, 3, 10)), key=lambda near: abs(math.log(near / rate)))


@dataclass(frozen=True)
class Swept:
    """The best rate of a sweep, the loss with it and with the own one, and that before."""

    rate: float
    best: float
    own: float
    start: float


def compared(view: View) -> Swept | None:
    """The best rate of the sweep, if a copy learns far more with it than with its own one; see :func:`best_rate`."""
    found = best_rate(view)
    if found is None or view.trials is None:
        return None
    rate, end = found
    base = view.trials.course()
    start = base.losses[0]
    learnt, own = start - end, start - base.end
    larger = rate > float(view.rate or 0.0)
    limit, held = SLOW if larger else TAKEN, view.trials.course(f"rate {rate:g}").held
    if not larger and held is not None and base.held is not None and not better(held, base.held):
        return None  # it learns the samples that it sees, and not what holds for others
    return Swept(rate, end, base.end, start) if learnt > 0.1 * abs(start) and own < limit * learnt else None

"""Rules of the optimiser's own settings, each of which is set back to its default on a copy, and of its memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from inspect import signature
from typing import Any

from kobai.lab.doctor.cures import Cure
from kobai.lab.doctor.cures_of_optimisers import set_option, with_option
from kobai.lab.doctor.findings import Disease, Evidence, Finding, better
from kobai.lab.doctor.rules.data import FAULTS
from kobai.lab.doctor.rules.optimisers import TAKEN, best_rate, with_rate
from kobai.lab.doctor.rules.view import View
from kobai.lab.doctor.trials import Course
from kobai.optim import Optimizer

FEWEST = 2
"""Steps of the shortest mean of squared gradients."""
SEEN = 3
"""Steps after which an average is of more than one."""
EXAMINED = frozenset(("lr", "weight_decay", "momentum", "maximize"))
"""Settings that have examinations of their own."""

SETTING = Disease(
    "optimizer-setting",
    "a setting of the optimiser that keeps the net from learning",
    "each number among the optimiser's settings that is not its default (rate, decay and momentum have examinations of their "
    f"own) is set back on a copy: of what this copy learns more than {TAKEN:.0%} is lost without it, its samples held out are "
    "told better too, and no learning rate of a sweep does better in as many steps",
    "Adam divides the mean gradient m by √v + ε. With β₁ near 0 the mean is one noisy gradient, with β₂ near 0 each step has "
    "the size of the rate, whatever the slope; an ε far above √v makes the step as small as ε says, one of 0 divides 0 by 0. "
    "Such steps are no matter of the rate, which can only make them smaller.",
    "Kingma and Ba, ICLR 2015, section 2; Choi et al., arXiv:1910.05446 (ε and rate together)",
    (*FAULTS, "steps-uphill", "weight-decay-too-large", "momentum-too-high", "optimizer-forgets"),
    certain=True,
)

FORGETS = Disease(
    "optimizer-forgets",
    "an optimizer that forgets each step",
    f"β₂, which averages squared gradients over 1/(1 − β₂) steps, makes that fewer than {FEWEST}; or after {SEEN} steps or "
    "more, with a momentum, the state of every parameter with a gradient is gone, or counts 1 step, or its momentum buffer "
    "is the last gradient to the bit, without decay, though earlier gradients were not 0",
    "Momentum adds up gradients, vₖ = μ vₖ₋₁ + gₖ, and multiplies a steady slope by 1/(1 − μ): 50 at μ = 0.98. Adam "
    "divides by a mean over steps, and begins anew with a step of the size of the rate. An optimizer that is made anew for "
    "each batch, or whose state is cleared, has neither; with β₂ near 0 each step is the sign of a noisy gradient, at any "
    "size of it.",
    "Sutskever, Martens, Dahl, Hinton, ICML 2013; Kingma and Ba, ICLR 2015, section 3 (bias of the first steps)",
    ("non-finite", "not-held", "no-signal"),
    certain=True,
)


def forgets(view: View) -> Finding | None:
    """What the optimizer's state holds of the steps so far."""
    assert view.ledger is not None
    ledger = view.ledger
    if (short := _short(ledger.optimizer)) is not None:
        return short
    if ledger.steps < SEEN:
        return None
    remembered = []
    for trainee in ledger.trainees:
        if trainee.group is None or not trainee.gradient or trainee.parameter.grad is None:
            continue
        group, state = ledger.optimizer.param_groups[trainee.group], ledger.optimizer.state.get(trainee.parameter, {})
        if "step" in state or "betas" in group:  # some count no steps
            remembered.append(int(state["step"]) > 1 if "step" in state else bool(state))
        elif group.get("momentum"):
            buffer = state.get("momentum_buffer")
            same = buffer is None or bool((buffer == trainee.parameter.grad).all().item())
            remembered.append(bool(group.get("weight_decay")) or not same)
    if not remembered or any(remembered):
        return None
    return FORGETS.found(
        Evidence(f"steps, of {ledger.steps}, that the optimizer's averages are of", 1, 2, False, severity="error"),
        cause=f"After {ledger.steps} steps {type(ledger.optimizer).__name__} holds the last one alone: its momentum "
        "begins at 0 at every step, as where the optimizer is made anew for every batch, or its state is cleared.",
        cure=Cure(
            "# make the optimizer once, before the loop over the batches; in the loop only zero_grad(), backward(), step()"
        ),
    )


def _short(optimizer: Optimizer) -> Finding | None:
    """Second moments that are those of the last step, in all groups."""
    betas = [
        tuple(map(float, group["betas"])) for group in optimizer.param_groups if len(group.get("betas") or ()) == 2
    ]
    steps = max((1 / (1 - second) for _, second in betas), default=math.inf)
    if len(betas) < len(optimizer.param_groups) or not steps < FEWEST:
        return None
    default = signature(type(optimizer)).parameters["betas"].default
    return FORGETS.found(
        Evidence("steps that the mean of squared gradients is of", steps, FEWEST, False, severity="error"),
        cause=f"betas={betas[0]} average the gradient over {1 / (1 - betas[0][0]):.3g} steps, and its square over {steps:.3g}: "
        "each step is the sign of one batch's gradient times the rate. Some libraries take 1 − β.",
        cure=set_option("betas", default, betas[0]),
    )


def away(optimizer: Optimizer) -> Mapping[str, tuple[Any, Any]]:
    """(value, default) of all settings that are numbers, or several, and not their defaults in some group.

    >>> import kobai
    >>> dict(away(kobai.optim.Adam([kobai.ones(1, requires_grad=True)], lr=0.1, betas=(0.5, 0.999))))
    {'betas': ((0.5, 0.999), (0.9, 0.999))}
    """
    found = {}
    for name, parameter in signature(type(optimizer)).parameters.items():
        default = parameter.default
        several = default if isinstance(default, tuple) else (default,)
        if name in EXAMINED or not all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in several):
            continue
        values = [group[name] for group in optimizer.param_groups if name in group]
        other = [value for value in values if value != default]
        if other:
            found[name] = other[0], default
    return found


def setting(view: View) -> Finding | None:
    """The setting without which a copy learns far more, if no other rate does as much for it."""
    assert view.trials is not None
    assert view.optimizer is not None
    base = view.trials.course()
    start, told = base.losses[0], []
    for name, (value, default) in away(view.optimizer).items():
        other = view.trials.course(f"{name}={default}", with_option(name, default))
        learnt = start - other.end
        if not math.isfinite(other.end) or not learnt > 0.1 * abs(start) or not _held_better(other, base):
            continue
        lost = (base.end - other.end) / learnt
        if lost > TAKEN:
            told.append((other.end, lost, name, value, default))
    if not told:
        return None
    end, lost, name, value, default = min(told, key=lambda each: each[0])
    swept = best_rate(view)
    if swept is not None and better(_at(view, swept[0]), end):
        return None
    return SETTING.found(
        Evidence(
            f"part of what is learnt at {name}={default} that is lost", lost, TAKEN, True, share=math.isfinite(lost)
        ),
        cause=f"With {name}={value} the loss of a copy ends at {base.end:.3g}, and with the default, {default}, at {end:.3g}"
        + ("; no learning rate of a sweep does better." if swept is not None else "."),
        cure=set_option(name, default, value),
    )


def _held_better(course: Course, base: Course) -> bool:
    """Whether samples held out are told better, if there are any."""
    return course.held is None or base.held is None or better(course.held, base.held)


def _at(view: View, rate: float) -> float:
    """Where a copy's loss ends at another rate, in as many steps as the others take."""
    assert view.trials is not None
    return view.trials.course(f"rate {rate:g}, to the end", with_rate(rate)).end

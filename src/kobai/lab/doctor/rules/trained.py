"""Rules of who is trained: registered, held by the optimiser, reached by the loss, given a gradient, changed by a step."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from kobai import nn, ops
from kobai.autograd import grad
from kobai.core.grad_mode import no_grad
from kobai.lab.doctor.cures import Cure, Patient, unfreeze
from kobai.lab.doctor.cures_of_parameters import hold, redraw, register, set_group_rate, thaw
from kobai.lab.doctor.findings import Disease, Evidence, Finding
from kobai.lab.doctor.ledger import Stranger, Trainee
from kobai.lab.doctor.rules.data import FAULTS
from kobai.lab.doctor.rules.view import View
from kobai.lab.doctor.trials import copied
from kobai.train.batches import device_of
from kobai.train.step import computing

OF_USE, SURELY, DRAWS = 0.2, 0.4, 6
"""Weights that hold something learnt: with them as they are the loss ends lower by so much than with them shuffled, or is
left so small a part of that; in between the shuffled draws are more."""
STEPS_SEEN = 3

_LEARNT = (
    f"not found where these weights hold something learnt: with their numbers shuffled two copies (up to {DRAWS} "
    f"where theirs is not over {1 / SURELY:g} times as high) end with a loss that is higher by {OF_USE:.0%}, as in fine-tuning"
)

NOT_REGISTERED = Disease(
    "not-registered",
    "weights that are not registered",
    "on the tape that leads from the loss (without an optimizer: from the outputs) to the leaves there are tensors that "
    "require a gradient, are no parameters of the model, and are held by no optimizer",
    "A module registers parameters and modules that are its attributes, and looks into no list, tuple or dict. What it "
    "does not know is not in parameters(), and so never trained, never saved, and never moved to a device.",
    "Kobai's and PyTorch's documentation of Module, ModuleList and ModuleDict",
    ("non-finite",),
    certain=True,
)
NOT_HELD = Disease(
    "not-held",
    "weights that the optimizer does not hold",
    "parameters that require a gradient and are given one, but are in no group of the optimizer (an error if it holds none "
    "of the net's; without trials a note, where these come before all that it holds); "
    f"{_LEARNT}",
    "A step changes what is in the optimizer's groups. A layer that is made or replaced after the optimizer, or copied "
    "with the net, is another tensor than the one it holds.",
    "definition of the optimizer's step; PyTorch's documentation of torch.optim, section constructing it",
    ("non-finite", "not-registered"),
    certain=True,
)
CUT_OFF = Disease(
    "cut-off",
    "weights that are never given a gradient",
    "parameters that require a gradient and are to be trained, to which no tape leads from the loss: the layer is called, "
    f"and the graph is cut behind it (detach, no_grad, argmax, numbers taken out of it), or it is never called; {_LEARNT}, "
    "nor for a layer in a ModuleList or ModuleDict of which others are called",
    "The chain rule multiplies along the way from the loss to the parameter; a way that is cut has no derivative, and the "
    "optimizer skips what has no gradient.",
    "Baydin et al., Automatic differentiation in machine learning: a survey, JMLR 2018",
    ("non-finite", "no-signal"),
    certain=True,
)
FROZEN = Disease(
    "frozen",
    "weights that are frozen before they have learnt",
    f"weights with requires_grad=False that the optimizer holds; without trials a note; {_LEARNT}; or such weights that are "
    "all zeros, held or not, where the loss has a gradient for them: so an adapter begins, and it has learnt nothing",
    "Freezing keeps what was learnt. Random weights hold nothing to keep, and a layer that stays random can only be made "
    "up for by those after it.",
    "Yosinski et al., How transferable are features in deep neural networks?, NeurIPS 2014",
    ("non-finite", "no-signal", "not-registered", "not-held", "cut-off"),
    certain=True,
)
STANDING = Disease(
    "standing",
    "weights that no step changes",
    f"parameters that the optimizer holds and the loss reaches, while in {STEPS_SEEN} steps or more their gradient is "
    "exactly 0 (an error if all weights are so), their group's learning rate is 0 while others' are not, or their "
    f"steps change nothing; of the rate: {_LEARNT}",
    "A product has the derivative 0 for a factor whose other factor is 0: zeros before a rectifier, a scale of 0, a unit "
    "that is never active. Such a zero stays, for nothing ever moves it.",
    "Goodfellow, Bengio, Courville, Deep Learning, 2016, section 8.4",
    (
        *FAULTS,
        *"bounded-scores symmetric saturated collapsed dying-relu vanishing-gradient unused-inputs".split(),
        *"rate-too-small schedule-ended".split(),
    ),
    certain=True,
)


def not_registered(view: View) -> Finding | None:
    """Leaves of the tape that need a gradient, and which nobody trains."""
    assert view.ledger is not None
    strangers = view.ledger.strangers
    if not strangers:
        return None
    numbers = sum(stranger.tensor.numel() for stranger in strangers)
    all_numbers = numbers + sum(t.parameter.numel() for t in view.ledger.trainees if t.reached)
    placed = [stranger for stranger in strangers if stranger.owner is not None]
    cure = _registration(view.model, placed) if len(placed) == len(strangers) else ADVICE
    if (own := _of_the_loss(view)) is not None:
        cause, cure = own
    elif placed:
        named = _some([f"{stranger.owner}.{stranger.place}".lstrip(".") for stranger in placed])
        cause = (
            f"{named} {'is' if len(placed) == 1 else 'are'} used, but not registered: "
            "what is in a Python list or dict, or a plain tensor, is "
            "no part of a module."
        )
    else:
        cause = (
            "The loss depends on weights that are no part of the model: made anew in forward(), global, or attributes of the "
            "class."
        )
    return NOT_REGISTERED.found(
        Evidence(
            f"share of what the loss depends on ({numbers:,} numbers) that nobody trains",
            numbers / all_numbers,
            0,
            True,
            share=True,
        ),
        cause=cause,
        cure=cure,
        where=sorted({stranger.owner or "" for stranger in placed}),
        severity="error",
    )


def _of_the_loss(view: View) -> tuple[str, Cure] | None:
    """Cause and cure where all that nobody trains are parameters of the loss function."""
    assert view.ledger is not None
    if not isinstance(view.loss_fn, nn.Module):
        return None
    names = {id(parameter): name for name, parameter in view.loss_fn.named_parameters()}
    if not all(id(stranger.tensor) in names for stranger in view.ledger.strangers):
        return None
    kind = type(view.loss_fn).__name__
    named = _some([f"{kind}.{names[id(stranger.tensor)]}" for stranger in view.ledger.strangers])
    return (
        f"The loss function has weights of its own, {named}, which are in no group of the optimizer: model.parameters() does "
        "not give them.",
        Cure('optimizer.add_param_group({"params": list(loss_fn.parameters())})'),
    )


ADVICE = Cure(
    "# in __init__: self.layers = nn.ModuleList([…]) in place of a list, nn.ModuleDict({…}) in place of a dict,\n"
    "# self.scale = nn.Parameter(tensor) in place of a tensor; make no layer in forward().\n"
    "optimizer = type(optimizer)(model.parameters(), **optimizer.defaults)  # when the model is complete"
)


def _registration(model: nn.Module, strangers: Sequence[Stranger]) -> Cure:
    """The cure that wraps the attributes in which they are; advice if one of them is of no usual kind."""
    attributes: dict[tuple[str, str], str] = {}
    for stranger in strangers:
        path, name = stranger.owner or "", re.split(r"[.\[]", stranger.place)[0]
        thing = vars(model.get_submodule(path)).get(name)
        parts = list(thing.values()) if isinstance(thing, dict) else thing
        if thing is stranger.tensor:
            attributes[path, name] = "Parameter"
            continue
        kinds: Any = (("Module", nn.Module), ("Parameter", type(stranger.tensor)))
        kind = next(
            (n for n, k in kinds if isinstance(parts, (list, tuple)) and all(isinstance(p, k) for p in parts)), None
        )
        if kind is None:
            return ADVICE
        attributes[path, name] = kind + ("Dict" if isinstance(thing, dict) else "List")
    return register([(path, name, kind) for (path, name), kind in attributes.items()])


def not_held(view: View) -> Finding | None:
    """Parameters that get a gradient, and are in no group of the optimiser."""
    assert view.ledger is not None
    left = [t for t in view.ledger.trainees if t.wanted and t.reached and t.group is None]
    if not view.ledger.given or not left or learnt(view, left):
        return None
    others = view.ledger.others
    cause = f"{_names(left)} would be trained, but the optimizer does not hold {_be(left, 'it', 'them')}."
    if others:
        cause = (
            f"The optimizer holds {others} tensor{'s' * (others > 1)} that are no part of the model, and does not hold "
            f"{_names(left)}: it was made before this was made, replaced or copied."
        )
    return NOT_HELD.found(
        _share(view, left, "that require a gradient and are in no group of the optimizer"),
        cause=cause,
        cure=hold(),
        where=_layers(left),
        severity="error"
        if all(t.group is None for t in view.ledger.trainees)
        else "note"
        if view.trials is None and not others and _body(view, left)
        else "warning",
    )


def _body(view: View, left: Sequence[Trainee]) -> bool:
    """Whether these are all that comes before what is held, as the body of a net whose head alone is trained."""
    assert view.ledger is not None
    names = [t.name for t in view.ledger.trainees]
    held = [names.index(t.name) for t in view.ledger.trainees if t.wanted and t.reached and t.group is not None]
    return bool(held) and max(names.index(t.name) for t in left) < min(held)


def cut_off(view: View) -> Finding | None:
    """Parameters that are to be trained, and to which no tape leads from the loss."""
    assert view.ledger is not None
    ledger = view.ledger
    wanted = [t for t in ledger.trainees if t.wanted and (t.group is not None or not ledger.given)]
    left = [t for t in wanted if not t.reached and not _optional(view, t.layer)]
    if not left or not any(t.reached for t in wanted) or learnt(view, left):
        return None
    called = [t for t in left if _called(view, t.layer)]
    if called:
        order = [layer.name for layer in view.reading.layers]
        after = _after(order, called, [t for t in ledger.trainees if t.reached])
        between = f"between {called[-1].layer or 'the model'!r} and {after!r}" if after else f"behind {_names(called)}"
        cause = f"{_names(called)} {_be(called)} used, but never given a gradient: the graph is cut {between}, as by detach()."
        cure = Cure(
            f"# look {between} for .detach(), .data, .item(), .numpy(), no_grad(), argmax(), a comparison, rounding,\n"
            "# or kobai.tensor(…) of what was computed. Is it meant? Then freeze the layers: requires_grad_(False)"
        )
    else:
        on = _be(left, "it", "them")
        cause = f"{_names(left)} {_be(left)} part of the model, but what the loss takes does not depend on {on}."
        cure = Cure("# is a layer forgotten in forward(), or its result not used? If it is not needed, leave it out")
    return CUT_OFF.found(
        _share(view, called or left, "that are to be trained and get no gradient"),
        cause=cause,
        cure=cure,
        where=_layers(called or left),
        severity="warning",
    )


def frozen(view: View) -> Finding | None:
    """Frozen parameters that the optimiser holds, and which hold nothing learnt that would be worth keeping."""
    assert view.ledger is not None
    ledger = view.ledger
    still = [t for t in ledger.trainees if not t.wanted and t.group is not None and ledger.given]
    weights = [t for t in still if t.parameter.ndim > 1]
    if not any(t.wanted for t in ledger.trainees):
        return None
    if not weights:
        return _zeros(view)
    if view.trials is not None and learnt(view, weights):
        return None
    note = view.trials is None
    return FROZEN.found(
        _share(view, weights, "that are frozen, and that the optimizer holds"),
        cause=f"{_names(weights)} {_be(weights, 'has', 'have')} requires_grad=False, "
        f"though the optimizer holds {_be(weights, 'it', 'them')}"
        + (
            "; in fine-tuning this is meant."
            if note
            else ", and nothing learnt is in there: shuffled numbers do as well."
        ),
        cure=unfreeze(_layers(weights)),
        where=_layers(weights),
        severity="note" if note else "warning",
    )


def _zeros(view: View) -> Finding | None:
    """Frozen parameters that are all zeros, as the second factor of a low-rank correction is at first."""
    assert view.ledger is not None
    ledger = view.ledger
    with no_grad():
        still = [
            t for t in ledger.trainees if not t.wanted and t.parameter.ndim > 1 and not bool(t.before.any().item())
        ]
    if not still or not ledger.given:
        return None
    model, _ = copied(ledger.case)
    zeros = {t.name: model.get_parameter(t.name).requires_grad_(True) for t in still}
    *inputs, target = ledger.case.batch
    with computing(view.precision, device_of(model).type):
        slopes = grad(view.loss_fn(model(*inputs), target), list(zeros.values()), allow_unused=True)
    moved = [t for t, slope in zip(still, slopes, strict=True) if slope is not None and bool(slope.any().item())]
    if not moved:
        return None
    beside = [t for t in ledger.trainees if not t.wanted and t.layer in _layers(moved)]
    return FROZEN.found(
        _share(view, moved, "that are frozen at zero"),
        cause=f"{_names(moved)} {_be(moved, 'has', 'have')} requires_grad=False and {_be(moved)} all zeros: nothing learnt is "
        "in there, and the loss would be lower with other numbers. Were adapters frozen together with what they adapt?",
        cure=thaw([(t.name, t.group is not None) for t in beside]),
        where=_layers(moved),
        severity="warning",
    )


def standing(view: View) -> Finding | None:
    """Parameters with a gradient that stays exactly 0, in a group of rate 0, or which steps do not change."""
    assert view.ledger is not None
    ledger, optimizer = view.ledger, view.optimizer
    held = [t for t in ledger.trainees if t.group is not None and t.gradient is not None]
    if optimizer is None or not held or ledger.steps < STEPS_SEEN:
        return None
    rates = [float(group["lr"]) if "lr" in group else 1.0 for group in optimizer.param_groups]
    idle = [t for t in held if rates[t.group or 0] == 0]
    if idle and any(rates) and not view.settling and not learnt(view, idle):
        numbers = sorted({t.group or 0 for t in idle})
        return STANDING.found(
            _share(view, idle, "in a group of learning rate 0"),
            cause=f"{_names(idle)} {_be(idle)} in a group of the optimizer whose learning rate is 0, while others are trained.",
            cure=set_group_rate(numbers, max(rates)),
            where=_layers(idle),
            severity="warning",
        )
    if view.losses and view.losses[0] == 0:
        return None
    # A bias before a normalisation has a gradient of 0 but for rounding, and its steps may be nothing.
    dead = [t for t in held if t.gradient == 0 and t.parameter.ndim > 1]
    if dead and any(t.gradient for t in held):
        return _dead(view, dead, held)
    stuck = [t for t in held if t.gradient and rates[t.group or 0] and not t.changed and t.parameter.ndim > 1]
    if stuck and any(t.changed for t in held):
        return STANDING.found(
            _share(view, stuck, "with a gradient that no step changes"),
            cause=f"{_names(stuck)} {_be(stuck)} given a gradient, but the same after {ledger.steps} steps: put back, or the "
            "steps are lost in rounding.",
            cure=Cure(
                "# does forward(), a hook or a loop write this parameter anew? Is its dtype too coarse for such steps?"
            ),
            where=_layers(stuck),
            severity="warning",
        )
    return None


def _dead(view: View, dead: Sequence[Trainee], held: Sequence[Trainee]) -> Finding:
    """Parameters whose gradient is exactly 0 in all steps."""
    with no_grad():
        zeros = [t for t in dead if not bool(t.parameter.any().item())]
    weights = [t for t in held if t.parameter.ndim > 1]
    schemes = {
        t.name: "normal(1)" if isinstance(view.modules[t.layer], nn.Embedding) else "lecun"
        for t in zeros
        if t.parameter.ndim > 1
    }
    return STANDING.found(
        _share(view, dead, "whose gradient is exactly 0 in every step"),
        cause=f"{_names(dead)} {_be(dead, 'has', 'have')} a gradient of exactly 0"
        + (
            f", and {_some(list(schemes))} is all zeros, which nothing moves."
            if schemes
            else ": nothing that it changes counts."
        ),
        cure=redraw(schemes)
        if schemes
        else Cure(
            "# look behind these layers for a factor that is 0, units that are never active, a clamp or a rounding"
        ),
        where=_layers(dead),
        severity="error" if all(t.gradient == 0 for t in weights) else "warning",
    )


# --- what several of them ask


def learnt(view: View, trainees: Sequence[Trainee]) -> bool:
    """Whether these weights hold something: copies in which each one's numbers are shuffled learn less.

    Shuffling keeps the distribution of every weight and destroys what was learnt, so that random weights are as good as before.
    """
    if view.trials is None:
        return False
    names = [t.name for t in trainees]

    def shuffle(times: int, patient: Patient) -> None:
        with no_grad():
            for name in names * times:
                parameter = patient.model.get_parameter(name)
                flat = parameter.detach().reshape(-1)
                parameter.copy_(flat[ops.randperm(flat.numel(), device=flat.device)].reshape(parameter.shape))

    end, ends = view.trials.course().end, []
    for times in range(1, DRAWS + 1):
        name = f"with the weights of {_some(names)} shuffled, {times}"
        ends.append(view.trials.course(name, partial(shuffle, times)).end)
        # Of a few random draws one may well be the best, and by some per cent: only where it is near, draw more.
        if times > 1 and not SURELY * min(ends) <= end < (1 - OF_USE) * min(ends):
            break
    return end < (1 - OF_USE) * min(ends)


def _called(view: View, path: str) -> bool:
    return any(layer.name == path or layer.name.startswith(f"{path}.") or not path for layer in view.reading.layers)


def _optional(view: View, path: str) -> bool:
    """Whether a layer is one of several in a ModuleList or ModuleDict, of which others are called: an expert, or a head."""
    if _called(view, path):
        return False
    parts = path.split(".")
    for i in range(len(parts)):
        around = ".".join(parts[:i])
        if isinstance(view.modules.get(around), (nn.ModuleList, nn.ModuleDict)) and _called(view, around):
            return True
    return False


def _after(order: Sequence[str], cut: Iterable[Trainee], reached: Iterable[Trainee]) -> str | None:
    """The first layer with weights that the loss reaches, after the last that it does not."""
    last = max((order.index(t.layer) for t in cut if t.layer in order), default=len(order))
    whole = {t.layer for t in reached}
    return next((name for name in order[last + 1 :] if name in whole), None)


def _layers(trainees: Iterable[Trainee]) -> list[str]:
    return list(dict.fromkeys(t.layer for t in trainees))


def _names(trainees: Iterable[Trainee]) -> str:
    return _some([t.name for t in trainees])


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return (", ".join(names[:2]) if more else " and ".join(names)) + more


def _share(view: View, trainees: Sequence[Trainee], what: str) -> Evidence:
    """Their share of all parameters."""
    size, whole = (
        sum(p.numel() for p in parts) for parts in ([t.parameter for t in trainees], view.model.parameters())
    )
    return Evidence(f"share of the parameters ({size:,} numbers) {what}", size / whole, 0, True, share=True)


def _be(trainees: Sequence[Trainee], one: str = "is", more: str = "are") -> str:
    return one if len(trainees) == 1 else more

"""Rules of what a forward pass does: to parameters, which it writes anew or takes the diagonal of, and with layers."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

from kobai import nn, ops
from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Cure
from kobai.lab.doctor.findings import Disease, Evidence, Finding
from kobai.lab.doctor.flow import mode
from kobai.lab.doctor.rules.view import View
from kobai.random import manual_seed

WRITTEN = 0.1
"""Change of a parameter in each of two forward passes, relative to its size."""
MOVED, PULLED, PASSES = 0.01, 0.5, 10
"""A parameter is moved by a hundredth of its size; if so many forward passes take back more than half, they undo steps."""
SQUARE = 4
"""Rows of the smallest matrix whose diagonal is told from the rest."""

WRITTEN_IN_FORWARD = Disease(
    "written-in-forward",
    "weights that the forward pass writes anew",
    "two forward passes without a step, in training mode: each changes a parameter that is to be trained by more than "
    f"{WRITTEN:.0%} of its size, ‖after − before‖/‖before‖; or, where all are moved at random by δ of {MOVED:.0%} of their "
    f"size, {PASSES} passes take back more than {PULLED:.0%} of it, −⟨after − before, δ⟩/⟨δ, δ⟩",
    "Steps add up only if the next batch meets what they have left. A forward pass that initialises a layer, or assigns its "
    "weights, throws away each step, and the layers behind meet another function at each batch.",
    "definition of gradient descent, θ ← θ − η∇L(θ); Kobai's and PyTorch's documentation of nn.Module.forward",
    ("non-finite",),
    certain=True,
    fact=True,
)
DIAGONAL_ALONE = Disease(
    "diagonal-alone",
    "a matrix of which the diagonal alone counts",
    f"a square parameter of {SQUARE} rows or more that is to be trained, and not 0 beside its diagonal: its gradient is "
    "exactly 0 everywhere beside the diagonal, and nowhere on it",
    "yₖ = Σⱼ Wₖⱼxⱼ lets each output depend on all inputs; yₖ = Wₖₖxₖ on its own alone. A letter that an einsum's operand has "
    "twice takes the diagonal, and so does an elementwise product with the identity.",
    "NumPy's and PyTorch's documentation of einsum (repeated subscripts in one operand take its diagonal)",
    ("non-finite",),
    certain=True,
)
ONE_MODULE = Disease(
    "one-module-for-several",
    "one layer that is listed several times",
    "a container lists one module under several names, and a forward pass calls it with equal inputs more than once: its "
    "answers are copies",
    "[layer] * n is a list of n references to one layer: n names, one set of weights. For one input they all answer the same, "
    "so a mixture, an average or a choice of them is the layer itself, whatever its shares are.",
    "Python's documentation of sequence types (s * n repeats references, items are not copied)",
    ("non-finite",),
    certain=True,
)


def written_in_forward(view: View) -> Finding | None:
    """Parameters before and after two forward passes of a copy."""
    assert view.ledger is not None
    if view.live:
        return None
    wanted = [t.name for t in view.ledger.trainees if t.wanted]
    model = copy.deepcopy(view.ledger.fresh)
    seen = []
    with mode(model, training=True):
        for _ in range(3):  # the copy may never have been run, so that the first pass has nothing to write over
            model(*view.ledger.few)
            seen.append({name: model.get_parameter(name).detach().clone() for name in wanted})
        changes = {
            name: min(_change(a[name], b[name]) for a, b in ((seen[0], seen[1]), (seen[1], seen[2]))) for name in wanted
        }
        pulled = _pulled(model, view.ledger.few, wanted)
    moved = [name for name in wanted if changes[name] > WRITTEN]
    if not moved:
        back = [name for name in wanted if pulled[name] > PULLED]
        return _pulled_back(back, max(pulled.values())) if back else None
    return WRITTEN_IN_FORWARD.found(
        Evidence(
            "change of a weight by a forward pass alone, of its size",
            max(changes.values()),
            WRITTEN,
            True,
            share=True,
            severity="error",
        ),
        cause=f"Each call of forward() overwrites {', '.join(moved[:3])}{'…' * (len(moved) > 3)}, without a step: what the "
        "optimizer has learnt there is lost at every batch, as where weights are initialised again in each call.",
        cure=Cure(
            "# draw or assign weights in __init__, once: look in forward() for nn.init.…_(weight), reset_parameters(),\n"
            "# weight.data = …, weight.copy_(…), and for hooks that do so"
        ),
        where=list(dict.fromkeys(name.rpartition(".")[0] for name in moved)),
    )


def _pulled(model: nn.Module, inputs: Any, names: list[str]) -> dict[str, float]:
    """The share of a random change of these parameters that forward passes take back; the first must write into them."""
    changes = {}
    manual_seed(1)  # weights may have been drawn with seed 0, and a change along them is one that scaling takes back
    with no_grad():
        for name in names:
            parameter = model.get_parameter(name)
            size = float((parameter.double() ** 2).mean().item()) ** 0.5
            changes[name] = MOVED * (size or 1.0) * ops.randn_like(parameter)
            parameter += changes[name]
        before = {name: model.get_parameter(name).detach().clone() for name in names}
        for _ in range(PASSES):
            model(*inputs)
            if not any(_change(before[name], model.get_parameter(name)) for name in names):
                return dict.fromkeys(names, 0.0)
        shares = {}
        for name, change in changes.items():
            back = before[name].double() - model.get_parameter(name).detach().double()
            shares[name] = float((back * change).sum().item()) / max(float((change.double() ** 2).sum().item()), 1e-300)
    return shares


def _pulled_back(names: list[str], share: float) -> Finding:
    return WRITTEN_IN_FORWARD.found(
        Evidence(
            f"share of a change of a weight that {PASSES} forward passes take back",
            share,
            PULLED,
            True,
            share=True,
            severity="error",
        ),
        cause=f"What a step changes in {', '.join(names[:3])}{'…' * (len(names) > 3)}, calls of forward() pull back: "
        "it sets these weights to a moving average, or to a copy that does not learn.",
        cure=Cure(
            "# look in forward() for what writes into these weights. An average follows them, not they the average:\n"
            "# slow.mul_(0.99).add_(weight.detach(), alpha=0.01), under no_grad(), after optimizer.step()"
        ),
        where=list(dict.fromkeys(name.rpartition(".")[0] for name in names)),
    )


def _change(before: Tensor, after: Tensor) -> float:
    size = float((before.double() ** 2).sum().item()) ** 0.5
    moved = float(((after.double() - before.double()) ** 2).sum().item()) ** 0.5
    return moved / size if size > 0 else 0.0


def diagonal_alone(view: View) -> Finding | None:
    """Square parameters whose gradient is 0 beside the diagonal."""
    assert view.ledger is not None
    found = []
    with no_grad():
        for trainee in view.ledger.trainees:
            parameter, slope = trainee.parameter, trainee.parameter.grad
            if slope is None or parameter.ndim != 2 or not parameter.shape[0] == parameter.shape[1] >= SQUARE:
                continue
            rest = slope.detach().clone()
            rest.fill_diagonal_(0.0)
            other = trainee.before.clone()
            other.fill_diagonal_(0.0)
            on = slope.detach().diagonal()
            if bool((on != 0).all().item()) and not bool(rest.any().item()) and bool(other.any().item()):
                found.append(trainee)
    if not found:
        return None
    n = found[0].parameter.shape[0]
    names = ", ".join(t.name for t in found[:3]) + "…" * (len(found) > 3)
    return DIAGONAL_ALONE.found(
        Evidence(f"entries of {found[0].name} that have no gradient", 1 - 1 / n, 0.0, True, share=True),
        cause=f"Of {names} the entries beside the diagonal never count: each feature is multiplied by one number, and features "
        "do not mix.",
        cure=Cure(
            '# a letter that stands twice in one operand takes the diagonal: einsum("dd,nd->nd", w, x) is w.diagonal() * x.\n'
            'y = kobai.einsum("kd,nd->nk", w, x)  # x @ w.T'
        ),
        where=list(dict.fromkeys(t.layer for t in found)),
        severity="warning",
    )


def one_module_for_several(view: View) -> Finding | None:
    """Modules with several names in one container, by how often they are called with the same input."""
    assert view.ledger is not None
    model = copy.deepcopy(view.ledger.fresh)
    listed: dict[nn.Module, list[str]] = {}
    for path, container in model.named_modules():
        names: dict[nn.Module, list[str]] = {}
        for name, child in container._modules.items():
            if child is not None and any(True for _ in child.parameters()):
                names.setdefault(child, []).append(f"{path}.{name}" if path else name)
        listed |= {child: paths for child, paths in names.items() if len(paths) > 1}
    if not listed:
        return None
    given: dict[nn.Module, list[Tensor]] = {child: [] for child in listed}
    copies: Counter[nn.Module] = Counter()

    def hook(module: nn.Module, args: Any) -> None:
        tensors = [each for each in args if isinstance(each, Tensor)]
        if not tensors:
            return
        copies[module] += any(
            x.shape == tensors[0].shape and bool((x == tensors[0]).all().item()) for x in given[module]
        )
        given[module].append(tensors[0].detach().clone())

    handles = [child.register_forward_pre_hook(hook) for child in listed]
    try:
        with mode(model, training=False), no_grad():
            model(*view.ledger.few)
    finally:
        for handle in handles:
            handle.remove()
    found = [child for child in listed if copies[child]]
    if not found:
        return None
    first = found[0]
    paths, kind = listed[first], type(first).__name__
    return ONE_MODULE.found(
        Evidence(
            f"calls of '{paths[0]}' in one forward pass that repeat an earlier one",
            copies[first],
            0,
            True,
            severity="error",
        ),
        cause=f"{', '.join(map(repr, paths[:4]))}{'…' * (len(paths) > 4)} are one and the same {kind}, with the same weights, "
        "and get the same input: their answers are copies of each other.",
        cure=Cure(
            "# make a layer for each place; a list times n repeats one layer\n"
            f"layers = nn.ModuleList([nn.{kind}(...) for _ in range({len(paths)})])\n"
            "optimizer = type(optimizer)(model.parameters(), **optimizer.defaults)  # for the new parameters"
        ),
        where=paths[:1],
    )

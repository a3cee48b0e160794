"""Rules of what a forward pass does to parameters: it writes them anew, or takes the diagonal of a matrix alone."""

from __future__ import annotations

import copy

from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Cure
from kobai.lab.doctor.findings import Disease, Evidence, Finding
from kobai.lab.doctor.flow import mode
from kobai.lab.doctor.rules.view import View

WRITTEN = 0.1
"""Change of a parameter in each of two forward passes, relative to its size."""
SQUARE = 4
"""Rows of the smallest matrix whose diagonal is told from the rest."""

WRITTEN_IN_FORWARD = Disease(
    "written-in-forward",
    "weights that the forward pass writes anew",
    "two forward passes without a step, in training mode: each changes a parameter that is to be trained by more than "
    f"{WRITTEN:.0%} of its size, ‖after − before‖/‖before‖",
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
    moved = [name for name in wanted if changes[name] > WRITTEN]
    if not moved:
        return None
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

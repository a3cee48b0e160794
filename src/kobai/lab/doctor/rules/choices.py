"""The rule of a softmax inside of a net that takes one of its places for all that it is worth."""

from __future__ import annotations

import numpy as np

from kobai.core.grad_mode import enable_grad
from kobai.lab.doctor.cures import Cure
from kobai.lab.doctor.findings import Disease, Evidence, Finding
from kobai.lab.doctor.ledger import tensors
from kobai.lab.doctor.rules.data import FAULTS
from kobai.lab.doctor.rules.relations import Numbers
from kobai.lab.doctor.rules.rows import arrays_of, name_of, nodes_of
from kobai.lab.doctor.rules.view import View
from kobai.lab.doctor.trials import copy_of, undisturbed

PLACES, SURE, HARD = 4, 0.95, 0.5
"""Places that a softmax chooses among, at least; a share that is all of it; and the part of the choices that may be so."""

HARD_CHOICE = Disease(
    "hard-choice",
    "a softmax that takes one place at once",
    f"on the tape of the first outputs, a softmax over {PLACES} or more places behind which there are further "
    "operations: of its "
    f"rows with more than one place that is not 0, more than {HARD:.0%} give one place more than {SURE:.0%}",
    "∂pᵢ/∂zⱼ = pᵢ(δᵢⱼ − pⱼ) goes to 0 as one p goes to 1: the choice is made before anything is learnt, and no gradient "
    "changes it. A product q·k of d numbers of size 1 has the deviation √d; divided by √d its size is 1.",
    "Vaswani et al., Attention is all you need, NeurIPS 2017, section 3.2.1 (scaled dot products)",
    (*FAULTS, "exploding-activations"),
    looks=True,
)


def hard_choice(view: View) -> Finding | None:
    """The largest share in each row of the softmaxes on the tape."""
    assert view.ledger is not None
    model, _ = copy_of(view.ledger.fresh)
    with undisturbed(), enable_grad():
        outputs = list(tensors(model.train()(*view.ledger.few)))
    last = {id(output.grad_fn) for output in outputs}
    worst = 0.0
    for node in nodes_of(outputs):
        if name_of(node) != "softmax" or id(node) in last:
            continue
        for shares in arrays_of(node):
            worst = max(worst, _taken(shares))
    if not worst > HARD:
        return None
    return HARD_CHOICE.found(
        Evidence(f"rows of a softmax that give one place more than {SURE:.0%}", worst, HARD, True, True, "warning"),
        cause=f"Before the first step {worst:.0%} of the choices of a softmax inside of the net, as of attention, are "
        "one-hot: its "
        "scores are too large, it is saturated, and passes no gradient to what it chooses by.",
        cure=Cure(
            "scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5  # divided by the root of the width"
        ),
    )


def _taken(shares: Numbers) -> float:
    """Of the rows, along the axis whose sums are 1, with several places, the part of those that are sure."""
    for axis in range(shares.ndim - 1, 0, -1):
        if shares.shape[axis] >= PLACES and np.allclose(shares.sum(axis), 1, atol=1e-3):
            rows = np.moveaxis(shares, axis, -1).reshape(-1, shares.shape[axis])
            rows = rows[(rows > 0).sum(1) > 1]
            return float((rows.max(1) > SURE).mean()) if len(rows) else 0.0
    return 0.0

"""Rules of time: a layer called again and again whose last output does not lead back to its first ones; a memory that fades."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kobai import nn, ops
from kobai.autograd import grad
from kobai.core.grad_mode import enable_grad, no_grad
from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Cure
from kobai.lab.doctor.findings import Disease, Evidence, Finding
from kobai.lab.doctor.rules.dependence import FEW, slopes_by_place
from kobai.lab.doctor.rules.ends import parts, rebuilt
from kobai.lab.doctor.rules.neighbours import gathered
from kobai.lab.doctor.rules.view import View
from kobai.lab.doctor.trials import copy_of
from kobai.random import manual_seed
from kobai.train.batches import device_of
from kobai.train.step import computing

CALLS, LAYERS = 4, 3
"""Calls in one pass from which on a layer is taken for a step in time, and layers that are looked at."""
MOVED, FELT = 0.1, 0.05
"""How far an output is moved, of its size, and what of that the last output must feel."""
STEPS, WITHIN, KEPT, EARLY = 6, 3, 0.2, 0.1
"""Fewest steps of a sequence, those that a gradient is followed over, what is left per step, and what early steps tell."""
SHORT = 8
"""Steps back from which on a gradient that ends there may be cut off on purpose."""

CUT_IN_TIME = Disease(
    "cut-in-time",
    "no gradient through time",
    f"a layer that is called {CALLS} times or more in one pass: its output in an earlier call is moved by {MOVED:g} of its "
    f"size, and that of a late call moves by more than {FELT:g} of that, while the gradient of the late one by the earlier one "
    f"is exactly 0, whichever late one is taken (a note where it reaches {SHORT} calls back, as truncation on purpose does)",
    "The gradient of a recurrent net is a sum over all steps back, ∂hₜ/∂W = Σₖ (∂hₜ/∂hₖ) ∂⁺hₖ/∂W. Where the state is detached, "
    "the net still carries what it has seen, but never learns what to carry: only the last step is trained. Between batches a "
    "state is detached; within a sequence it is not.",
    "Werbos, Backpropagation through time, 1990; Williams and Peng 1990 (truncation); Pascanu, Mikolov, Bengio, ICML 2013",
    ("non-finite", "wrong-labels"),
    certain=True,
)

FADES_IN_TIME = Disease(
    "fades-in-time",
    "a memory that forgets at once",
    f"float inputs (N, {STEPS} steps or more, features): the gradient of the outputs by an input falls by a factor "
    f"below {KEPT:g} "
    f"for each step back, over {WITHIN} steps, while a linear fit of the first half of the steps to the targets, over half of "
    f"the samples, tells more than {EARLY:.0%} of those of the other",
    "What a gated cell carries is multiplied by the forget gate f = σ(b + …) at each step, and so is the gradient: ∏ "
    "fₜ. A gate "
    "at σ(−6) = 0.0025 leaves nothing after two steps, and no gradient reaches what would open it. Bias 1 begins open.",
    "Gers, Schmidhuber, Cummins, Learning to forget, 2000; Jozefowicz, Zaremba, Sutskever, ICML 2015 (bias 1); Pascanu "
    "et al. 2013",
    ("non-finite", "wrong-labels", "no-signal", "mixed-samples", "cut-in-time"),
    certain=True,
)


def fades_in_time(view: View) -> Finding | None:
    """How fast the gradient by the inputs falls back through time, where early inputs tell the targets."""
    assert view.ledger is not None
    xs = view.ledger.few
    if len(xs) != 1 or xs[0].ndim != 3 or xs[0].shape[1] < STEPS or not xs[0].is_floating_point():
        return None
    slopes = slopes_by_place(view.ledger.fresh, [xs[0][:FEW]], 0)
    if slopes is None or not np.isfinite(slopes).all():
        return None
    by_step = slopes.max(-1).mean(0)  # the last axis may have been that of features
    left = float((by_step[-1 - WITHIN] / by_step[-1]) ** (1 / WITHIN)) if by_step[-1] > 0 else 1.0
    if not left < KEPT or (np.diff(by_step[-1 - WITHIN :]) <= 0).any():
        return None
    told = _early(view)
    if told is None or not told > EARLY:
        return None
    cells = [name for name, module in view.modules.items() if isinstance(module, nn.LSTM)]
    return FADES_IN_TIME.found(
        Evidence("gradient by an input, over that by the next one", left, KEPT, False, severity="warning"),
        Evidence(
            "what the first half of the steps alone tells of the targets of new samples",
            told,
            EARLY,
            True,
            True,
            "warning",
        ),
        cause=f"The gradient by the inputs shrinks to {left:.2g} of itself with each step back through time, so that "
        "the first steps "
        "have none, and the targets depend on them: the state forgets at once, as where a forget gate begins shut.",
        cure=Cure(
            "# open the forget gates, whose biases are the second fourth of an LSTM's:\n"
            "with kobai.no_grad():\n"
            "    for name, bias in model.named_parameters():\n"
            '        if "bias_hh" in name:\n'
            "            bias[len(bias) // 4 : len(bias) // 2] = 1.0\n"
            "# in another cell: a gate near 1, or weights of the state with singular values near 1 (orthogonal)"
        ),
        where=cells[:1],
    )


def _early(view: View) -> float | None:
    """What a linear fit of the first half of the steps tells of the targets of new samples; None for too few samples."""
    both = gathered(view.seen)
    if both is None or not all(np.isfinite(part).all() for part in both):
        return None
    steps, features = view.inputs[0].shape[1:]
    x = both[0][:, : steps // 2 * features].astype(np.float64)
    t = both[1] if view.classes is None else (both[1] == np.unique(both[1])[:32])
    t = t.astype(np.float64)
    x, half = np.concatenate([x, np.ones((len(x), 1))], 1), len(x) // 2
    if half < 2 * x.shape[1]:
        return None
    weights = np.linalg.lstsq(x[:half], t[:half], rcond=None)[0]
    total = float(((t[half:] - t[:half].mean(0)) ** 2).sum())
    return 1 - float(((t[half:] - x[half:] @ weights) ** 2).sum()) / total if total > 0 else None


def cut_in_time(view: View) -> Finding | None:
    """How many calls back the gradient of a layer's last output reaches, and how many its influence."""
    assert view.ledger is not None
    model, _ = copy_of(view.ledger.case.model)
    with computing(view.precision, device_of(model).type):
        counts = _counted(model.eval(), view.ledger.few)
        for name, calls in counts.most_common(LAYERS):
            found = _reach(model, view.ledger.few, name, calls) if calls >= CALLS else None
            if found is not None:
                return _found(name, calls, *found)
    return None


def _found(name: str, calls: int, back: int, felt: float, far: int) -> Finding:
    severity = "note" if back >= SHORT else "warning"
    reaches = f"{_calls(back)} back at most" if back else "no call back"
    return CUT_IN_TIME.found(
        Evidence(f"calls of {name!r} that the gradient of a late output reaches back, of {calls - 1}", back, far, False,
                 severity=severity),
        Evidence(f"change of that output when the one {_calls(far)} before is moved, over the movement", felt, FELT, True),
        cause=f"{name!r} is called {calls} times, and what it gives depends on what it gave {_calls(far)} before, but the "
        f"gradient reaches {reaches}: the state is cut off on its way, as by detach(), .data or a tensor made of numbers, and "
        "the net cannot learn what to carry along, unless that is meant.",
        cure=Cure(
            "# in forward(): h = self.cell(x[:, i], h) without h.detach() inside of a sequence; detach once before a batch\n"
            "# that goes on with the state of the last one, or every 20 to 100 steps where sequences are long"
        ),
        where=[name],
    )  # fmt: skip


def _calls(count: int) -> str:
    return f"{count} call{'s' * (count > 1)}"


def _counted(model: nn.Module, inputs: list[Tensor]) -> Counter[str]:
    """How often each layer with weights to be trained is called with a tape."""
    counts: Counter[str] = Counter()

    def count(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            counts[name] += any(part.requires_grad for part in parts(output))

        return hook

    handles = [
        module.register_forward_hook(count(name))
        for name, module in model.named_modules()
        if any(p.requires_grad for p in module.parameters(recurse=False))
    ]
    with enable_grad():
        manual_seed(0)
        model(*inputs)
    for handle in handles:
        handle.remove()
    return counts


def _reach(model: nn.Module, inputs: list[Tensor], name: str, calls: int) -> tuple[int, float, int] | None:
    """Calls that the gradient reaches back, at most; what is felt of a movement further back; and how far back that is."""
    with enable_grad():
        moves = _moved(model, inputs, name, {})
        if len(moves) != calls or not all(move.requires_grad for move in moves):
            return None
        back, last = max((_back(moves, at), at) for at in range(calls - 1, max(1, calls - 2 * SHORT), -1))
    was, first = moves[last].detach(), last - back
    for at in (first - 1, first // 2) if first else ():
        here = moves[at].detach()
        noise = MOVED * float((here**2).mean().item()) ** 0.5 * ops.randn_like(here)
        size = float((noise**2).mean().item()) ** 0.5
        with no_grad():
            now = _moved(model, inputs, name, {at: noise})[last]
        felt = float(((now - was) ** 2).mean().item()) ** 0.5 / size if size > 0 else 0.0
        if felt > FELT:
            return back, felt, last - at
    return None


def _back(moves: list[Tensor], at: int) -> int:
    """How many calls back from one the gradient of its output is not 0."""
    own = moves[at]
    slopes = grad((own * ops.randn_like(own.detach())).sum(), moves[:at], retain_graph=True, allow_unused=True)
    reached = [slope is not None and bool((slope != 0).any().item()) for slope in slopes]
    return at - reached.index(True) if True in reached else 0


def _moved(model: nn.Module, inputs: list[Tensor], name: str, by: Mapping[int, Tensor]) -> list[Tensor]:
    """The outputs of all calls of a layer, each a place that a gradient can be asked for; some moved."""
    given: list[Tensor] = []

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        own = parts(output)
        moved = own[0] + by[len(given)] if len(given) in by else own[0] * 1.0
        given.append(moved)
        return rebuilt(output, iter([moved, *own[1:]]))

    handle = model.get_submodule(name).register_forward_hook(hook)
    try:
        manual_seed(0)
        model(*inputs)
    finally:
        handle.remove()
    return given

"""The rule of time: a layer that is called again and again, and whose last output does not lead back to its first ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from kobai import nn, ops
from kobai.autograd import grad
from kobai.core.grad_mode import enable_grad, no_grad
from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Cure
from kobai.lab.doctor.findings import Disease, Evidence, Finding
from kobai.lab.doctor.rules.ends import parts, rebuilt
from kobai.lab.doctor.rules.view import View
from kobai.lab.doctor.trials import copy_of
from kobai.random import manual_seed
from kobai.train.batches import device_of
from kobai.train.step import computing

CALLS, LAYERS = 4, 3
"""Calls in one pass from which on a layer is taken for a step in time, and layers that are looked at."""
MOVED, FELT = 0.1, 0.05
"""How far an output is moved, of its size, and what of that the last output must feel."""
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

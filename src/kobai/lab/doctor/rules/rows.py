"""Where numbers that are not finite come from: which samples of a batch spoil its loss or gradient, and by which operation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kobai import nn
from kobai.autograd import grad, set_detect_anomaly
from kobai.core import anomaly
from kobai.core.grad_mode import enable_grad
from kobai.core.tape import RESULT, Node
from kobai.core.tensor import Tensor
from kobai.lab.doctor.ledger import tensors
from kobai.lab.doctor.trials import copy_of, undisturbed
from kobai.xp import is_array, to_host

LOOKS, FEW = 60, 0.25
"""Parts of a batch that are looked at, at most, and the share of its samples from which on the fault is not that of a few."""

WHY = {
    "softmax": "a softmax over scores that are all −inf is 0/0",
    "log_softmax": "a softmax over scores that are all −inf is 0/0",
    "logsumexp": "scores that are all −inf have no sum",
    "div": "a division by 0",
    "reciprocal": "a division by 0",
    "log": "the logarithm of 0 or less",
    "log2": "the logarithm of 0 or less",
    "log10": "the logarithm of 0 or less",
    "log1p": "the logarithm of 0 or less",
    "sqrt": "a square root at 0, where its slope is infinite, or of less",
    "rsqrt": "the reciprocal of a root at 0",
    "norm": "a norm at 0, where it has no slope",
    "pow": "a power at 0, where its slope is infinite, or of less",
    "std": "a standard deviation of equal numbers, where it has no slope, or of one",
    "acos": "an arc cosine at ±1, or beyond",
    "asin": "an arc sine at ±1, or beyond",
    "exp": "an exponential that overflows",
    "sub": "infinity less infinity",
    "mul": "0 times infinity",
}
"""Operations from which NaN or infinity come of finite numbers, and how."""

OVERFLOWS = {
    "exp": "an exponential of more than 88.7 is more than a float32 holds",
    "expm1": "an exponential of more than 88.7 is more than a float32 holds",
    "cosh": "a hyperbolic cosine at a distance of more than 89.4 from 0 is more than a float32 holds",
    "sinh": "a hyperbolic sine at a distance of more than 89.4 from 0 is more than a float32 holds",
    "pow": "a power overflows: a float32 holds at most 3.4e38",
    "square": "a square overflows: a float32 holds at most 3.4e38",
    "mul": "a product overflows: a float32 holds at most 3.4e38",
    "prod": "a product overflows: a float32 holds at most 3.4e38",
    "cumprod": "a product overflows: a float32 holds at most 3.4e38",
}
"""Operations whose result may be too large for the type, and when."""

COSH = "a = e.abs(); a + F.softplus(-2 * a) - math.log(2)  # in place of e.cosh().log()"
EXP = (
    "y.log_softmax(1), y.softmax(1) or y.logsumexp(1), which subtract the largest score first,\n"
    "# as in (y - y.amax(1, keepdim=True)).exp()"
)
LOG = "y.log_softmax(1) or F.logsigmoid(y) of the scores; else (p + 1e-7).log()"
STABLE = {
    **dict.fromkeys(("exp", "expm1"), EXP),
    **dict.fromkeys(("cosh", "sinh"), COSH),
    **dict.fromkeys(("log", "log2", "log10", "log1p"), LOG),
    **dict.fromkeys(("div", "reciprocal"), "a / b.clamp(min=1e-6)"),
    **dict.fromkeys(("sqrt", "rsqrt", "norm"), "(a + 1e-12).sqrt(), with the square sum a"),
    **dict.fromkeys(("prod", "cumprod"), "the sum of logarithms, a.log().sum()"),
}
"""How the same is computed without leaving the type's range, by the name of the operation on the tape."""


@dataclass(frozen=True)
class Begun:
    """The operation on a tape by which numbers stop being finite: its ``name``, ``why``, and the ``line`` that called it."""

    name: str
    why: str
    line: str

    def __str__(self) -> str:
        return self.why + (f", in {self.line!r}" if self.line else "")

    @property
    def code(self) -> str:
        """The form that stays finite; empty if none is known."""
        return f"# a form that stays finite:\n# {STABLE[self.name]}" if self.name in STABLE else ""


@dataclass(frozen=True)
class Culprits:
    """``rows`` of a batch of ``count`` that alone spoil the ``what``, all others being finite without them; and why."""

    rows: tuple[int, ...]
    count: int
    what: str
    alike: str = ""
    begun: Begun | None = None

    def __str__(self) -> str:
        named = ", ".join(map(str, self.rows[:5])) + (", …" if len(self.rows) > 5 else "")
        several = len(self.rows) > 1
        return (
            f"sample{'s' * several} {named} of the {self.count} in the batch alone make{'s' * (not several)} the {self.what} "
            f"NaN or infinite{self.alike}{f': {self.begun}' if self.begun is not None else ''}"
        )

    @property
    def code(self) -> str:
        """What the reader can do."""
        return (
            f"bad = {list(self.rows[:5])}\n"
            "print(x[bad], t[bad])  # what is special about these samples? Are they empty, all padding, all alike?\n"
            "# leave them out of the data, or make forward() and the loss bear them: where a mask leaves nothing, unmask\n"
            "# one place; (a + 1e-6).log(), (a + 1e-12).sqrt(), a / b.clamp(min=1e-6)"
        ) + (f"\n{self.begun.code}" if self.begun is not None and self.begun.code else "")


def culprits(
    model: nn.Module, loss_fn: Callable[[Any, Any], Any], inputs: Sequence[Any], target: Any
) -> Culprits | None:
    """The few samples of a batch that spoil it, by halving it again and again, in evaluation mode, so that norms and dropout do
    not mix or hide them; None where it is not a few, or samples cannot be parted."""
    n = len(inputs[0]) if inputs and isinstance(inputs[0], Tensor) and inputs[0].ndim else 0
    if n < 2 or not all(isinstance(part, Tensor) and part.ndim and len(part) == n for part in (*inputs, target)):
        return None
    copy, _ = copy_of(model)
    copy.eval()
    found: list[int] = []
    well: int | None = None
    due, looks = [(0, n)], 0
    try:
        with undisturbed():
            while due and looks < LOOKS:
                first, last = due.pop()
                looks += 1
                if _spoilt(copy, loss_fn, inputs, target, slice(first, last)) is None:
                    well = first
                elif last - first == 1:
                    found.append(first)
                else:
                    middle = (first + last) // 2
                    due += [(middle, last), (first, middle)]
            if not found or well is None or len(found) > max(1, FEW * n):
                return None
            if (
                _spoilt(copy, loss_fn, inputs, target, slice(well, well + 1)) is not None
            ):  # a sample alone is spoilt anyway
                return None
            row = slice(found[0], found[0] + 1)
            what = _spoilt(copy, loss_fn, inputs, target, row) or "loss"
            alike, begun = _alike(inputs, found[0], well), _operation(copy, loss_fn, inputs, target, row)
    except Exception:  # what takes a whole batch alone
        return None
    return Culprits(tuple(sorted(found)), n, what, alike, begun)


def begins(model: nn.Module, loss_fn: Any, inputs: Sequence[Any], target: Any) -> Begun | None:
    """The operation by which numbers of a whole batch stop being finite; None where its tape does not show it."""
    copy, _ = copy_of(model)
    try:
        with undisturbed():
            return _operation(copy, loss_fn, inputs, target, slice(None))
    except Exception:  # inputs that are no tensors
        return None


def _spoilt(model: nn.Module, loss_fn: Any, inputs: Sequence[Any], target: Any, rows: slice) -> str | None:
    """What is not finite for these rows: the loss, or else the gradient."""
    with enable_grad():
        loss = loss_fn(model(*[x[rows] for x in inputs]), target[rows])
        if not math.isfinite(float(loss.item())):
            return "loss"
        wanted = [p for p in model.parameters() if p.requires_grad]
        slopes = grad(loss, wanted, allow_unused=True) if loss.requires_grad and wanted else ()
    bad = any(slope is not None and not bool(slope.isfinite().all().item()) for slope in slopes)
    return "gradient" if bad else None


def _alike(inputs: Sequence[Any], row: int, other: int) -> str:
    """What is special about the inputs of a row: that they are all one number, as in an empty sentence."""
    for x in inputs:
        own, usual = (to_host(x[i].detach().array) for i in (row, other))
        if own.size > 1 and (own == own.flat[0]).all() and not (usual == usual.flat[0]).all():
            return f" (its inputs are all {own.flat[0]:g})"
    return ""


def _operation(model: nn.Module, loss_fn: Any, inputs: Sequence[Any], target: Any, rows: slice) -> Begun | None:
    """The operation on the tape of these rows by which the first number overflows or is NaN, or that has no slope."""
    used = anomaly.used
    try:
        with enable_grad(), set_detect_anomaly(True):
            few = [
                x[rows].detach().requires_grad_(x.is_floating_point()) for x in inputs
            ]  # so that all of it is on the tape
            loss = loss_fn(model(*few), target[rows])
    finally:
        anomaly.used = used
    nodes = sorted(nodes_of([loss]), key=lambda node: node.order)
    spoilt = next((node for node in nodes if any(np.isnan(kept).any() for kept in arrays_of(node))), None)
    if (grown := _overflown(nodes, spoilt)) is not None:
        return _begun(grown, OVERFLOWS)
    if spoilt is not None:
        before = [node for node in spoilt.edges if isinstance(node, Node) and _at_its_edge(node)]
        node: Any = before[0] if before else spoilt
    else:
        node = next((node for node in reversed(nodes) if _at_its_edge(node)), None)
    return _begun(node, WHY) if node is not None and name_of(node) in WHY else None


def _begun(node: Node, why: dict[str, str]) -> Begun:
    line = anomaly.made_at.get(node, "").split(": ", 1)
    places = {place for _, _, place, edge in node.operands if edge is not RESULT}
    given = [kept for kept in arrays_of(node) if id(kept) in places and kept.size and np.isfinite(kept).all()]
    span = f" (its argument is from {given[0].min():.3g} to {given[0].max():.3g})" if len(given) == 1 else ""
    return Begun(name_of(node), why[name_of(node)] + span, line[1] if len(line) > 1 else "")


def _overflown(nodes: Sequence[Node], before: Node | None) -> Node | None:
    """The operation whose result is the first to be infinite, if it is one that overflows, by what nodes keep of it.

    A node keeps its own result, or one of its operands, which is the result of the node at that edge.
    """
    for node in nodes:
        for kept in arrays_of(node):
            if not np.isposinf(kept).any():
                continue
            maker = next((edge for _, _, place, edge in node.operands if place == id(kept)), None)
            maker = node if maker is RESULT else maker
            if isinstance(maker, Node) and name_of(maker) in OVERFLOWS:
                return maker
            return None  # of a mask, or a division
        if node is before:
            break
    return None


def name_of(node: Node) -> str:
    return node.name_.strip("_")


def _at_its_edge(node: Node) -> bool:
    """Whether an operation, or its slope, is not finite at its argument: what it keeps for backward holds a 0, or less."""
    if name_of(node) in ("acos", "asin"):
        return any((np.abs(kept) >= 1).any() for kept in arrays_of(node))
    edgy = name_of(node) in WHY and name_of(node) not in ("exp", "sub", "mul", "softmax", "log_softmax", "logsumexp")
    return edgy and any(
        (kept <= 0).any() if name_of(node).startswith("log") else (kept == 0).any() for kept in arrays_of(node)
    )


def nodes_of(roots: Sequence[Tensor]) -> list[Node]:
    """All nodes of the tape that leads to these."""
    stack: list[Any] = [root._edge() for root in tensors(list(roots))]
    found: dict[int, Node] = {}
    while stack:
        edge = stack.pop()
        if isinstance(edge, Node) and id(edge) not in found:
            found[id(edge)] = edge
            stack.extend(edge.edges)
    return list(found.values())


def arrays_of(node: Node) -> Iterator[Any]:
    """The arrays of numbers that a node keeps for backward, as far as its closure shows them."""
    for cell in getattr(node.vjp, "__closure__", None) or ():
        try:
            value = cell.cell_contents
        except ValueError:  # not filled
            continue
        if is_array(value) and value.dtype.kind == "f":
            yield to_host(value)

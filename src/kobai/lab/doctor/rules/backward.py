"""The rule of gradients that a program writes itself: the backward of each Function beside differences of its forward."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

from kobai import dtypes, ops
from kobai.autograd import Function, grad
from kobai.core.grad_mode import enable_grad, no_grad
from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Cure
from kobai.lab.doctor.findings import Disease, Evidence, Finding
from kobai.lab.doctor.ledger import tensors
from kobai.lab.doctor.rules.view import View
from kobai.random import manual_seed

COORDINATES, LEAST = 24, 4
"""Numbers of each input that are moved, and how many of them must tell something."""
OFF, OFF_SINGLE = 0.02, 0.1
"""Relative difference of two derivatives, in double and in single precision, that rounding does not explain."""
MOVED, MOVED_SINGLE = 1e-5, 1e-2
"""How far a number is moved, of the size of all."""
FLAT = 1e-6
"""Part of the largest derivative below which one is 0."""

WRONG_BACKWARD = Disease(
    "wrong-backward",
    "a backward that is not the derivative of its forward",
    f"a Function with a backward of its own, called with the arguments of this batch: of up to {COORDINATES} numbers of each "
    f"input, derivatives that differ from central differences by more than {OFF:g} of their size (in single precision "
    f"{OFF_SINGLE:g}), at any of those where the forward is smooth and not flat; a note where all differ by one factor",
    "A step follows what backward returns. Central differences, (f(x + h) − f(x − h)) / 2h, have an error of order h² and do "
    "not know backward. Where the forward is flat, as that of a sign, a rounding or a nearest code, another derivative is "
    "chosen on purpose; where all are multiplied by one factor, as in gradient reversal, that is likely too, and where the "
    "forward gives what it is given.",
    "Bengio, Léonard, Courville, arXiv:1308.3432 (straight-through); Ganin et al., JMLR 2016 (reversal); Baydin et al., "
    "JMLR 2018, section 2.1 (finite differences)",
    ("non-finite", "wrong-labels"),
    certain=True,
)


@dataclass(frozen=True)
class Call:
    """One call of a Function in a forward pass."""

    function: type[Function]
    args: tuple[Any, ...]
    options: dict[str, Any]


@contextmanager
def calls() -> Iterator[list[Call]]:
    """The first call of each Function that gets a gradient, of all that are made in this block."""
    made: list[Call] = []
    own = Function.__dict__["apply"]

    def apply(cls: type[Function], *args: Any, **options: Any) -> Any:
        wanted = any(isinstance(a, Tensor) and a.requires_grad for a in args)
        if wanted and all(call.function is not cls for call in made):
            kept = tuple(
                a.detach().clone().requires_grad_(a.requires_grad) if isinstance(a, Tensor) else a for a in args
            )
            made.append(Call(cls, kept, options))
        return own.__func__(cls, *args, **options)

    setattr(Function, "apply", classmethod(apply))  # noqa: B010
    try:
        yield made
    finally:
        setattr(Function, "apply", own)  # noqa: B010


def wrong_backward(view: View) -> Finding | None:
    """Ratios of the derivatives that backward gives to central differences, for each Function that the program has written."""
    assert view.ledger is not None
    case = view.ledger.case
    with enable_grad(), calls() as made:
        case.loss_fn(view.ledger.fresh(*case.batch[:-1]), case.batch[-1])
    found = []
    for call in made:
        ratios, gives, off = compared(call)
        wrong = [ratio for ratio in ratios if abs(ratio - 1) > off]
        if len(ratios) >= LEAST and wrong:
            middle = median(ratios)
            alike = all(abs(ratio - middle) <= off * max(1.0, abs(middle)) for ratio in ratios)
            scaled = (alike and not (gives and abs(middle) < off)) or _passes_on(call)
            found.append((scaled, call.function.__name__, ratios, wrong))
    if not found:
        return None
    scaled, name, ratios, wrong = min(found, key=lambda each: each[0])
    turned = sum(ratio < 0 for ratio in wrong)
    share = Evidence(
        f"derivatives that backward of {name} gives and finite differences do not, of {len(ratios)}",
        len(wrong) / len(ratios), 0.0, True, share=True, severity="note" if scaled else "error",
    )  # fmt: skip
    if scaled:
        cause = (
            f"The backward of {name} multiplies the gradient by {median(ratios):.3g}, which its forward does not explain: "
            "right if it is to turn, scale, bound or stop the gradient, and a lost factor if not."
        )
    else:
        cause = (
            f"The backward of {name} is not the derivative of its forward: {len(wrong)} of {len(ratios)} derivatives differ "
            f"from finite differences, by factors from {min(wrong):.3g} to {max(wrong):.3g}"
            f"{f', and {turned} have the wrong sign' if turned else ''}, where the forward is smooth and not flat."
        )
    return WRONG_BACKWARD.found(share, cause=cause, cure=_advice(name))


def _passes_on(call: Call) -> bool:
    """Whether the forward gives what it is given: then the gradient is what the Function is made for."""
    (output, *_), given = _outputs(call, call.args), [a for a in call.args if isinstance(a, Tensor)]
    return any(a.shape == output.shape and bool((a == output).all().item()) for a in given)


def _advice(name: str) -> Cure:
    return Cure(
        f"# compare the backward of {name} with finite differences, in float64, until this passes:\n"
        f"# kobai.autograd.gradcheck({name}.apply, (kobai.randn(5, dtype=kobai.float64, requires_grad=True),))\n"
        f"# or write what {name}.forward computes with Kobai's operations in forward(), and leave the derivative to autograd"
    )


def compared(call: Call) -> tuple[list[float], bool, float]:
    """Derivatives of a random sum of the outputs: ratios of those of backward to central differences, whether backward gives
    any that is not 0, and by how much the ratios may be off 1."""
    for dtype, moved, off in ((dtypes.float64, MOVED, OFF), (None, MOVED_SINGLE, OFF_SINGLE)):
        args = tuple(
            a.detach().to(dtype=dtype or a.dtype).requires_grad_(a.requires_grad)
            if isinstance(a, Tensor) and a.is_floating_point()
            else a
            for a in call.args
        )
        try:
            return *_ratios(Call(call.function, args, call.options), moved, dtype is not None), off
        except Exception:  # it takes no doubles, or no such arguments twice: it cannot be examined
            continue
    return [], False, OFF


def _ratios(call: Call, moved: float, double: bool) -> tuple[list[float], bool]:
    wanted = [i for i, a in enumerate(call.args) if isinstance(a, Tensor) and a.requires_grad]
    made = _outputs(call, call.args)
    if double and any(y.dtype != dtypes.float64 for y in made):
        raise TypeError("it computes in single precision")
    weights = [ops.randn_like(y.detach()) for y in made]
    total = sum((y * w).sum() for y, w in zip(made, weights, strict=True))
    slopes = grad(total, [call.args[i] for i in wanted], allow_unused=True)

    def value(i: int, at: int, by: float) -> float:
        args = [a.detach().clone() if isinstance(a, Tensor) else a for a in call.args]
        flat = args[i].reshape(-1)
        flat[at] = flat[at] + by
        args[i] = flat.reshape(args[i].shape)
        with no_grad():
            outputs = _outputs(call, args)
            return float(
                sum(float((y.double() * w.double()).sum().item()) for y, w in zip(outputs, weights, strict=True))
            )

    ratios = []
    for i, slope in zip(wanted, slopes, strict=True):
        x = call.args[i].detach()
        h = moved * max(float((x.double() ** 2).mean().item()) ** 0.5, 1e-3)
        own = [0.0] * x.numel() if slope is None else slope.detach().double().reshape(-1).tolist()
        places = ops.randperm(x.numel())[:COORDINATES].tolist()
        pairs = [[(value(i, at, by) - value(i, at, -by)) / (2 * by) for by in (h, h / 2)] for at in places]
        largest = max((abs(b) for _, b in pairs), default=0.0)
        ratios += [
            own[at] / b
            for at, (a, b) in zip(places, pairs, strict=True)
            if abs(b) > FLAT * max(largest, 1e-9) and abs(a - b) <= (OFF if double else OFF_SINGLE) / 4 * abs(b)
        ]
    gives = any(slope is not None and bool((slope != 0).any().item()) for slope in slopes)
    return [ratio for ratio in ratios if math.isfinite(ratio)], gives


def _outputs(call: Call, args: Sequence[Any]) -> list[Tensor]:
    """The outputs that are numbers, with the same random ones each time."""
    manual_seed(0)
    return [y for y in tensors(call.function.apply(*args, **call.options)) if y.is_floating_point()]

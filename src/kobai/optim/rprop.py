"""Rprop: steps that grow while a gradient keeps its sign."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

from kobai.core.tensor import Tensor
from kobai.formula.elementwise import Elementwise, elementwise
from kobai.formula.scalar import maximum, minimum, sign
from kobai.optim.groups import Engine, Group, Params, non_negative, options
from kobai.optim.optimizer import Optimizer, State, zeros_like
from kobai.xp import write


@elementwise
def rprop(p: Any, g: Any, before: Any, size: Any, *, down: Any, up: Any, least: Any, most: Any) -> Any:
    """size ← η⁺size where g keeps its sign, η⁻size where it turns (there g counts as 0);  p ← p − sign(g)·size"""
    same = g * before
    size = size * (up if same > 0 else (down if same < 0 else 1.0))
    size = minimum(maximum(size, least), most)
    before = 0.0 if same < 0 else g
    p = p - sign(before) * size
    return p, before, size


class Rprop(Optimizer):
    """Resilient backpropagation: only the sign of the gradient counts; each element has a step of its own.

    ::

        size ← min(η⁺·size, most)    where g has the sign it had before
        size ← max(η⁻·size, least)   where it has turned; there g counts as 0, now and as "before"
        p ← p − sign(g)·size

    It needs the gradient of the whole data set: with batches, signs turn by chance.

    Arguments:
        params: tensors, ``(name, tensor)`` pairs or group dicts.
        lr: size of the first step.
        etas: (η⁻, η⁺), 0 < η⁻ < 1 < η⁺.
        step_sizes: (least, most) that a step can have.
        maximize: ascend instead.

    State per parameter: ``step`` (int), ``prev`` (g before), ``step_size``; arrays have the shape and dtype of p.

    Riedmiller, Braun, *A direct adaptive method for faster backpropagation learning: the RPROP algorithm*, ICNN 1993.

    >>> import kobai
    >>> w = kobai.tensor([4.0], requires_grad=True)
    >>> optimizer = kobai.optim.Rprop([w], lr=0.5)
    >>> (w ** 2).backward()
    >>> optimizer.step()
    >>> w.item()
    3.5
    """

    _ranges: ClassVar = non_negative("lr")

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        maximize: bool = False,
        **engine: Unpack[Engine],
    ) -> None:
        super().__init__(params, options(locals()))

    def _check(self, group: Group) -> None:
        super()._check(group)
        down, up = group["etas"]
        if not 0.0 < down < 1.0 < up:
            raise ValueError(f"Rprop: expected etas with 0 < etas[0] < 1 < etas[1], got {group['etas']}")

    def _new_state(self, p: Tensor, group: Group) -> State:
        size = zeros_like(p)
        write(size.array, group["lr"])
        return {"step": 0, "prev": zeros_like(p), "step_size": size}

    def _kernel(self, group: Group) -> tuple[Elementwise, tuple[str, ...]]:
        return rprop, ("prev", "step_size")

    def _numbers(self, group: Group, state: State) -> tuple[float, ...]:
        return *group["etas"], *group["step_sizes"]

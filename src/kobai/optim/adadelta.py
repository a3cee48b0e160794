"""Adadelta: steps in the unit of the parameters."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

from kobai.core.tensor import Tensor
from kobai.formula.elementwise import Elementwise, elementwise
from kobai.formula.scalar import sqrt
from kobai.optim._formulas import average_square
from kobai.optim.groups import UP_TO_ONE, Engine, Group, Params, non_negative, options
from kobai.optim.optimizer import Optimizer, State


@elementwise
def adadelta(p: Any, g: Any, v: Any, u: Any, *, lr: Any, rho: Any, new: Any, eps: Any) -> Any:
    """v ← ρv + (1−ρ)g²;  d = g·√(u + ε) / √(v + ε);  u ← ρu + (1−ρ)d²;  p ← p − lr·d"""
    v = average_square(v, g, rho, new)
    d = sqrt((u + eps) / (v + eps)) * g
    u = average_square(u, d, rho, new)
    p = p - lr * d
    return p, v, u


class Adadelta(Optimizer):
    """Adadelta: RMSprop whose step has the unit of the parameter, so that lr can stay 1.

    ::

        v ← ρv + (1−ρ)g²
        d = g·√(u + ε) / √(v + ε)
        u ← ρu + (1−ρ)d²
        p ← p − lr·d

    Arguments:
        params: tensors, ``(name, tensor)`` pairs or group dicts.
        lr: learning rate.
        rho: ρ.
        eps: ε, inside the roots.
        weight_decay: λ of the L2 penalty, g ← g + λp.
        maximize: ascend instead.

    State per parameter: ``step`` (int), ``square_avg`` (v) and ``acc_delta`` (u), both of shape and dtype of p.

    Zeiler, *ADADELTA: an adaptive learning rate method*, arXiv:1212.5701.

    >>> import kobai
    >>> w = kobai.tensor([4.0], requires_grad=True)
    >>> optimizer = kobai.optim.Adadelta([w], rho=0.75, eps=0.01)
    >>> (w ** 2).backward()
    >>> optimizer.step()
    >>> w
    tensor([3.8001], requires_grad=True)
    """

    _ranges: ClassVar = non_negative("lr", "eps", "weight_decay", rho=UP_TO_ONE)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
        **engine: Unpack[Engine],
    ) -> None:
        super().__init__(params, options(locals()))

    def _kernel(self, group: Group) -> tuple[Elementwise, tuple[str, ...]]:
        return adadelta, ("square_avg", "acc_delta")

    def _numbers(self, group: Group, state: State) -> tuple[float, ...]:
        return group["lr"], group["rho"], 1 - group["rho"], group["eps"]

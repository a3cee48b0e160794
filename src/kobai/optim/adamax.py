"""Adamax: Adam with a maximum in place of the mean square."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

from kobai.core.tensor import Tensor
from kobai.formula.elementwise import Elementwise, elementwise
from kobai.formula.scalar import maximum
from kobai.optim._formulas import average
from kobai.optim.groups import BELOW_ONE, Engine, Group, Params, non_negative, options
from kobai.optim.optimizer import Optimizer, State


@elementwise
def adamax(p: Any, g: Any, m: Any, u: Any, *, lr: Any, new1: Any, beta2: Any, eps: Any) -> Any:
    """m ← β₁m + (1−β₁)g;  u ← max(β₂u, |g| + ε);  p ← p − lr·m / u, with new1 = 1 − β₁"""
    m = average(m, g, new1)
    u = maximum(beta2 * u, abs(g) + eps)
    p = p - lr * (m / u)
    return p, m, u


class Adamax(Optimizer):
    """Adamax: Adam scaled by the decaying maximum of |g| instead of the root of its mean square.

    At step t::

        m ← β₁m + (1−β₁)g
        u ← max(β₂u, |g| + ε)
        p ← p − lr / (1 − β₁ᵗ) · m / u

    Arguments:
        params: tensors, ``(name, tensor)`` pairs or group dicts.
        lr: learning rate.
        betas: (β₁, β₂).
        eps: ε.
        weight_decay: λ of the L2 penalty, g ← g + λp.
        maximize: ascend instead.

    State per parameter: ``step`` (int), ``exp_avg`` (m) and ``exp_inf`` (u), both of shape and dtype of p.

    Kingma, Ba, *Adam: a method for stochastic optimization*, arXiv:1412.6980, section 7.

    >>> import kobai
    >>> w = kobai.tensor([4.0], requires_grad=True)
    >>> optimizer = kobai.optim.Adamax([w], lr=0.5)
    >>> (w ** 2).backward()
    >>> optimizer.step()
    >>> w
    tensor([3.5000], requires_grad=True)
    """

    _ranges: ClassVar = non_negative("lr", "eps", "weight_decay", betas=BELOW_ONE)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
        **engine: Unpack[Engine],
    ) -> None:
        super().__init__(params, options(locals()))

    def _kernel(self, group: Group) -> tuple[Elementwise, tuple[str, ...]]:
        return adamax, ("exp_avg", "exp_inf")

    def _numbers(self, group: Group, state: State) -> tuple[float, ...]:
        beta1, beta2 = group["betas"]
        return group["lr"] / (1 - beta1 ** state["step"]), 1 - beta1, beta2, group["eps"]

"""RAdam: Adam with a rectified scale in the first steps."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

from kobai.core.tensor import Tensor
from kobai.formula.elementwise import Elementwise, elementwise
from kobai.formula.scalar import sqrt
from kobai.optim import _counts
from kobai.optim._formulas import average, average_square
from kobai.optim.groups import BELOW_ONE, Engine, Group, Params, non_negative, options
from kobai.optim.optimizer import Optimizer, State


@elementwise
def radam(
    p: Any, g: Any, m: Any, v: Any, *, lr: Any, new1: Any, beta2: Any, new2: Any, eps: Any, rectified: Any
) -> Any:
    """As ``adam`` where ``rectified`` is not 0; p ← p − lr·m until then, as long as v's variance is not bounded"""
    m = average(m, g, new1)
    v = average_square(v, g, beta2, new2)
    p = p - lr * (m / (sqrt(v) + eps) if rectified != 0 else m)
    return p, m, v


class RAdam(Optimizer):
    """RAdam: Adam that rectifies the large variance of its scale in the first steps, instead of a warm-up of lr.

    At step t, with ρ∞ = 2/(1−β₂) − 1, the length of the average v, and ρₜ = ρ∞ − 2tβ₂ᵗ/(1−β₂ᵗ)::

        m ← β₁m + (1−β₁)g                m̂ = m / (1 − β₁ᵗ)
        v ← β₂v + (1−β₂)g²
        r = √((ρₜ−4)(ρₜ−2)ρ∞ / ((ρ∞−4)(ρ∞−2)ρₜ))
        p ← p − lr·r·m̂·√(1 − β₂ᵗ) / (√v + ε)      if ρₜ > 5
        p ← p − lr·m̂                              else

    Arguments:
        params: tensors, ``(name, tensor)`` pairs or group dicts.
        lr: learning rate.
        betas: (β₁, β₂).
        eps: ε, outside the root, and not bias-corrected.
        weight_decay: λ of the L2 penalty, g ← g + λp; decoupled: p ← (1 − lr·λ)p before the update.
        decoupled_weight_decay: see ``weight_decay``.
        maximize: ascend instead.

    State per parameter: ``step`` (int), ``exp_avg`` (m) and ``exp_avg_sq`` (v), both of shape and dtype of p.

    Liu et al., *On the variance of the adaptive learning rate and beyond*, arXiv:1908.03265.

    >>> import kobai
    >>> w = kobai.tensor([4.0], requires_grad=True)
    >>> optimizer = kobai.optim.RAdam([w], lr=0.125)
    >>> (w ** 2).backward()
    >>> optimizer.step()
    >>> w
    tensor([3.], requires_grad=True)
    """

    _ranges: ClassVar = non_negative("lr", "eps", "weight_decay", betas=BELOW_ONE)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
        **engine: Unpack[Engine],
    ) -> None:
        super().__init__(params, options(locals(), "lr", "betas", "eps", "weight_decay", "maximize"))

    def _kernel(self, group: Group) -> tuple[Elementwise, tuple[str, ...]]:
        return radam, ("exp_avg", "exp_avg_sq")

    def _numbers(self, group: Group, state: State) -> tuple[float, ...]:
        beta1, beta2 = group["betas"]
        t = state["step"]
        correction1, correction2 = 1 - beta1**t, 1 - beta2**t
        rho_inf = 2 / (1 - beta2) - 1
        rho = rho_inf - 2 * t * beta2**t / correction2
        rectified = rho > 5  # then rho_inf is, too
        rho, rho_inf = _counts.maximum(rho, 5.0), _counts.maximum(rho_inf, 5.0)
        rectification = _counts.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
        lr = group["lr"] / correction1
        lr = lr * _counts.where(rectified, rectification * _counts.sqrt(correction2), 1.0)
        return lr, 1 - beta1, beta2, 1 - beta2, group["eps"], _counts.where(rectified, 1.0, 0.0)

"""NAdam: Adam with Nesterov's momentum."""

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
def nadam(p: Any, g: Any, m: Any, v: Any, *, lr_g: Any, lr_m: Any, new1: Any, beta2: Any, new2: Any, eps: Any) -> Any:
    """m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  p ← p − (lr_g·g + lr_m·m) / (√v + ε), with new = 1 − β"""
    m = average(m, g, new1)
    v = average_square(v, g, beta2, new2)
    p = p - (lr_g * g + lr_m * m) / (sqrt(v) + eps)
    return p, m, v


class NAdam(Optimizer):
    """NAdam: Adam with Nesterov's momentum, whose coefficient warms up.

    At step t, with momentum decay ψ::

        μₜ = β₁(1 − 0.96^(tψ) / 2)       Πₜ = μ₁·…·μₜ
        m ← β₁m + (1−β₁)g                v ← β₂v + (1−β₂)g²
        m̂ = μₜ₊₁·m / (1 − Πₜ₊₁) + (1 − μₜ)·g / (1 − Πₜ)
        p ← p − lr·m̂ / (√(v / (1 − β₂ᵗ)) + ε)

    Arguments:
        params: tensors, ``(name, tensor)`` pairs or group dicts.
        lr: learning rate.
        betas: (β₁, β₂).
        eps: ε, outside the root.
        weight_decay: λ of the L2 penalty, g ← g + λp; decoupled: p ← (1 − lr·λ)p before the update.
        momentum_decay: ψ.
        decoupled_weight_decay: see ``weight_decay``.
        maximize: ascend instead.

    State per parameter: ``step`` (int), ``mu_product`` (Πₜ, float), ``exp_avg`` (m) and ``exp_avg_sq`` (v), both of
    shape and dtype of p.

    Dozat, *Incorporating Nesterov momentum into Adam*, ICLR workshop 2016.

    >>> import kobai
    >>> w = kobai.tensor([4.0], requires_grad=True)
    >>> optimizer = kobai.optim.NAdam([w], lr=0.5)
    >>> (w ** 2).backward()
    >>> optimizer.step()
    >>> w
    tensor([3.4718], requires_grad=True)
    """

    _ranges: ClassVar = non_negative("lr", "eps", "weight_decay", "momentum_decay", betas=BELOW_ONE)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
        **engine: Unpack[Engine],
    ) -> None:
        super().__init__(params, options(locals()))

    def _new_state(self, p: Tensor, group: Group) -> State:
        return {"step": 0, "mu_product": 1.0, **self._zeros(p, group)}

    def _kernel(self, group: Group) -> tuple[Elementwise, tuple[str, ...]]:
        return nadam, ("exp_avg", "exp_avg_sq")

    def _numbers(self, group: Group, state: State) -> tuple[float, ...]:
        beta1, beta2 = group["betas"]
        t, decay = state["step"], group["momentum_decay"]
        mu = beta1 * (1 - 0.5 * 0.96 ** (t * decay))
        mu_next = beta1 * (1 - 0.5 * 0.96 ** ((t + 1) * decay))
        product = state["mu_product"] = state["mu_product"] * mu
        correction2 = _counts.sqrt(1 - beta2**t)
        lr = group["lr"] * correction2  # folded as in Adam
        return (
            lr * (1 - mu) / (1 - product),
            lr * mu_next / (1 - product * mu_next),
            1 - beta1,
            beta2,
            1 - beta2,
            group["eps"] * correction2,
        )

"""Adam, and AdamW with weight decay decoupled from the gradient."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

from kobai.core.tensor import Tensor
from kobai.formula.elementwise import Elementwise, elementwise
from kobai.formula.scalar import maximum, sqrt
from kobai.optim import _counts
from kobai.optim._formulas import average, average_square
from kobai.optim.groups import BELOW_ONE, USUAL, Engine, Group, Params, non_negative, options
from kobai.optim.optimizer import Optimizer, State


@elementwise
def adam(p: Any, g: Any, m: Any, v: Any, *, lr: Any, new1: Any, beta2: Any, new2: Any, eps: Any) -> Any:
    """m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  p ← p − lr·m / (√v + ε), with new = 1 − β

    The bias corrections are folded into ``lr`` and ``eps`` by the caller, which saves a pass.
    """
    m = average(m, g, new1)
    v = average_square(v, g, beta2, new2)
    p = p - lr * (m / (sqrt(v) + eps))
    return p, m, v


@elementwise
def amsgrad(p: Any, g: Any, m: Any, v: Any, most: Any, *, lr: Any, new1: Any, beta2: Any, new2: Any, eps: Any) -> Any:
    """As ``adam``, but v̂ ← max(v̂, v), and √v̂ in place of √v"""
    m = average(m, g, new1)
    v = average_square(v, g, beta2, new2)
    most = maximum(most, v)
    p = p - lr * (m / (sqrt(most) + eps))
    return p, m, v, most


class Adam(Optimizer):
    """Adam: momentum, scaled per element by the root of the moving mean of the squared gradient.

    At step t::

        m ← β₁m + (1−β₁)g                m̂ = m / (1 − β₁ᵗ)
        v ← β₂v + (1−β₂)g²               v̂ = v / (1 − β₂ᵗ)
        p ← p − lr·m̂ / (√v̂ + ε)

    AMSGrad takes the largest v so far in place of v.

    Arguments:
        params: tensors, ``(name, tensor)`` pairs or group dicts.
        lr: learning rate.
        betas: (β₁, β₂).
        eps: ε, outside the root.
        weight_decay: λ of the L2 penalty, g ← g + λp; decoupled: p ← (1 − lr·λ)p before the update.
        amsgrad, maximize, decoupled_weight_decay: see above; ascend instead; see ``weight_decay``.

    State per parameter: ``step`` (int), ``exp_avg`` (m), ``exp_avg_sq`` (v), ``max_exp_avg_sq`` (with AMSGrad); arrays
    have the shape and dtype of p.

    Kingma, Ba, *Adam: a method for stochastic optimization*, arXiv:1412.6980; Reddi, Kale, Kumar, *On the convergence
    of Adam and beyond*, ICLR 2018.

    >>> import kobai
    >>> w = kobai.tensor([4.0], requires_grad=True)
    >>> optimizer = kobai.optim.Adam([w], lr=0.5)
    >>> (w ** 2).backward()
    >>> optimizer.step()
    >>> w
    tensor([3.5000], requires_grad=True)
    """

    _ranges: ClassVar = non_negative("lr", "eps", "weight_decay", betas=BELOW_ONE)
    _switches: ClassVar = tuple(USUAL)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
        **engine: Unpack[Engine],
    ) -> None:
        super().__init__(params, options(locals()))

    def _check(self, group: Group) -> None:
        super()._check(group)
        if isinstance(group["lr"], Tensor) and group.get("foreach") and not group.get("capturable"):
            raise ValueError(
                f"{type(self).__name__}: expected capturable=True beside foreach=True where lr is a Tensor"
            )

    def _kernel(self, group: Group) -> tuple[Elementwise, tuple[str, ...]]:
        if group["amsgrad"]:
            return amsgrad, ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
        return adam, ("exp_avg", "exp_avg_sq")

    def _numbers(self, group: Group, state: State) -> tuple[float, ...]:
        beta1, beta2 = group["betas"]
        correction1, correction2 = 1 - beta1 ** state["step"], _counts.sqrt(1 - beta2 ** state["step"])
        # lr·m̂ / (√v̂ + ε) = (lr·√c₂/c₁)·m / (√v + ε√c₂) with cᵢ = 1 − βᵢᵗ: the corrections cost no pass over the arrays.
        lr, eps = group["lr"] * correction2 / correction1, group["eps"] * correction2
        return lr, 1 - beta1, beta2, 1 - beta2, eps


class AdamW(Adam):
    """Adam with decoupled weight decay: p ← (1 − lr·λ)p, then Adam's update with the plain gradient.

    L2 in the gradient is scaled by 1/√v like the gradient itself, so it hardly decays weights with large gradients;
    decoupled, all decay alike. Arguments and state are those of :class:`Adam`, with ``weight_decay`` 0.01.

    Loshchilov, Hutter, *Decoupled weight decay regularization*, arXiv:1711.05101.

    >>> import kobai
    >>> w = kobai.tensor([4.0], requires_grad=True)
    >>> optimizer = kobai.optim.AdamW([w], lr=0.5, weight_decay=0.25)
    >>> (w ** 2).backward()
    >>> optimizer.step()
    >>> w
    tensor([3.], requires_grad=True)
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        **engine: Unpack[Engine],
    ) -> None:
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, decoupled_weight_decay=True, **engine
        )

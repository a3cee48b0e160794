"""AdaGrad: steps that shrink with the sum of squared gradients."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

from kobai.core.tensor import Tensor
from kobai.formula.elementwise import Elementwise, elementwise
from kobai.formula.scalar import sqrt
from kobai.optim.groups import Engine, Group, Params, non_negative, options
from kobai.optim.optimizer import Optimizer, State, zeros_like
from kobai.xp import write


@elementwise
def adagrad(p: Any, g: Any, total: Any, *, lr: Any, eps: Any) -> Any:
    """G ← G + g²;  p ← p − lr·g / (√G + ε)"""
    total = total + g * g
    p = p - lr * (g / (sqrt(total) + eps))
    return p, total


class Adagrad(Optimizer):
    """AdaGrad: a step per element that shrinks with the sum of its squared gradients.

    At step t::

        G ← G + g²
        p ← p − lr / (1 + (t−1)·lr_decay) · g / (√G + ε)

    Arguments:
        params: tensors, ``(name, tensor)`` pairs or group dicts.
        lr, lr_decay: learning rate and its decay.
        weight_decay: λ of the L2 penalty, g ← g + λp.
        initial_accumulator_value: G before the first step.
        eps: ε.
        maximize: ascend instead.

    State per parameter: ``step`` (int), ``sum`` (G, shape and dtype of p). It is made at the first step.

    Duchi, Hazan, Singer, *Adaptive subgradient methods for online learning and stochastic optimization*, JMLR 2011.

    >>> import kobai
    >>> w = kobai.tensor([4.0], requires_grad=True)
    >>> optimizer = kobai.optim.Adagrad([w], lr=0.5)
    >>> (w ** 2).backward()
    >>> optimizer.step()
    >>> w.item()
    3.5
    """

    _ranges: ClassVar = non_negative("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps")
    _switches: ClassVar = ("foreach", "differentiable", "fused")

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
        **engine: Unpack[Engine],
    ) -> None:
        super().__init__(params, options(locals(), "lr", "lr_decay", "eps"))

    def _new_state(self, p: Tensor, group: Group) -> State:
        total = zeros_like(p)
        write(total.array, group["initial_accumulator_value"])
        return {"step": 0, "sum": total}

    def _kernel(self, group: Group) -> tuple[Elementwise, tuple[str, ...]]:
        return adagrad, ("sum",)

    def _numbers(self, group: Group, state: State) -> tuple[float, ...]:
        return group["lr"] / (1 + (state["step"] - 1) * group["lr_decay"]), group["eps"]

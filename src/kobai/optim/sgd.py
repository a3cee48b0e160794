"""Stochastic gradient descent, with momentum and Nesterov's momentum."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

from kobai.core.tensor import Tensor
from kobai.formula.elementwise import Elementwise, elementwise
from kobai.optim._counts import where
from kobai.optim.groups import Engine, Group, Params, non_negative, options
from kobai.optim.optimizer import Optimizer, State


@elementwise
def sgd(p: Any, g: Any, *, lr: Any) -> Any:
    """p ← p − lr·g"""
    p = p - lr * g
    return p


@elementwise
def momentum(p: Any, g: Any, v: Any, *, lr: Any, mu: Any) -> Any:
    """v ← μv + g;  p ← p − lr·v"""
    v = mu * v + g
    p = p - lr * v
    return p, v


@elementwise
def dampened_momentum(p: Any, g: Any, v: Any, *, lr: Any, mu: Any, new: Any) -> Any:
    """v ← μv + (1−τ)g;  p ← p − lr·v, with new = 1 − τ of the dampening τ"""
    v = mu * v + new * g
    p = p - lr * v
    return p, v


@elementwise
def nesterov(p: Any, g: Any, v: Any, *, lr: Any, mu: Any) -> Any:
    """v ← μv + g;  p ← p − lr·(g + μv)"""
    v = mu * v + g
    p = p - lr * (mu * v + g)
    return p, v


class SGD(Optimizer):
    """Stochastic gradient descent.

    p ← p − lr·g, and with momentum μ and dampening τ::

        v ← μv + (1−τ)g      (v = g at the first step)
        p ← p − lr·v         (Nesterov: p ← p − lr·(g + μv))

    Momentum *as velocity* (v ← μv − ηg; p ← p + v) is ``SGD(lr=η, momentum=μ)`` as long as lr stays constant; *as
    moving average* (v ← βv + (1−β)g; p ← p − αv) it is ``SGD(lr=α, momentum=β, dampening=β)``, which starts the average
    at the first g.

    Arguments:
        params: tensors, ``(name, tensor)`` pairs or group dicts.
        lr: learning rate.
        momentum: μ; 0 keeps no state.
        dampening: τ.
        weight_decay: λ of the L2 penalty, g ← g + λp.
        nesterov: needs ``momentum > 0`` and ``dampening = 0``.
        maximize: ascend instead.

    State per parameter, with momentum: ``momentum_buffer`` (v, shape and dtype of p).

    Polyak, *Some methods of speeding up the convergence of iteration methods*, 1964; Sutskever et al., *On the
    importance of initialization and momentum in deep learning*, ICML 2013.

    >>> import kobai
    >>> w = kobai.tensor([4.0], requires_grad=True)
    >>> optimizer = kobai.optim.SGD([w], lr=0.25)
    >>> (w ** 2).backward()
    >>> optimizer.step()
    >>> w.item()
    2.0
    """

    _ranges: ClassVar = non_negative("lr", "momentum", "weight_decay")
    _switches: ClassVar = ("foreach", "differentiable", "fused")

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        **engine: Unpack[Engine],
    ) -> None:
        super().__init__(params, options(locals()))

    def _check(self, group: Group) -> None:
        super()._check(group)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError(
                "SGD: expected momentum > 0 and dampening = 0 with nesterov=True, "
                f"got momentum={group['momentum']} and dampening={group['dampening']}"
            )

    def _new_state(self, p: Tensor, group: Group) -> State:
        return {"momentum_buffer": None} if group["momentum"] != 0 else {}

    def _kernel(self, group: Group) -> tuple[Elementwise, tuple[str, ...]]:
        if group["momentum"] == 0:
            return sgd, ()
        if group["nesterov"]:
            return nesterov, ("momentum_buffer",)
        return (momentum if group["dampening"] == 0 else dampened_momentum), ("momentum_buffer",)

    def _numbers(self, group: Group, state: State) -> tuple[float, ...]:
        lr, mu, dampening = group["lr"], group["momentum"], group["dampening"]
        if mu == 0:
            return (lr,)
        if group["nesterov"] or dampening == 0:
            return lr, mu
        first = state.get("momentum_buffer") is None  # the first gradient is taken whole, as in PyTorch
        if "first" in state:
            first, state["first"] = state["first"] != 0, 0.0
        return lr, mu, where(first, 1.0, 1 - dampening)

    def _counts_of_the_device(self, group: Group, state: State) -> dict[str, float]:
        if group["momentum"] == 0 or group["dampening"] == 0 or "first" in state:
            return {}
        return {"first": float(state.get("momentum_buffer") is None)}

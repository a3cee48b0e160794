"""ASGD: gradient descent that keeps the mean of the parameters it went through."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

from kobai.core.tensor import Tensor
from kobai.formula.elementwise import Elementwise, elementwise
from kobai.optim._counts import maximum
from kobai.optim.groups import Engine, Group, Params, non_negative, options
from kobai.optim.optimizer import Optimizer, State


@elementwise
def asgd(p: Any, g: Any, mean: Any, *, eta: Any, keep: Any, mu: Any) -> Any:
    """p ← (1 − λη)p − ηg;  p̄ ← p̄ + μ(p − p̄), with keep = 1 − λη"""
    p = keep * p - eta * g
    mean = mean + mu * (p - mean)
    return p, mean


class ASGD(Optimizer):
    """Averaged stochastic gradient descent.

    ::

        p ← (1 − λη)p − ηg
        p̄ ← p̄ + μ(p − p̄)
        η = lr / (1 + λ·lr·t)^α,  μ = 1 / max(1, t − t₀)      (for the next step)

    The mean p̄ is kept in the state; the parameters themselves are p.

    Arguments:
        params: tensors, ``(name, tensor)`` pairs or group dicts.
        lr: the first η.
        lambd: λ.
        alpha: α.
        t0: t₀, after which averaging begins.
        weight_decay: of the L2 penalty.
        maximize: ascend instead.

    State per parameter: ``step`` (int), ``eta`` and ``mu`` (floats), ``ax`` (p̄, shape and dtype of p).

    Polyak, Juditsky, *Acceleration of stochastic approximation by averaging*, SIAM J. Control Optim. 30, 1992.

    >>> import kobai
    >>> w = kobai.tensor([4.0], requires_grad=True)
    >>> optimizer = kobai.optim.ASGD([w], lr=0.25, lambd=0.0)
    >>> (w ** 2).backward()
    >>> optimizer.step()
    >>> w.item()
    2.0
    """

    _ranges: ClassVar = non_negative("lr", "weight_decay")

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
        **engine: Unpack[Engine],
    ) -> None:
        super().__init__(params, options(locals()))

    def _new_state(self, p: Tensor, group: Group) -> State:
        return {"step": 0, "eta": group["lr"], "mu": 1.0, **self._zeros(p, group)}

    def _kernel(self, group: Group) -> tuple[Elementwise, tuple[str, ...]]:
        return asgd, ("ax",)

    def _numbers(self, group: Group, state: State) -> tuple[float, ...]:
        eta, mu, t = state["eta"], state["mu"], state["step"]
        state["eta"] = group["lr"] / (1 + group["lambd"] * group["lr"] * t) ** group["alpha"]
        state["mu"] = 1.0 / maximum(t - group["t0"], 1.0)
        return eta, 1 - group["lambd"] * eta, mu

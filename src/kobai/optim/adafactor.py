"""Adafactor: the mean of the squared gradient kept as one number for each row and one for each column."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

import numpy as np

from kobai.core.tensor import Tensor
from kobai.optim import _counts
from kobai.optim._whole import WholeOptimizer
from kobai.optim.groups import Engine, Group, Params, non_negative, options
from kobai.optim.optimizer import State, zeros_like
from kobai.xp import Array, quiet, xp_of


class Adafactor(WholeOptimizer):
    """Adafactor: steps as long as a share of the parameter, with little memory.

    At step t, for the rows i and columns j of a parameter's last two dimensions::

        r ← r + (meanⱼ g² − r)·t^τ         c ← c + (meanᵢ g² − c)·t^τ         v = r cᵀ / max(mean r, ε₁)
        u = g / √max(v, ε₁²)               α = max(ε₂, rms(p))·min(lr, 1/√t)
        p ← (1 − lr·λ)p − α·u / max(1, rms(u)/d)

    A parameter of fewer dimensions keeps all of v ← v + (g² − v)·t^τ.

    Arguments:
        params: tensors, ``(name, tensor)`` pairs or group dicts.
        lr: bound of the relative step, ρ.
        beta2_decay: τ; with −0.8 the average grows ever longer.
        eps: (ε₁, ε₂); None is the distance from 1 to the next number of the dtype.
        d: bound of the root mean square of an update.
        weight_decay: λ, decoupled from the gradient.
        maximize: ascend instead.

    State per parameter: ``step`` (int), ``row_var`` (r) and ``col_var`` (c), of size 1 in the last and the last but one
    dimension, or ``variance`` (v).

    Shazeer, Stern, *Adafactor: adaptive learning rates with sublinear memory cost*, arXiv:1804.04235.

    >>> import kobai
    >>> w = kobai.tensor([4.0], requires_grad=True)
    >>> optimizer = kobai.optim.Adafactor([w], lr=0.25)
    >>> (w ** 2).backward()
    >>> optimizer.step()
    >>> w
    tensor([3.], requires_grad=True)
    """

    _ranges: ClassVar = non_negative("lr", "weight_decay")
    _switches: ClassVar = ("foreach",)
    _choices = ("maximize", "eps")

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        **engine: Unpack[Engine],
    ) -> None:
        super().__init__(params, options(locals()))

    def _check(self, group: Group) -> None:
        super()._check(group)
        if group["beta2_decay"] > 0:
            raise ValueError(f"Adafactor: expected beta2_decay <= 0, got {group['beta2_decay']}")
        eps1, eps2 = group["eps"]
        if (eps1 is not None and eps1 < 0) or eps2 < 0:
            raise ValueError(f"Adafactor: expected eps >= 0, got {group['eps']}")
        if group["d"] < 1:
            raise ValueError(f"Adafactor: expected d >= 1, got {group['d']}")

    def _new_state(self, p: Tensor, group: Group) -> State:
        if p.ndim < 2:
            return {"step": 0, "variance": zeros_like(p)}
        return {"step": 0, "row_var": zeros_like(p[..., :1]), "col_var": zeros_like(p[..., :1, :])}

    def _restore(self, name: str, value: Any, p: Tensor) -> Any:
        like = {"row_var": p[..., :1], "col_var": p[..., :1, :]} if p.ndim > 1 else {}
        return super()._restore(name, value, like.get(name, p))

    def _numbers(self, group: Group, state: State) -> tuple[float, ...]:
        t, lr = state["step"], group["lr"]
        new = t ** group["beta2_decay"]
        rate = -_counts.maximum(-lr, -(1 / _counts.sqrt(t)))
        return new, rate, 1 - lr * group["weight_decay"], group["d"]

    @quiet  # of a parameter without elements
    def _new(self, group: Group, p: Array, g: Array, arrays: dict[str, Array], numbers: Sequence[Any]) -> list[Array]:
        new, rate, kept, d = numbers[:4]
        xp, (eps1, eps2) = xp_of(p), group["eps"]
        eps1 = float(np.finfo(p.dtype).eps) if eps1 is None else eps1
        square = g * g
        if "variance" in arrays:
            v = arrays["variance"] + (square - arrays["variance"]) * new
            changed, estimate = [v], v
        else:
            r, c = arrays["row_var"], arrays["col_var"]
            r = r + (square.mean(-1, keepdims=True) - r) * new
            c = c + (square.mean(-2, keepdims=True) - c) * new
            changed, estimate = [r, c], r * c / xp.maximum(r.mean(-2, keepdims=True), eps1)
        u = g / xp.sqrt(xp.maximum(estimate, eps1 * eps1))
        alpha = xp.maximum(_rms(p), eps2) * rate
        return [p * kept - u * (alpha / xp.maximum(1.0, _rms(u) / d)), *changed]


def _rms(x: Array) -> Array:
    """The root of the mean square, 0 of nothing."""
    xp = xp_of(x)
    return xp.sqrt((x * x).sum()) / math.sqrt(max(x.size, 1))

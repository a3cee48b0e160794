"""Muon: momentum, made orthogonal."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from kobai.core.tensor import Tensor
from kobai.dtypes import bfloat16
from kobai.optim._whole import WholeOptimizer
from kobai.optim.groups import UP_TO_ONE, Group, Params, non_negative, options
from kobai.optim.optimizer import State, zeros_like
from kobai.xp import Array, xp_of

_RATES: dict[str | None, Callable[[int, int], float]] = {
    None: lambda rows, columns: math.sqrt(max(1.0, rows / columns)),
    "original": lambda rows, columns: math.sqrt(max(1.0, rows / columns)),
    "match_rms_adamw": lambda rows, columns: 0.2 * math.sqrt(max(rows, columns)),
}
"""By ``adjust_lr_fn``: what the rate is multiplied by for a matrix."""


class Muon(WholeOptimizer):
    """Momentum orthogonalised by Newton–Schulz iterations, for matrices: the hidden layers of a network.

    At each step, with U Vᵀ instead of the U Σ Vᵀ of its argument, about::

        b ← μb + (1−μ)g                          u = orthogonal(μb + (1−μ)g), or without Nesterov orthogonal(b)
        p ← (1 − lr·λ)p − lr·s·u                 s = √max(1, rows/columns), or 0.2 √max(rows, columns)

    Each of ``ns_steps`` iterations is X ← aX + (bG + cG²)X with G = X Xᵀ, from X = g/‖g‖. As in PyTorch what they give is
    rounded to bfloat16. Biases, embeddings and other parameters that are no matrices go to another optimiser.

    Arguments:
        params: matrices, ``(name, tensor)`` pairs or group dicts.
        lr: learning rate.
        weight_decay: λ, decoupled from the gradient.
        momentum, nesterov: μ; see above.
        ns_coefficients: (a, b, c).
        eps: the least length that g is divided by.
        ns_steps: iterations, fewer than 100.
        adjust_lr_fn: which s: None or ``"original"``, or ``"match_rms_adamw"``.

    State per parameter: ``momentum_buffer`` (b). Errors: ValueError for a parameter that is no matrix.

    Jordan et al., *Muon: an optimizer for hidden layers in neural networks*, 2024; Liu et al., arXiv:2502.16982.

    >>> import kobai
    >>> w = kobai.eye(2, requires_grad=True)
    >>> optimizer = kobai.optim.Muon([w], lr=0.5)
    >>> (3 * w).sum().backward()
    >>> optimizer.step()
    >>> w.shape
    kobai.Size([2, 2])
    """

    _ranges: ClassVar = non_negative("lr", "weight_decay", momentum=UP_TO_ONE)
    _choices = ("nesterov", "ns_coefficients", "eps", "ns_steps", "adjust_lr_fn", "maximize")

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> None:
        super().__init__(params, options(locals()))

    def _check(self, group: Group) -> None:
        super()._check(group)
        if group["adjust_lr_fn"] not in _RATES:
            raise ValueError(f"Muon: expected adjust_lr_fn to be one of {[*_RATES]}, got {group['adjust_lr_fn']!r}")
        if len(group["ns_coefficients"]) != 3 or not 0 <= group["ns_steps"] < 100:
            raise ValueError(
                "Muon: expected 3 ns_coefficients and fewer than 100 ns_steps, "
                f"got {group['ns_coefficients']} and {group['ns_steps']}"
            )
        for p in group["params"]:
            if p.ndim != 2:
                raise ValueError(f"Muon: expected matrices as parameters, got one of shape {tuple(p.shape)}")

    def _new_state(self, p: Tensor, group: Group) -> State:
        return {"momentum_buffer": zeros_like(p)}

    def _numbers(self, group: Group, state: State) -> tuple[float, ...]:
        return group["lr"], 1 - group["momentum"], 1 - group["lr"] * group["weight_decay"]

    def _new(self, group: Group, p: Array, g: Array, arrays: dict[str, Array], numbers: Sequence[Any]) -> list[Array]:
        lr, new, kept = numbers[:3]
        b = arrays["momentum_buffer"]
        b = b + (g - b) * new
        u = orthogonal(b + (g - b) * new if group["nesterov"] else b, group)
        rate = lr * _RATES[group["adjust_lr_fn"]](*p.shape)
        return [p * kept - u.astype(p.dtype) * rate, b]


def orthogonal(g: Array, group: Group) -> Array:
    """About U Vᵀ of g = U Σ Vᵀ, in numbers of bfloat16 held by float32."""
    xp, (a, b, c) = xp_of(g), group["ns_coefficients"]
    x = _rounded(g.T if g.shape[0] > g.shape[1] else g)
    x = _rounded(x / xp.maximum(_rounded(xp.sqrt((x * x).sum())), group["eps"]))
    for _ in range(group["ns_steps"]):
        gram = _rounded(x @ x.T)
        x = _rounded(a * x + _rounded(b * gram + c * (gram @ gram)) @ x)
    return x.T if g.shape[0] > g.shape[1] else x


def _rounded(x: Array) -> Array:
    """The nearest numbers of bfloat16, as float32: products of these are exact in it."""
    return x.astype(bfloat16.dtype).astype(np.float32)

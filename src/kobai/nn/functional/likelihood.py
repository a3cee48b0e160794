"""Losses that are the negative logarithm of a density: Gaussian and Poisson."""

from __future__ import annotations

import math

from kobai.core.autocast import one_operation
from kobai.core.tensor import Tensor
from kobai.ops._args import need_flags
from kobai.ops._size_average import size_average
from kobai.ops.cross_entropy import check_reduction
from kobai.ops.gather import where
from kobai.ops.like import full_like
from kobai.ops.loss import reduce

__all__ = ["gaussian_nll_loss", "poisson_nll_loss"]


def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """(log v + (x − t)² / v) / 2, v = max(var, eps); ``full`` adds log(2π) / 2.

    ``var`` has the shape of the input, or 1 for one of its dimensions, or nothing for the last, or is a number.
    The bound by ``eps`` has no part in the gradient, as in PyTorch.
    Nix and Weigend, "Estimating the mean and variance of the target probability distribution", ICNN 1994.

    >>> import kobai
    >>> kobai.nn.functional.gaussian_nll_loss(kobai.zeros(2), kobai.ones(2), kobai.ones(2))
    tensor(0.5000)
    """
    check_reduction("gaussian_nll_loss", reduction)
    v: Tensor = var if isinstance(var, Tensor) else full_like(input, var)
    if v.shape == input.shape[:-1] and v.shape != input.shape:
        v = v.unsqueeze(-1)
    shared = [n for n, m in zip(v.shape, input.shape, strict=False) if n != m]
    if v.ndim != input.ndim or shared not in ([], [1]):
        raise ValueError(f"gaussian_nll_loss: expected var of shape {tuple(input.shape)}, got {tuple(v.shape)}")
    bounded = v + (v.detach().clamp(min=eps) - v.detach())
    loss = 0.5 * (bounded.log() + (input - target) ** 2 / bounded)
    return reduce(loss + 0.5 * math.log(2 * math.pi) if full else loss, reduction)


@size_average("input target log_input full size_average eps reduce reduction")
@one_operation
def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    *,
    eps: float = 1e-8,
    reduction: str = "mean",
) -> Tensor:
    """eˣ − t x, the expectation being eˣ; or with ``log_input=False`` x − t log(x + eps), the expectation being x.

    ``full`` adds Stirling's approximation of log t!, t log t − t + log(2πt) / 2, where t > 1.

    >>> import kobai
    >>> kobai.nn.functional.poisson_nll_loss(kobai.zeros(2), kobai.ones(2))
    tensor(1.)
    """
    check_reduction("poisson_nll_loss", reduction)
    need_flags("poisson_nll_loss", log_input=log_input, full=full)
    loss = input.exp() - target * input if log_input else input - target * (input + eps).log()
    if full:
        many = target.clamp(min=1.0)  # keeps the logarithms finite where they are not used
        stirling = many * many.log() - many + 0.5 * (2 * math.pi * many).log()
        loss = loss + where(target > 1, stirling, 0.0)
    return reduce(loss, reduction)

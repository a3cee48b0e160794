"""RMSprop: gradients divided by the root of their mean square."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

from kobai.core.tensor import Tensor
from kobai.formula.elementwise import Elementwise, elementwise
from kobai.formula.scalar import sqrt
from kobai.optim._formulas import average, average_square
from kobai.optim.groups import UP_TO_ONE, Engine, Group, Params, non_negative, options
from kobai.optim.optimizer import Optimizer, State


@elementwise
def rmsprop(p: Any, g: Any, v: Any, *, lr: Any, alpha: Any, new: Any, eps: Any) -> Any:
    """v ← αv + (1−α)g²;  p ← p − lr·g / (√v + ε), with new = 1 − α"""
    v = average_square(v, g, alpha, new)
    p = p - lr * (g / (sqrt(v) + eps))
    return p, v


@elementwise
def rmsprop_momentum(p: Any, g: Any, v: Any, b: Any, *, lr: Any, alpha: Any, new: Any, eps: Any, mu: Any) -> Any:
    """As ``rmsprop``, but b ← μb + g / (√v + ε);  p ← p − lr·b"""
    v = average_square(v, g, alpha, new)
    b = mu * b + g / (sqrt(v) + eps)
    p = p - lr * b
    return p, v, b


@elementwise
def centered(p: Any, g: Any, v: Any, mean: Any, *, lr: Any, alpha: Any, new: Any, eps: Any) -> Any:
    """As ``rmsprop``, but √(v − ḡ²) in place of √v, where ḡ ← αḡ + (1−α)g"""
    v = average_square(v, g, alpha, new)
    mean = average(mean, g, new)
    p = p - lr * (g / (sqrt(v - mean * mean) + eps))
    return p, v, mean


@elementwise
def centered_momentum(
    p: Any, g: Any, v: Any, b: Any, mean: Any, *, lr: Any, alpha: Any, new: Any, eps: Any, mu: Any
) -> Any:
    """As ``centered``, but b ← μb + g / (√(v − ḡ²) + ε);  p ← p − lr·b"""
    v = average_square(v, g, alpha, new)
    mean = average(mean, g, new)
    b = mu * b + g / (sqrt(v - mean * mean) + eps)
    p = p - lr * b
    return p, v, b, mean


class RMSprop(Optimizer):
    """RMSprop: each element's gradient divided by the root of the moving mean of its square.

    ::

        v ← αv + (1−α)g²
        p ← p − lr·g / (√v + ε)

    ``centered`` takes √(v − ḡ²) instead, ḡ ← αḡ + (1−α)g: an estimate of the standard deviation. With momentum μ,
    b ← μb + g / (√v + ε) and p ← p − lr·b.

    Arguments:
        params: tensors, ``(name, tensor)`` pairs or group dicts.
        lr: learning rate.
        alpha: α.
        eps: ε, outside the root.
        weight_decay: λ of the L2 penalty, g ← g + λp.
        momentum: μ.
        centered: see above.
        maximize: ascend instead.

    State per parameter: ``step`` (int), ``square_avg`` (v), ``momentum_buffer`` (b, with momentum), ``grad_avg`` (ḡ,
    if centered); arrays have the shape and dtype of p.

    Hinton, Srivastava, Swersky, *Neural networks for machine learning*, lecture 6e, 2012; centred form: Graves,
    *Generating sequences with recurrent neural networks*, arXiv:1308.0850.

    >>> import kobai
    >>> w = kobai.tensor([4.0], requires_grad=True)
    >>> optimizer = kobai.optim.RMSprop([w], lr=0.1, alpha=0.75)
    >>> (w ** 2).backward()
    >>> optimizer.step()
    >>> w
    tensor([3.8000], requires_grad=True)
    """

    _ranges: ClassVar = non_negative("lr", "eps", "weight_decay", "momentum", alpha=UP_TO_ONE)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        *,
        maximize: bool = False,
        **engine: Unpack[Engine],
    ) -> None:
        super().__init__(params, options(locals(), "lr", "momentum", "alpha", "eps", "centered"))

    def _kernel(self, group: Group) -> tuple[Elementwise, tuple[str, ...]]:
        if group["centered"]:
            if group["momentum"] > 0:
                return centered_momentum, ("square_avg", "momentum_buffer", "grad_avg")
            return centered, ("square_avg", "grad_avg")
        if group["momentum"] > 0:
            return rmsprop_momentum, ("square_avg", "momentum_buffer")
        return rmsprop, ("square_avg",)

    def _numbers(self, group: Group, state: State) -> tuple[float, ...]:
        alpha, mu = group["alpha"], group["momentum"]
        return group["lr"], alpha, 1 - alpha, group["eps"], *((mu,) if mu > 0 else ())

"""Derivatives of functions: ``jacobian`` and ``vjp``, with the names of ``torch.autograd.functional``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kobai.autograd.grad import grad
from kobai.core.grad_mode import enable_grad
from kobai.core.tensor import Tensor
from kobai.ops.like import zeros_like
from kobai.refusals import guard as _guard

__all__ = ["jacobian", "vjp"]


def _called(func: Callable[..., Any], inputs: Any) -> tuple[list[Tensor], Any]:
    """Fresh leaves for the inputs, and the function's value at them."""
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    leaves = [x.detach().clone().requires_grad_() for x in given]
    with enable_grad():
        return leaves, func(*leaves)


def jacobian(func: Callable[..., Tensor], inputs: Any) -> Any:
    """∂f/∂x of a function of one tensor (or of a tuple of them: then a tuple), shape of f followed by shape of x.

    One backward pass for every element of f.

    >>> import kobai
    >>> kobai.autograd.functional.jacobian(lambda x: x ** 2, kobai.tensor([1.0, 3.0]))
    tensor([[2., 0.],
            [0., 6.]])
    """
    leaves, value = _called(func, inputs)
    if not isinstance(value, Tensor):
        raise TypeError(f"jacobian: expected the function to return a Tensor, got {type(value).__name__}")
    flat = value.reshape(-1)
    rows: list[list[Tensor]] = [[] for _ in leaves]
    for i in range(flat.numel()):
        gradients = (
            grad(flat[i], leaves, retain_graph=True, allow_unused=True) if flat.requires_grad else [None] * len(leaves)
        )
        for row, leaf, g in zip(rows, leaves, gradients, strict=True):
            row.append(zeros_like(leaf) if g is None else g)
    result = []
    for row, leaf in zip(rows, leaves, strict=True):
        whole = zeros_like(leaf).expand(flat.numel(), *leaf.shape).clone()
        for i, part in enumerate(row):
            whole[i] = part
        result.append(whole.reshape(*value.shape, *leaf.shape))
    return tuple(result) if isinstance(inputs, tuple) else result[0]


def vjp(func: Callable[..., Tensor], inputs: Any, v: Tensor | None = None) -> tuple[Tensor, Any]:
    """f(x) and the vector–Jacobian product vᵀ ∂f/∂x (v may be left out where f has one element).

    >>> import kobai
    >>> kobai.autograd.functional.vjp(lambda x: x ** 2, kobai.tensor([1.0, 3.0]), kobai.tensor([1.0, 10.0]))
    (tensor([1., 9.]), tensor([ 2., 60.]))
    """
    leaves, value = _called(func, inputs)
    gradients = grad(value, leaves, v, allow_unused=True)
    filled = tuple(zeros_like(x) if g is None else g for x, g in zip(leaves, gradients, strict=True))
    return value.detach(), filled if isinstance(inputs, tuple) else filled[0]


_guard(globals())

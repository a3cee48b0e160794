"""``gradgradcheck``: second derivatives against differences of first ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kobai.autograd.grad import grad
from kobai.core.grad_mode import enable_grad, is_grad_enabled
from kobai.core.tensor import Tensor
from kobai.gradcheck import STEP, gradcheck, worst_mismatch
from kobai.xp import asarray

__all__ = ["gradgradcheck"]


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = STEP,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """Whether the derivatives of ``func``'s gradient agree with central differences of that gradient.

    The gradient is taken as a function of the inputs and of ``grad_outputs``, the weights of the outputs – random numbers
    unless given –, and checked as in :func:`gradcheck`, whose arguments and errors these are.

    >>> import kobai
    >>> x = kobai.tensor([0.3, -1.2], dtype=kobai.float64, requires_grad=True)
    >>> kobai.autograd.gradgradcheck(kobai.tanh, x)
    True
    """
    gradient, arguments = gradient_of(func, inputs, grad_outputs)
    return gradcheck(gradient, arguments, eps, atol, rtol, raise_exception)


def gradient_of(
    func: Callable[..., Any], inputs: Any, grad_outputs: Any = None
) -> tuple[Callable[..., Any], list[Any]]:
    """The gradient of ``func`` as a function of its inputs and of the weights of its outputs, and these arguments."""
    given = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    with enable_grad():
        outputs = _derived(func(*given))
    if not outputs:
        raise RuntimeError("gradgradcheck: expected a function with an output that requires a gradient")
    if grad_outputs is None:
        rng = np.random.default_rng([1, 0x6B6F626169])
        weights = [_weight(rng.standard_normal(y.shape), y) for y in outputs]
    else:
        weights = list(grad_outputs) if isinstance(grad_outputs, (list, tuple)) else [grad_outputs]

    def gradient(*arguments: Any) -> tuple[Tensor, ...]:
        xs, vs = arguments[: len(given)], arguments[len(given) :]
        record = is_grad_enabled()
        with enable_grad():
            wanted = [x for x in xs if isinstance(x, Tensor) and x.requires_grad]
            found = grad(_derived(func(*xs)), wanted, vs, create_graph=record, allow_unused=True)
        return tuple(g for g in found if g is not None)

    return gradient, [*given, *weights]


def worst_second(func: Callable[..., Any], inputs: Any, step: float = STEP) -> Any:
    """As :func:`kobai.gradcheck.worst_mismatch`, of the gradient of ``func``."""
    return worst_mismatch(*gradient_of(func, inputs), step)


def _derived(output: Any) -> list[Tensor]:
    outputs = output if isinstance(output, (list, tuple)) else (output,)
    return [y for y in outputs if isinstance(y, Tensor) and y.requires_grad]


def _weight(values: Any, y: Tensor) -> Tensor:
    made: Tensor = Tensor._wrap(asarray(values, dtype=y.dtype, device=y.device))
    return made.requires_grad_()

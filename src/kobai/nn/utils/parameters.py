"""Helpers on many parameters at once: clipping gradients, one flat vector of all."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from functools import reduce
from operator import add
from typing import Any

from kobai.core.tensor import Tensor
from kobai.errors import users_line
from kobai.formula.many import dtype_of_numbers
from kobai.nn.utils._clip import scale, sum_of_squares
from kobai.ops.joining import cat
from kobai.xp import Array, beside, move, write, xp_of


def _listed(who: str, parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    listed = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    for parameter in listed:
        if not isinstance(parameter, Tensor):
            raise TypeError(f"{who}: expected Tensors, got {type(parameter).__name__}")
    return listed


def _gradients(who: str, parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [p.grad for p in _listed(who, parameters) if p.grad is not None]


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale all gradients together, in place, so that their common norm is at most ``max_norm``.

    Every g is multiplied by min(1, max_norm / (total + 1e-6)), with total = ‖(g₁, g₂, …)‖ₚ. Nothing is read back from the
    device, except with ``error_if_nonfinite``, which raises RuntimeError if the norm is not finite. All gradients are scaled
    in one launch, whatever ``foreach`` says.
    Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks", ICML 2013.

    Returns:
        The total norm before clipping, a Tensor without dimensions.

    >>> import kobai
    >>> w = kobai.zeros(2, requires_grad=True)
    >>> w.grad = kobai.tensor([3.0, 4.0])
    >>> kobai.nn.utils.clip_grad_norm_([w], max_norm=1.0)
    tensor(5.)
    >>> w.grad
    tensor([0.6000, 0.8000])
    """
    grads = _gradients("clip_grad_norm_", parameters)
    total = _total_norm("clip_grad_norm_", grads, norm_type, error_if_nonfinite)
    _scale_to(grads, max_norm, total)
    return total


def clip_grad_norm(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """The older name of :func:`clip_grad_norm_`, as a FutureWarning says.

    >>> import kobai, warnings
    >>> w = kobai.zeros(1, requires_grad=True)
    >>> w.grad = kobai.tensor([2.0])
    >>> with warnings.catch_warnings(action="ignore"):
    ...     kobai.nn.utils.clip_grad_norm([w], 1.0)
    tensor(2.)
    """
    warnings.warn("clip_grad_norm is now clip_grad_norm_", FutureWarning, stacklevel=users_line())
    return clip_grad_norm_(parameters, max_norm, norm_type, error_if_nonfinite)


def get_total_norm(
    tensors: Tensor | Iterable[Tensor],
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """‖(t₁, t₂, …)‖ₚ of all tensors as one vector: what :func:`clip_grad_norm_` returns if they are the gradients.

    >>> import kobai
    >>> kobai.nn.utils.get_total_norm([kobai.tensor([3.0]), kobai.tensor([[4.0]])])
    tensor(5.)
    """
    return _total_norm("get_total_norm", _listed("get_total_norm", tensors), norm_type, error_if_nonfinite)


def clip_grads_with_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """What :func:`clip_grad_norm_` does, with a norm that is known: that of :func:`get_total_norm`, of several models perhaps.

    >>> import kobai
    >>> w = kobai.zeros(2, requires_grad=True)
    >>> w.grad = kobai.tensor([3.0, 4.0])
    >>> kobai.nn.utils.clip_grads_with_norm_([w], 1.0, kobai.tensor(10.0))
    >>> w.grad
    tensor([0.3000, 0.4000])
    """
    if not isinstance(total_norm, Tensor) or total_norm.numel() != 1:
        raise TypeError(f"clip_grads_with_norm_: expected total_norm as a tensor of one element, got {total_norm!r}")
    _scale_to(_gradients("clip_grads_with_norm_", parameters), max_norm, total_norm)


def _scale_to(grads: list[Tensor], max_norm: float, total: Tensor) -> None:
    with beside(total.array):
        factor = xp_of(total.array).minimum(max_norm / (total.array + 1e-6), 1.0).reshape(1)
        for arrays in _alike(grads):
            scale(arrays, factor.astype(dtype_of_numbers(arrays[0].dtype), copy=False))
    for g in grads:
        g._bump()


def _alike(grads: list[Tensor]) -> list[list[Array]]:
    """The arrays grouped by dtype, for one launch each; an array that occurs twice goes into two groups."""
    found: dict[Any, list[Array]] = {}
    seen: dict[int, int] = {}
    for g in grads:
        array = g.array
        times = seen[id(array)] = seen.get(id(array), -1) + 1
        found.setdefault((array.dtype, times), []).append(array)
    return list(found.values())


def _total_norm(who: str, tensors: list[Tensor], norm_type: float, error_if_nonfinite: bool) -> Tensor:
    """‖all tensors as one vector‖ₚ, on their device."""
    p = float(norm_type)
    if not p > 0:
        raise ValueError(f"{who}: expected norm_type > 0, got {p}")
    if not tensors:
        return Tensor(0.0)
    with beside(tensors[0].array):
        total = _norm(tensors, p)
    if error_if_nonfinite and not math.isfinite(total.item()):
        raise RuntimeError(
            f"{who}: the total norm of order {norm_type} of the gradients is not finite ({total.item()}), "
            "so they cannot be clipped; pass error_if_nonfinite=False to scale them all the same"
        )
    return total


def _norm(grads: list[Tensor], p: float) -> Tensor:
    xp = xp_of(grads[0].array)
    arrays = [g.array for g in grads if g.array.size] or [xp.zeros(1, dtype=grads[0].dtype)]
    if p == math.inf:
        total = reduce(xp.maximum, [xp.abs(a).max() for a in arrays])
    elif p == 2.0:
        square = reduce(add, [sum_of_squares(arrays) for arrays in _alike(grads)])
        total = xp.sqrt(square).astype(grads[0].array.dtype)
    else:
        total = reduce(add, [(xp.abs(a) ** p).sum() for a in arrays]) ** (1.0 / p)
    return Tensor._wrap(xp.asarray(total))  # type: ignore[no-any-return]


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None) -> None:
    """Clip every element of every gradient, in place, to [−clip_value, clip_value].

    >>> import kobai
    >>> w = kobai.zeros(2, requires_grad=True)
    >>> w.grad = kobai.tensor([3.0, -0.5])
    >>> kobai.nn.utils.clip_grad_value_([w], 1.0)
    >>> w.grad
    tensor([ 1.0000, -0.5000])
    """
    clip_value = float(clip_value)
    for g in _gradients("clip_grad_value_", parameters):
        with beside(g.array):
            xp_of(g.array).clip(g.array, -clip_value, clip_value, out=g.array)
        g._bump()


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters as one flat tensor, in order (a copy, on the tape).

    >>> import kobai
    >>> kobai.nn.utils.parameters_to_vector([kobai.ones(1, 2), kobai.zeros(1)])
    tensor([1., 1., 0.])
    """
    return cat([p.reshape(-1) for p in _listed("parameters_to_vector", parameters)])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Write one flat tensor, made by ``parameters_to_vector``, back into the parameters, in place.

    Raises:
        ValueError: the vector's length is not the number of elements of all parameters.

    >>> import kobai
    >>> w, b = kobai.zeros(1, 2), kobai.zeros(1)
    >>> kobai.nn.utils.vector_to_parameters(kobai.tensor([1.0, 2.0, 3.0]), [w, b])
    >>> w, b
    (tensor([[1., 2.]]), tensor([3.]))
    """
    if not isinstance(vec, Tensor):
        raise TypeError(f"vector_to_parameters: expected a Tensor, got {type(vec).__name__}")
    listed = _listed("vector_to_parameters", parameters)
    wanted = sum(p.numel() for p in listed)
    if vec.ndim != 1 or vec.numel() != wanted:
        raise ValueError(f"vector_to_parameters: expected a vector of {wanted} elements, got shape {tuple(vec.shape)}")
    start = 0
    for p in listed:
        part = vec.array[start : start + p.numel()]
        write(p.array, move(part, p.device).reshape(p.shape))
        p._bump()
        start += p.numel()

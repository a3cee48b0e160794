"""Softmax, its logarithm, and the gated linear unit: activations that look at a whole dimension."""

from __future__ import annotations

import warnings
from typing import Any

from kobai.core.primitive import method, primitive
from kobai.core.tensor import Tensor
from kobai.errors import users_line
from kobai.ops import _formulas as fast
from kobai.ops._args import as_asked, as_float, cast, normalize_axis
from kobai.ops.arithmetic import mul
from kobai.ops.softmax import kernel as rows
from kobai.xp import Array, xp_of

__all__ = ["glu", "log_softmax", "softmax", "softmin"]

_SAMPLES: Any = [
    lambda rng: (rng.normal(size=(4, 3)), 1),
    lambda rng: (rng.normal(size=(2, 3, 4)), 1),
    lambda rng: (rng.normal(size=(3,)), 0),
    lambda rng: (rng.normal(size=()), 0),
    lambda rng: (rng.normal(size=(0, 3)), 1),
    lambda rng: (rng.normal(size=(3, 0)), 1),
]


@primitive(sample=_SAMPLES, half="device")
def _softmax(x: Array, axis: int) -> Any:
    xp = xp_of(x)
    if x.ndim == 0 or x.size == 0:
        return xp.ones_like(x), lambda dy: (xp.zeros_like(dy),)
    y = rows.softmax(x, axis)
    return y, lambda dy: (rows.softmax_backward(dy, y, axis),)


@primitive(sample=_SAMPLES, half="device")
def _log_softmax(x: Array, axis: int) -> Any:
    xp = xp_of(x)
    if x.ndim == 0 or x.size == 0:
        return xp.zeros_like(x), lambda dy: (xp.zeros_like(dy),)
    y = rows.log_softmax(x, axis)
    return y, lambda dy: (rows.log_softmax_backward(dy, y, axis),)


def _arguments(who: str, input: Tensor, dim: int | None, dtype: Any) -> tuple[Tensor, int]:
    x = as_float(who, input) if dtype is None else cast(input, dtype)
    if dim is None:
        dim = 0 if x._array.ndim in (0, 1, 3) else 1
        warnings.warn(
            f"{who}: dim was not given, taking {dim} as PyTorch does; please write it", stacklevel=users_line()
        )
    return x, normalize_axis(who, dim, x._array.ndim)


@method
def softmax(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """e^xᵢ / Σⱼ e^xⱼ along ``dim``; ``dtype`` converts the input first.

    >>> import kobai
    >>> kobai.softmax(kobai.tensor([[0., 0.], [1000., 0.]]), dim=1)
    tensor([[0.5000, 0.5000],
            [1.0000, 0.0000]])
    """
    return as_asked(_softmax(*_arguments("softmax", input, dim, dtype)), dtype)


@method
def log_softmax(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """xᵢ − ln Σⱼ e^xⱼ along ``dim``, without the loss of accuracy of log(softmax(x)).

    >>> import kobai
    >>> kobai.nn.functional.log_softmax(kobai.tensor([0., 0., -200.]), dim=0)  # the last of softmax is 0 in float32
    tensor([  -0.6931,   -0.6931, -200.6931])
    """
    return as_asked(_log_softmax(*_arguments("log_softmax", input, dim, dtype)), dtype)


def softmin(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """softmax(−x) along ``dim``.

    >>> import kobai
    >>> kobai.nn.functional.softmin(kobai.tensor([0., 0., 1000.]), dim=0)
    tensor([0.5000, 0.5000, 0.0000])
    """
    x, axis = _arguments("softmin", input, dim, dtype)
    return as_asked(_softmax(mul(x, -1), axis), dtype)


@primitive(sample=[lambda rng: (rng.normal(size=(3, 4)), 1), lambda rng: (rng.normal(size=(2, 0)), 0)], again=True)
def _glu(x: Array, axis: int) -> Any:
    xp = xp_of(x)
    half = x.shape[axis] // 2
    first = (*(slice(None),) * axis, slice(0, half))
    second = (*(slice(None),) * axis, slice(half, None))
    gate = fast.sigmoid(x[second])

    def vjp(dy: Array) -> Any:
        dx = xp.empty_like(x)
        dx[first] = dy * gate
        dx[second] = dy * x[first] * gate * (1 - gate)
        return (dx,)

    return x[first] * gate, vjp


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """a ⊗ σ(b), a and b the two halves of ``input`` along ``dim`` (Dauphin et al., ICML 2017).

    >>> import kobai
    >>> kobai.nn.functional.glu(kobai.tensor([3., 4., 0., 100.]))  # 3 · σ(0), 4 · σ(100)
    tensor([1.5000, 4.0000])
    """
    x = as_float("glu", input)
    if x._array.ndim == 0:
        raise RuntimeError("glu: expected a tensor with dimensions, got a scalar")
    axis = normalize_axis("glu", dim, x._array.ndim)
    if x._array.shape[axis] % 2:
        raise RuntimeError(f"glu: expected an even size in dimension {axis}, got shape {tuple(x.shape)}")
    return _glu(x, axis)

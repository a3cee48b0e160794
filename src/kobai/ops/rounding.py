"""Sign and rounding: constant between their steps, so their gradient is zero, as in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kobai.core.primitive import method, primitive
from kobai.core.tensor import Tensor
from kobai.dtypes import FLOATING
from kobai.ops import _formulas
from kobai.ops._args import Samples, need_tensor
from kobai.ops.shape import clone
from kobai.refusals import truth_values
from kobai.xp import Array, xp_of

__all__ = ["ceil", "fix", "floor", "frac", "round", "sgn", "sign", "trunc"]


def _steps() -> Samples:
    """Samples away from the steps, which are at integers and halves."""
    return [
        lambda rng: (rng.integers(-3, 3, (4, 3)) + rng.uniform(0.1, 0.4, (4, 3)),),
        lambda rng: (np.zeros((0, 3)),),
    ]


def _flat(y: Array) -> Any:
    return y, lambda dy: (lambda: xp_of(dy).zeros_like(dy),)


@primitive(sample=_steps(), kind="elementwise")
def _sign(x: Array) -> Any:
    return _flat(_formulas.sign(x) if x.dtype.kind in FLOATING else xp_of(x).sign(x))


def _step(name: str, function: str) -> Callable[..., Tensor]:
    def forward(x: Array) -> Any:
        return _flat(getattr(xp_of(x), function)(x))

    forward.__name__ = name
    return primitive(sample=_steps(), kind="elementwise")(forward)


_floor, _ceil, _trunc, _round = (
    _step("_floor", "floor"),
    _step("_ceil", "ceil"),
    _step("_trunc", "trunc"),
    _step("_round", "rint"),
)


@primitive(sample=_steps(), kind="elementwise")
def _frac(x: Array) -> Any:
    return x - xp_of(x).trunc(x), lambda dy: (dy,)


def _whole(who: str, step: Any, input: Tensor) -> Tensor:
    """``step`` of floats; integers are whole already."""
    need_tensor(who, input)
    if input._array.dtype.kind == "b":
        raise truth_values(who, "bool")
    return step(input) if input._array.dtype.kind in FLOATING else clone(input)


@method(in_place=True)
def sign(input: Tensor) -> Tensor:
    """−1, 0 or 1 with the sign of each element; NaN of NaN. The gradient is zero.

    >>> import kobai
    >>> kobai.sign(kobai.tensor([-2.5, 0.0, 3.0]))
    tensor([-1.,  0.,  1.])
    """
    need_tensor("sign", input)
    return clone(input) if input._array.dtype.kind == "b" else _sign(input)


@method(in_place=True)
def floor(input: Tensor) -> Tensor:
    """Largest whole number not above each element. The gradient is zero.

    >>> import kobai
    >>> kobai.floor(kobai.tensor([-1.5, 1.5]))
    tensor([-2.,  1.])
    """
    return _whole("floor", _floor, input)


@method(in_place=True)
def ceil(input: Tensor) -> Tensor:
    """Smallest whole number not below each element. The gradient is zero.

    >>> import kobai
    >>> kobai.ceil(kobai.tensor([-1.5, 1.5]))
    tensor([-1.,  2.])
    """
    return _whole("ceil", _ceil, input)


@method(in_place=True)
def trunc(input: Tensor) -> Tensor:
    """Each element without its fraction. The gradient is zero.

    >>> import kobai
    >>> kobai.trunc(kobai.tensor([-1.5, 1.5]))
    tensor([-1.,  1.])
    """
    return _whole("trunc", _trunc, input)


@method(in_place=True)
def frac(input: Tensor) -> Tensor:
    """Fraction of each element, with its sign. The gradient passes through.

    >>> import kobai
    >>> kobai.frac(kobai.tensor([-1.5, 1.25]))
    tensor([-0.5000,  0.2500])
    """
    need_tensor("frac", input)
    if input._array.dtype.kind not in FLOATING:
        raise RuntimeError(f"frac: expected floats, got {input.dtype}")
    return _frac(input)


@method(in_place=True)
def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """Nearest whole number (or multiple of 10⁻ᵈᵉᶜⁱᵐᵃˡˢ), of two equally near the even one. The gradient is zero.

    >>> import kobai
    >>> kobai.tensor([0.5, 1.5, 2.25]).round(), kobai.tensor([2.126]).round(decimals=2)
    (tensor([0., 2., 2.]), tensor([2.1300]))
    """
    if decimals == 0:
        return _whole("round", _round, input)
    need_tensor("round", input)
    if input._array.dtype.kind not in FLOATING:
        raise RuntimeError(f"round: decimals need floats, got {input.dtype}")
    scale = 10.0 ** abs(decimals)
    return _round(input * scale) / scale if decimals > 0 else _round(input / scale) * scale


sgn, fix = sign, trunc
method(sign, name="sgn", in_place=True)
method(trunc, name="fix", in_place=True)

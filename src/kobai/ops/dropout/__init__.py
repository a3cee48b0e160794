"""Random units: dropout in its variants, and the randomised rectifier.

The numbers come from the counter stream of :mod:`kobai.random`, so that a mask is the same on every device and one integer,
the counter, restores it. An element is dropped when its 32-bit number lies below p · 2³².
"""

from __future__ import annotations

import math
import warnings
from typing import Any

from kobai import random
from kobai.core.primitive import primitive
from kobai.core.tensor import Tensor
from kobai.errors import ArgumentError, users_line
from kobai.ops._args import as_float, need_tensor
from kobai.ops.activation import SELU_ALPHA, SELU_SCALE, _leaky_relu, _step, apply
from kobai.ops.dropout import kernel as kernel
from kobai.ops.dropout.philox import philox_bits, reserve
from kobai.random import Generator, resolve
from kobai.xp import Array, xp_of

__all__ = ["alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout", "rrelu"]


def random_bits(shape: tuple[int, ...], generator: Generator | None, like: Array) -> Array:
    """Uniform uint32 numbers of ``shape``; advances the generator's counter."""
    n = math.prod(shape)
    return philox_bits(n, reserve(resolve(generator), n), like).reshape(shape)


def _of_samples(x: Tensor) -> Tensor:
    """Inside ``vmap`` a tensor that may lose other elements in every sample."""
    return x if random.tensor_within is None else random.tensor_within(x)


def _drops(who: str, input: Any, p: float, training: bool) -> bool:
    """Whether anything can be dropped, once the arguments are checked."""
    if not 0 <= p <= 1:
        raise ValueError(f"{who}: expected a probability p in [0, 1], got {p}")
    need_tensor(who, input)
    return training and p > 0


@primitive(
    sample=[
        lambda rng: (rng.normal(size=(4, 3)), rng.random((4, 3)) > 0.4, 1 / 0.6),
        lambda rng: (rng.normal(size=(2, 3, 4)), rng.random((2, 3, 1)) > 0.4, 2.0),
        lambda rng: (rng.normal(size=(0, 3)), rng.random((0, 3)) > 0.4, 2.0),
    ],
    half="device",
)
def _masked(x: Array, keep: Array, scale: float) -> Any:
    return kernel.masked(x, keep, scale), lambda dy: (kernel.masked(dy, keep, scale),)


@primitive(
    sample=[
        lambda rng: (rng.normal(size=(4, 3)), 0.4, None),
        lambda rng: (rng.normal(size=(0, 3)), 0.4, None),
    ],
    half="device",
)
def _dropout(x: Array, p: float, generator: Generator | None) -> Any:
    y, keep = kernel.dropout(x, p, resolve(generator))
    return y, lambda dy: (kernel.masked(dy, keep, 1 / (1 - p)),)


def _dropped(
    who: str, input: Tensor, shape: tuple[int, ...], p: float, inplace: bool, generator: Generator | None
) -> Tensor:
    """``input`` without what a mask of ``shape`` drops."""
    input = _of_samples(input)
    x, p = input._array, float(p)
    if p < 1 and shape == x.shape:
        return apply(_dropout, inplace, who, input, p, generator)
    keep = xp_of(x).zeros(shape, bool) if p == 1 else kernel.keep_mask(shape, p, resolve(generator), x)
    return apply(_masked, inplace, who, input, keep, 0.0 if p == 1 else 1 / (1 - p))


def dropout(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """Every element becomes 0 with probability ``p``, else x / (1 − p), so that its mean stays (Srivastava et al., JMLR 2014).

    Without ``training`` the input itself. ``generator`` defaults to the global one.

    >>> import kobai
    >>> g = kobai.Generator().manual_seed(1)
    >>> kobai.nn.functional.dropout(kobai.ones(6), p=0.5, generator=g).unique()
    tensor([0., 2.])
    """
    if not _drops("dropout", input, p, training):
        return input
    return _dropped("dropout", input, input._array.shape, p, inplace, generator)


def _feature_dropout(
    who: str,
    spatial: int,
    channels: int,
    input: Tensor,
    p: float,
    training: bool,
    inplace: bool,
    generator: Generator | None,
    read: str = "",
) -> Tensor:
    """:func:`dropout` of the parts of ``input`` that dimension ``channels`` and those before it number.

    ``read`` is what an input of unusual shape is taken for, which a warning says.
    """
    drops, shape = _drops(who, input, p, training), input._array.shape
    if len(shape) <= channels:
        raise ArgumentError(f"{who}: expected {spatial + 1} or {spatial + 2} dimensions, got {tuple(shape)}")
    if read:
        shown = f"{who}: input of shape {tuple(shape)} is read as {read}, as in PyTorch"
        warnings.warn(shown, stacklevel=users_line())
    if not drops:
        return input
    rest = len(shape) - channels - 1
    return _dropped(who, input, (*shape[: channels + 1], *(1,) * rest), p, inplace, generator)


def dropout1d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """:func:`dropout` of whole channels of an input (C, L) or (N, C, L) (Tompson et al., CVPR 2015).

    >>> import kobai
    >>> y = kobai.nn.functional.dropout1d(kobai.ones(1, 8, 2), p=0.5)
    >>> kobai.equal(y[..., 0], y[..., 1])  # every channel is of one number
    True
    """
    need_tensor("dropout1d", input)
    channels = {2: 0, 3: 1}.get(input.ndim, input.ndim)  # no other number of dimensions is taken
    return _feature_dropout("dropout1d", 1, channels, input, p, training, inplace, generator)


def dropout2d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """:func:`dropout` of whole channels of an input (N, C, H, W) (Tompson et al., CVPR 2015).

    Other inputs are read as (N, C, ...) too, with a warning: three dimensions are (N, C, L) and not (C, H, W), as in PyTorch.

    >>> import kobai
    >>> y = kobai.nn.functional.dropout2d(kobai.ones(1, 8, 2, 2), p=0.5)
    >>> kobai.equal(y.amax((2, 3)), y.amin((2, 3)))  # every channel is of one number
    True
    """
    need_tensor("dropout2d", input)
    read = {4: "", 3: "(N, C, L); of (C, H, W) use unsqueeze(0)"}.get(input.ndim, "(N, C, ...)")
    return _feature_dropout("dropout2d", 2, 1, input, p, training, inplace, generator, read)


def dropout3d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """:func:`dropout` of whole channels of an input (C, D, H, W) or (N, C, D, H, W) (Tompson et al., CVPR 2015).

    An input of other dimensions is read as (C, ...), with a warning, as in PyTorch.

    >>> import kobai
    >>> y = kobai.nn.functional.dropout3d(kobai.ones(1, 8, 2, 2, 2), p=0.5)
    >>> kobai.equal(y.amax((2, 3, 4)), y.amin((2, 3, 4)))  # every channel is of one number
    True
    """
    need_tensor("dropout3d", input)
    read = "" if input.ndim in (4, 5) else "(C, ...)"
    return _feature_dropout("dropout3d", 3, int(input.ndim == 5), input, p, training, inplace, generator, read)


@primitive(
    sample=[
        lambda rng: (rng.normal(size=(4, 3)), rng.random((4, 3)) > 0.4, -1.7, 0.8, 0.3),
        lambda rng: (rng.normal(size=(2, 3, 4)), rng.random((2, 3, 1)) > 0.4, -1.7, 0.8, 0.3),
        lambda rng: (rng.normal(size=(0, 3)), rng.random((0, 3)) > 0.4, -1.7, 0.8, 0.3),
    ],
    half="device",
)
def _replaced(x: Array, keep: Array, value: float, scale: float, shift: float) -> Any:
    kept = keep.astype(x.dtype)
    y = scale * (x * kept + value * (1 - kept)) + shift
    return y, lambda dy: (dy * keep * scale,)


def _alpha(who: str, x: Tensor, shape: tuple[int, ...], p: float, inplace: bool, generator: Generator | None) -> Tensor:
    if p == 1:
        return _dropped(who, x, shape, p, inplace, generator)
    p, x = float(p), _of_samples(x)
    # SELU's limit at −∞ replaces what is dropped; a·y + b brings mean 0 and variance 1 back (equation 8 of the paper)
    value = -SELU_ALPHA * SELU_SCALE
    scale = 1 / math.sqrt((1 - p) * (1 + p * value * value))
    keep = kernel.keep_mask(shape, p, resolve(generator), x._array)
    return apply(_replaced, inplace, who, x, keep, value, scale, -scale * p * value)


def alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """Dropout for SELU networks, which keeps mean 0 and variance 1 (Klambauer et al., NIPS 2017).

    >>> import kobai
    >>> x = kobai.randn(10000)
    >>> kobai.nn.functional.alpha_dropout(x, p=0.5, training=True).std().round(decimals=1)
    tensor(1.)
    """
    if not _drops("alpha_dropout", input, p, training):
        return input
    return _alpha("alpha_dropout", input, input._array.shape, p, inplace, generator)


def feature_alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """:func:`alpha_dropout` of whole channels of an input (N, C, ...).

    >>> import kobai
    >>> y = kobai.nn.functional.feature_alpha_dropout(kobai.ones(1, 8, 2), p=0.5, training=True)
    >>> kobai.equal(y[..., 0], y[..., 1])  # every channel is of one number
    True
    """
    if not _drops("feature_alpha_dropout", input, p, training):
        return input
    shape = input._array.shape
    if len(shape) < 2:
        raise ArgumentError(f"feature_alpha_dropout: expected input (N, C, ...), got {tuple(shape)}")
    return _alpha("feature_alpha_dropout", input, (*shape[:2], *(1,) * (len(shape) - 2)), p, inplace, generator)


@primitive(
    sample=[
        lambda rng: (rng.uniform(0.1, 2, (4, 3)) * rng.choice([-1, 1], (4, 3)), rng.uniform(0.1, 0.3, (4, 3))),
        lambda rng: (rng.uniform(0.1, 2, (0, 3)), rng.uniform(0.1, 0.3, (0, 3))),
    ],
    again=True,
)
def _slopes(x: Array, slope: Array) -> Any:
    factor = _step(x, slope)
    return x * factor, lambda dy: (dy * factor, lambda: dy * xp_of(x).minimum(x, 0))


def rrelu(
    input: Tensor,
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """x where x > 0, a · x elsewhere (Xu et al., arXiv:1505.00853).

    In training every element draws its a from U(lower, upper); otherwise a = (lower + upper) / 2.

    >>> import kobai
    >>> kobai.nn.functional.rrelu(kobai.tensor([-1., 2.]), lower=0.2, upper=0.4)
    tensor([-0.3000,  2.0000])
    """
    if lower > upper:
        raise RuntimeError(f"rrelu: expected lower <= upper, got {lower} and {upper}")
    x = as_float("rrelu", input)
    if not training:
        return apply(_leaky_relu, inplace, "rrelu", input, (lower + upper) / 2)
    input = x = _of_samples(x)
    bits = random_bits(x._array.shape, generator, x._array)
    slope = lower + (upper - lower) * (bits.astype(x._array.dtype) * 2.0**-32)
    return apply(_slopes, inplace, "rrelu", input, slope)

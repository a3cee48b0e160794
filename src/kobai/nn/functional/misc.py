"""Functions that belong to no family: ``bilinear``, ``pad``, ``gumbel_softmax``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kobai.core.autocast import one_operation
from kobai.core.tensor import Tensor
from kobai.ops.gather import index_select
from kobai.ops.joining import surrounded
from kobai.ops.like import zeros_like
from kobai.ops.shape import fresh
from kobai.ops.softmax import softmax
from kobai.random import Generator, resolve
from kobai.xp import move

__all__ = ["bilinear", "gumbel_softmax", "local_response_norm", "pad"]


@one_operation
def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """yₖ = x₁ᵀ Aₖ x₂ + bₖ: (..., in1), (..., in2), A (out, in1, in2), b (out) → (..., out).

    >>> import kobai
    >>> kobai.nn.functional.bilinear(kobai.ones(1, 2), kobai.ones(1, 3), kobai.ones(4, 2, 3))
    tensor([[6., 6., 6., 6.]])
    """
    out, in1, in2 = weight.shape
    batch = input1.shape[:-1]
    if input1.shape[-1] != in1 or input2.shape[-1] != in2 or input2.shape[:-1] != batch:
        raise RuntimeError(
            f"bilinear: expected inputs (..., {in1}) and (..., {in2}) of one batch, "
            f"got {tuple(input1.shape)} and {tuple(input2.shape)}"
        )
    left = input1.reshape(-1, in1) @ weight.permute(1, 0, 2).reshape(in1, out * in2)
    y: Tensor = (left.reshape(-1, out, in2) * input2.reshape(-1, 1, in2)).sum(-1, dtype=left.dtype).reshape(*batch, out)
    return y if bias is None else y + bias


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Add elements before and after: ``pad`` = (before, after) of the last dimension, then of the last but one, ...

    ``mode``: ``"constant"`` adds ``value`` (0), ``"reflect"`` mirrors without repeating the edge, ``"replicate"`` repeats
    the edge, ``"circular"`` goes on at the other end of what is left. A negative number takes elements away.

    >>> import kobai
    >>> kobai.nn.functional.pad(kobai.ones(1, 2), (1, 2))
    tensor([[0., 1., 1., 0., 0.]])
    """
    pad = tuple(pad)
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise RuntimeError(f"pad: expected an even number of sizes, at most {2 * input.ndim}, got {pad}")
    if mode not in ("constant", "reflect", "replicate", "circular"):
        raise NotImplementedError(f"pad: expected mode constant, reflect, replicate or circular, got {mode!r}")
    if mode != "constant" and value is not None:
        raise ValueError(f"pad: a value is for mode 'constant', not for {mode!r}")
    given = input
    sizes = [(input.ndim - 1 - dim, *n) for dim, n in enumerate(zip(pad[::2], pad[1::2], strict=True)) if any(n)]
    if mode == "constant":
        for axis, before, after in sizes:
            size = input.shape[axis]
            if size + before + after < 0 or size + min(before, 0) + min(after, 0) < 0:
                raise RuntimeError(f"pad: dimension {axis} of size {size} cannot lose {-before} and {-after} elements")
        if sizes:
            input = surrounded(input, tuple(sizes), 0.0 if value is None else value)
    elif sizes:
        unlisted = mode == "circular" or (mode == "reflect" and len(pad) == 6)  # by autocast, as in PyTorch
        input = (_by_index if unlisted else _from_edges)(input, sizes, mode)
    return fresh(input, given)


def _by_index(input: Tensor, sizes: list[tuple[int, int, int]], mode: str) -> Tensor:
    for axis, before, after in sizes:
        input = _pad_by_index(input, axis, before, after, mode)
    return input


@one_operation
def _from_edges(input: Tensor, sizes: list[tuple[int, int, int]], mode: str) -> Tensor:
    return _by_index(input, sizes, mode)


def _pad_by_index(input: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    size = input.shape[axis]
    limit = {"reflect": size - 1, "replicate": max(before, after) if size else 0, "circular": size}[mode]
    if max(before, after) > limit:
        raise RuntimeError(f"pad: mode {mode!r} can add {limit} elements to size {size}, got {before} and {after}")
    start, stop = max(0, -before), size - max(0, -after)  # what is left where a number is negative
    if mode == "circular":
        left = stop - start
        enough = left > 0 or (left == 0 and max(before, after) <= 0)
    else:
        enough = size + before + after > 0
    if not enough:
        raise RuntimeError(f"pad: dimension {axis} of size {size} cannot lose {-before} and {-after} elements")
    places = np.arange(-before, size + after)
    if mode == "reflect":
        places = np.abs(places)
        places = np.where(places >= size, 2 * (size - 1) - places, places)
    elif mode == "replicate":
        places = places.clip(0, size - 1)
    elif left:  # what is left is repeated, not what was there
        places = start + (places - start) % left
    return index_select(input, axis, Tensor._wrap(move(places, input.device)))


def gumbel_softmax(
    logits: Tensor,
    tau: float = 1,
    hard: bool = False,
    eps: float = 1e-10,
    dim: int = -1,
    generator: Generator | None = None,
) -> Tensor:
    """softmax((logits + g) / tau), g drawn from the Gumbel distribution: a soft draw from softmax(logits).

    ``hard`` rounds the result to a one-hot vector and lets the gradient pass as if it had not been rounded. ``eps`` has
    no effect, as in PyTorch, and may only have its default. g is drawn on the host.
    Jang, Gu, Poole, arXiv:1611.01144; Maddison, Mnih, Teh, arXiv:1611.00712.

    >>> import kobai
    >>> kobai.nn.functional.gumbel_softmax(kobai.zeros(4, 3), hard=True).sum(-1)
    tensor([1., 1., 1., 1.])
    """
    if eps != 1e-10:
        raise ValueError("gumbel_softmax: eps has no effect; leave it out")
    if not tau > 0:
        raise ValueError(f"gumbel_softmax: expected tau > 0, got {tau}")
    noise = resolve(generator).numpy.gumbel(size=tuple(logits.shape)).astype(logits.dtype)
    soft = softmax((logits + Tensor._wrap(move(noise, logits.device))) / tau, dim)
    if not hard:
        return soft
    best = soft.detach().argmax(dim, keepdim=True)
    rounded: Tensor = zeros_like(soft).scatter_(dim, best, 1.0)
    return rounded - soft.detach() + soft


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """x / (k + α · m)^β, m the mean of x² over ``size`` neighbouring channels (zeros beyond the first and last).

    (N, C, *) → the same. Krizhevsky, Sutskever, Hinton, *ImageNet classification with deep convolutional neural
    networks*, NIPS 2012, section 3.3.

    >>> import kobai
    >>> kobai.nn.functional.local_response_norm(kobai.ones(1, 2, 1), 1, alpha=3.0, beta=0.5).flatten()
    tensor([0.5000, 0.5000])
    """
    if input.ndim < 3 or size < 1:
        raise ValueError(
            f"local_response_norm: expected input (N, C, *) and size > 0, got {tuple(input.shape)} and {size}"
        )
    channels = input.shape[1]
    square = (input * input).transpose(1, -1)
    padded = pad(square, (size // 2, (size - 1) // 2)).transpose(1, -1)
    total = padded.narrow(1, 0, channels)
    for i in range(1, size):
        total = total + padded.narrow(1, i, channels)
    return input / (k + alpha / size * total) ** beta  # type: ignore[no-any-return]

"""Batching rules of layers, which have compiled loops for whole batches: the samples become part of the batch.

What all samples share, such as the weight of a convolution, has its gradient per sample all the same: of each by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from kobai.autograd.batching.arrays import Batched, spread
from kobai.autograd.batching.primitives import of_all, rule
from kobai.core.tape import as_array
from kobai.ops.conv import windows_of
from kobai.ops.conv.kernel import channel_sums, convolve, convolve_transposed, weight_gradient


@rule(
    "ops.pool._max_pool", "ops.pool._avg_pool", "ops.fold._columns_of", "ops.fold._image_of", "ops.resample._resample",
    "ops.resample._repeated",
)  # fmt: skip
def of_last_dimensions(kind: type[Batched], function: Callable[..., Any], arrays: Sequence[Any], options: Any) -> Any:
    """What is done to the last dimensions, for any number before them: samples multiply the first."""
    (x,) = arrays
    if not x.batched:
        return None

    def fold(a: Any) -> Any:
        return a.reshape(a.shape[0] * a.shape[1], *a.shape[2:])

    y, vjp = function(fold(x.inner), **options)
    y = as_array(y)
    y = y.reshape(kind.samples, x.shape[0], *y.shape[1:])
    return of_all(kind, y, None if vjp is None else lambda dy: vjp(fold(dy)), arrays)


@rule("ops.softmax._softmax", "ops.softmax._log_softmax", "ops.softmax._glu")
def of_one_axis(kind: type[Batched], function: Callable[..., Any], arrays: Sequence[Any], options: Any) -> Any:
    """What is done along an axis: along the one behind it."""
    x, axis = arrays
    if not x.batched or not x.ndim:
        return None
    y, vjp = function(x.inner, axis % x.ndim + 1, **options)
    return of_all(kind, y, vjp, arrays)


@rule("ops.conv._conv")
def convolved(kind: type[Batched], function: Callable[..., Any], arrays: Sequence[Any], options: dict[str, Any]) -> Any:
    """One batch of images for all samples that share a weight. Its gradient is that of a batch per sample."""
    x, weight, bias = arrays
    shared = not weight.batched and (bias is None or not bias.batched)
    if not x.batched or not shared or not x.inner.size or options.get("activation") is not None:
        return None
    spatial, groups = weight.ndim - 2, options["groups"]
    rules = {key: options[key] for key in ("stride", "pads", "dilation")}
    w = windows_of(x.shape[-spatial:], weight.shape[2:], **rules)

    def fold(a: Any) -> Any:
        return a.reshape(math.prod(a.shape[: -spatial - 1]), *a.shape[-spatial - 1 :])

    y = convolve(fold(x.inner), weight.inner, w, groups, None if bias is None else bias.inner)
    y = y.reshape(*x.inner.shape[: -spatial - 1], *y.shape[1:])

    def by_sample(a: Any) -> Any:
        """Images with the channels of one sample after those of another: each is a group of its own."""
        images = a if a.ndim > spatial + 2 else a[:, None]
        return images.swapaxes(0, 1).reshape(images.shape[1], -1, *images.shape[3:])

    def vjp(dy: Any) -> Any:
        dz, shape = spread(dy, kind), weight.shape

        def dx() -> Any:
            return kind(convolve_transposed(fold(dz), weight.inner, w, groups).reshape(x.inner.shape), True)

        def dweight() -> Any:
            every = (kind.samples * shape[0], *shape[1:])
            found = weight_gradient(by_sample(x.inner), by_sample(dz), w, groups * kind.samples, every)
            return kind(found.reshape(kind.samples, *shape), True)

        def dbias() -> Any:
            return channel_sums(kind(dz if dz.ndim > spatial + 2 else dz[:, None], True))

        return dx, dweight, None if bias is None else dbias

    return kind(y, True), vjp

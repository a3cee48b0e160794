"""The three products of a convolution on the host, for ``launch``: as jobs with columns, or without where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from math import prod
from typing import Any

import numpy as np

from kobai.cpu.team import share_job
from kobai.cpu.threads import num_threads
from kobai.ops._windows import Windows
from kobai.ops.conv.direct import Direct, takes, turned
from kobai.ops.conv.image_loops import BACKWARD, FORWARD, WEIGHTS, Columns, Images, add_shares
from kobai.xp import Array

KEPT = 1 << 18
"""Bytes of memory up to which a job is kept."""


class _Forward:
    def __init__(self, w: Windows, groups: int, x: Array, weight: Array, bias: Array | None, y: Array) -> None:
        filters, depth = weight.shape[0], prod(weight.shape[1:])
        without = takes(FORWARD, w, depth, filters // groups, x.itemsize)
        self.job: Images = (Direct if without else Columns)(FORWARD, w, groups, x, y)
        self.bytes = self.job.bytes

    def on(self, x: Array, weight: Array, bias: Array | None, y: Array) -> Callable[[], None]:
        self.job.aim(x, weight, y, bias)
        return partial(share_job, self.job)


class _Backward:
    def __init__(self, w: Windows, groups: int, dy: Array, weight: Array, dx: Array) -> None:
        back, (filters, channels) = turned(w), weight.shape[:2]
        depth = filters // groups * prod(w.kernel)
        self.direct = back is not None and takes(BACKWARD, back, depth, channels, dy.itemsize)
        self.job: Images = (
            Direct(BACKWARD, back, groups, dy, dx)
            if back is not None and self.direct
            else Columns(BACKWARD, w, groups, dx, dy)
        )
        self.bytes = self.job.bytes

    def on(self, dy: Array, weight: Array, dx: Array) -> Callable[[], None]:
        self.job.aim(*((dy, weight, dx) if self.direct else (dx, weight, dy)))
        return partial(share_job, self.job)


class _Weights:
    def __init__(self, w: Windows, groups: int, x: Array, dy: Array, out: Array) -> None:
        each, depth = out.shape[0] // groups, prod(out.shape[1:])
        without = takes(WEIGHTS, w, depth, each, x.itemsize)
        self.job: Images = (Direct if without else Columns)(WEIGHTS, w, groups, x, dy)
        self.shares = np.empty((self.job.parts, groups, depth, each), x.dtype)
        self.bytes = self.job.bytes + self.shares.nbytes

    def on(self, x: Array, dy: Array, out: Array) -> Callable[[], None]:
        self.job.aim(x, self.shares, dy)
        total = out.reshape(-1, *self.shares.shape[:1:-1])

        def run() -> None:
            share_job(self.job)
            add_shares(self.shares, total)

        return run


@lru_cache(maxsize=64)
def _spare(*geometry: Any) -> list[Any]:
    """Jobs that were made for arrays like these and are not at work."""
    return []


class _Kernel:
    """A convolution for ``launch``. Making a job takes longer than a small convolution: small jobs are kept for other calls."""

    def __init__(self, product: Callable[..., Any]) -> None:
        self.product = product

    def bind(self, w: Windows, groups: int, *arrays: Any) -> Callable[[], None]:
        """A function without arguments, with a job of its own: everything that depends only on the arrays is done."""
        product = self.product(w, groups, *arrays)
        product.job.keeps = arrays
        return product.on(*arrays)  # type: ignore[no-any-return]

    def __call__(self, w: Windows, groups: int, *arrays: Any) -> None:
        first, second = arrays[:2]
        spare = _spare(self.product, w, groups, first.shape, second.shape, first.dtype, num_threads())
        product = spare.pop() if spare else self.product(w, groups, *arrays)
        product.on(*arrays)()
        if product.bytes <= KEPT:
            spare.append(product)


convolve = _Kernel(_Forward)
"""(w, groups, x, weight, bias, y): y ← the windows of x times the weight (O, C / groups, *kernel), plus the bias or None."""

convolve_transposed = _Kernel(_Backward)
"""(w, groups, dy, weight, dx): dx ← the transpose of :data:`convolve` as a map of x, applied to dy."""

weight_gradient = _Kernel(_Weights)
"""(w, groups, x, dy, out): out (O, C / groups, *kernel) ← Σ dy·Xᵀ."""

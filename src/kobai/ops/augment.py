"""Each image of a batch moved and mirrored by numbers of its own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kobai.core.primitive import primitive
from kobai.core.tensor import Tensor
from kobai.ops.dropout import random_bits
from kobai.xp import Array, xp_of

__all__: list[str] = []  # for kobai.transforms


def _sample(shape: tuple[int, ...], shift: int, flip: bool) -> Any:
    def draw(rng: Any) -> tuple[Any, ...]:
        return rng.normal(size=shape), rng.integers(0, 2**32, (3, shape[0], 1)).astype(np.uint32), shift, flip

    return draw


@primitive(sample=[_sample((3, 2, 4, 5), 1, True), _sample((2, 1, 3, 3), 0, True), _sample((0, 1, 3, 3), 2, False)])
def _moved(x: Array, bits: Array, shift: int, flip: bool) -> Any:
    """y[n, c, i, j] = x[n, c, i + down_n − shift, j + right_n − shift], with j counted from the right where n is mirrored."""
    xp, (n, channels, h, w) = xp_of(x), x.shape
    padded = xp.pad(x, [(0, 0), (0, 0), (shift, shift), (shift, shift)])
    around = padded.shape
    down, right, side = bits.astype(np.int64)
    across = around[3]
    columns = right % (2 * shift + 1) + xp.arange(w)
    if flip:
        columns = xp.where(side % 2 == 1, across - 1 - columns, columns)
    rows = (down % (2 * shift + 1) + xp.arange(h)) * across
    planes = xp.arange(n * channels).reshape(n, channels, 1, 1) * (around[2] * across)
    places = planes + rows[:, None, :, None] + columns[:, None, None, :]

    def vjp(dy: Array) -> tuple[Array]:
        inside = xp.zeros(math.prod(around), dy.dtype)
        inside[places] = dy  # no place twice
        return (inside.reshape(around)[:, :, shift : shift + h, shift : shift + w],)

    return padded.reshape(-1)[places], vjp


def shift_and_flip(input: Tensor, shift: int, flip: bool) -> Tensor:
    """Each image of a batch (N, C, H, W) moved by up to ``shift`` pixels in each direction; with ``flip`` half are mirrored.

    The numbers come from the counter stream of the default generator. What comes in from outside is 0.
    """
    return _moved(input, random_bits((3, len(input), 1), None, input._array), shift, flip)

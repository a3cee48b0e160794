"""Changing the size of images: every output row is a weighted mean of input rows, every column likewise."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from kobai.core.primitive import primitive
from kobai.core.tensor import Tensor
from kobai.engine.dispatch import HOST_TYPES, loops_run
from kobai.errors import nearest
from kobai.ops._args import cast, drawn, need, need_tensor
from kobai.ops._bands import Bands, along, bands
from kobai.ops._matmul import matmul
from kobai.ops.shape import fresh, reshape, transpose
from kobai.xp import Array, device_of, table, xp_of

__all__ = [
    "channel_shuffle",
    "interpolate",
    "pixel_shuffle",
    "pixel_unshuffle",
    "upsample",
    "upsample_bilinear",
    "upsample_nearest",
]


# --- weights of one dimension: (out, in) matrices ---------------------------------------------------------------------


def _area(size: int, out: int, scale: float | None) -> Array:
    """Means over windows from ⌊i · size / out⌋ to ⌈(i + 1) · size / out⌉."""
    weights = np.zeros((out, size))
    for i in range(out):
        start, stop = i * size // out, -(-(i + 1) * size // out)
        weights[i, start:stop] = 1 / (stop - start)
    return weights


def _centres(size: int, out: int, scale: float | None) -> Array:
    """Where the centres of the output elements lie on the input, the input's elements being 1 wide."""
    return (np.arange(out) + 0.5) * (size / out if scale is None else 1 / scale) - 0.5


def _corners(size: int, out: int) -> Array:
    """The same with the centres of the outermost elements on each other (``align_corners``)."""
    return np.arange(out) * ((size - 1) / (out - 1) if out > 1 else 0.0)


def _tents(at: Array, size: int) -> Array:
    """Linear interpolation between the two nearest elements, none beyond the first and last."""
    at = at.clip(0, size - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(size)))


def _cubics(at: Array, size: int) -> Array:
    """Keys' cubic convolution with a = −3/4 of the four nearest elements, the edge repeated (IEEE ASSP 29, 1981)."""
    a = -0.75
    base = np.floor(at).astype(int)
    weights = np.zeros((len(at), size))
    for step in range(-1, 3):
        t = np.abs(at - (base + step))
        w = np.where(t <= 1, ((a + 2) * t - (a + 3)) * t * t + 1, a * (((t - 5) * t + 8) * t - 4))
        np.add.at(weights, (np.arange(len(at)), (base + step).clip(0, size - 1)), w)
    return weights


def _nearest(size: int, out: int, scale: float | None) -> Array:
    at = np.floor(np.arange(out) * (size / out if scale is None else 1 / scale))
    return at.clip(0, size - 1).astype(int)


def _nearest_exact(size: int, out: int, scale: float | None) -> Array:
    return np.floor(_centres(size, out, scale) + 0.5).clip(0, size - 1).astype(int)


def _tent(t: Array) -> Array:
    return np.maximum(0, 1 - t)


def _keys(t: Array) -> Array:
    """Keys' cubic with a = −1/2."""
    near, far = (1.5 * t - 2.5) * t * t + 1, -0.5 * (((t - 5) * t + 8) * t - 4)
    return np.where(t < 1, near, np.where(t < 2, far, 0))


def _filtered(size: int, out: int, step: float, filter: Callable[[Array], Array], reach: int) -> Array:
    """Means weighted by ``filter``, which is ``reach`` elements wide to either side – of the output, where that is smaller.

    So no element of the input is passed over. Weights sum up to 1, also where the filter reaches beyond the ends.
    """
    wide = max(step, 1.0)
    centre = ((np.arange(out) + 0.5) * step)[:, None]
    first = np.maximum(np.trunc(centre - reach * wide + 0.5), 0)
    last = np.minimum(np.trunc(centre + reach * wide + 0.5), size)
    at = np.arange(size)
    weights = np.where((at >= first) & (at < last), filter(np.abs(at - centre + 0.5) / wide), 0)
    return weights / weights.sum(1, keepdims=True)


def _in_fixed_point(weights: Array) -> Array:
    """Weights of 8-bit pixels as PyTorch has them: rounded to 16 bits, with as many behind the point as the largest leaves."""
    largest, bits = float(weights.max()), 0
    while bits < 22 and int(0.5 + largest * (1 << (bits + 1))) < 1 << 15:
        bits += 1
    scaled = weights * (1 << bits)
    return np.trunc(scaled + np.copysign(0.5, scaled)) / (1 << bits)


def _weights(kind: str, size: int, out: int, scale: float | None) -> Array:
    """The matrix of a ``kind``: ``"area"``, or ``"linear"`` or ``"cubic"`` followed by how that is done."""
    name, *how = kind.split(", ")
    if name == "area":
        return _area(size, out, scale)
    corners = "corners" in how
    if "antialias" in how:
        step = size / out if scale is None else 1 / scale
        if corners:
            step = (size - 1) / (out - 1) if out > 1 else 0.0
        weights = _filtered(size, out, step, _tent if name == "linear" else _keys, 1 if name == "linear" else 2)
    else:
        at = _corners(size, out) if corners else _centres(size, out, scale)
        weights = _tents(at, size) if name == "linear" else _cubics(at, size)
    return _in_fixed_point(weights) if "pixels" in how else weights


@lru_cache(maxsize=64)
def _matrix(kind: str, size: int, out: int, scale: float | None, dtype: Any, where: str) -> Any:
    return table(_weights(kind, size, out, scale).astype(dtype), where)


@lru_cache(maxsize=64)
def _bands(kind: str, size: int, out: int, scale: float | None, dtype: Any, transposed: bool) -> Bands:
    matrix = _weights(kind, size, out, scale).astype(dtype)
    return bands(matrix.T if transposed else matrix)


@primitive(
    sample=[
        drawn((2, 3, 5, 7), {"out": (3, 4), "kind": "area", "scale": None}),
        drawn((2, 3, 5), {"out": (8,), "kind": "linear", "scale": None}),
        drawn((2, 3, 4), {"out": (7, 9), "kind": "cubic", "scale": (1.9, 2.3)}),
        drawn((2, 2, 3, 4), {"out": (2, 3, 5), "kind": "linear, corners", "scale": None}),
        drawn((2, 3, 7, 5), {"out": (3, 8), "kind": "cubic, antialias", "scale": None}),
        drawn((0, 3, 5, 7), {"out": (3, 4), "kind": "area", "scale": None}),
    ]
)
def _resample(x: Array, *, out: tuple[int, ...], kind: str, scale: tuple[float, ...] | None) -> Any:
    xp = xp_of(x)
    n = len(out)
    first = x.ndim - n
    which = [
        (kind, x.shape[first + axis], out[axis], None if scale is None else scale[axis], x.dtype) for axis in range(n)
    ]

    def apply(array: Array, transposed: bool) -> Array:
        if type(array) in HOST_TYPES and loops_run(array.dtype):
            array = xp.ascontiguousarray(array)
            # the last axis, the slowest, while the array is small
            order = range(n) if transposed else range(n - 1, -1, -1)
            for axis in order:
                array = along(_bands(*which[axis], transposed), array, first + axis)
            return array
        where = str(device_of(array))
        for axis, arguments in zip(range(-n, 0), which, strict=True):
            m = _matrix(*arguments, where)
            m = m.T if transposed else m
            if axis == -1:
                array = matmul(array, m.T, precision=None)
            else:
                array = matmul(m, array.swapaxes(axis, -2), precision=None).swapaxes(axis, -2)
        return array

    return xp.ascontiguousarray(apply(x, False)), lambda dy: (lambda: apply(dy, True),)


def resample(input: Tensor, out: tuple[int, ...], kind: str, scale: tuple[float, ...] | None = None) -> Tensor:
    """The last ``len(out)`` dimensions of ``input`` brought to the sizes ``out``."""
    if input.dtype == np.uint8 and kind != "area":
        return _of_pixels(input, out, kind, scale)
    need(
        "interpolate",
        input.is_floating_point(),
        "a float tensor, or for linear and cubic modes one of uint8",
        input.dtype,
    )
    return _resample(input, out=out, kind=kind, scale=scale)


def _of_pixels(input: Tensor, out: tuple[int, ...], kind: str, scale: tuple[float, ...] | None) -> Tensor:
    """The same of uint8: rounded after each dimension, the last one first, as in PyTorch."""
    for axis in range(-1, -len(out) - 1, -1):
        rows = cast(transpose(input, axis, -1), np.float32)
        rows = _resample(
            rows, out=(out[axis],), kind=f"{kind}, pixels", scale=None if scale is None else (scale[axis],)
        )
        input = transpose(cast((rows + 0.5).floor().clamp(0, 255), np.uint8), axis, -1)
    return input.contiguous()  # type: ignore[no-any-return]


_MODES = {
    "nearest": (1, 2, 3),
    "nearest-exact": (1, 2, 3),
    "linear": (1,),
    "bilinear": (2,),
    "trilinear": (3,),
    "bicubic": (2,),
    "area": (1, 2, 3),
}


def interpolate(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """Change the size of signals (N, C, L), images (N, C, H, W) or volumes (N, C, D, H, W).

    Args:
        size: the new sizes, a number or one for each dimension; or else
        scale_factor: their ratio to the old ones; sizes are rounded down.
        mode: ``"nearest"``, ``"nearest-exact"``, ``"linear"`` (N, C, L), ``"bilinear"`` and ``"bicubic"`` (images),
            ``"trilinear"`` (volumes), ``"area"`` (means of windows, as :func:`adaptive_avg_pool2d`).
        align_corners: for the linear and cubic modes, whether the centres of the corner elements (True) or their outer
            edges (False, the default) lie on each other.
        recompute_scale_factor: use the ratio of the rounded sizes instead of ``scale_factor``.
        antialias: ``"bilinear"`` and ``"bicubic"`` only: where an image becomes smaller, the filter becomes wider, so that
            all pixels have a part in the result, as in PIL.

    Of uint8, as images are, linear and cubic modes give the nearest of their numbers.

    >>> import kobai
    >>> kobai.nn.functional.interpolate(kobai.tensor([[[1.0, 3.0]]]), scale_factor=2)
    tensor([[[1., 1., 3., 3.]]])
    >>> kobai.nn.functional.interpolate(kobai.tensor([[[1.0, 3.0]]]), 4, mode="linear")
    tensor([[[1.0000, 1.5000, 2.5000, 3.0000]]])
    """
    need_tensor("interpolate", input)
    n = input.ndim - 2
    if mode not in _MODES:
        raise NotImplementedError(f"interpolate: unknown mode {mode!r}.{nearest(str(mode), _MODES)}")
    if n not in _MODES[mode]:
        raise NotImplementedError(
            f"interpolate: mode {mode!r} is for inputs of {' or '.join(str(d + 2) for d in _MODES[mode])} dimensions, "
            f"got {tuple(input.shape)}"
        )
    if antialias and mode not in ("bilinear", "bicubic"):
        raise ValueError(f"interpolate: antialias is for modes 'bilinear' and 'bicubic', got {mode!r}")
    smooth = mode.endswith(("linear", "cubic"))
    if align_corners is not None and not smooth:
        raise ValueError(f"interpolate: align_corners has no meaning for mode {mode!r}")
    if (size is None) == (scale_factor is None):
        raise ValueError("interpolate: expected either size or scale_factor")
    old = tuple(input.shape[2:])
    scale: tuple[float, ...] | None = None
    if size is not None:
        new = tuple(map(_whole, size)) if isinstance(size, (tuple, list)) else (_whole(size),) * n
    else:
        scale = tuple(map(float, scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor,) * n))
        new = tuple(int(m * s) for m, s in zip(old, scale, strict=False))
        if recompute_scale_factor or mode == "area":
            scale = None
    if len(new) != n or any(m < 1 for m in (*new, *old)):
        raise ValueError(f"interpolate: expected {n} positive sizes, got {new} for input {tuple(input.shape)}")
    if smooth:
        kind = "cubic" if mode == "bicubic" else "linear"
        kind += ", corners" * bool(align_corners) + ", antialias" * bool(antialias)
        return resample(input, new, kind, scale)
    if mode == "area":
        return resample(input, new, "area")
    if mode == "nearest" and all(a % b == 0 for a, b in zip(new, old, strict=True)) and scale is None:
        return _repeated(input, factors=tuple(a // b for a, b in zip(new, old, strict=True)))
    if mode == "nearest" and scale is not None and all(s == int(s) for s in scale):
        return _repeated(input, factors=tuple(map(int, scale)))
    choose = _nearest if mode == "nearest" else _nearest_exact
    for axis in range(n):
        rows = choose(old[axis], new[axis], None if scale is None else scale[axis])
        input = input.index_select(axis + 2, Tensor._wrap(table(rows, input.device)))
    return input


def _whole(size: Any) -> Any:
    return int(size) if isinstance(size, Tensor) and size.numel() == 1 else size


def upsample(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None
) -> Tensor:
    """PyTorch's older name of :func:`interpolate`.

    >>> import kobai
    >>> kobai.nn.functional.upsample(kobai.tensor([[[1.0, 3.0]]]), scale_factor=2)
    tensor([[[1., 1., 3., 3.]]])
    """
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """PyTorch's older name of :func:`interpolate` in mode ``"nearest"``.

    >>> import kobai
    >>> kobai.nn.functional.upsample_nearest(kobai.tensor([[[1.0, 3.0]]]), 4)
    tensor([[[1., 1., 3., 3.]]])
    """
    return interpolate(input, size, scale_factor)


def upsample_bilinear(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """PyTorch's older name of :func:`interpolate` in mode ``"bilinear"`` with ``align_corners=True``.

    >>> import kobai
    >>> kobai.nn.functional.upsample_bilinear(kobai.tensor([[[[1.0, 3.0]]]]), (1, 3))
    tensor([[[[1., 2., 3.]]]])
    """
    return interpolate(input, size, scale_factor, "bilinear", True)


@primitive(
    sample=[
        drawn((2, 3, 2, 4), {"factors": (2, 3)}),
        drawn((2, 3, 4), {"factors": (3,)}),
        drawn((1, 2, 2, 1, 3), {"factors": (1, 2, 1)}),
        drawn((0, 3, 4), {"factors": (2,)}),
    ]
)
def _repeated(x: Array, *, factors: tuple[int, ...]) -> Any:
    """Every element of the last dimensions repeated: copies forward, sums backward, one dimension after the other.

    The last dimension comes first, while the array is small; rows of the others lie together in memory.
    """
    xp = xp_of(x)
    first = x.ndim - len(factors)
    y = x
    for axis in range(x.ndim - 1, first - 1, -1):
        f = factors[axis - first]
        if f > 1:
            wide = xp.empty((*y.shape[: axis + 1], f, *y.shape[axis + 1 :]), y.dtype)
            for k in range(f):
                wide[(*(slice(None),) * (axis + 1), k)] = y
            y = wide.reshape(*y.shape[:axis], y.shape[axis] * f, *y.shape[axis + 1 :])

    def vjp(dy: Array) -> Any:
        def dx() -> Array:
            g = dy
            for axis, f in enumerate(factors, first):
                if f > 1:
                    parts = g.reshape(*g.shape[:axis], g.shape[axis] // f, f, *g.shape[axis + 1 :])
                    at = (slice(None),) * (axis + 1)
                    g = parts[(*at, 0)] + parts[(*at, 1)]
                    for k in range(2, f):
                        g += parts[(*at, k)]
            return g if g is not dy else dy.copy()

        return (dx,)

    return y if y is not x else x.copy(), vjp


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """Channels become pixels: (..., C·r², H, W) → (..., C, H·r, W·r). Shi et al., CVPR 2016, arXiv:1609.05158.

    >>> import kobai
    >>> kobai.nn.functional.pixel_shuffle(kobai.tensor([[[0.0]], [[1.0]], [[2.0]], [[3.0]]]), 2)
    tensor([[[0., 1.],
             [2., 3.]]])
    """
    need_tensor("pixel_shuffle", input)
    r = upscale_factor
    if input.ndim < 3 or r < 1 or input.shape[-3] % (r * r):
        raise RuntimeError(f"pixel_shuffle: expected input (..., C·{r}², H, W), got {tuple(input.shape)}")
    *lead, c, h, w = input.shape
    k = len(lead)
    parts = input.reshape(*lead, c // (r * r), r, r, h, w)
    y = reshape(parts.permute(*range(k), k, k + 3, k + 1, k + 4, k + 2), *lead, c // (r * r), h * r, w * r)
    return fresh(y, input)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """Pixels become channels: (..., C, H·r, W·r) → (..., C·r², H, W), the opposite of :func:`pixel_shuffle`.

    >>> import kobai
    >>> kobai.nn.functional.pixel_unshuffle(kobai.tensor([[[1, 2], [3, 4]]]), 2).flatten(1)
    tensor([[1],
            [2],
            [3],
            [4]])
    """
    need_tensor("pixel_unshuffle", input)
    r = downscale_factor
    if input.ndim < 3 or r < 1 or input.shape[-1] % r or input.shape[-2] % r:
        raise RuntimeError(f"pixel_unshuffle: expected input (..., C, H·{r}, W·{r}), got {tuple(input.shape)}")
    *lead, c, h, w = input.shape
    k = len(lead)
    parts = input.reshape(*lead, c, h // r, r, w // r, r)
    y = reshape(parts.permute(*range(k), k, k + 2, k + 4, k + 1, k + 3), *lead, c * r * r, h // r, w // r)
    return fresh(y, input)


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """Channels of ``groups`` groups dealt out in turn, (N, C, *) → the same: of 0 1 2 3 in two groups 0 2 1 3.

    >>> import kobai
    >>> kobai.nn.functional.channel_shuffle(kobai.tensor([[[0], [1], [2], [3]]]), 2).flatten()
    tensor([0, 2, 1, 3])
    """
    need_tensor("channel_shuffle", input)
    if input.ndim < 3 or groups < 1 or input.shape[1] % groups:
        raise RuntimeError(f"channel_shuffle: expected input (N, C·{groups}, *), got {tuple(input.shape)}")
    n, channels, *rest = input.shape
    y = reshape(input.reshape(n, groups, channels // groups, *rest).transpose(1, 2), n, channels, *rest)
    return fresh(y, input)

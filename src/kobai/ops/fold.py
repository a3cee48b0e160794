"""Sliding windows as columns, and back: ``unfold`` and ``fold`` of ``nn.functional``, transposes of each other."""

from __future__ import annotations

from typing import Any

from kobai.core.primitive import primitive
from kobai.core.tensor import Tensor
from kobai.ops._args import drawn, need, need_tensor
from kobai.ops._windows import Windows, n_windows, pad
from kobai.ops.conv import Ints, per_dimension
from kobai.ops.conv.im2col import col2im
from kobai.xp import Array, xp_of

__all__ = ["fold", "unfold"]  # kobai.unfold is another function: the one of tensors


def _sample_windows() -> Windows:
    return Windows((2, 3), (2, 1), (1, 2), ((1, 1), (0, 0)), (4, 6), (3, 2))


@primitive(sample=drawn((2, 3, 4, 6), {"w": _sample_windows()}))
def _columns_of(x: Array, *, w: Windows) -> Any:
    return _gathered(x, w), lambda dy: (lambda: _added_up(dy, w),)


@primitive(sample=drawn((2, 18, 6), {"w": _sample_windows()}))
def _image_of(columns: Array, *, w: Windows) -> Any:
    return _added_up(columns, w), lambda dy: (lambda: _gathered(dy, w),)


def _gathered(x: Array, w: Windows) -> Array:
    """(n, C, H, W) → (n, C·k, L)"""
    wide, (n, channels) = pad(x, w), x.shape[:2]
    columns = xp_of(x).empty((n, channels, w.kernel[0] * w.kernel[1], *w.out), x.dtype)
    for t, where in w.taps():
        columns[:, :, t] = wide[(..., *where)]
    return columns.reshape(n, channels * w.kernel[0] * w.kernel[1], w.out[0] * w.out[1])


def _added_up(columns: Array, w: Windows) -> Array:
    """(n, C·k, L) → (n, C, H, W)"""
    xp, n = xp_of(columns), columns.shape[0]
    k = w.kernel[0] * w.kernel[1]
    parts = columns.reshape(n, columns.shape[1] // k, k, *w.out)
    wide = col2im(parts, w, xp.empty((n, parts.shape[1], *w.padded), columns.dtype))
    return xp.ascontiguousarray(wide[(..., *w.inside)])


def _windows(who: str, size: tuple[int, int], kernel: Ints, dilation: Ints, padding: Ints, stride: Ints) -> Windows:
    k, d, s = (
        per_dimension(who, name, value, 2, 1)
        for name, value in (("kernel_size", kernel), ("dilation", dilation), ("stride", stride))
    )
    pads = tuple((p, p) for p in per_dimension(who, "padding", padding, 2, 0))
    out = tuple(n_windows(size[i], k[i], s[i], 2 * pads[i][0], d[i]) for i in range(2))
    if min(out) < 1:
        raise RuntimeError(f"{who}: no window of {k} with dilation {d} and padding {padding} fits into {size}")
    return Windows(tuple(k), tuple(s), tuple(d), pads, size, out)


def unfold(input: Tensor, kernel_size: Ints, dilation: Ints = 1, padding: Ints = 0, stride: Ints = 1) -> Tensor:
    """Every window of an image as a column: (N, C, H, W) → (N, C·kH·kW, L), L the number of windows; or without N.

    >>> import kobai
    >>> kobai.nn.functional.unfold(kobai.arange(6.0).reshape(1, 1, 2, 3), 2)
    tensor([[[0., 1.],
             [1., 2.],
             [3., 4.],
             [4., 5.]]])
    """
    need_tensor("unfold", input)
    need("unfold", input.ndim in (3, 4), "(N, C, H, W) or (C, H, W)", tuple(input.shape))
    if input.ndim == 3:
        return unfold(input.unsqueeze(0), kernel_size, dilation, padding, stride).squeeze(0)  # type: ignore[no-any-return]
    w = _windows("unfold", tuple(input.shape[2:]), kernel_size, dilation, padding, stride)
    return _columns_of(input, w=w)


def fold(
    input: Tensor, output_size: Ints, kernel_size: Ints, dilation: Ints = 1, padding: Ints = 0, stride: Ints = 1
) -> Tensor:
    """Add the columns of :func:`unfold` up where they came from: (N, C·kH·kW, L) → (N, C, *output_size); or without N.

    >>> import kobai
    >>> kobai.nn.functional.fold(kobai.ones(1, 4, 2), (2, 3), 2)
    tensor([[[[1., 2., 1.],
              [1., 2., 1.]]]])
    """
    need_tensor("fold", input)
    if input.ndim == 2:
        return fold(input.unsqueeze(0), output_size, kernel_size, dilation, padding, stride).squeeze(0)  # type: ignore[no-any-return]
    height, width = per_dimension("fold", "output_size", output_size, 2, 1)
    w = _windows("fold", (height, width), kernel_size, dilation, padding, stride)
    k, length = w.kernel[0] * w.kernel[1], w.out[0] * w.out[1]
    if input.ndim != 3 or input.shape[1] % k or input.shape[2] != length:
        raise RuntimeError(f"fold: expected (N, C·{k}, {length}), got {tuple(input.shape)}")
    return _image_of(input, w=w)

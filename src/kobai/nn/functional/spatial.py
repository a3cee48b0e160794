"""Images looked up at any places: ``affine_grid`` and ``grid_sample``, the spatial transformer (arXiv:1506.02025)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from kobai.core.autocast import one_operation
from kobai.core.tensor import Tensor
from kobai.errors import nearest
from kobai.ops.create import linspace, ones
from kobai.ops.gather import gather, where
from kobai.ops.joining import stack
from kobai.ops.parts import unbind

__all__ = ["affine_grid", "grid_sample"]

_MODES = ("bilinear", "nearest", "bicubic")
_PADDINGS = ("zeros", "border", "reflection")


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """Where an affine map takes each pixel: ``theta`` (N, 2, 3), ``size`` (N, C, H, W) → (N, H, W, 2).

    Coordinates (x, y) go from −1 to 1 over the image: from centre to centre of the outer pixels with ``align_corners``,
    else from edge to edge. In three dimensions (N, 3, 4), (N, C, D, H, W) → (N, D, H, W, 3), of (x, y, z).

    >>> import kobai
    >>> theta = kobai.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    >>> kobai.nn.functional.affine_grid(theta, (1, 1, 1, 2), align_corners=True)
    tensor([[[[-1., -1.],
              [ 1., -1.]]]])
    """
    n = len(size) - 2
    if n not in (2, 3) or theta.ndim != 3 or tuple(theta.shape) != (size[0], n, n + 1):
        raise NotImplementedError(
            "affine_grid: expected theta (N, 2, 3) and size (N, C, H, W), or (N, 3, 4) and (N, C, D, H, W), "
            f"got {tuple(theta.shape)} and {tuple(size)}"
        )
    sizes = tuple(size[2:])

    def axis(n: int) -> Tensor:
        if n == 1:
            return linspace(-1.0 if align_corners else 0.0, 1.0, 1, dtype=theta.dtype, device=theta.device)
        points = linspace(-1, 1, n, dtype=theta.dtype, device=theta.device)
        return points if align_corners else points * ((n - 1) / n)

    places = [axis(m).reshape(-1, *[1] * (n - 1 - i)).expand(sizes) for i, m in enumerate(sizes)]
    base = stack([*reversed(places), ones(sizes, dtype=theta.dtype, device=theta.device)], -1)
    return (base.reshape(1, -1, n + 1) @ theta.mT).reshape(size[0], *sizes, n)  # type: ignore[no-any-return]


def _pixels(coordinate: Tensor, size: int, align_corners: bool) -> Tensor:
    """Coordinates in [−1, 1] as positions in pixels."""
    return (coordinate + 1) / 2 * (size - 1) if align_corners else ((coordinate + 1) * size - 1) / 2


def _within(at: Tensor, size: int, padding_mode: str, align_corners: bool) -> Tensor:
    """Positions beyond the edge as those from which their values are taken; with zeros, as they are."""
    if padding_mode == "reflection":
        low, span = (0.0, float(size - 1)) if align_corners else (-0.5, float(size))
        if span == 0:
            return at * 0
        away = (at - low).abs()
        rest, flips = away % span, (away / span).floor()
        odd = (flips % 2).detach()
        at = low + rest + odd * (span - 2 * rest)
    return at if padding_mode == "zeros" else at.clamp(0, size - 1)


def _cubic(share: Tensor) -> list[Tensor]:
    """Weights of the four pixels around a place, ``share`` of the way from the second to the third. Keys, 1981, a = −¾."""
    a = -0.75

    def near(d: Tensor) -> Tensor:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: Tensor) -> Tensor:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return [far(share + 1), near(share), near(1 - share), far(2 - share)]


@one_operation
def grid_sample(
    input: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    """Values of images at the places of a grid: (N, C, H, W), (N, h, w, 2) of (x, y) → (N, C, h, w).

    Args:
        grid: coordinates from −1 to 1, see :func:`affine_grid`.
        mode: ``"bilinear"``, ``"nearest"`` or ``"bicubic"``.
        padding_mode: beyond the edge are ``"zeros"``, the ``"border"``, or the image mirrored (``"reflection"``).
        align_corners: see :func:`affine_grid`; False if not given.

    In three dimensions (N, C, D, H, W), (N, d, h, w, 3) of (x, y, z) → (N, C, d, h, w), by ``"bilinear"`` or ``"nearest"``.

    >>> import kobai
    >>> image = kobai.tensor([[[[1.0, 3.0]]]])
    >>> kobai.nn.functional.grid_sample(image, kobai.zeros(1, 1, 1, 2), align_corners=True)
    tensor([[[[2.]]]])
    """
    for name, value, known in (("mode", mode, _MODES), ("padding_mode", padding_mode, _PADDINGS)):
        if value not in known:
            raise NotImplementedError(f"grid_sample: unknown {name} {value!r}.{nearest(str(value), known)}")
    dims = input.ndim - 2
    if dims not in (2, 3) or grid.ndim != input.ndim or grid.shape[0] != input.shape[0] or grid.shape[-1] != dims:
        raise NotImplementedError(
            "grid_sample: expected input (N, C, H, W) and grid (N, h, w, 2), or (N, C, D, H, W) and (N, d, h, w, 3), "
            f"got {tuple(input.shape)} and {tuple(grid.shape)}"
        )
    if mode == "bicubic" and dims == 3:
        raise NotImplementedError(f"grid_sample: mode 'bicubic' is for images (N, C, H, W), got {tuple(input.shape)}")
    n, channels, *sizes = input.shape
    corners = bool(align_corners)
    flat = input.reshape(n, channels, math.prod(sizes))
    places = [_pixels(c, size, corners) for c, size in zip(reversed(unbind(grid, -1)), sizes, strict=True)]
    if mode != "bicubic":
        places = [_within(at, size, padding_mode, corners) for at, size in zip(places, sizes, strict=True)]

    def at(pixels: Sequence[Tensor]) -> Tensor:
        """Pixels of whole coordinates; 0 outside."""
        inside = pixels[0] >= 0
        for pixel, size in zip(pixels, sizes, strict=True):
            inside = inside & (pixel >= 0) & (pixel < size)
        index = where(inside, pixels[0], 0.0).long()  # NaN is nowhere inside
        for pixel, size in zip(pixels[1:], sizes[1:], strict=True):
            index = index * size + where(inside, pixel, 0.0).long()
        found = gather(flat, 2, index.reshape(n, 1, math.prod(grid.shape[1:-1])).expand(n, channels, -1)).reshape(
            n, channels, *grid.shape[1:-1]
        )
        return found * inside.unsqueeze(1).to(found.dtype)  # type: ignore[no-any-return]

    if mode == "nearest":
        return at([place.detach().round() for place in places])
    below = [place.detach().floor() for place in places]
    shares = [(place - floor).unsqueeze(1) for place, floor in zip(places, below, strict=True)]
    weights = [_cubic(share) if mode == "bicubic" else [1 - share, share] for share in shares]
    first = -1 if mode == "bicubic" else 0

    def interpolated(chosen: tuple[Tensor, ...]) -> Tensor:
        """Along the dimensions whose pixels are not chosen yet, one after the other."""
        axis = len(chosen)
        if axis == dims:
            return at(chosen)
        total: Any = 0
        for i, weight in enumerate(weights[axis]):
            pixel = below[axis] + (first + i)
            pixel = _within(pixel, sizes[axis], padding_mode, corners) if mode == "bicubic" else pixel
            total = total + interpolated((*chosen, pixel)) * weight
        return total  # type: ignore[no-any-return]

    return interpolated(())

"""Images looked up at any places: ``affine_grid`` and ``grid_sample``, the spatial transformer (arXiv:1506.02025)."""

from __future__ import annotations

from collections.abc import Sequence

from kobai.core.autocast import one_operation
from kobai.core.tensor import Tensor
from kobai.errors import nearest
from kobai.ops.create import linspace, ones
from kobai.ops.gather import gather, where
from kobai.ops.joining import stack
from kobai.ops.parts import unbind

__all__ = ["affine_grid", "grid_sample"]

_MODES = ("bilinear", "nearest")
_PADDINGS = ("zeros", "border", "reflection")


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """Where an affine map takes each pixel: ``theta`` (N, 2, 3), ``size`` (N, C, H, W) → (N, H, W, 2).

    Coordinates (x, y) go from −1 to 1 over the image: from centre to centre of the outer pixels with ``align_corners``,
    else from edge to edge.

    >>> import kobai
    >>> theta = kobai.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    >>> kobai.nn.functional.affine_grid(theta, (1, 1, 1, 2), align_corners=True)
    tensor([[[[-1., -1.],
              [ 1., -1.]]]])
    """
    if theta.ndim != 3 or tuple(theta.shape[1:]) != (2, 3) or len(size) != 4 or size[0] != theta.shape[0]:
        raise NotImplementedError(
            f"affine_grid: expected theta (N, 2, 3) and size (N, C, H, W), got {tuple(theta.shape)} and {tuple(size)}"
        )
    height, width = size[2], size[3]

    def axis(n: int) -> Tensor:
        if n == 1:
            return linspace(-1.0 if align_corners else 0.0, 1.0, 1, dtype=theta.dtype, device=theta.device)
        points = linspace(-1, 1, n, dtype=theta.dtype, device=theta.device)
        return points if align_corners else points * ((n - 1) / n)

    x = axis(width).expand(height, width)
    y = axis(height).unsqueeze(1).expand(height, width)
    one = ones(height, width, dtype=theta.dtype, device=theta.device)
    base = stack([x, y, one], -1).reshape(1, height * width, 3)
    return (base @ theta.mT).reshape(size[0], height, width, 2)  # type: ignore[no-any-return]


def _pixels(coordinate: Tensor, size: int, padding_mode: str, align_corners: bool) -> Tensor:
    """Coordinates in [−1, 1] as positions in pixels."""
    at = (coordinate + 1) / 2 * (size - 1) if align_corners else ((coordinate + 1) * size - 1) / 2
    if padding_mode == "reflection":
        low, span = (0.0, float(size - 1)) if align_corners else (-0.5, float(size))
        if span == 0:
            return at * 0
        away = (at - low).abs()
        rest, flips = away % span, (away / span).floor()
        odd = (flips % 2).detach()
        at = low + rest + odd * (span - 2 * rest)
    return at if padding_mode == "zeros" else at.clamp(0, size - 1)


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
        mode: ``"bilinear"`` or ``"nearest"``.
        padding_mode: beyond the edge are ``"zeros"``, the ``"border"``, or the image mirrored (``"reflection"``).
        align_corners: see :func:`affine_grid`; False if not given.

    >>> import kobai
    >>> image = kobai.tensor([[[[1.0, 3.0]]]])
    >>> kobai.nn.functional.grid_sample(image, kobai.zeros(1, 1, 1, 2), align_corners=True)
    tensor([[[[2.]]]])
    """
    for name, value, known in (("mode", mode, _MODES), ("padding_mode", padding_mode, _PADDINGS)):
        if value not in known:
            raise NotImplementedError(f"grid_sample: unknown {name} {value!r}.{nearest(str(value), known)}")
    if input.ndim != 4 or grid.ndim != 4 or grid.shape[0] != input.shape[0] or grid.shape[3] != 2:
        raise NotImplementedError(
            "grid_sample: expected input (N, C, H, W) and grid (N, h, w, 2), "
            f"got {tuple(input.shape)} and {tuple(grid.shape)}"
        )
    n, channels, height, width = input.shape
    gx, gy = unbind(grid, -1)
    x = _pixels(gx, width, padding_mode, bool(align_corners))
    y = _pixels(gy, height, padding_mode, bool(align_corners))
    flat = input.reshape(n, channels, height * width)

    def at(column: Tensor, row: Tensor) -> Tensor:
        """Pixels of whole coordinates; 0 outside."""
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        index = where(inside, row, 0.0).long() * width + where(inside, column, 0.0).long()  # NaN is nowhere inside
        index = index.reshape(n, 1, grid.shape[1] * grid.shape[2]).expand(n, channels, -1)
        found = gather(flat, 2, index).reshape(n, channels, *grid.shape[1:3])
        return found * inside.unsqueeze(1).to(found.dtype)  # type: ignore[no-any-return]

    if mode == "nearest":
        return at(x.detach().round(), y.detach().round())
    left, top = x.detach().floor(), y.detach().floor()
    right_share, bottom_share = (x - left).unsqueeze(1), (y - top).unsqueeze(1)
    upper = at(left, top) * (1 - right_share) + at(left + 1, top) * right_share
    lower = at(left, top + 1) * (1 - right_share) + at(left + 1, top + 1) * right_share
    return upper * (1 - bottom_share) + lower * bottom_share  # type: ignore[no-any-return]

"""Batches of images as one picture: a grid, and a file of it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

from kobai.core.files import write_atomically
from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.errors import DataError, install

__all__ = ["make_grid", "save_image"]


def pillow() -> Any:
    """The module ``PIL.Image``; DataError if Pillow is not installed."""
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError(
            f"images are read and written by Pillow, which is not installed. Install it: {install('data')}"
        ) from error
    return Image


@no_grad()  # type: ignore[untyped-decorator]
def make_grid(
    tensor: Tensor | Sequence[Tensor],
    nrow: int = 8,
    padding: int = 2,
    normalize: bool = False,
    value_range: tuple[float, float] | None = None,
    scale_each: bool = False,
    pad_value: float = 0.0,
) -> Tensor:
    """One image (3, H′, W′) of a batch (N, C, H, W), ``nrow`` images in a row; grey ones in three equal channels.

    Args:
        tensor: the batch, a list of images of one size, or one image (C, H, W) or (H, W).
        nrow: images in a row.
        padding: pixels between them, of the value ``pad_value``.
        normalize: bring values to [0, 1], from ``value_range`` or from the least and greatest of the batch,
            or with ``scale_each`` of each image.

    >>> import kobai
    >>> kobai.utils.make_grid(kobai.zeros(5, 1, 28, 28), nrow=4).shape
    kobai.Size([3, 62, 122])
    """
    from kobai import ops

    batch: Any = tensor
    if not isinstance(tensor, Tensor):
        images = list(tensor)
        if not images or not all(isinstance(image, Tensor) for image in images):
            raise TypeError("make_grid: expected a tensor or a list of tensors")
        batch = ops.stack(images, 0)
    if batch.ndim == 2:
        batch = batch[None]
    if batch.ndim == 3:
        batch = batch[None]
    if batch.ndim != 4 or batch.shape[1] not in (1, 3):
        raise ValueError(f"make_grid: expected (N, C, H, W) with 1 or 3 channels, got shape {tuple(batch.shape)}")
    if isinstance(nrow, bool) or not isinstance(nrow, int) or nrow < 1:
        raise ValueError(f"make_grid: expected nrow as an integer >= 1, got {nrow!r}")
    if normalize:
        parts = [_scaled(image, value_range) for image in batch] if scale_each else [_scaled(batch, value_range)]
        batch = ops.stack(parts, 0) if scale_each else parts[0]
    if batch.shape[1] == 1:
        batch = batch.expand(-1, 3, -1, -1)
    n, channels, h, w = batch.shape
    if n == 1:
        only: Tensor = batch[0].clone()
        return only
    columns = min(nrow, n)
    rows = -(-n // columns)
    height, width = h + padding, w + padding
    shape = channels, height * rows + padding, width * columns + padding
    grid: Tensor = ops.full(shape, pad_value, dtype=batch.dtype, device=batch.device)
    for k in range(n):
        top, left = k // columns * height + padding, k % columns * width + padding
        grid[:, top : top + h, left : left + w] = batch[k]
    return grid


def _scaled(image: Any, value_range: tuple[float, float] | None) -> Any:
    low, high = value_range if value_range is not None else (image.min().item(), image.max().item())
    return image.clamp(low, high).sub(low).div(max(high - low, 1e-5))


def save_image(
    tensor: Tensor | Sequence[Tensor],
    fp: str | PathLike[str] | BinaryIO,
    format: str | None = None,
    **grid: Any,
) -> None:
    """Write an image, or the grid of a batch (:func:`make_grid` takes ``grid``), of values in [0, 1]; needs Pillow.

    A file is written whole or not at all. Its ending says its format, or ``format`` does.
    """
    picture = make_grid(tensor, **grid).mul(255).add(0.5).clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
    image = pillow().fromarray(picture)
    if hasattr(fp, "write"):
        image.save(fp, format=format)
        return
    path, content = Path(fp), io.BytesIO()
    kinds = pillow().registered_extensions()
    if format is None and path.suffix.lower() not in kinds:
        raise ValueError(f"save_image: no format is known by the ending of {path.name!r}; name one: format='png'")
    image.save(content, format=format or kinds[path.suffix.lower()])
    write_atomically(path, content.getvalue())

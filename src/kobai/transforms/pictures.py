"""What transforms do to one image, be it one of Pillow's or a tensor (…, C, H, W)."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kobai.core.tensor import Tensor
from kobai.dtypes import uint8
from kobai.nn import functional as F
from kobai.ops.create import tensor
from kobai.random import default_generator
from kobai.utils.pictures import pillow

if TYPE_CHECKING:
    from PIL import Image

Picture = Any
"""``PIL.Image.Image | Tensor``"""


class InterpolationMode(enum.Enum):
    """How values between pixels are found."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


def need(who: str, picture: Any) -> None:
    """TypeError unless ``picture`` is an image: Pillow's, or a tensor of at least (H, W)."""
    if isinstance(picture, Tensor):
        if picture.ndim < 2:
            raise ValueError(f"{who}: expected a tensor (…, C, H, W), got shape {tuple(picture.shape)}")
    elif not (hasattr(picture, "getbands") and hasattr(picture, "size")):
        raise TypeError(f"{who}: expected an image of Pillow's or a tensor, got {type(picture).__name__}")


def size_of(picture: Picture) -> tuple[int, int]:
    """Height and width."""
    if isinstance(picture, Tensor):
        return picture.shape[-2], picture.shape[-1]
    width, height = picture.size
    return height, width


def channels_of(picture: Picture) -> int:
    """Number of channels; of a tensor (H, W) one."""
    if isinstance(picture, Tensor):
        return picture.shape[-3] if picture.ndim > 2 else 1
    return len(picture.getbands())


def top_of(picture: Picture) -> float:
    """The value of white: 255 for integers of 8 bits, 1 for floats."""
    if isinstance(picture, Tensor):
        return 1.0 if picture.is_floating_point() else float(np.iinfo(picture.dtype).max)
    return 255.0


def crop(picture: Picture, top: int, left: int, height: int, width: int) -> Picture:
    """The part that begins at ``(top, left)``; what lies outside is 0."""
    if not isinstance(picture, Tensor):
        return picture.crop((left, top, left + width, top + height))
    h, w = size_of(picture)
    inside = picture[..., max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)]
    margins = [max(-left, 0), max(left + width - w, 0), max(-top, 0), max(top + height - h, 0)]
    return F.pad(inside, margins) if any(margins) else inside


def pad(picture: Picture, margins: tuple[int, int, int, int], fill: Any, mode: str) -> Picture:
    """More pixels at left, top, right, bottom; ``mode`` is constant (``fill``), edge, reflect or symmetric."""
    left, top, right, bottom = margins
    if isinstance(picture, Tensor) and mode == "constant" and isinstance(fill, (int, float)):
        return F.pad(picture, [left, right, top, bottom], value=fill)
    if isinstance(picture, Tensor):
        return _pad_by_index(picture, margins, fill, mode)
    if mode == "constant":
        from PIL import ImageOps

        return ImageOps.expand(picture, border=margins, fill=_colour(picture, fill))
    array = np.asarray(picture)
    around = [(top, bottom), (left, right)] + [(0, 0)] * (array.ndim - 2)
    made = pillow().fromarray(np.pad(array, around, mode=mode))  # type: ignore[call-overload]
    if picture.mode == "P":
        made.putpalette(picture.getpalette())
    return made


def _pad_by_index(picture: Tensor, margins: tuple[int, int, int, int], fill: Any, mode: str) -> Any:
    left, top, right, bottom = margins
    h, w = size_of(picture)
    if mode == "constant":
        if len(fill) != channels_of(picture):
            raise ValueError(
                f"Pad: expected {channels_of(picture)} values of fill, one for each channel, got {len(fill)}"
            )
        padded = F.pad(picture, [left, right, top, bottom])
        outside = F.pad(picture[..., :1, :, :].bool() | True, [left, right, top, bottom]).logical_not()
        colour = tensor(list(fill), dtype=picture.dtype, device=picture.device).reshape(-1, 1, 1)
        return padded + colour * outside
    rows, columns = (np.pad(np.arange(n), pair, mode=mode) for n, pair in ((h, (top, bottom)), (w, (left, right))))  # type: ignore[call-overload]
    return picture[..., tensor(rows, device=picture.device), :][..., tensor(columns, device=picture.device)]


def _colour(picture: Any, fill: Any) -> Any:
    """A value, or one for each channel, as Pillow takes it."""
    if isinstance(fill, Sequence):
        return tuple(int(value) for value in fill)
    return fill if channels_of(picture) == 1 else (int(fill),) * channels_of(picture)


def flip(picture: Picture, axis: int) -> Picture:
    """Mirrored: −1 left and right, −2 top and bottom."""
    if isinstance(picture, Tensor):
        return picture.flip(axis)
    methods = pillow().Transpose
    return picture.transpose(methods.FLIP_LEFT_RIGHT if axis == -1 else methods.FLIP_TOP_BOTTOM)


def resize(picture: Picture, height: int, width: int, mode: InterpolationMode, antialias: bool = True) -> Picture:
    """In another size. A tensor of integers is rounded, as Pillow rounds."""
    if size_of(picture) == (height, width):
        return picture
    if not isinstance(picture, Tensor):
        return picture.resize((width, height), getattr(pillow().Resampling, mode.name))
    smooth = mode is not InterpolationMode.NEAREST
    batch = as_batch(picture)
    batch = F.interpolate(
        batch.float() if not batch.is_floating_point() else batch,
        size=(height, width),
        mode=mode.value,
        align_corners=False if smooth else None,
        antialias=antialias and smooth,
    )
    return like(batch.reshape(*picture.shape[:-2], height, width), picture)


def rotate(
    picture: Picture,
    degrees: float,
    mode: InterpolationMode,
    expand: bool,
    center: Sequence[float] | None,
    fill: Any,
) -> Picture:
    """Turned counter-clockwise about ``center`` (x, y in pixels; the middle by default); what comes in is ``fill``."""
    if not isinstance(picture, Tensor):
        middle, how = None if center is None else tuple(center), getattr(pillow().Resampling, mode.name)
        return picture.rotate(degrees, how, expand, middle, fillcolor=_colour(picture, fill))
    h, w = size_of(picture)
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    x0, y0 = ((w - 1) / 2, (h - 1) / 2) if center is None else (center[0] - 0.5, center[1] - 0.5)
    out_h, out_w = (_turned(h, w, cos, sin)) if expand else (h, w)
    ys, xs = np.meshgrid(
        np.arange(out_h) - (out_h - h) / 2 - y0, np.arange(out_w) - (out_w - w) / 2 - x0, indexing="ij"
    )
    # Each new pixel asks where it came from: the inverse rotation. The y axis points down.
    from_x, from_y = cos * xs - sin * ys + x0, sin * xs + cos * ys + y0
    grid = np.stack([(2 * from_x + 1) / w - 1, (2 * from_y + 1) / h - 1], axis=-1).astype(np.float32)
    batch = as_batch(picture)
    moved = batch if batch.is_floating_point() else batch.float()
    places = tensor(grid, device=picture.device, dtype=moved.dtype).expand(len(moved), out_h, out_w, 2)
    turned = F.grid_sample(moved, places, mode=mode.value, padding_mode="zeros", align_corners=False)
    colour = np.atleast_1d(np.asarray(fill, np.float32))
    if colour.any():
        inside = F.grid_sample(moved[:, :1] * 0 + 1, places, mode=mode.value, padding_mode="zeros", align_corners=False)
        turned = turned + tensor(colour, dtype=moved.dtype, device=picture.device).reshape(-1, 1, 1) * (1 - inside)
    return like(turned.reshape(*picture.shape[:-2], out_h, out_w), picture)


def _turned(h: int, w: int, cos: float, sin: float) -> tuple[int, int]:
    """The size that holds the whole of a turned image; as Pillow does it, each corner lies within a whole pixel."""
    corners = [(-w / 2, -h / 2), (w / 2, -h / 2), (w / 2, h / 2), (-w / 2, h / 2)]
    xs = [round(cos * x + sin * y + w / 2, 9) for x, y in corners]
    ys = [round(cos * y - sin * x + h / 2, 9) for x, y in corners]
    return math.ceil(max(ys)) - math.floor(min(ys)), math.ceil(max(xs)) - math.floor(min(xs))


def as_batch(picture: Tensor) -> Any:
    """(N, C, H, W) of a tensor of any rank."""
    h, w = size_of(picture)
    return picture.reshape(-1, channels_of(picture), h, w)


def like(result: Tensor, picture: Tensor) -> Any:
    """``result`` in the dtype of ``picture``: of integers rounded and limited."""
    if picture.is_floating_point():
        return result
    return result.round().clamp(0, top_of(picture)).to(picture.dtype)


def to_array(picture: Image.Image) -> np.ndarray[Any, Any]:
    """(C, H, W) of Pillow's image, in its own dtype; black and white as 0 and 255."""
    array = np.array(picture, copy=True)
    if picture.mode == "1":
        array = array.astype(np.uint8) * np.uint8(255)
    elif picture.mode.startswith("I;16"):
        array = array.astype(np.uint16)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def uniform(low: float, high: float) -> float:
    """A number drawn between ``low`` and ``high``."""
    return low + (high - low) * float(default_generator.numpy.random())


def integer(n: int) -> int:
    """One of 0 … n − 1."""
    return int(default_generator.numpy.integers(n))


def happens(p: float) -> bool:
    """True with probability ``p``."""
    return bool(default_generator.numpy.random() < p)


def probability(who: str, p: float) -> float:
    """``p``; ValueError unless it is a probability."""
    if not 0 <= p <= 1:
        raise ValueError(f"{who}: expected a probability p between 0 and 1, got {p}")
    return p


def bytes_of(picture: Tensor) -> Any:
    """(H, W) or (H, W, C) in uint8 for Pillow; floats in [0, 1] are scaled to 255."""
    if picture.ndim == 2:
        picture = picture[None]
    if picture.ndim != 3 or picture.shape[0] not in (1, 2, 3, 4):
        raise ValueError(f"ToPILImage: expected (C, H, W) with 1 to 4 channels, got shape {tuple(picture.shape)}")
    scaled = picture.mul(255).clamp(0, 255) if picture.is_floating_point() else picture
    array = scaled.detach().to(uint8).cpu().numpy()
    return array[0] if len(array) == 1 else np.ascontiguousarray(array.transpose(1, 2, 0))

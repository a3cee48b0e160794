"""Where pixels lie: size, part, margin, mirror, turn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from kobai.core.tensor import Tensor
from kobai.transforms import pictures
from kobai.transforms.pictures import InterpolationMode, Picture, happens, integer, need, size_of, uniform

__all__ = [
    "CenterCrop",
    "Pad",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "RandomRotation",
    "RandomVerticalFlip",
    "Resize",
]

Size = int | Sequence[int]


def _pair(who: str, size: Any) -> tuple[int, int]:
    """(height, width) of a size as a transform takes it: one number stands for a square."""
    sizes = (size,) * 2 if isinstance(size, int) else tuple(size)
    if len(sizes) == 1:
        sizes *= 2
    if len(sizes) != 2 or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in sizes):
        raise ValueError(f"{who}: expected a size of at least 1, or (height, width), got {size!r}")
    return sizes


def _margins(who: str, padding: Any) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of one number, of (left and right, top and bottom), or of four."""
    given = (padding,) if isinstance(padding, int) else tuple(padding)
    if len(given) not in (1, 2, 4) or any(not isinstance(n, int) for n in given):
        raise ValueError(f"{who}: expected padding as 1, 2 or 4 integers, got {padding!r}")
    left, top, right, bottom = given * (4 // len(given))
    return left, top, right, bottom


def _mode(who: str, interpolation: Any) -> InterpolationMode:
    if isinstance(interpolation, InterpolationMode):
        return interpolation
    by_number = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # as Pillow counts
    try:
        return InterpolationMode(by_number.get(interpolation, interpolation))
    except ValueError:
        known = ", ".join(mode.value for mode in InterpolationMode)
        raise ValueError(f"{who}: expected interpolation as one of {known}, got {interpolation!r}") from None


class Resize:
    """Another size: (height, width), or of the shorter edge, so that the proportions stay.

    Args:
        size: one number for the shorter edge, or (height, width).
        interpolation: between pixels.
        max_size: of the longer edge, if ``size`` is one number.
        antialias: average what a new pixel covers when a tensor gets smaller; Pillow always does.

    >>> import kobai
    >>> from kobai import transforms
    >>> transforms.Resize(8)(kobai.zeros(3, 16, 32)).shape
    kobai.Size([3, 8, 16])
    """

    def __init__(
        self,
        size: Size,
        interpolation: InterpolationMode = InterpolationMode.BILINEAR,
        max_size: int | None = None,
        antialias: bool = True,
    ) -> None:
        _pair("Resize", size)
        if max_size is not None and (not isinstance(size, int) or max_size <= size):
            raise ValueError(f"Resize: expected max_size above a size of one number, got {max_size} for {size!r}")
        self.size, self.max_size, self.antialias = size, max_size, antialias
        self.interpolation = _mode("Resize", interpolation)

    def __call__(self, img: Picture) -> Picture:
        need("Resize", img)
        return pictures.resize(img, *self._target(*size_of(img)), self.interpolation, self.antialias)

    def _target(self, height: int, width: int) -> tuple[int, int]:
        if not isinstance(self.size, int) and len(self.size) == 2:
            return _pair("Resize", self.size)
        edge = self.size if isinstance(self.size, int) else self.size[0]
        short, long = sorted((height, width))
        new_short, new_long = edge, int(edge * long / short)
        if self.max_size is not None and new_long > self.max_size:
            new_short, new_long = int(self.max_size * new_short / new_long), self.max_size
        return (new_short, new_long) if height <= width else (new_long, new_short)

    def __repr__(self) -> str:
        return (
            f"Resize(size={self.size}, interpolation={self.interpolation.value}, max_size={self.max_size}, "
            f"antialias={self.antialias})"
        )


class CenterCrop:
    """The middle of an image; a smaller one gets a margin of zeros."""

    def __init__(self, size: Size) -> None:
        self.size = _pair("CenterCrop", size)

    def __call__(self, img: Picture) -> Picture:
        need("CenterCrop", img)
        (height, width), (h, w) = size_of(img), self.size
        if h > height or w > width:
            across, down = max(w - width, 0), max(h - height, 0)
            img = pictures.pad(img, (across // 2, down // 2, (across + 1) // 2, (down + 1) // 2), 0, "constant")
            height, width = size_of(img)
        return pictures.crop(img, round((height - h) / 2), round((width - w) / 2), h, w)

    def __repr__(self) -> str:
        return f"CenterCrop(size={self.size})"


_MODES = ("constant", "edge", "reflect", "symmetric")


class Pad:
    """A margin: ``padding`` is one number, (left and right, top and bottom), or left, top, right, bottom.

    Args:
        padding: pixels.
        fill: value of the margin, or one for each channel, in the mode ``constant``.
        padding_mode: constant, edge (the last pixel), reflect (without it) or symmetric (with it).
    """

    def __init__(self, padding: Size, fill: Any = 0, padding_mode: str = "constant") -> None:
        if padding_mode not in _MODES:
            raise ValueError(f"Pad: expected padding_mode as one of {', '.join(_MODES)}, got {padding_mode!r}")
        self.margins, self.padding = _margins("Pad", padding), padding
        self.fill, self.padding_mode = fill, padding_mode

    def __call__(self, img: Picture) -> Picture:
        need("Pad", img)
        return pictures.pad(img, self.margins, self.fill, self.padding_mode)

    def __repr__(self) -> str:
        return f"Pad(padding={self.padding}, fill={self.fill}, padding_mode={self.padding_mode})"


class RandomCrop:
    """A part of this size from anywhere, after a margin.

    >>> import kobai
    >>> from kobai import transforms
    >>> transforms.RandomCrop(32, padding=4)(kobai.zeros(3, 32, 32)).shape
    kobai.Size([3, 32, 32])
    """

    def __init__(
        self,
        size: Size,
        padding: Size | None = None,
        pad_if_needed: bool = False,
        fill: Any = 0,
        padding_mode: str = "constant",
    ) -> None:
        self.size, self.padding, self.pad_if_needed = _pair("RandomCrop", size), padding, pad_if_needed
        self.fill, self.padding_mode = fill, padding_mode
        self._pad = None if padding is None else Pad(padding, fill, padding_mode)

    def __call__(self, img: Picture) -> Picture:
        need("RandomCrop", img)
        if self._pad is not None:
            img = self._pad(img)
        h, w = self.size
        height, width = size_of(img)
        if self.pad_if_needed and (width < w or height < h):
            margins = max(w - width, 0), max(h - height, 0)
            img = pictures.pad(img, (margins[0], margins[1], margins[0], margins[1]), self.fill, self.padding_mode)
            height, width = size_of(img)
        if height < h or width < w:
            raise ValueError(
                f"RandomCrop: expected an image of at least {(h, w)}, got {(height, width)}; see padding, pad_if_needed"
            )
        return pictures.crop(img, integer(height - h + 1), integer(width - w + 1), h, w)

    def __repr__(self) -> str:
        return f"RandomCrop(size={self.size}, padding={self.padding})"


class _RandomFlip:
    axis: int

    def __init__(self, p: float = 0.5) -> None:
        self.p = pictures.probability(type(self).__name__, p)

    def __call__(self, img: Picture) -> Picture:
        need(type(self).__name__, img)
        return pictures.flip(img, self.axis) if happens(self.p) else img

    def __repr__(self) -> str:
        return f"{type(self).__name__}(p={self.p})"


class RandomHorizontalFlip(_RandomFlip):
    """Left and right exchanged, with probability ``p``."""

    axis = -1


class RandomVerticalFlip(_RandomFlip):
    """Top and bottom exchanged, with probability ``p``."""

    axis = -2


class RandomResizedCrop:
    """A part of random area and proportions, brought to one size (Szegedy et al., arXiv:1409.4842).

    Args:
        size: of the result.
        scale: least and greatest share of the image's area.
        ratio: least and greatest width over height; its logarithm is uniform.
        interpolation, antialias: as for :class:`Resize`.
    """

    def __init__(
        self,
        size: Size,
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        interpolation: InterpolationMode = InterpolationMode.BILINEAR,
        antialias: bool = True,
    ) -> None:
        if not 0 < scale[0] <= scale[1] or not 0 < ratio[0] <= ratio[1]:
            raise ValueError(
                f"RandomResizedCrop: expected scale and ratio as (least, greatest), got {scale} and {ratio}"
            )
        self.size, self.scale, self.ratio = _pair("RandomResizedCrop", size), scale, ratio
        self.interpolation, self.antialias = _mode("RandomResizedCrop", interpolation), antialias

    def __call__(self, img: Picture) -> Picture:
        need("RandomResizedCrop", img)
        part = pictures.crop(img, *self._part(*size_of(img)))
        return pictures.resize(part, *self.size, self.interpolation, self.antialias)

    def _part(self, height: int, width: int) -> tuple[int, int, int, int]:
        low, high = (math.log(r) for r in self.ratio)
        for _ in range(10):
            area, ratio = height * width * uniform(*self.scale), math.exp(uniform(low, high))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return integer(height - h + 1), integer(width - w + 1), h, w
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])  # the middle, as large as it can be
        w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
        return (height - h) // 2, (width - w) // 2, h, w

    def __repr__(self) -> str:
        return f"RandomResizedCrop(size={self.size}, scale={tuple(self.scale)}, ratio={tuple(self.ratio)})"


class RandomRotation:
    """Turned by an angle between −``degrees`` and ``degrees``, or between two angles, counter-clockwise.

    Args:
        degrees: one number, or (least, greatest).
        interpolation: between pixels.
        expand: make the result as large as the whole turned image.
        center: (x, y) in pixels from the upper left corner; default: the middle.
        fill: value of what comes in, or one for each channel.
    """

    def __init__(
        self,
        degrees: float | Sequence[float],
        interpolation: InterpolationMode = InterpolationMode.NEAREST,
        expand: bool = False,
        center: Sequence[float] | None = None,
        fill: Any = 0,
    ) -> None:
        angles = (-degrees, degrees) if isinstance(degrees, (int, float)) else tuple(degrees)
        if len(angles) != 2 or angles[0] > angles[1]:
            raise ValueError(f"RandomRotation: expected degrees >= 0, or (least, greatest), got {degrees!r}")
        self.degrees, self.expand, self.center, self.fill = angles, expand, center, fill
        self.interpolation = _mode("RandomRotation", interpolation)

    def __call__(self, img: Picture) -> Picture:
        need("RandomRotation", img)
        fill = self.fill
        if isinstance(img, Tensor) and not isinstance(fill, Sequence):
            fill = [float(fill)] * pictures.channels_of(img)
        return pictures.rotate(img, uniform(*self.degrees), self.interpolation, self.expand, self.center, fill)

    def __repr__(self) -> str:
        return (
            f"RandomRotation(degrees={list(self.degrees)}, interpolation={self.interpolation.value}, "
            f"expand={self.expand}, fill={self.fill})"
        )

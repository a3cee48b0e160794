"""Brightness, contrast, saturation and hue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kobai.core.tensor import Tensor
from kobai.ops.arithmetic import maximum, minimum
from kobai.ops.gather import where
from kobai.ops.joining import stack
from kobai.random import default_generator
from kobai.transforms.pictures import (
    Picture,
    channels_of,
    happens,
    like,
    need,
    probability,
    top_of,
    uniform,
)
from kobai.utils.pictures import pillow

__all__ = ["ColorJitter", "Grayscale", "RandomGrayscale"]

LUMA = (0.2989, 0.587, 0.114)
"""Shares of red, green and blue in what the eye takes for brightness (ITU-R BT.601)."""


def _gray(picture: Tensor) -> Any:
    """(…, 1, H, W) of floats."""
    if channels_of(picture) == 1:
        return picture.float() if not picture.is_floating_point() else picture
    if channels_of(picture) != 3:
        raise ValueError(f"expected an image of 1 or 3 channels, got {channels_of(picture)}")
    red, green, blue = (picture[..., k : k + 1, :, :] for k in range(3))
    return red * LUMA[0] + green * LUMA[1] + blue * LUMA[2]


def _gray_as_stored(picture: Tensor) -> Any:
    gray = _gray(picture)
    return gray if picture.is_floating_point() else gray.floor()


def _blend(picture: Tensor, other: Any, factor: float) -> Any:
    return (picture * factor + other * (1 - factor)).clamp(0, top_of(picture)).to(picture.dtype)


def brightness(picture: Picture, factor: float) -> Picture:
    """Black at 0, as it is at 1."""
    if not isinstance(picture, Tensor):
        return _enhanced("Brightness", picture, factor)
    return _blend(picture, 0.0, factor)


def contrast(picture: Picture, factor: float) -> Picture:
    """All of the mean grey at 0, as it is at 1."""
    if not isinstance(picture, Tensor):
        return _enhanced("Contrast", picture, factor)
    return _blend(picture, _gray_as_stored(picture).mean(dim=(-3, -2, -1), keepdim=True), factor)


def saturation(picture: Picture, factor: float) -> Picture:
    """Grey at 0, as it is at 1."""
    if not isinstance(picture, Tensor):
        return _enhanced("Color", picture, factor)
    return picture if channels_of(picture) == 1 else _blend(picture, _gray_as_stored(picture), factor)


def hue(picture: Picture, shift: float) -> Picture:
    """The colours moved around their circle by ``shift`` of it."""
    if not isinstance(picture, Tensor):
        if picture.mode in ("L", "1", "I", "F"):
            return picture
        h, s, v = picture.convert("HSV").split()
        moved = np.array(h, dtype=np.uint8) + np.uint8(int(shift * 255) % 256)
        return pillow().merge("HSV", (pillow().fromarray(moved), s, v)).convert(picture.mode)
    if channels_of(picture) == 1:
        return picture
    scaled = picture if picture.is_floating_point() else picture.float() / top_of(picture)
    h, s, v = _hsv(scaled)
    turned = _rgb((h + shift) % 1.0, s, v)
    return turned if picture.is_floating_point() else like(turned * top_of(picture), picture)


def _hsv(picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue in turns, saturation and value, each (…, H, W), of red, green and blue in [0, 1]."""
    red, green, blue = (picture[..., k, :, :] for k in range(3))
    value = maximum(maximum(red, green), blue)
    spread = value - minimum(minimum(red, green), blue)
    grey = spread == 0
    unit = where(grey, 1.0, spread)
    from_red, from_green = (green - blue) / unit % 6.0, (blue - red) / unit + 2.0
    sixths = where(value == red, from_red, where(value == green, from_green, (red - green) / unit + 4.0))
    return where(grey, 0.0, sixths / 6.0), where(value == 0, 0.0, spread / where(value == 0, 1.0, value)), value


def _rgb(h: Tensor, s: Tensor, v: Tensor) -> Any:
    """(…, 3, H, W): channel n is v − v·s·max(0, min(k, 4 − k, 1)) with k = (n + 6h) mod 6, n = 5, 3, 1."""
    channels = []
    for n in (5.0, 3.0, 1.0):
        k = (n + 6.0 * h) % 6.0
        channels.append(v - v * s * minimum(k, 4.0 - k).clamp(0.0, 1.0))
    return stack(channels, -3)


def _enhanced(what: str, picture: Any, factor: float) -> Any:
    from PIL import ImageEnhance

    return getattr(ImageEnhance, what)(picture).enhance(factor)


Range = float | Sequence[float]


class ColorJitter:
    """Brightness, contrast, saturation and hue changed by random factors, in a random order.

    Args:
        brightness, contrast, saturation: factors from max(0, 1 − x) to 1 + x, or (least, greatest).
        hue: a shift from −x to x turns of the circle of colours, at most 0.5, or (least, greatest).
    """

    def __init__(self, brightness: Range = 0, contrast: Range = 0, saturation: Range = 0, hue: Range = 0) -> None:
        self.brightness = self._factors("brightness", brightness)
        self.contrast = self._factors("contrast", contrast)
        self.saturation = self._factors("saturation", saturation)
        self.hue = self._factors("hue", hue, middle=0.0, bounds=(-0.5, 0.5))

    @staticmethod
    def _factors(
        name: str, given: Any, middle: float = 1.0, bounds: tuple[float, float] = (0.0, np.inf)
    ) -> tuple[float, float] | None:
        if isinstance(given, (int, float)):
            if given < 0:
                raise ValueError(f"ColorJitter: expected {name} >= 0, or (least, greatest), got {given}")
            low, high = middle - given, middle + given
            low = max(low, 0.0) if middle else low
        else:
            low, high = (float(each) for each in given)
        if not bounds[0] <= low <= high <= bounds[1]:
            raise ValueError(f"ColorJitter: expected {name} within {bounds}, got {(low, high)}")
        return None if low == high == middle else (low, high)

    def __call__(self, img: Picture) -> Picture:
        need("ColorJitter", img)
        changes = [brightness, contrast, saturation, hue]
        ranges = [self.brightness, self.contrast, self.saturation, self.hue]
        order = default_generator.numpy.permutation(4)
        drawn = [None if each is None else uniform(*each) for each in ranges]
        for k in order:
            factor = drawn[k]
            if factor is not None:
                img = changes[k](img, factor)
        return img

    def __repr__(self) -> str:
        return (
            f"ColorJitter(brightness={self.brightness}, contrast={self.contrast}, saturation={self.saturation}, "
            f"hue={self.hue})"
        )


class Grayscale:
    """Grey: 0.2989 red + 0.587 green + 0.114 blue, in 1 or 3 equal channels."""

    def __init__(self, num_output_channels: int = 1) -> None:
        if num_output_channels not in (1, 3):
            raise ValueError(f"Grayscale: expected num_output_channels as 1 or 3, got {num_output_channels}")
        self.num_output_channels = num_output_channels

    def __call__(self, img: Picture) -> Picture:
        need("Grayscale", img)
        n = self.num_output_channels
        if not isinstance(img, Tensor):
            grey = img.convert("L")
            return grey if n == 1 else pillow().merge("RGB", (grey,) * 3)
        gray = _gray_as_stored(img).to(img.dtype)
        return gray if n == 1 else gray.expand(*gray.shape[:-3], 3, *gray.shape[-2:])

    def __repr__(self) -> str:
        return f"Grayscale(num_output_channels={self.num_output_channels})"


class RandomGrayscale:
    """Grey with probability ``p``; the number of channels stays."""

    def __init__(self, p: float = 0.1) -> None:
        self.p = probability("RandomGrayscale", p)

    def __call__(self, img: Picture) -> Picture:
        need("RandomGrayscale", img)
        return Grayscale(3 if channels_of(img) == 3 else 1)(img) if happens(self.p) else img

    def __repr__(self) -> str:
        return f"RandomGrayscale(p={self.p})"

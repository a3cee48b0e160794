"""Changing the size of images, and the order of their pixels and channels, as modules."""

from __future__ import annotations

from typing import Any

from kobai.core.tensor import Tensor
from kobai.nn import functional as F
from kobai.nn.module import Module
from kobai.ops.conv import Ints

__all__ = [
    "ChannelShuffle",
    "Fold",
    "PixelShuffle",
    "PixelUnshuffle",
    "Unfold",
    "Upsample",
    "UpsamplingBilinear2d",
    "UpsamplingNearest2d",
]


class Upsample(Module):
    """Change the size of (N, C, L), (N, C, H, W) or (N, C, D, H, W), see :func:`kobai.nn.functional.interpolate`.

    >>> import kobai
    >>> kobai.nn.Upsample(scale_factor=2)(kobai.tensor([[[1.0, 3.0]]]))
    tensor([[[1., 1., 3., 3.]]])
    """

    def __init__(
        self,
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        super().__init__()
        self.size = size
        if isinstance(scale_factor, (tuple, list)):
            self.scale_factor: Any = tuple(map(float, scale_factor))
        else:
            self.scale_factor = None if scale_factor is None else float(scale_factor)
        self.mode = mode
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input: Tensor) -> Tensor:
        """The input in its new size."""
        return F.interpolate(
            input, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor
        )

    def extra_repr(self) -> str:
        shown = f"scale_factor={self.scale_factor}" if self.scale_factor is not None else f"size={self.size}"
        return f"{shown}, mode={self.mode!r}"


class PixelShuffle(Module):
    """Channels become pixels: (..., C·r², H, W) → (..., C, H·r, W·r). Shi et al., CVPR 2016, arXiv:1609.05158.

    >>> import kobai
    >>> kobai.nn.PixelShuffle(2)(kobai.arange(4.0).reshape(4, 1, 1))
    tensor([[[0., 1.],
             [2., 3.]]])
    """

    _repr_names = ("upscale_factor",)

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_shuffle(input, self.upscale_factor)


class PixelUnshuffle(Module):
    """Pixels become channels: (..., C, H·r, W·r) → (..., C·r², H, W).

    >>> import kobai
    >>> kobai.nn.PixelUnshuffle(2)(kobai.randn(5, 3, 8, 6)).shape
    kobai.Size([5, 12, 4, 3])
    """

    _repr_names = ("downscale_factor",)

    def __init__(self, downscale_factor: int) -> None:
        super().__init__()
        self.downscale_factor = downscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_unshuffle(input, self.downscale_factor)


class UpsamplingNearest2d(Upsample):
    """:class:`Upsample` of images in mode ``"nearest"``.

    >>> import kobai
    >>> kobai.nn.UpsamplingNearest2d(scale_factor=2)(kobai.tensor([[[[1.0, 3.0]]]]))
    tensor([[[[1., 1., 3., 3.],
              [1., 1., 3., 3.]]]])
    """

    def __init__(self, size: Any = None, scale_factor: Any = None) -> None:
        super().__init__(size, scale_factor, mode="nearest")


class UpsamplingBilinear2d(Upsample):
    """:class:`Upsample` of images in mode ``"bilinear"`` with ``align_corners=True``.

    >>> import kobai
    >>> kobai.nn.UpsamplingBilinear2d(size=(1, 3))(kobai.tensor([[[[1.0, 3.0]]]]))
    tensor([[[[1., 2., 3.]]]])
    """

    def __init__(self, size: Any = None, scale_factor: Any = None) -> None:
        super().__init__(size, scale_factor, mode="bilinear", align_corners=True)


class ChannelShuffle(Module):
    """Channels of ``groups`` groups dealt out in turn: (N, C, *) → the same. Zhang et al., CVPR 2018, arXiv:1707.01083.

    >>> import kobai
    >>> kobai.nn.ChannelShuffle(2)(kobai.arange(4.0).reshape(1, 4, 1, 1)).flatten()
    tensor([0., 2., 1., 3.])
    """

    _repr_names = ("groups",)

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, input: Tensor) -> Tensor:
        return F.channel_shuffle(input, self.groups)


class Unfold(Module):
    """Windows as columns, (N, C, H, W) → (N, C·k, L), see :func:`kobai.nn.functional.unfold`.

    >>> import kobai
    >>> kobai.nn.Unfold(kernel_size=2)(kobai.randn(1, 3, 4, 5)).shape
    kobai.Size([1, 12, 12])
    """

    _repr_names = ("kernel_size", "dilation", "padding", "stride")

    def __init__(self, kernel_size: Ints, dilation: Ints = 1, padding: Ints = 0, stride: Ints = 1) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def forward(self, input: Tensor) -> Tensor:
        return F.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)


class Fold(Module):
    """Columns added up where they came from, (N, C·k, L) → (N, C, H, W), see :func:`kobai.nn.functional.fold`.

    >>> import kobai
    >>> kobai.nn.Fold(output_size=(1, 3), kernel_size=(1, 2))(kobai.ones(1, 2, 2))
    tensor([[[[1., 2., 1.]]]])
    """

    _repr_names = ("output_size", "kernel_size", "dilation", "padding", "stride")

    def __init__(
        self, output_size: Ints, kernel_size: Ints, dilation: Ints = 1, padding: Ints = 0, stride: Ints = 1
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def forward(self, input: Tensor) -> Tensor:
        return F.fold(input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)

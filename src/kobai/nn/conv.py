"""Convolution and its transpose in one, two and three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from kobai.core.tensor import Tensor
from kobai.errors import nearest
from kobai.nn import functional as F, init as _init
from kobai.nn.linear import _draw, _size
from kobai.nn.module import Module
from kobai.nn.parameter import Parameter
from kobai.nn.tree import unusual
from kobai.ops._epilogue import epilogue
from kobai.ops.conv import Ints, padding_pairs, per_dimension
from kobai.ops.create import empty
from kobai.random import Generator

__all__ = ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class _Conv(Module):
    """A convolution in ``_dims`` dimensions; :class:`_ConvTranspose` has its sizes, parameters and initial values too."""

    weight: Parameter
    bias: Parameter | None
    _dims: ClassVar[int]
    _transposed: ClassVar[bool] = False
    activation: str | None  # a transpose has none

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        stride: Ints = 1,
        padding: str | Ints = 0,
        dilation: Ints = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        activation: str | None = None,
        init: str | _init.Initializer | None = None,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        who, n = self._get_name(), self._dims
        self.in_channels, self.out_channels, self.groups = _channels(who, in_channels, out_channels, groups)
        epilogue(who, activation)  # an unknown name fails here, not in forward
        if not self._transposed:
            self.activation = activation
        self.kernel_size = per_dimension(who, "kernel_size", kernel_size, n, 1, one_for_all=False)
        self.stride = per_dimension(who, "stride", stride, n, 1)
        self.dilation = per_dimension(who, "dilation", dilation, n, 1)
        self._pads = padding_pairs(who, padding, self.kernel_size, self.stride, self.dilation)
        self.padding = padding if isinstance(padding, str) else per_dimension(who, "padding", padding, n)
        self.output_padding = (0,) * n
        if padding_mode not in PADDING_MODES:
            raise ValueError(
                f"{who}: unknown padding_mode {padding_mode!r}.{nearest(str(padding_mode), PADDING_MODES)}"
            )
        self.padding_mode = padding_mode
        self.init = init
        rows, columns = (in_channels, out_channels) if self._transposed else (out_channels, in_channels)
        self.weight = Parameter(empty(rows, columns // groups, *self.kernel_size, device=device, dtype=dtype))
        self.register_parameter("bias", Parameter(empty(out_channels, device=device, dtype=dtype)) if bias else None)
        # without arguments, as PyTorch calls it: subclasses write their own
        self.reset_parameters() if generator is None else self.reset_parameters(generator)

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Draw new parameters: from U(−1/√fan_in, 1/√fan_in), or the weight by ``init`` with a zero bias."""
        fan_in, _ = _init._calculate_fan_in_and_fan_out(self.weight, self._get_name())
        _draw(self.weight, self.bias, fan_in, self.init, generator)

    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, ...) → (N, out_channels, ...), or both without N."""
        return self._conv_forward(input, self.weight, self.bias)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """``forward`` with other weights, for subclasses that make theirs in each call."""
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            around = [amount for pair in reversed(self._pads) for amount in pair]  # F.pad begins at the last dimension
            input, padding = F.pad(input, around, self.padding_mode), 0
        convolve = (F.conv1d, F.conv2d, F.conv3d)[self._dims - 1]
        return convolve(
            input,
            weight,
            bias,
            self.stride,
            padding,
            self.dilation,
            self.groups,
            activation=self.activation,
        )

    @property
    def transposed(self) -> bool:
        """Whether it is a transposed convolution, whose weight is (in_channels, out_channels / groups, ...)."""
        return self._transposed

    def extra_repr(self) -> str:
        shown = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        none, each = (0,) * self._dims, (1,) * self._dims
        shown += unusual(self, padding=none, dilation=each, output_padding=none, groups=1)
        if self.bias is None:
            shown += ", bias=False"
        shown += unusual(self, padding_mode="zeros")
        activation = getattr(self, "activation", None)
        return shown if activation is None else f"{shown}, activation={activation!r}"


def _channels(who: str, in_channels: Any, out_channels: Any, groups: Any) -> tuple[int, int, int]:
    in_channels, out_channels = _size(who, "in_channels", in_channels), _size(who, "out_channels", out_channels)
    if out_channels == 0:
        raise ValueError(f"{who}: expected out_channels >= 1, got 0")
    if not hasattr(groups, "__index__"):
        raise TypeError(f"{who}: expected groups to be an integer, got {groups!r}")
    if groups < 1:
        raise ValueError(f"{who}: expected groups >= 1, got {groups}")
    if in_channels % groups or out_channels % groups:
        raise ValueError(
            f"{who}: in_channels ({in_channels}) and out_channels ({out_channels}) must be divisible by groups ({groups})"
        )
    return in_channels, out_channels, groups


class Conv2d(_Conv):
    """Convolution of images: every output channel is a sum over windows of all input channels, weighted by a kernel.

    Args:
        in_channels, out_channels: input (N, in_channels, H, W) or (in_channels, H, W), output (N, out_channels, H', W').
        kernel_size, stride, dilation: a number, or one for each dimension.
        padding: a number, one for each dimension, ``"same"`` or ``"valid"``.
        groups: output channels see only the input channels of their own group; both numbers must be divisible by it.
        bias: whether there is one.
        padding_mode: what surrounds the input: ``"zeros"``, ``"reflect"``, ``"replicate"`` or ``"circular"``.
        device, dtype: of the parameters.
        activation: None, ``"relu"``, ``"sigmoid"`` or ``"tanh"``, computed in the result's own memory.
        init, generator: as for :class:`Linear`.

    ``weight`` is (out_channels, in_channels / groups, kH, kW), ``bias`` is (out_channels). See
    :func:`kobai.nn.functional.conv2d` for the formula and the output's size.

    >>> import kobai
    >>> kobai.nn.Conv2d(3, 8, 3, padding=1)(kobai.randn(2, 3, 10, 10)).shape
    kobai.Size([2, 8, 10, 10])
    """

    _dims = 2


class Conv1d(_Conv):
    """As :class:`Conv2d` in one dimension: (N, in_channels, L) or (in_channels, L).

    >>> import kobai
    >>> kobai.nn.Conv1d(3, 8, 3, stride=2)(kobai.randn(2, 3, 11)).shape
    kobai.Size([2, 8, 5])
    """

    _dims = 1


class Conv3d(_Conv):
    """As :class:`Conv2d` in three dimensions: (N, in_channels, D, H, W) or (in_channels, D, H, W).

    >>> import kobai
    >>> kobai.nn.Conv3d(3, 8, kernel_size=3)(kobai.randn(2, 3, 5, 6, 7)).shape
    kobai.Size([2, 8, 3, 4, 5])
    """

    _dims = 3


class _ConvTranspose(_Conv):
    """The transpose of a convolution: its weight has the rows and columns of channels exchanged."""

    _transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        stride: Ints = 1,
        padding: Ints = 0,
        output_padding: Ints = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Ints = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        init: str | _init.Initializer | None = None,
        generator: Generator | None = None,
    ) -> None:
        who = type(self).__name__
        if padding_mode != "zeros" or isinstance(padding, str):
            raise ValueError(
                f"{who}: expected integers as padding and padding_mode='zeros', got {padding!r} and {padding_mode!r}"
            )
        windows = (kernel_size, stride, padding, dilation)
        where = (device, dtype)
        super().__init__(
            in_channels, out_channels, *windows, groups, bias, padding_mode, *where, init=init, generator=generator
        )
        self.output_padding = per_dimension(who, "output_padding", output_padding, self._dims)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """(N, in_channels, ...) → (N, out_channels, ...); ``output_size`` chooses among the sizes that fit."""
        extra = self.output_padding if output_size is None else self._extra(input, output_size)
        transpose = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[self._dims - 1]
        return transpose(input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation)  # type: ignore[arg-type]  # padding is no string here

    def _extra(self, input: Tensor, output_size: Sequence[int]) -> tuple[int, ...]:
        """The output padding that gives ``output_size`` (of the last dimensions)."""
        n = self._dims
        least = [
            (m - 1) * s - a - b + d * (k - 1) + 1
            for m, s, (a, b), d, k in zip(
                input.shape[-n:], self.stride, self._pads, self.dilation, self.kernel_size, strict=True
            )
        ]
        extra = [size - low for size, low in zip(tuple(output_size)[-n:], least, strict=True)]
        if any(not 0 <= e < s for e, s in zip(extra, self.stride, strict=True)):
            most = [low + s - 1 for low, s in zip(least, self.stride, strict=True)]
            raise ValueError(
                f"{self._get_name()}: expected output_size between {least} and {most}, got {list(output_size)}"
            )
        return tuple(extra)


class ConvTranspose2d(_ConvTranspose):
    """The transpose of :class:`Conv2d`, which enlarges by ``stride``: every element adds a weighted kernel to the output.

    Arguments as those of :class:`Conv2d`; ``output_padding`` is added to one side of the output's size. ``weight`` is
    (in_channels, out_channels / groups, kH, kW). See :func:`kobai.nn.functional.conv_transpose2d`.

    >>> import kobai
    >>> kobai.nn.ConvTranspose2d(3, 8, 2, stride=2)(kobai.randn(2, 3, 5, 5)).shape
    kobai.Size([2, 8, 10, 10])
    """

    _dims = 2


class ConvTranspose1d(_ConvTranspose):
    """As :class:`ConvTranspose2d` in one dimension: (N, in_channels, L) or (in_channels, L).

    >>> import kobai
    >>> kobai.nn.ConvTranspose1d(8, 3, kernel_size=2, stride=2)(kobai.randn(2, 8, 5)).shape
    kobai.Size([2, 3, 10])
    """

    _dims = 1


class ConvTranspose3d(_ConvTranspose):
    """As :class:`ConvTranspose2d` in three dimensions: (N, in_channels, D, H, W) or (in_channels, D, H, W).

    >>> import kobai
    >>> kobai.nn.ConvTranspose3d(8, 3, kernel_size=2, stride=2)(kobai.randn(2, 8, 2, 3, 4)).shape
    kobai.Size([2, 3, 4, 6, 8])
    """

    _dims = 3

"""Padding as modules; see :func:`kobai.nn.functional.pad`."""

from __future__ import annotations

from typing import ClassVar

from kobai._tensor import Tensor
from kobai.nn import functional as F
from kobai.nn.module import Module
from kobai.ops.conv import Ints, per_dimension


class _Pad(Module):
    _dims: ClassVar[int]
    _mode: ClassVar[str]

    def __init__(self, padding: Ints) -> None:
        super().__init__()
        # negative numbers take away; per_dimension's "least" is for sizes
        self.padding = per_dimension(self._get_name(), "padding", padding, 2 * self._dims, -(10**9))

    def forward(self, input: Tensor) -> Tensor:
        """The input with more (or, by negative numbers, fewer) elements at its last dimensions."""
        return F.pad(input, self.padding, self._mode)

    def extra_repr(self) -> str:
        return str(self.padding)


class _ConstantPad(_Pad):
    _mode = "constant"

    def __init__(self, padding: Ints, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        """The input with ``value`` around its last dimensions."""
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """``value`` before and after the last dimension; ``padding`` is a number or (before, after)."""

    _dims = 1


class ConstantPad2d(_ConstantPad):
    """``value`` around the last two dimensions; ``padding`` is a number or (left, right, top, bottom).

    >>> import kobai
    >>> kobai.nn.ConstantPad2d((1, 0, 0, 0), 9.0)(kobai.zeros(1, 1, 2))
    tensor([[[9., 0., 0.]]])
    """

    _dims = 2


class ZeroPad1d(_Pad):
    """Zeros before and after the last dimension; ``padding`` is a number or (before, after)."""

    _dims = 1
    _mode = "constant"


class ZeroPad2d(_Pad):
    """Zeros around the last two dimensions; ``padding`` is a number or (left, right, top, bottom)."""

    _dims = 2
    _mode = "constant"


class ReflectionPad1d(_Pad):
    """The mirrored input before and after the last dimension, without repeating the edge."""

    _dims = 1
    _mode = "reflect"


class ReflectionPad2d(_Pad):
    """The mirrored input around the last two dimensions, without repeating the edge."""

    _dims = 2
    _mode = "reflect"


class ReplicationPad1d(_Pad):
    """The edge repeated before and after the last dimension."""

    _dims = 1
    _mode = "replicate"


class ReplicationPad2d(_Pad):
    """The edge repeated around the last two dimensions."""

    _dims = 2
    _mode = "replicate"


class ConstantPad3d(_ConstantPad):
    """``value`` around the last three dimensions; ``padding`` is a number or (left, right, top, bottom, front, back)."""

    _dims = 3


class ZeroPad3d(_Pad):
    """Zeros around the last three dimensions."""

    _dims = 3
    _mode = "constant"


class ReflectionPad3d(_Pad):
    """The mirrored input around the last three dimensions, without repeating the edge."""

    _dims = 3
    _mode = "reflect"


class ReplicationPad3d(_Pad):
    """The edge repeated around the last three dimensions."""

    _dims = 3
    _mode = "replicate"


class CircularPad1d(_Pad):
    """The input going on at its other end, before and after the last dimension."""

    _dims = 1
    _mode = "circular"


class CircularPad2d(_Pad):
    """The input going on at its other ends, around the last two dimensions."""

    _dims = 2
    _mode = "circular"


class CircularPad3d(_Pad):
    """The input going on at its other ends, around the last three dimensions."""

    _dims = 3
    _mode = "circular"

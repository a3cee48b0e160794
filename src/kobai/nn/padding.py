"""Padding as modules; see :func:`kobai.nn.functional.pad`."""

from __future__ import annotations

from typing import ClassVar

from kobai.core.tensor import Tensor
from kobai.nn import functional as F
from kobai.nn.linear import _real
from kobai.nn.module import Module
from kobai.ops.conv import LAYOUT, Ints, per_dimension

__all__ = [
    "CircularPad1d",
    "CircularPad2d",
    "CircularPad3d",
    "ConstantPad1d",
    "ConstantPad2d",
    "ConstantPad3d",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
    "ZeroPad1d",
    "ZeroPad2d",
    "ZeroPad3d",
]


class _Pad(Module):
    _dims: ClassVar[int]
    _mode: ClassVar[str]

    def __init__(self, padding: Ints) -> None:
        super().__init__()
        # negative padding crops, so there is no lower bound
        self.padding = per_dimension(self._get_name(), "padding", padding, 2 * self._dims, -(10**9), one_for_all=False)

    def forward(self, input: Tensor) -> Tensor:
        """Pad the last dimensions; negative numbers crop them."""
        n = self._dims
        empty = self._mode in ("reflect", "replicate") and 0 in input.shape[-n - 1 :]
        if empty or (self._mode != "constant" and input.ndim not in (n + 1, n + 2)):
            raise (ValueError if self._mode == "circular" else RuntimeError)(
                f"{self._get_name()}: expected input (N, C, {LAYOUT[n]}) or (C, {LAYOUT[n]}), got {tuple(input.shape)}"
            )
        return F.pad(input, self.padding, self._mode)

    def extra_repr(self) -> str:
        return str(self.padding)


class _ConstantPad(_Pad):
    _mode = "constant"

    def __init__(self, padding: Ints, value: float) -> None:
        super().__init__(padding)
        self.value = _real(self._get_name(), "value", value)

    def forward(self, input: Tensor) -> Tensor:
        """The input with ``value`` around its last dimensions."""
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """``value`` before and after the last dimension; ``padding`` is a number or (before, after).

    >>> import kobai
    >>> kobai.nn.ConstantPad1d((1, 2), 9.0)(kobai.zeros(1, 2))
    tensor([[9., 0., 0., 9., 9.]])
    """

    _dims = 1


class ConstantPad2d(_ConstantPad):
    """``value`` around the last two dimensions; ``padding`` is a number or (left, right, top, bottom).

    >>> import kobai
    >>> kobai.nn.ConstantPad2d((1, 0, 0, 0), 9.0)(kobai.zeros(1, 1, 2))
    tensor([[[9., 0., 0.]]])
    """

    _dims = 2


class ZeroPad1d(_Pad):
    """Zeros before and after the last dimension; ``padding`` is a number or (before, after).

    >>> import kobai
    >>> kobai.nn.ZeroPad1d((1, 2))(kobai.ones(1, 2))
    tensor([[0., 1., 1., 0., 0.]])
    """

    _dims = 1
    _mode = "constant"


class ZeroPad2d(_Pad):
    """Zeros around the last two dimensions; ``padding`` is a number or (left, right, top, bottom).

    >>> import kobai
    >>> kobai.nn.ZeroPad2d(1)(kobai.ones(1, 1, 2))
    tensor([[[0., 0., 0., 0.],
             [0., 1., 1., 0.],
             [0., 0., 0., 0.]]])
    """

    _dims = 2
    _mode = "constant"


class ReflectionPad1d(_Pad):
    """The mirrored input before and after the last dimension, without repeating the edge.

    >>> import kobai
    >>> kobai.nn.ReflectionPad1d((1, 2))(kobai.tensor([[1.0, 2.0, 3.0]]))
    tensor([[2., 1., 2., 3., 2., 1.]])
    """

    _dims = 1
    _mode = "reflect"


class ReflectionPad2d(_Pad):
    """The mirrored input around the last two dimensions, without repeating the edge.

    >>> import kobai
    >>> kobai.nn.ReflectionPad2d((1, 0, 0, 1))(kobai.tensor([[[1.0, 2.0], [3.0, 4.0]]]))
    tensor([[[2., 1., 2.],
             [4., 3., 4.],
             [2., 1., 2.]]])
    """

    _dims = 2
    _mode = "reflect"


class ReplicationPad1d(_Pad):
    """The edge repeated before and after the last dimension.

    >>> import kobai
    >>> kobai.nn.ReplicationPad1d((1, 2))(kobai.tensor([[1.0, 2.0, 3.0]]))
    tensor([[1., 1., 2., 3., 3., 3.]])
    """

    _dims = 1
    _mode = "replicate"


class ReplicationPad2d(_Pad):
    """The edge repeated around the last two dimensions.

    >>> import kobai
    >>> kobai.nn.ReplicationPad2d((1, 0, 0, 1))(kobai.tensor([[[1.0, 2.0], [3.0, 4.0]]]))
    tensor([[[1., 1., 2.],
             [3., 3., 4.],
             [3., 3., 4.]]])
    """

    _dims = 2
    _mode = "replicate"


class ConstantPad3d(_ConstantPad):
    """``value`` around the last three dimensions; ``padding`` is a number or (left, right, top, bottom, front, back).

    >>> import kobai
    >>> kobai.nn.ConstantPad3d((1, 0, 0, 0, 0, 0), 9.0)(kobai.zeros(1, 1, 1, 2))
    tensor([[[[9., 0., 0.]]]])
    """

    _dims = 3


class ZeroPad3d(_Pad):
    """Zeros around the last three dimensions.

    >>> import kobai
    >>> kobai.nn.ZeroPad3d(1)(kobai.ones(4, 2, 3, 5)).shape
    kobai.Size([4, 4, 5, 7])
    """

    _dims = 3
    _mode = "constant"


class ReflectionPad3d(_Pad):
    """The mirrored input around the last three dimensions, without repeating the edge.

    >>> import kobai
    >>> kobai.nn.ReflectionPad3d((2, 0, 0, 0, 0, 0))(kobai.tensor([[[[1.0, 2.0, 3.0]]]]))
    tensor([[[[3., 2., 1., 2., 3.]]]])
    """

    _dims = 3
    _mode = "reflect"


class ReplicationPad3d(_Pad):
    """The edge repeated around the last three dimensions.

    >>> import kobai
    >>> kobai.nn.ReplicationPad3d((1, 1, 0, 0, 0, 0))(kobai.tensor([[[[1.0, 2.0]]]]))
    tensor([[[[1., 1., 2., 2.]]]])
    """

    _dims = 3
    _mode = "replicate"


class CircularPad1d(_Pad):
    """The input repeated periodically, before and after the last dimension.

    >>> import kobai
    >>> kobai.nn.CircularPad1d((1, 2))(kobai.tensor([[1.0, 2.0, 3.0]]))
    tensor([[3., 1., 2., 3., 1., 2.]])
    """

    _dims = 1
    _mode = "circular"


class CircularPad2d(_Pad):
    """The input repeated periodically around the last two dimensions.

    >>> import kobai
    >>> kobai.nn.CircularPad2d((0, 0, 1, 0))(kobai.tensor([[[1.0], [2.0], [3.0]]])).flatten()
    tensor([3., 1., 2., 3.])
    """

    _dims = 2
    _mode = "circular"


class CircularPad3d(_Pad):
    """The input repeated periodically around the last three dimensions.

    >>> import kobai
    >>> kobai.nn.CircularPad3d((2, 0, 0, 0, 0, 0))(kobai.tensor([[[[1.0, 2.0, 3.0]]]]))
    tensor([[[[2., 3., 1., 2., 3.]]]])
    """

    _dims = 3
    _mode = "circular"

"""Pooling as modules; each calls the function of the same name in :mod:`kobai.nn.functional`.

>>> import kobai
>>> kobai.nn.MaxPool2d(2)(kobai.arange(16.0).reshape(1, 4, 4))
tensor([[[ 5.,  7.],
         [13., 15.]]])
"""

from __future__ import annotations

from typing import Any, ClassVar

from kobai.core.tensor import Tensor
from kobai.nn import functional as F
from kobai.nn.module import Module
from kobai.ops.conv import Ints, per_dimension

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MaxUnpool1d",
    "MaxUnpool2d",
    "MaxUnpool3d",
]


class _Pool(Module):
    """A function of windows: their sizes are checked when the layer is made."""

    _dims: ClassVar[int]
    _repr_names: ClassVar[tuple[str, ...]] = ("kernel_size", "stride", "padding")

    kernel_size: Any
    stride: Any
    padding: Any

    def _set_windows(self, kernel_size: Ints, stride: Ints | None, padding: Ints) -> None:
        who, n = self._get_name(), self._dims
        for name, value, least in (("kernel_size", kernel_size, 1), ("stride", stride, 1), ("padding", padding, 0)):
            if value is not None:
                per_dimension(who, name, value, n, least)
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding


class _MaxPool(_Pool):
    _repr_names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")

    def __init__(
        self,
        kernel_size: Ints,
        stride: Ints | None = None,
        padding: Ints = 0,
        dilation: Ints = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self._set_windows(kernel_size, stride, padding)
        per_dimension(self._get_name(), "dilation", dilation, self._dims, 1)
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Any:
        """Maxima of windows; with ``return_indices`` (maxima, positions)."""
        pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[self._dims - 1]
        return pool(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        )


class MaxPool1d(_MaxPool):
    """Largest element of every window of (N, C, L) or (C, L); see :func:`kobai.nn.functional.max_pool2d`.

    >>> import kobai
    >>> kobai.nn.MaxPool1d(2)(kobai.tensor([[1.0, 3.0, 2.0, 0.0]]))
    tensor([[3., 2.]])
    """

    _dims = 1


class MaxPool2d(_MaxPool):
    """Largest element of every window of (N, C, H, W) or (C, H, W); see :func:`kobai.nn.functional.max_pool2d`.

    >>> import kobai
    >>> kobai.nn.MaxPool2d(2)(kobai.arange(4.0).reshape(1, 1, 2, 2))
    tensor([[[[3.]]]])
    """

    _dims = 2


class MaxPool3d(_MaxPool):
    """Largest element of every window of (N, C, D, H, W) or (C, D, H, W); see :func:`kobai.nn.functional.max_pool2d`.

    >>> import kobai
    >>> kobai.nn.MaxPool3d(2)(kobai.randn(5, 3, 8, 6, 4)).shape
    kobai.Size([5, 3, 4, 3, 2])
    """

    _dims = 3


class AvgPool1d(_Pool):
    """Mean of every window of (N, C, L) or (C, L); see :func:`kobai.nn.functional.avg_pool2d`.

    >>> import kobai
    >>> kobai.nn.AvgPool1d(2)(kobai.tensor([[1.0, 3.0, 2.0, 0.0]]))
    tensor([[2., 1.]])
    """

    _dims = 1

    def __init__(
        self,
        kernel_size: Ints,
        stride: Ints | None = None,
        padding: Ints = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__()
        self._set_windows(kernel_size, stride, padding)
        # PyTorch shows these as tuples in one dimension, and as they were given in more
        for name in ("kernel_size", "stride", "padding"):
            setattr(self, name, per_dimension("AvgPool1d", name, getattr(self, name), 1))
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def forward(self, input: Tensor) -> Tensor:
        """Means of windows."""
        return F.avg_pool1d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)


class _AvgPool(_Pool):
    def __init__(
        self,
        kernel_size: Ints,
        stride: Ints | None = None,
        padding: Ints = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self._set_windows(kernel_size, stride, padding)
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def forward(self, input: Tensor) -> Tensor:
        """Means of windows."""
        pool = F.avg_pool2d if self._dims == 2 else F.avg_pool3d
        return pool(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )


class AvgPool2d(_AvgPool):
    """Mean of every window of (N, C, H, W) or (C, H, W); see :func:`kobai.nn.functional.avg_pool2d`.

    >>> import kobai
    >>> kobai.nn.AvgPool2d(2)(kobai.arange(4.0).reshape(1, 1, 2, 2))
    tensor([[[[1.5000]]]])
    """

    _dims = 2


class AvgPool3d(_AvgPool):
    """Mean of every window of (N, C, D, H, W) or (C, D, H, W); see :func:`kobai.nn.functional.avg_pool2d`.

    >>> import kobai
    >>> kobai.nn.AvgPool3d(2)(kobai.randn(5, 3, 8, 6, 4)).shape
    kobai.Size([5, 3, 4, 3, 2])
    """

    _dims = 3


class _Adaptive(Module):
    """f(x, output_size)."""

    _function: ClassVar[staticmethod[..., Tensor]]
    _repr_names = ("output_size",)

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        return self._function(input, self.output_size)


class AdaptiveAvgPool1d(_Adaptive):
    """Means of windows chosen so that (N, C, L) becomes (N, C, output_size).

    >>> import kobai
    >>> kobai.nn.AdaptiveAvgPool1d(2)(kobai.tensor([[1.0, 3.0, 2.0, 0.0]]))
    tensor([[2., 1.]])
    """

    _function = staticmethod(F.adaptive_avg_pool1d)


class AdaptiveAvgPool2d(_Adaptive):
    """Means of windows chosen so that (N, C, H, W) becomes (N, C, *output_size); None keeps a dimension.

    >>> import kobai
    >>> kobai.nn.AdaptiveAvgPool2d((1, None))(kobai.randn(2, 3, 5, 7)).shape
    kobai.Size([2, 3, 1, 7])
    """

    _function = staticmethod(F.adaptive_avg_pool2d)


class AdaptiveAvgPool3d(_Adaptive):
    """Means of windows chosen so that (N, C, D, H, W) becomes (N, C, *output_size); None keeps a dimension.

    >>> import kobai
    >>> kobai.nn.AdaptiveAvgPool3d((1, None, 2))(kobai.randn(2, 3, 5, 7, 4)).shape
    kobai.Size([2, 3, 1, 7, 2])
    """

    _function = staticmethod(F.adaptive_avg_pool3d)


class _AdaptiveMax(_Adaptive):
    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = return_indices

    def forward(self, input: Tensor) -> Any:
        """Maxima of windows; with ``return_indices`` (maxima, positions)."""
        return self._function(input, self.output_size, self.return_indices)


class AdaptiveMaxPool1d(_AdaptiveMax):
    """Maxima of windows chosen so that (N, C, L) becomes (N, C, output_size).

    >>> import kobai
    >>> kobai.nn.AdaptiveMaxPool1d(2)(kobai.tensor([[1.0, 3.0, 2.0, 0.0]]))
    tensor([[3., 2.]])
    """

    _function = staticmethod(F.adaptive_max_pool1d)


class AdaptiveMaxPool2d(_AdaptiveMax):
    """Maxima of windows chosen so that (N, C, H, W) becomes (N, C, *output_size); None keeps a dimension.

    >>> import kobai
    >>> kobai.nn.AdaptiveMaxPool2d((1, None))(kobai.randn(2, 3, 5, 7)).shape
    kobai.Size([2, 3, 1, 7])
    """

    _function = staticmethod(F.adaptive_max_pool2d)


class AdaptiveMaxPool3d(_AdaptiveMax):
    """Maxima of windows chosen so that (N, C, D, H, W) becomes (N, C, *output_size); None keeps a dimension.

    >>> import kobai
    >>> kobai.nn.AdaptiveMaxPool3d((1, None, 2))(kobai.randn(2, 3, 5, 7, 4)).shape
    kobai.Size([2, 3, 1, 7, 2])
    """

    _function = staticmethod(F.adaptive_max_pool3d)


class _LPPool(_Pool):
    _repr_names = ("norm_type", "kernel_size", "stride", "ceil_mode")

    def __init__(
        self, norm_type: float, kernel_size: Ints, stride: Ints | None = None, ceil_mode: bool = False
    ) -> None:
        super().__init__()
        self._set_windows(kernel_size, stride, 0)
        self.norm_type, self.stride, self.ceil_mode = norm_type, stride, ceil_mode

    def forward(self, input: Tensor) -> Tensor:
        """Power means of windows."""
        pool = (F.lp_pool1d, F.lp_pool2d, F.lp_pool3d)[self._dims - 1]
        return pool(input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)


class LPPool1d(_LPPool):
    """(Σ xᵖ)^(1/p) of every window of (N, C, L) or (C, L), p being ``norm_type``.

    >>> import kobai
    >>> kobai.nn.LPPool1d(2, 2)(kobai.tensor([[3.0, 4.0, 0.0, 1.0]]))
    tensor([[5., 1.]])
    """

    _dims = 1


class LPPool2d(_LPPool):
    """(Σ xᵖ)^(1/p) of every window of (N, C, H, W) or (C, H, W); see :func:`kobai.nn.functional.lp_pool2d`.

    >>> import kobai
    >>> kobai.nn.LPPool2d(2, 2)(kobai.full((1, 2, 2), 3.0))
    tensor([[[6.]]])
    """

    _dims = 2


class LPPool3d(_LPPool):
    """(Σ xᵖ)^(1/p) of every window of (N, C, D, H, W) or (C, D, H, W); see :func:`kobai.nn.functional.lp_pool2d`.

    >>> import kobai
    >>> kobai.nn.LPPool3d(3, 2)(kobai.ones(1, 2, 2, 2)).flatten()
    tensor([2.])
    """

    _dims = 3


class _MaxUnpool(_Pool):
    def __init__(self, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0) -> None:
        super().__init__()
        self._set_windows(kernel_size, stride, padding)
        # PyTorch keeps them as tuples here
        for name in ("kernel_size", "stride", "padding"):
            setattr(self, name, per_dimension(self._get_name(), name, getattr(self, name), self._dims))

    def forward(self, input: Tensor, indices: Tensor, output_size: Any = None) -> Tensor:
        """The maxima in their places, zeros elsewhere."""
        unpool = (F.max_unpool1d, F.max_unpool2d, F.max_unpool3d)[self._dims - 1]
        return unpool(input, indices, self.kernel_size, self.stride, self.padding, output_size)


class MaxUnpool1d(_MaxUnpool):
    """Maxima put back where :class:`MaxPool1d` with ``return_indices=True`` found them, zeros elsewhere.

    >>> import kobai
    >>> maxima, where = kobai.nn.MaxPool1d(2, return_indices=True)(kobai.tensor([[1.0, 3.0, 2.0, 0.0]]))
    >>> kobai.nn.MaxUnpool1d(2)(maxima, where)
    tensor([[0., 3., 2., 0.]])
    """

    _dims = 1


class MaxUnpool2d(_MaxUnpool):
    """Maxima put back where :class:`MaxPool2d` with ``return_indices=True`` found them, zeros elsewhere.

    A call ``unpool(maxima, indices, output_size)`` says the size where several give maxima of one size.

    >>> import kobai
    >>> maxima, where = kobai.nn.MaxPool2d(2, return_indices=True)(kobai.randn(2, 3, 5, 6))
    >>> kobai.nn.MaxUnpool2d(2)(maxima, where, output_size=(5, 6)).shape
    kobai.Size([2, 3, 5, 6])
    """

    _dims = 2


class MaxUnpool3d(_MaxUnpool):
    """Maxima put back where :class:`MaxPool3d` with ``return_indices=True`` found them, zeros elsewhere.

    >>> import kobai
    >>> maxima, where = kobai.nn.MaxPool3d(2, return_indices=True)(kobai.randn(2, 3, 4, 6, 2))
    >>> kobai.nn.MaxUnpool3d(2)(maxima, where).shape
    kobai.Size([2, 3, 4, 6, 2])
    """

    _dims = 3

"""Activations as modules; each calls the function of the same name in :mod:`kobai.nn.functional`.

A new one is a class here and its name in ``__all__``: the package exports it and the tests examine it.
"""

from __future__ import annotations

from typing import Any, ClassVar

from kobai.core.tensor import Tensor
from kobai.nn import functional as F, init as _init
from kobai.nn.linear import _real
from kobai.nn.module import Module
from kobai.nn.parameter import Parameter
from kobai.ops.create import empty

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "LogSigmoid",
    "Mish",
    "PReLU",
    "RReLU",
    "ReLU",
    "ReLU6",
    "SELU",
    "SiLU",
    "Sigmoid",
    "Softplus",
    "Softshrink",
    "Softsign",
    "Tanh",
    "Tanhshrink",
    "Threshold",
]


class _Plain(Module):
    """f(x), for a function without options."""

    _function: ClassVar[staticmethod[..., Tensor]]

    def forward(self, input: Tensor) -> Tensor:
        return self._function(input)


class _InPlace(Module):
    """f(x), written over x if ``inplace``."""

    _function: ClassVar[staticmethod[..., Tensor]]

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return self._function(input, self.inplace)

    def extra_repr(self) -> str:
        shown = super().extra_repr()
        return ", ".join(filter(None, [shown, "inplace=True"])) if self.inplace else shown


class _Exponential(_InPlace):
    """f(x, alpha): :class:`ELU` and :class:`CELU`."""

    _repr_names = ("alpha",)

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.alpha = _real(self._get_name(), "alpha", alpha)

    def forward(self, input: Tensor) -> Tensor:
        return self._function(input, self.alpha, self.inplace)


class _Shrink(Module):
    """f(x, lambd), which is 0 near 0."""

    _function: ClassVar[staticmethod[..., Tensor]]

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = _real(self._get_name(), "lambd", lambd)

    def forward(self, input: Tensor) -> Tensor:
        return self._function(input, self.lambd)

    def extra_repr(self) -> str:
        return f"{self.lambd}"


class ReLU(_InPlace):
    """max(x, 0). Nair and Hinton, ICML 2010.

    >>> import kobai
    >>> kobai.nn.ReLU()(kobai.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """

    _function = staticmethod(F.relu)


class ReLU6(_InPlace):
    """min(max(x, 0), 6).

    >>> import kobai
    >>> kobai.nn.ReLU6()(kobai.tensor([-1.0, 2.0, 9.0]))
    tensor([0., 2., 6.])
    """

    _function = staticmethod(F.relu6)


class LeakyReLU(_InPlace):
    """x where x > 0, else negative_slope · x.

    >>> import kobai
    >>> kobai.nn.LeakyReLU(0.1)(kobai.tensor([-1.0, 2.0]))
    tensor([-0.1000,  2.0000])
    """

    _repr_names = ("negative_slope",)

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.negative_slope = _real("LeakyReLU", "negative_slope", negative_slope)

    def forward(self, input: Tensor) -> Tensor:
        return F.leaky_relu(input, self.negative_slope, self.inplace)


class PReLU(Module):
    """x where x > 0, else a · x, with a trained: one for all channels, or one for each of dimension 1.

    ``weight`` is (num_parameters), and starts at ``init``. He, Zhang, Ren, Sun, arXiv:1502.01852.

    >>> import kobai
    >>> prelu = kobai.nn.PReLU()
    >>> prelu(kobai.tensor([-1.0, 2.0])).tolist(), prelu.weight.requires_grad
    ([-0.25, 2.0], True)
    """

    _repr_names = ("num_parameters",)
    weight: Parameter

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.init = _real("PReLU", "init", init)
        self.weight = Parameter(empty(num_parameters, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the slopes to ``init``."""
        _init.constant_(self.weight, self.init)

    def forward(self, input: Tensor) -> Tensor:
        return F.prelu(input, self.weight)


class RReLU(_InPlace):
    """x where x > 0, else a · x: in training a is drawn from U(lower, upper) for each element, else it is their mean.

    Xu, Wang, Chen, Li, arXiv:1505.00853.

    >>> import kobai
    >>> rrelu = kobai.nn.RReLU(0.25, 0.75)
    >>> rrelu.eval()(kobai.tensor([-1.0, 2.0]))
    tensor([-0.5000,  2.0000])
    """

    _repr_names = ("lower", "upper")

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.lower = lower
        self.upper = upper

    def forward(self, input: Tensor) -> Tensor:
        return F.rrelu(input, self.lower, self.upper, self.training, self.inplace)


class ELU(_Exponential):
    """x where x > 0, else alpha · (eˣ − 1). Clevert, Unterthiner, Hochreiter, arXiv:1511.07289.

    >>> import kobai
    >>> kobai.nn.ELU()(kobai.tensor([-100.0, 0.0, 2.0]))
    tensor([-1.,  0.,  2.])
    """

    _function = staticmethod(F.elu)


class CELU(_Exponential):
    """max(x, 0) + min(0, alpha · (e^(x/alpha) − 1)). Barron, arXiv:1704.07483.

    >>> import kobai
    >>> kobai.nn.CELU(alpha=2.0)(kobai.tensor([-100.0, 0.0, 2.0]))
    tensor([-2.,  0.,  2.])
    """

    _function = staticmethod(F.celu)


class SELU(_InPlace):
    """1.0507 · ELU(x, alpha=1.6733): keeps mean 0 and variance 1 of LeCun-initialised layers. arXiv:1706.02515.

    >>> import kobai
    >>> kobai.nn.SELU()(kobai.tensor([0.0, 1.0]))
    tensor([0.0000, 1.0507])
    """

    _function = staticmethod(F.selu)


class GELU(Module):
    """x · Φ(x), Φ the normal distribution function; ``approximate="tanh"`` for its approximation. arXiv:1606.08415.

    >>> import kobai
    >>> kobai.nn.GELU()(kobai.tensor([0.0, 1.0, 9.0]))
    tensor([0.0000, 0.8413, 9.0000])
    """

    _repr_names = ("approximate",)

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        if approximate not in ("none", "tanh"):
            raise ValueError(f"GELU: expected approximate 'none' or 'tanh', got {approximate!r}")
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        return F.gelu(input, approximate=self.approximate)


class SiLU(_InPlace):
    """x · σ(x), also called swish. arXiv:1710.05941.

    >>> import kobai
    >>> kobai.nn.SiLU()(kobai.tensor([0.0, 1.0, 100.0]))
    tensor([  0.0000,   0.7311, 100.0000])
    """

    _function = staticmethod(F.silu)


class Mish(_InPlace):
    """x · tanh(softplus(x)). Misra, arXiv:1908.08681.

    >>> import kobai
    >>> kobai.nn.Mish()(kobai.tensor([0.0, 1.0, 100.0]))
    tensor([  0.0000,   0.8651, 100.0000])
    """

    _function = staticmethod(F.mish)


class Sigmoid(_Plain):
    """1 / (1 + e⁻ˣ).

    >>> import kobai
    >>> kobai.nn.Sigmoid()(kobai.tensor([0.0, 100.0]))
    tensor([0.5000, 1.0000])
    """

    _function = staticmethod(F.sigmoid)


class Tanh(_Plain):
    """(eˣ − e⁻ˣ) / (eˣ + e⁻ˣ).

    >>> import kobai
    >>> kobai.nn.Tanh()(kobai.tensor([-100.0, 0.0, 100.0]))
    tensor([-1.,  0.,  1.])
    """

    _function = staticmethod(F.tanh)


class Softplus(Module):
    """log(1 + e^(beta · x)) / beta; x itself where beta · x > threshold.

    >>> import kobai
    >>> kobai.nn.Softplus()(kobai.tensor([0.0, 100.0]))
    tensor([  0.6931, 100.0000])
    """

    _repr_names = ("beta", "threshold")

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta = _real("Softplus", "beta", beta)
        self.threshold = _real("Softplus", "threshold", threshold)

    def forward(self, input: Tensor) -> Tensor:
        return F.softplus(input, self.beta, self.threshold)


class Softsign(_Plain):
    """x / (1 + |x|).

    >>> import kobai
    >>> kobai.nn.Softsign()(kobai.tensor([-1.0, 3.0]))
    tensor([-0.5000,  0.7500])
    """

    _function = staticmethod(F.softsign)


class LogSigmoid(_Plain):
    """log(1 / (1 + e⁻ˣ)), without overflow.

    >>> import kobai
    >>> kobai.nn.LogSigmoid()(kobai.tensor(-1000.0))
    tensor(-1000.)
    """

    _function = staticmethod(F.logsigmoid)


class Tanhshrink(_Plain):
    """x − tanh(x).

    >>> import kobai
    >>> kobai.nn.Tanhshrink()(kobai.tensor([0.0, 100.0]))
    tensor([ 0., 99.])
    """

    _function = staticmethod(F.tanhshrink)


class Hardtanh(_InPlace):
    """x clipped to [min_val, max_val].

    >>> import kobai
    >>> kobai.nn.Hardtanh()(kobai.tensor([-3.0, 0.5, 3.0]))
    tensor([-1.0000,  0.5000,  1.0000])
    """

    _repr_names = ("min_val", "max_val")

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        if not min_val < max_val:
            raise ValueError(f"Hardtanh: expected min_val < max_val, got {min_val} and {max_val}")
        self.min_val = min_val
        self.max_val = max_val

    def forward(self, input: Tensor) -> Tensor:
        return F.hardtanh(input, self.min_val, self.max_val, self.inplace)


class Hardsigmoid(_InPlace):
    """min(max(x / 6 + 1/2, 0), 1).

    >>> import kobai
    >>> kobai.nn.Hardsigmoid()(kobai.tensor([-3.0, 0.0, 1.5, 3.0]))
    tensor([0.0000, 0.5000, 0.7500, 1.0000])
    """

    _function = staticmethod(F.hardsigmoid)


class Hardswish(_InPlace):
    """x · min(max(x / 6 + 1/2, 0), 1). Howard et al., arXiv:1905.02244.

    >>> import kobai
    >>> kobai.nn.Hardswish()(kobai.tensor([1.5, 3.0, 5.0]))
    tensor([1.1250, 3.0000, 5.0000])
    """

    _function = staticmethod(F.hardswish)


class Threshold(_InPlace):
    """x where x > threshold, else value.

    >>> import kobai
    >>> kobai.nn.Threshold(0.5, -7.0)(kobai.tensor([0.0, 1.0]))
    tensor([-7.,  1.])
    """

    _repr_names = ("threshold", "value")

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.threshold = _real("Threshold", "threshold", threshold)
        self.value = _real("Threshold", "value", value)

    def forward(self, input: Tensor) -> Tensor:
        return F.threshold(input, self.threshold, self.value, self.inplace)


class Softshrink(_Shrink):
    """x moved towards 0 by lambd, stopping at 0.

    >>> import kobai
    >>> kobai.nn.Softshrink()(kobai.tensor([-2.0, 0.3, 2.0]))
    tensor([-1.5000,  0.0000,  1.5000])
    """

    _function = staticmethod(F.softshrink)


class Hardshrink(_Shrink):
    """x where |x| > lambd, else 0.

    >>> import kobai
    >>> kobai.nn.Hardshrink()(kobai.tensor([-2.0, 0.3, 2.0]))
    tensor([-2.,  0.,  2.])
    """

    _function = staticmethod(F.hardshrink)

"""Activations as modules; each calls the function of the same name in :mod:`kobai.nn.functional`."""

from __future__ import annotations

from typing import Any

from kobai.core.tensor import Tensor
from kobai.nn import functional as F
from kobai.nn import init as _init
from kobai.nn.linear import _real
from kobai.nn.module import Module
from kobai.nn.parameter import Parameter
from kobai.ops.create import empty

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "LogSigmoid",
    "LogSoftmax",
    "Mish",
    "PReLU",
    "RReLU",
    "ReLU",
    "ReLU6",
    "SELU",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softmax2d",
    "Softmin",
    "Softplus",
    "Softshrink",
    "Softsign",
    "Tanh",
    "Tanhshrink",
    "Threshold",
]


class _InPlace(Module):
    """An activation that can be told to overwrite its input."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""

    def _shown(self, *names: str) -> str:
        """The named attributes, and ``inplace`` where it is set."""
        shown = [f"{name}={getattr(self, name)}" for name in names]
        return ", ".join(shown + (["inplace=True"] if self.inplace else []))


class ReLU(_InPlace):
    """max(x, 0). Nair and Hinton, ICML 2010.

    >>> import kobai
    >>> kobai.nn.ReLU()(kobai.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(input, self.inplace)


class ReLU6(_InPlace):
    """min(max(x, 0), 6).

    >>> import kobai
    >>> kobai.nn.ReLU6()(kobai.tensor([-1.0, 2.0, 9.0]))
    tensor([0., 2., 6.])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.relu6(input, self.inplace)


class LeakyReLU(_InPlace):
    """x where x > 0, else negative_slope · x.

    >>> import kobai
    >>> kobai.nn.LeakyReLU(0.1)(kobai.tensor([-1.0, 2.0]))
    tensor([-0.1000,  2.0000])
    """

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.negative_slope = _real("LeakyReLU", "negative_slope", negative_slope)

    def forward(self, input: Tensor) -> Tensor:
        return F.leaky_relu(input, self.negative_slope, self.inplace)

    def extra_repr(self) -> str:
        return self._shown("negative_slope")


class PReLU(Module):
    """x where x > 0, else a · x, with a trained: one for all channels, or one for each of dimension 1.

    ``weight`` is (num_parameters), and starts at ``init``. He, Zhang, Ren, Sun, arXiv:1502.01852.

    >>> import kobai
    >>> prelu = kobai.nn.PReLU()
    >>> prelu(kobai.tensor([-1.0, 2.0])).tolist(), prelu.weight.requires_grad
    ([-0.25, 2.0], True)
    """

    weight: Parameter

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.init = _real("PReLU", "init", init)
        self.weight = Parameter(empty(num_parameters, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start again from ``init``."""
        _init.constant_(self.weight, self.init)

    def forward(self, input: Tensor) -> Tensor:
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class RReLU(_InPlace):
    """x where x > 0, else a · x: in training a is drawn from U(lower, upper) for each element, else it is their mean.

    Xu, Wang, Chen, Li, arXiv:1505.00853.

    >>> import kobai
    >>> rrelu = kobai.nn.RReLU(0.25, 0.75)
    >>> rrelu.eval()(kobai.tensor([-1.0, 2.0]))
    tensor([-0.5000,  2.0000])
    """

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.lower = lower
        self.upper = upper

    def forward(self, input: Tensor) -> Tensor:
        return F.rrelu(input, self.lower, self.upper, self.training, self.inplace)

    def extra_repr(self) -> str:
        return self._shown("lower", "upper")


class ELU(_InPlace):
    """x where x > 0, else alpha · (eˣ − 1). Clevert, Unterthiner, Hochreiter, arXiv:1511.07289.

    >>> import kobai
    >>> kobai.nn.ELU()(kobai.tensor([-100.0, 0.0, 2.0]))
    tensor([-1.,  0.,  2.])
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.alpha = _real(self._get_name(), "alpha", alpha)

    def forward(self, input: Tensor) -> Tensor:
        return F.elu(input, self.alpha, self.inplace)

    def extra_repr(self) -> str:
        return self._shown("alpha")


class CELU(_InPlace):
    """max(x, 0) + min(0, alpha · (e^(x/alpha) − 1)). Barron, arXiv:1704.07483.

    >>> import kobai
    >>> kobai.nn.CELU(alpha=2.0)(kobai.tensor([-100.0, 0.0, 2.0]))
    tensor([-2.,  0.,  2.])
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.alpha = _real(self._get_name(), "alpha", alpha)

    def forward(self, input: Tensor) -> Tensor:
        return F.celu(input, self.alpha, self.inplace)

    def extra_repr(self) -> str:
        return self._shown("alpha")


class SELU(_InPlace):
    """1.0507 · ELU(x, alpha=1.6733): keeps mean 0 and variance 1 of LeCun-initialised layers. arXiv:1706.02515.

    >>> import kobai
    >>> kobai.nn.SELU()(kobai.tensor([0.0, 1.0]))
    tensor([0.0000, 1.0507])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.selu(input, self.inplace)


class GELU(Module):
    """x · Φ(x), Φ the normal distribution function; ``approximate="tanh"`` for its approximation. arXiv:1606.08415.

    >>> import kobai
    >>> kobai.nn.GELU()(kobai.tensor([0.0, 1.0, 9.0]))
    tensor([0.0000, 0.8413, 9.0000])
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        if approximate not in ("none", "tanh"):
            raise ValueError(f"GELU: expected approximate 'none' or 'tanh', got {approximate!r}")
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        return F.gelu(input, approximate=self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class SiLU(_InPlace):
    """x · σ(x), also called swish. arXiv:1710.05941.

    >>> import kobai
    >>> kobai.nn.SiLU()(kobai.tensor([0.0, 1.0, 100.0]))
    tensor([  0.0000,   0.7311, 100.0000])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.silu(input, self.inplace)


class Mish(_InPlace):
    """x · tanh(softplus(x)). Misra, arXiv:1908.08681.

    >>> import kobai
    >>> kobai.nn.Mish()(kobai.tensor([0.0, 1.0, 100.0]))
    tensor([  0.0000,   0.8651, 100.0000])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.mish(input, self.inplace)


class Sigmoid(Module):
    """1 / (1 + e⁻ˣ).

    >>> import kobai
    >>> kobai.nn.Sigmoid()(kobai.tensor([0.0, 100.0]))
    tensor([0.5000, 1.0000])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.sigmoid(input)


class Tanh(Module):
    """(eˣ − e⁻ˣ) / (eˣ + e⁻ˣ).

    >>> import kobai
    >>> kobai.nn.Tanh()(kobai.tensor([-100.0, 0.0, 100.0]))
    tensor([-1.,  0.,  1.])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.tanh(input)


class Softplus(Module):
    """log(1 + e^(beta · x)) / beta; x itself where beta · x > threshold.

    >>> import kobai
    >>> kobai.nn.Softplus()(kobai.tensor([0.0, 100.0]))
    tensor([  0.6931, 100.0000])
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta = _real("Softplus", "beta", beta)
        self.threshold = _real("Softplus", "threshold", threshold)

    def forward(self, input: Tensor) -> Tensor:
        return F.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        return f"beta={self.beta}, threshold={self.threshold}"


class Softsign(Module):
    """x / (1 + |x|).

    >>> import kobai
    >>> kobai.nn.Softsign()(kobai.tensor([-1.0, 3.0]))
    tensor([-0.5000,  0.7500])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.softsign(input)


class LogSigmoid(Module):
    """log(1 / (1 + e⁻ˣ)), without overflow.

    >>> import kobai
    >>> kobai.nn.LogSigmoid()(kobai.tensor(-1000.0))
    tensor(-1000.)
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.logsigmoid(input)


class Tanhshrink(Module):
    """x − tanh(x).

    >>> import kobai
    >>> kobai.nn.Tanhshrink()(kobai.tensor([0.0, 100.0]))
    tensor([ 0., 99.])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.tanhshrink(input)


class Hardtanh(_InPlace):
    """x put into [min_val, max_val].

    >>> import kobai
    >>> kobai.nn.Hardtanh()(kobai.tensor([-3.0, 0.5, 3.0]))
    tensor([-1.0000,  0.5000,  1.0000])
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        if not min_val < max_val:
            raise ValueError(f"Hardtanh: expected min_val < max_val, got {min_val} and {max_val}")
        self.min_val = min_val
        self.max_val = max_val

    def forward(self, input: Tensor) -> Tensor:
        return F.hardtanh(input, self.min_val, self.max_val, self.inplace)

    def extra_repr(self) -> str:
        return self._shown("min_val", "max_val")


class Hardsigmoid(_InPlace):
    """min(max(x / 6 + 1/2, 0), 1).

    >>> import kobai
    >>> kobai.nn.Hardsigmoid()(kobai.tensor([-3.0, 0.0, 1.5, 3.0]))
    tensor([0.0000, 0.5000, 0.7500, 1.0000])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.hardsigmoid(input, self.inplace)


class Hardswish(_InPlace):
    """x · min(max(x / 6 + 1/2, 0), 1). Howard et al., arXiv:1905.02244.

    >>> import kobai
    >>> kobai.nn.Hardswish()(kobai.tensor([1.5, 3.0, 5.0]))
    tensor([1.1250, 3.0000, 5.0000])
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.hardswish(input, self.inplace)


class Threshold(_InPlace):
    """x where x > threshold, else value.

    >>> import kobai
    >>> kobai.nn.Threshold(0.5, -7.0)(kobai.tensor([0.0, 1.0]))
    tensor([-7.,  1.])
    """

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.threshold = _real("Threshold", "threshold", threshold)
        self.value = _real("Threshold", "value", value)

    def forward(self, input: Tensor) -> Tensor:
        return F.threshold(input, self.threshold, self.value, self.inplace)

    def extra_repr(self) -> str:
        return self._shown("threshold", "value")


class Softshrink(Module):
    """x moved towards 0 by lambd, and no further than to 0.

    >>> import kobai
    >>> kobai.nn.Softshrink()(kobai.tensor([-2.0, 0.3, 2.0]))
    tensor([-1.5000,  0.0000,  1.5000])
    """

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = _real(self._get_name(), "lambd", lambd)

    def forward(self, input: Tensor) -> Tensor:
        return F.softshrink(input, self.lambd)

    def extra_repr(self) -> str:
        return f"{self.lambd}"


class Hardshrink(Module):
    """x where |x| > lambd, else 0.

    >>> import kobai
    >>> kobai.nn.Hardshrink()(kobai.tensor([-2.0, 0.3, 2.0]))
    tensor([-2.,  0.,  2.])
    """

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = _real(self._get_name(), "lambd", lambd)

    def forward(self, input: Tensor) -> Tensor:
        return F.hardshrink(input, self.lambd)

    def extra_repr(self) -> str:
        return f"{self.lambd}"


class GLU(Module):
    """a · σ(b), a and b the halves of x along ``dim``. Dauphin et al., arXiv:1612.08083.

    >>> import kobai
    >>> kobai.nn.GLU()(kobai.tensor([3.0, 4.0, 0.0, 100.0]))
    tensor([1.5000, 4.0000])
    """

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return F.glu(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmax(Module):
    """eˣ / Σ eˣ along ``dim``, which must be given: a distribution over it.

    >>> import kobai
    >>> kobai.nn.Softmax(dim=-1)(kobai.zeros(4))
    tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return F.softmax(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmax2d(Module):
    """eˣ / Σ eˣ over the channels of images (N, C, H, W) or (C, H, W).

    >>> import kobai
    >>> kobai.nn.Softmax2d()(kobai.zeros(4, 1, 3)).flatten(1)[0]
    tensor([0.2500, 0.2500, 0.2500])
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim not in (3, 4):
            raise ValueError(f"Softmax2d: expected (N, C, H, W) or (C, H, W), got {tuple(input.shape)}")
        return F.softmax(input, -3)


class LogSoftmax(Module):
    """log(eˣ / Σ eˣ) along ``dim``, which must be given; without overflow.

    >>> import kobai
    >>> kobai.nn.LogSoftmax(dim=-1)(kobai.tensor([0.0, 1000.0]))
    tensor([-1000.,     0.])
    """

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return F.log_softmax(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmin(Module):
    """Softmax of −x along ``dim``, which must be given.

    >>> import kobai
    >>> kobai.nn.Softmin(dim=-1)(kobai.tensor([0.0, 1.0, 200.0]))
    tensor([0.7311, 0.2689, 0.0000])
    """

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return F.softmin(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"

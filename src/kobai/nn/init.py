"""Initialisers: what the weights are before training.

The same seed gives the same weights on every backend. float32 and float64 weights of one seed differ: each is drawn in
its own precision, which halves the time for float32.

Xavier, Kaiming and LeCun initialisers are one mechanism, ``variance_scaling_``, and differ only in its arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, cast

import numpy as np

from kobai.core.tensor import Tensor
from kobai.errors import nearest
from kobai.nn._by_name import read
from kobai.nn._draws import orthonormal, standard_normal, standard_uniform, truncated_normal, write
from kobai.random import Generator, resolve

__all__ = [
    "by_name",
    "calculate_gain",
    "constant_",
    "dirac_",
    "eye_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "lecun_normal_",
    "lecun_uniform_",
    "normal_",
    "ones_",
    "orthogonal_",
    "sparse_",
    "trunc_normal_",
    "uniform_",
    "variance_scaling_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]

Initializer = Callable[..., Tensor]
Mode = Literal["fan_in", "fan_out", "fan_avg"]
Distribution = Literal["normal", "truncated_normal", "uniform"]

# Standard deviation of a standard normal cut at ±2: √(1 − 2·2φ(2) / (Φ(2) − Φ(−2))).
_STD_CUT_AT_2 = 0.87962566103423978


# --- constants --------------------------------------------------------------------------------------------------------


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with ``val``.

    >>> import kobai
    >>> kobai.nn.init.constant_(kobai.empty(2), 0.5)
    tensor([0.5000, 0.5000])
    """
    return write(tensor, val)


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with zeros (a bias's usual start; a weight matrix of zeros never breaks its symmetry).

    >>> import kobai
    >>> kobai.nn.init.zeros_(kobai.empty(2))
    tensor([0., 0.])
    """
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with ones.

    >>> import kobai
    >>> kobai.nn.init.ones_(kobai.empty(2))
    tensor([1., 1.])
    """
    return constant_(tensor, 1.0)


def eye_(tensor: Tensor) -> Tensor:
    """Write the identity matrix into a 2-D tensor: a linear layer that passes its input through.

    >>> import kobai
    >>> kobai.nn.init.eye_(kobai.empty(2, 3))
    tensor([[1., 0., 0.],
            [0., 1., 0.]])
    """
    if tensor.ndim != 2:
        raise ValueError(f"eye_: expected a 2-D tensor, got shape {tuple(tensor.shape)}")
    return write(tensor, np.eye(*tensor.shape, dtype=np.float32))


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """Write the identity of convolution into a (out, in, *kernel) tensor: each input channel passes through.

    With ``groups``, each group of output channels is such an identity.

    >>> import kobai
    >>> w = kobai.nn.init.dirac_(kobai.empty(1, 1, 3))
    >>> kobai.nn.functional.conv1d(kobai.tensor([[1.0, 2.0, 3.0]]), w, padding=1)
    tensor([[1., 2., 3.]])
    """
    shape = tuple(tensor.shape)
    if not 3 <= len(shape) <= 5:
        raise ValueError(f"dirac_: expected a 3-, 4- or 5-D tensor (out, in, *kernel), got shape {shape}")
    if groups < 1 or shape[0] % groups:
        raise ValueError(f"dirac_: the {shape[0]} output channels must divide into groups, got groups={groups}")
    values = np.zeros(shape, dtype=np.float32)
    centre = tuple(size // 2 for size in shape[2:])
    per_group = shape[0] // groups
    for group in range(groups):
        for channel in range(min(per_group, shape[1])):
            values[(group * per_group + channel, channel, *centre)] = 1.0
    return write(tensor, values)


# --- distributions ----------------------------------------------------------------------------------------------------


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Draw from the normal distribution N(mean, std²).

    >>> import kobai
    >>> g = kobai.Generator().manual_seed(0)
    >>> w = kobai.nn.init.normal_(kobai.empty(1000, 100), std=0.01, generator=g)
    >>> round(w.std().item(), 4)
    0.01
    """
    if not std >= 0:
        raise ValueError(f"normal_: expected std >= 0, got {std}")
    return write(tensor, standard_normal(tensor, generator) * std + mean)


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Draw from the uniform distribution U(a, b).

    >>> import kobai
    >>> w = kobai.nn.init.uniform_(kobai.empty(1000), -0.5, 0.5)
    >>> w.min().item() >= -0.5, w.max().item() <= 0.5
    (True, True)
    """
    if not a <= b:
        raise ValueError(f"uniform_: expected a <= b, got a={a}, b={b}")
    return write(tensor, standard_uniform(tensor, generator) * (b - a) + a)


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Generator | None = None,
) -> Tensor:
    """Draw from N(mean, std²) given that the value lies in [a, b] (absolute bounds, not multiples of std).

    >>> import kobai
    >>> w = kobai.nn.init.trunc_normal_(kobai.empty(1000), std=0.02, a=-0.04, b=0.04)
    >>> w.abs().max().item() <= 0.04
    True
    """
    if not a < b:
        raise ValueError(f"trunc_normal_: expected a < b, got a={a}, b={b}")
    if not std > 0:
        raise ValueError(f"trunc_normal_: expected std > 0, got {std}")
    z = truncated_normal(tensor, (a - mean) / std, (b - mean) / std, generator)
    return write(tensor, np.clip(z * std + mean, a, b))  # the product may round to just outside


def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Generator | None = None) -> Tensor:
    """Draw a 2-D tensor from N(0, std²) and zero the fraction ``sparsity`` of every column.

    Martens, "Deep learning via Hessian-free optimization", ICML 2010.

    >>> import kobai
    >>> w = kobai.nn.init.sparse_(kobai.empty(10, 3), sparsity=0.75)
    >>> (w == 0).sum(0)
    tensor([8, 8, 8])
    """
    if tensor.ndim != 2:
        raise ValueError(f"sparse_: expected a 2-D tensor, got shape {tuple(tensor.shape)}")
    if not 0.0 <= sparsity <= 1.0:
        raise ValueError(f"sparse_: expected sparsity between 0 and 1, got {sparsity}")
    values = standard_normal(tensor, generator) * std
    rows = values.shape[0]
    zeros = math.ceil(sparsity * rows)
    order = np.argsort(resolve(generator).numpy.random(values.shape), axis=0)
    np.put_along_axis(values, order[:zeros], 0.0, axis=0)
    return write(tensor, values)


def orthogonal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Draw a (semi-)orthogonal matrix, uniformly, times ``gain``; dimensions after the first are taken together.

    Saxe, McClelland, Ganguli, arXiv:1312.6120.

    >>> import kobai
    >>> w = kobai.nn.init.orthogonal_(kobai.empty(3, 5, dtype=kobai.float64))
    >>> kobai.allclose(w @ w.T, kobai.eye(3, dtype=kobai.float64))
    True
    """
    if tensor.ndim < 2:
        raise ValueError(f"orthogonal_: expected at least 2 dimensions, got shape {tuple(tensor.shape)}")
    if tensor.numel() == 0:
        return tensor
    return write(tensor, gain * orthonormal(tensor, generator))


# --- variance scaling: Xavier, Kaiming, LeCun -------------------------------------------------------------------------


def _calculate_fan_in_and_fan_out(tensor: Tensor, who: str = "fan in and fan out") -> tuple[int, int]:
    """(fan_in, fan_out) of a weight of shape (out, in) or (out, in, *kernel)."""
    shape = tuple(tensor.shape)
    if len(shape) < 2:
        raise ValueError(f"{who}: expected a weight of at least 2 dimensions (out, in), got shape {shape}")
    kernel = math.prod(shape[2:])
    return shape[1] * kernel, shape[0] * kernel


def _calculate_correct_fan(tensor: Tensor, mode: str) -> int:
    """The fan that ``mode`` names: PyTorch's helper, which initialisers elsewhere are built on."""
    fans = dict(zip(("fan_in", "fan_out"), _calculate_fan_in_and_fan_out(tensor), strict=True))
    if mode.lower() not in fans:
        raise ValueError(f"expected mode 'fan_in' or 'fan_out', got {mode!r}")
    return fans[mode.lower()]


def variance_scaling_(
    tensor: Tensor,
    scale: float = 1.0,
    mode: Mode = "fan_in",
    distribution: Distribution = "normal",
    generator: Generator | None = None,
) -> Tensor:
    """Draw with mean 0 and variance ``scale / n``, where n is the fan that ``mode`` names.

    ``fan_in`` keeps the variance of activations from layer to layer, ``fan_out`` the variance of gradients; ``fan_avg``
    (their mean) is a compromise. ``truncated_normal`` is cut at two standard deviations and widened to have the same variance.

    >>> import kobai
    >>> g = kobai.Generator().manual_seed(0)
    >>> w = kobai.nn.init.variance_scaling_(kobai.empty(500, 200), scale=2.0, generator=g)
    >>> round(w.var().item(), 3)
    0.01
    """
    return _scaled("variance_scaling_", tensor, scale, mode, distribution, generator)


def _scaled(
    who: str, tensor: Tensor, scale: float, mode: Mode, distribution: Distribution, generator: Generator | None
) -> Tensor:
    fan_in, fan_out = _calculate_fan_in_and_fan_out(tensor, who)
    fans = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
    if mode not in fans:
        raise ValueError(f"{who}: unknown mode {mode!r}.{nearest(str(mode), fans)}")
    if scale < 0:
        raise ValueError(f"{who}: expected scale >= 0, got {scale}")
    std = math.sqrt(scale / max(1.0, fans[mode]))
    if distribution == "normal":
        return normal_(tensor, 0.0, std, generator)
    if distribution == "uniform":
        limit = math.sqrt(3.0) * std  # U(−l, l) has variance l²/3
        return uniform_(tensor, -limit, limit, generator)
    if distribution == "truncated_normal":
        std /= _STD_CUT_AT_2
        return trunc_normal_(tensor, 0.0, std, -2 * std, 2 * std, generator)
    known = ("normal", "truncated_normal", "uniform")
    raise ValueError(f"{who}: unknown distribution {distribution!r}.{nearest(str(distribution), known)}")


_GAINS = {
    **dict.fromkeys(["linear", *(f"conv{of}{d}d" for of in ("", "_transpose") for d in (1, 2, 3)), "sigmoid"], 1.0),
    "tanh": 5.0 / 3.0,
    "relu": math.sqrt(2.0),
    "selu": 0.75,
}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor for weights before a nonlinearity that keeps the variance of signals.

    relu √2, leaky_relu √(2/(1+slope²)) with ``param`` as slope (0.01), tanh 5/3, selu 3/4, the others 1.

    >>> import kobai
    >>> round(kobai.nn.init.calculate_gain("leaky_relu", 0.2), 4)
    1.3868
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if isinstance(slope, bool) or not isinstance(slope, (int, float)):
            raise ValueError(f"calculate_gain: expected a number as negative slope, got {param!r}")
        return math.sqrt(2.0 / (1.0 + slope * slope))
    if nonlinearity not in _GAINS:
        hint = nearest(str(nonlinearity), [*_GAINS, "leaky_relu"])
        raise ValueError(f"calculate_gain: unknown nonlinearity {nonlinearity!r}.{hint}")
    return _GAINS[nonlinearity]


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Glorot's normal: std = gain · √(2 / (fan_in + fan_out)).

    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010.

    >>> import kobai
    >>> g = kobai.Generator().manual_seed(0)
    >>> w = kobai.nn.init.xavier_normal_(kobai.empty(300, 200), generator=g)
    >>> round(w.var().item(), 3)
    0.004
    """
    return _scaled("xavier_normal_", tensor, gain * gain, "fan_avg", "normal", generator)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Glorot's uniform: U(−l, l) with l = gain · √(6 / (fan_in + fan_out)). AISTATS 2010.

    >>> import kobai
    >>> w = kobai.nn.init.xavier_uniform_(kobai.empty(4, 2))
    >>> w.abs().max().item() <= 1.0
    True
    """
    return _scaled("xavier_uniform_", tensor, gain * gain, "fan_avg", "uniform", generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: Literal["fan_in", "fan_out"] = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """He's normal: std = gain / √fan, with the gain of ``nonlinearity`` (``a`` is the slope of a leaky ReLU).

    He, Zhang, Ren, Sun, "Delving deep into rectifiers", ICCV 2015, arXiv:1502.01852.

    >>> import kobai
    >>> g = kobai.Generator().manual_seed(0)
    >>> w = kobai.nn.init.kaiming_normal_(kobai.empty(500, 200), nonlinearity="relu", generator=g)
    >>> round(w.var().item(), 3)
    0.01
    """
    return _scaled("kaiming_normal_", tensor, calculate_gain(nonlinearity, a) ** 2, mode, "normal", generator)


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0,
    mode: Literal["fan_in", "fan_out"] = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """He's uniform: U(−l, l) with l = gain · √(3 / fan). arXiv:1502.01852.

    >>> import kobai
    >>> w = kobai.nn.init.kaiming_uniform_(kobai.empty(4, 6), nonlinearity="relu")
    >>> w.abs().max().item() <= 1.0
    True
    """
    return _scaled("kaiming_uniform_", tensor, calculate_gain(nonlinearity, a) ** 2, mode, "uniform", generator)


def lecun_normal_(tensor: Tensor, generator: Generator | None = None) -> Tensor:
    """LeCun's normal: std = 1 / √fan_in (what some books call Xavier; right for SELU).

    LeCun, Bottou, Orr, Müller, "Efficient BackProp", 1998.

    >>> import kobai
    >>> g = kobai.Generator().manual_seed(0)
    >>> w = kobai.nn.init.lecun_normal_(kobai.empty(500, 200), generator=g)
    >>> round(w.var().item(), 3)
    0.005
    """
    return _scaled("lecun_normal_", tensor, 1.0, "fan_in", "normal", generator)


def lecun_uniform_(tensor: Tensor, generator: Generator | None = None) -> Tensor:
    """LeCun's uniform: U(−l, l) with l = √(3 / fan_in). "Efficient BackProp", 1998.

    >>> import kobai
    >>> w = kobai.nn.init.lecun_uniform_(kobai.empty(4, 3))
    >>> w.abs().max().item() <= 1.0
    True
    """
    return _scaled("lecun_uniform_", tensor, 1.0, "fan_in", "uniform", generator)


# --- by name: the ``init=`` of layers and of the command line -----------------------------------------------------------

_he = partial(kaiming_normal_, nonlinearity="relu")

# name -> initialiser, and the numbers that it takes: in brackets those that may be left out
_BY_NAME: dict[str, tuple[Callable[..., Tensor], str]] = {
    "he": (_he, ""),
    "kaiming_normal": (_he, ""),
    "kaiming_uniform": (partial(kaiming_uniform_, nonlinearity="relu"), ""),
    "xavier": (xavier_normal_, "[gain]"),
    "xavier_normal": (xavier_normal_, "[gain]"),
    "xavier_uniform": (xavier_uniform_, "[gain]"),
    "lecun": (lecun_normal_, ""),
    "lecun_normal": (lecun_normal_, ""),
    "lecun_uniform": (lecun_uniform_, ""),
    "orthogonal": (orthogonal_, "[gain]"),
    "normal": (lambda t, std, generator: normal_(t, 0.0, std, generator), "std"),
    "trunc_normal": (lambda t, std, generator: trunc_normal_(t, 0.0, std, -2 * std, 2 * std, generator), "std"),
    "uniform": (uniform_, "low, high"),
    "constant": (lambda t, value, generator: constant_(t, value), "value"),
    "zeros": (lambda t, generator: zeros_(t), ""),
    "ones": (lambda t, generator: ones_(t), ""),
}


def by_name(spec: str | Initializer) -> Initializer:
    """The initialiser that ``spec`` names, as a function of ``(tensor, generator=None)``.

    ``he`` (= ``kaiming_normal``: std √(2/fan_in)), ``kaiming_uniform``, ``xavier`` (= ``xavier_normal``: Glorot's),
    ``xavier_uniform``, ``lecun`` (= ``lecun_normal``: std 1/√fan_in), ``lecun_uniform``, ``orthogonal``,
    ``normal(std)``, ``trunc_normal(std)`` (cut at 2 std), ``uniform(low, high)``, ``constant(value)``, ``zeros``,
    ``ones``. A callable comes back as it is.

    Raises:
        ValueError: an unknown name (the nearest known one is offered) or a wrong number of arguments.

    >>> import kobai
    >>> kobai.nn.init.by_name("constant(0.1)")(kobai.empty(2))
    tensor([0.1000, 0.1000])
    """
    if callable(spec):
        return spec
    fill, numbers = read(spec, _BY_NAME)

    def initialise(tensor: Tensor, generator: Generator | None = None) -> Tensor:
        return fill(tensor, *numbers, generator=generator)

    return cast(Initializer, initialise)


# PyTorch's older spellings, without the underscore.
_OLDER = (
    "uniform normal constant eye dirac sparse orthogonal xavier_uniform xavier_normal kaiming_uniform kaiming_normal"
)
globals().update({name: globals()[f"{name}_"] for name in _OLDER.split()})  # PyTorch's older spellings

"""Dense layers, and layers that change the shape: ``Linear``, ``Bilinear``, ``Identity``, ``Flatten``, ``Unflatten``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from kobai.core.tensor import Tensor
from kobai.nn import functional as F, init as _init
from kobai.nn.module import Module
from kobai.nn.parameter import Parameter
from kobai.ops._epilogue import epilogue
from kobai.ops.create import empty
from kobai.ops.shape import flatten, unflatten
from kobai.random import Generator

__all__ = ["Bilinear", "Flatten", "Identity", "Linear", "Unflatten"]


class Identity(Module):
    """y = x. Ignores its arguments, so it can replace any layer.

    >>> import kobai
    >>> kobai.nn.Identity(54, unused=True)(kobai.ones(2))
    tensor([1., 1.])
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        """The input itself."""
        return input


class Linear(Module):
    """y = f(x Wᵀ + b): the dense layer.

    Args:
        in_features, out_features: x is (..., in_features), y is (..., out_features).
        bias: whether there is a b.
        device, dtype: of the parameters; the default device and float32.
        activation: f, ``"relu"``, ``"sigmoid"``, ``"tanh"`` or None: the same as that layer
            afterwards, computed in the product's own memory.
        init: how W is drawn, a name of :func:`kobai.nn.init.by_name` such as ``"he"`` or ``"normal(0.01)"``; b then
            starts at zero. Without it both are drawn from U(−1/√in_features, 1/√in_features), as in PyTorch.
        generator: RNG for the initial weights; by default the global one.

    ``weight`` is (out_features, in_features), ``bias`` is (out_features) or None.

    >>> import kobai
    >>> layer = kobai.nn.Linear(3, 2, activation="relu", init="constant(-1)")
    >>> layer(kobai.ones(1, 3))
    tensor([[0., 0.]], grad_fn=<LinearBackward>)
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        activation: str | None = None,
        init: str | _init.Initializer | None = None,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        self.in_features = _size("Linear", "in_features", in_features)
        self.out_features = _size("Linear", "out_features", out_features)
        epilogue("Linear", activation)  # an unknown name fails here, not in forward
        self.activation = activation
        self.init = init
        self.weight = Parameter(empty(out_features, in_features, device=device, dtype=dtype))
        self.register_parameter("bias", Parameter(empty(out_features, device=device, dtype=dtype)) if bias else None)
        # without arguments, as PyTorch calls it: subclasses write their own
        self.reset_parameters() if generator is None else self.reset_parameters(generator)

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Draw new parameters."""
        _draw(self.weight, self.bias, self.in_features, self.init, generator)

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) → (..., out_features)."""
        return F.linear(input, self.weight, self.bias, activation=self.activation)

    def extra_repr(self) -> str:
        extra = f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        return extra if self.activation is None else f"{extra}, activation={self.activation!r}"


class NonDynamicallyQuantizableLinear(Linear):
    """:class:`Linear` under the name that it has inside PyTorch's ``MultiheadAttention``; programs look for it there."""


class Bilinear(Module):
    """yₖ = x₁ᵀ Aₖ x₂ + bₖ: (..., in1) and (..., in2) → (..., out). ``weight`` is (out, in1, in2).

    >>> import kobai
    >>> kobai.nn.Bilinear(3, 4, 5)(kobai.ones(2, 3), kobai.ones(2, 4)).shape
    kobai.Size([2, 5])
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.in1_features = _size("Bilinear", "in1_features", in1_features)
        self.in2_features = _size("Bilinear", "in2_features", in2_features)
        self.out_features = _size("Bilinear", "out_features", out_features)
        self.weight = Parameter(empty(out_features, in1_features, in2_features, device=device, dtype=dtype))
        self.register_parameter("bias", Parameter(empty(out_features, device=device, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new parameters, from U(−1/√in1, 1/√in1)."""
        _draw(self.weight, self.bias, self.in1_features)

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        """(..., in1), (..., in2) → (..., out)."""
        return F.bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (
            f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
            f"out_features={self.out_features}, bias={self.bias is not None}"
        )


class Flatten(Module):
    """Merge the dimensions from ``start_dim`` to ``end_dim``: (N, C, H, W) → (N, C·H·W).

    >>> import kobai
    >>> kobai.nn.Flatten()(kobai.ones(2, 3, 4)).shape
    kobai.Size([2, 12])
    """

    _repr_names = ("start_dim", "end_dim")

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Tensor) -> Tensor:
        """The input with fewer dimensions."""
        return flatten(input, self.start_dim, self.end_dim)


class Unflatten(Module):
    """Split one dimension into several: the inverse of :class:`Flatten`. One of the sizes may be −1.

    >>> import kobai
    >>> kobai.nn.Unflatten(1, (3, 4))(kobai.ones(2, 12)).shape
    kobai.Size([2, 3, 4])
    """

    _repr_names = ("dim", "unflattened_size")

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        super().__init__()
        if isinstance(dim, str) or not all(isinstance(n, int) for n in unflattened_size):
            raise TypeError(f"Unflatten: expected an int and a tuple of ints, got {dim!r} and {unflattened_size!r}")
        self.dim = dim
        self.unflattened_size = tuple(unflattened_size)

    def forward(self, input: Tensor) -> Tensor:
        """The input with more dimensions."""
        return unflatten(input, self.dim, self.unflattened_size)


def _draw(
    weight: Parameter,
    bias: Parameter | None,
    fan_in: int,
    init: str | _init.Initializer | None = None,
    generator: Generator | None = None,
) -> None:
    """Initial values: all from U(−1/√fan_in, 1/√fan_in), as in PyTorch; or the weight by ``init``, and a zero bias."""
    if init is not None:
        _init.by_name(init)(weight, generator=generator)
        if bias is not None:
            _init.zeros_(bias)
        return
    limit = 1.0 / math.sqrt(max(1, fan_in))
    for parameter in (weight, bias):
        if parameter is not None:
            _init.uniform_(parameter, -limit, limit, generator)


def _size(who: str, what: str, value: Any) -> int:
    """A layer's size, which must be a non-negative integer."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{who}: expected {what} to be an integer, got {value!r}")
    if value < 0:
        raise RuntimeError(f"{who}: expected {what} >= 0, got {value}")
    return int(value)


def _real(who: str, what: str, value: Any) -> Any:
    """A layer's option, which must be a number."""
    if not hasattr(value, "__float__"):
        raise TypeError(f"{who}: expected {what} to be a number, got {value!r}")
    return value

"""``Distribution``: shapes, and what every distribution offers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Size, Tensor
from kobai.dtypes import get_default_dtype
from kobai.engine.dispatch import check
from kobai.ops.broadcast import broadcast_tensors
from kobai.ops.create import as_tensor
from kobai.xp import Array


class Distribution:
    """A probability distribution, or a batch of them.

    ``batch_shape`` is the shape of its parameters, one distribution for each element; ``event_shape`` that of one draw from
    one of them, ``()`` for numbers. Samples have the shape ``sample_shape + batch_shape + event_shape``, log-probabilities
    that without the event.

    ``sample`` draws without a gradient; ``rsample``, where there is one, as a differentiable function of the parameters
    and of noise. Parameters are checked only where the host can read them without waiting.

    >>> import kobai
    >>> d = kobai.distributions.MultivariateNormal(kobai.zeros(5, 3), kobai.eye(3))
    >>> d.batch_shape, d.event_shape, d.sample((2,)).shape
    (kobai.Size([5]), kobai.Size([3]), kobai.Size([2, 5, 3]))
    """

    has_rsample: ClassVar[bool] = False
    _shown: ClassVar[tuple[str, ...]] = ()

    def __init__(self, batch_shape: Sequence[int] = (), event_shape: Sequence[int] = ()) -> None:
        self._batch_shape = Size(batch_shape)
        self._event_shape = Size(event_shape)

    @property
    def batch_shape(self) -> Size:
        """Shape of the batch of distributions."""
        return self._batch_shape

    @property
    def event_shape(self) -> Size:
        """Shape of one draw of one of them."""
        return self._event_shape

    @property
    def mean(self) -> Tensor:
        """Expected value."""
        raise self._lacks("mean")

    @property
    def variance(self) -> Tensor:
        """Expected squared distance from the mean."""
        raise self._lacks("variance")

    @property
    def stddev(self) -> Tensor:
        """Standard deviation, the root of the variance."""
        return self.variance.sqrt()  # type: ignore[no-any-return]

    @property
    def mode(self) -> Tensor:
        """Where probability or density is greatest."""
        raise self._lacks("mode")

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws, ``sample_shape`` of them from each distribution, without a gradient."""
        with no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws that are differentiable in the parameters."""
        raise NotImplementedError(f"{type(self).__name__}.rsample: these draws have no gradient; use sample()")

    def log_prob(self, value: Tensor) -> Tensor:
        """Logarithm of the probability, or of the density, at ``value``."""
        raise self._lacks("log_prob")

    def cdf(self, value: Tensor) -> Tensor:
        """Probability of at most ``value``."""
        raise self._lacks("cdf")

    def entropy(self) -> Tensor:
        """−E[log p], in nats."""
        raise self._lacks("entropy")

    def _lacks(self, what: str) -> NotImplementedError:
        return NotImplementedError(f"{type(self).__name__} has no {what} in Kobai")

    def _extended(self, sample_shape: Sequence[int]) -> Size:
        shape = tuple(sample_shape) if isinstance(sample_shape, Sequence) else (int(sample_shape),)
        return Size((*shape, *self._batch_shape, *self._event_shape))

    def _noise(self, draw: Callable[..., Tensor], sample_shape: Sequence[int]) -> Tensor:
        """``draw(shape, dtype, device)`` for the shape of draws, with dtype and device of the parameters."""
        like: Tensor = self.__dict__[self._shown[0]]
        return draw(self._extended(sample_shape), dtype=like.dtype, device=like.device)

    def _value(self, value: Any) -> Tensor:
        """What a probability is asked of: a Tensor."""
        if not isinstance(value, Tensor):
            raise TypeError(f"{type(self).__name__}: expected the value as a Tensor, got {type(value).__name__}")
        return value

    def __repr__(self) -> str:
        parts = []
        for name in self._shown:
            parameter: Tensor = self.__dict__[name]
            parts.append(f"{name}: {parameter if parameter.numel() == 1 else parameter.size()}")
        return f"{type(self).__name__}({', '.join(parts)})"


def parameters(*values: Any) -> list[Tensor]:
    """Numbers and tensors as tensors of one shape."""
    like = next((v for v in values if isinstance(v, Tensor)), None)
    dtype = get_default_dtype() if like is None or not like.is_floating_point() else like.dtype
    device = None if like is None else like.device
    made = [v if isinstance(v, Tensor) else as_tensor(v, dtype=dtype, device=device) for v in values]
    return list(broadcast_tensors(*made))


def require(who: str, name: str, parameter: Tensor, condition: str, holds: Any) -> None:
    """ValueError for a parameter that does not satisfy ``condition``; on the host only, where looking is cheap."""
    check(_look, who, name, parameter.array, condition, holds)


def _look(who: str, name: str, parameter: Array, condition: str, holds: Any) -> None:
    if type(parameter) is np.ndarray and not holds(parameter).all():
        raise ValueError(f"{who}: expected {name} {condition}, got {Tensor._wrap(parameter)}")

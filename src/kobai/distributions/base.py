"""``Distribution``: shapes, and what every distribution offers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Size, Tensor
from kobai.distributions import constraints
from kobai.dtypes import finfo, get_default_dtype
from kobai.engine.dispatch import check
from kobai.ops.broadcast import broadcast_tensors, expand
from kobai.ops.create import arange, as_tensor
from kobai.ops.random import rand
from kobai.random import resolve
from kobai.xp import Array, asarray, to_host


class Distribution:
    """A probability distribution, or a batch of them.

    ``batch_shape`` is the shape of its parameters, one distribution for each element; ``event_shape`` that of one draw from
    one of them, ``()`` for numbers. Samples have the shape ``sample_shape + batch_shape + event_shape``, log-probabilities
    that without the event.

    ``sample`` draws without a gradient; ``rsample``, where there is one, as a differentiable function of the parameters
    and of noise. ``arg_constraints`` are the sets that parameters are confined to, ``support`` that of the values; what is
    outside is a ValueError, unless ``validate_args=False``, and where the host can read the numbers without waiting.

    A subclass names its parameters in ``arg_constraints`` and keeps them as attributes.

    >>> import kobai
    >>> d = kobai.distributions.MultivariateNormal(kobai.zeros(5, 3), kobai.eye(3))
    >>> d.batch_shape, d.event_shape, d.sample((2,)).shape
    (kobai.Size([5]), kobai.Size([3]), kobai.Size([2, 5, 3]))
    """

    has_rsample: ClassVar[bool] = False
    has_enumerate_support: ClassVar[bool] = False
    arg_constraints: ClassVar[Any] = MappingProxyType({})
    support: Any = None
    _validate_args = True

    def __init__(
        self, batch_shape: Sequence[int] = (), event_shape: Sequence[int] = (), validate_args: bool | None = None
    ) -> None:
        self._batch_shape = Size(batch_shape)
        self._event_shape = Size(event_shape)
        if validate_args is not None:
            self._validate_args = validate_args
        self._shown = tuple(
            name for name in self.arg_constraints if name in self.__dict__
        )  # the parameters that were given
        if self._validate_args:
            for name, constraint in self.arg_constraints.items():
                if not constraints.is_dependent(constraint) and isinstance(value := self.__dict__.get(name), Tensor):
                    self._confined(name, value, constraint)

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Whether parameters and values are checked where ``validate_args`` is not given: True at first."""
        if value not in (True, False):
            raise ValueError(f"set_default_validate_args: expected True or False, got {value!r}")
        Distribution._validate_args = value

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Distribution:
        """The same distribution for a larger batch; parameters are expanded, not copied.

        A subclass with an ``__init__`` of its own overrides this: it begins with ``new = self._get_checked_instance(Itself,
        _instance)``, gives ``new`` what is its own, and ends with ``super().expand(batch_shape, new)``.
        """
        shape = tuple(batch_shape)
        given = {}
        for name in self._shown:
            constraint, value = self.arg_constraints[name], getattr(self, name)
            n = constraint.event_dim
            given[name] = expand(value, *shape, *value.shape[value.ndim - n :]) if isinstance(value, Tensor) else value
        kind: Any = type(self)
        if _instance is not None:  # the constructor is that of the class of ours which it comes from
            kind = next(base for base in kind.__mro__ if base.__module__.startswith("kobai.distributions."))
        made: Distribution = kind(**self._settings(), **given, validate_args=False)
        made._validate_args = self._validate_args
        return self._into(_instance, made)  # type: ignore[no-any-return]

    def _get_checked_instance(self, cls: type[Distribution], _instance: Any = None) -> Any:
        """What an ``expand`` fills: ``_instance``, which that of a subclass made, or a new object without attributes."""
        if _instance is not None:
            return _instance
        if type(self).__init__ is not cls.__init__:
            raise NotImplementedError(
                f"{type(self).__name__}: a subclass of {cls.__name__} with an __init__ of its own must define expand()"
            )
        return object.__new__(type(self))

    @staticmethod
    def _into(instance: Any, made: Distribution) -> Any:
        """``instance``, if there is one, with all that ``made`` has."""
        if instance is None:
            return made
        instance.__dict__.update(made.__dict__)
        return instance

    def _settings(self) -> dict[str, Any]:
        """Arguments that are no parameters of the batch."""
        return {}

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

    def icdf(self, value: Tensor) -> Tensor:
        """The number that a draw is at most with the probability ``value``."""
        raise self._lacks("icdf")

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All values, along a new first dimension."""
        raise self._lacks("enumerate_support")

    def perplexity(self) -> Tensor:
        """e to the entropy."""
        return self.entropy().exp()  # type: ignore[no-any-return]

    def sample_n(self, n: int) -> Tensor:
        """``sample((n,))``."""
        return self.sample((n,))

    def entropy(self) -> Tensor:
        """−E[log p], in nats."""
        raise self._lacks("entropy")

    def _lacks(self, what: str) -> NotImplementedError:
        return NotImplementedError(f"{type(self).__name__} has no {what} in Kobai")

    def _extended_shape(self, sample_shape: Sequence[int] = ()) -> Size:
        shape = tuple(sample_shape) if isinstance(sample_shape, Sequence) else (int(sample_shape),)
        return Size((*shape, *self._batch_shape, *self._event_shape))

    def _confined(self, what: str, value: Tensor, constraint: constraints.Constraint) -> None:
        """ValueError unless ``value`` is in a set."""
        check(_look, f"{type(self).__name__}: expected {what} {constraint.words}", value.detach().array, constraint)

    @property
    def _like(self) -> Tensor:
        """A parameter, for dtype and device."""
        return getattr(self, self._shown[0])  # type: ignore[no-any-return]

    def _noise(self, draw: Callable[..., Tensor], sample_shape: Sequence[int]) -> Tensor:
        """``draw(shape, dtype, device)`` for the shape of draws, with dtype and device of the parameters."""
        return draw(self._extended_shape(sample_shape), dtype=self._like.dtype, device=self._like.device)

    def _uniform(self, sample_shape: Sequence[int]) -> Tensor:
        """Uniform numbers strictly between 0 and 1."""
        u = self._noise(rand, sample_shape)
        smallest = float(finfo(u.dtype).tiny)
        return u.clamp(min=smallest)  # type: ignore[no-any-return]

    def _drawn(self, sample_shape: Sequence[int], name: str, *arguments: Tensor) -> Tensor:
        """Draws by a method of NumPy's generator."""
        return drawn(name, self._extended_shape(sample_shape), *arguments)

    def _validate_sample(self, value: Any) -> Tensor:
        """What a probability is asked of: a Tensor of values in the support, whose shape fits."""
        if not isinstance(value, Tensor):
            who = type(self).__name__
            raise ValueError(f"{who}: expected the value as a Tensor, got {type(value).__name__}")
        if self._validate_args:
            shape = (*self._batch_shape, *self._event_shape)
            for a, b in zip(reversed(value.shape), reversed(shape), strict=False):
                if a != b and 1 not in (a, b):
                    who = type(self).__name__
                    raise ValueError(
                        f"{who}: expected a value (..., {', '.join(map(str, shape))}), got {tuple(value.shape)}"
                    )
            if (support := self.support) is not None:
                self._confined("a value", value, support)
        return value

    def __repr__(self) -> str:
        parts = []
        for name in self._shown:
            parameter: Tensor = self.__dict__[name]
            parts.append(f"{name}: {parameter if parameter.numel() == 1 else parameter.size()}")
        return f"{type(self).__name__}({', '.join(parts)})"


class ExponentialFamily(Distribution):
    """Distributions whose densities are e^(θ·t(x) − F(θ) + k(x)): a name for ``isinstance`` and :func:`register_kl`.

    >>> import kobai
    >>> isinstance(kobai.distributions.Gamma(1.0, 1.0), kobai.distributions.ExponentialFamily)
    True
    """


def drawn(name: str, shape: Sequence[int], *arguments: Tensor) -> Tensor:
    """Draws by a method of NumPy's generator, with dtype and device of the first argument."""
    like = arguments[0]
    given = [np.broadcast_to(to_host(a.detach().array).astype(np.float64), shape) for a in arguments]
    if name == "binomial":
        given[0] = given[0].astype(np.int64)
    made = getattr(resolve(None).numpy, name)(*given)
    return Tensor._wrap(asarray(np.asarray(made, like.dtype), device=like.device))  # type: ignore[no-any-return]


def parameters(*values: Any) -> list[Tensor]:
    """Numbers and tensors as tensors of one shape."""
    like = next((v for v in values if isinstance(v, Tensor)), None)
    dtype = get_default_dtype() if like is None or not like.is_floating_point() else like.dtype
    device = None if like is None else like.device
    made = [v if isinstance(v, Tensor) else as_tensor(v, dtype=dtype, device=device) for v in values]
    return list(broadcast_tensors(*made))


def _look(expected: str, value: Array, constraint: constraints.Constraint) -> None:
    """ValueError for numbers outside a set; of arrays on the host only, where looking is cheap."""
    if type(value) is np.ndarray:
        with no_grad():
            inside = constraint.check(Tensor._wrap(value))
        if not inside.array.all():
            raise ValueError(f"{expected}, got {Tensor._wrap(value)}")


def one_of(who: str, probs: Any, logits: Any) -> tuple[str, Any]:
    """Which of the two parameters is given, by its name, and the parameter."""
    if (probs is None) == (logits is None):
        raise ValueError(f"{who}: expected either probs or logits, got {'neither' if probs is None else 'both'}")
    return ("logits", logits) if probs is None else ("probs", probs)


def clamped(probs: Tensor) -> Tensor:
    """Away from 0 and 1 by rounding, so that logarithms are finite."""
    eps = float(finfo(probs.dtype).eps)
    return probs.clamp(eps, 1 - eps)  # type: ignore[no-any-return]


def counted(n: int, like: Tensor, batch: Sequence[int], expanded: bool) -> Tensor:
    """0 … n − 1 along a new first dimension, of the batch or of ones."""
    values = arange(n, dtype=like.dtype, device=like.device).reshape(n, *[1] * len(batch))
    return values.expand(n, *batch) if expanded else values  # type: ignore[no-any-return]


def summed(x: Tensor, n: int) -> Tensor:
    """Sum over the last ``n`` dimensions."""
    return x.sum(tuple(range(-n, 0))) if n else x

"""Distributions on few values: ``Bernoulli``, ``Categorical``, ``OneHotCategorical``; by probabilities or by logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Size, Tensor
from kobai.distributions import constraints
from kobai.distributions.base import Distribution, ExponentialFamily, clamped, counted, one_of, parameters
from kobai.dtypes import finfo
from kobai.ops.activation import softplus
from kobai.ops.create import eye
from kobai.ops.gather import gather, one_hot
from kobai.ops.random import multinomial, rand
from kobai.ops.softmax import log_softmax


class Bernoulli(ExponentialFamily):
    """1 with probability ``probs``, else 0. ``logits`` are log(p / (1 − p)).

    >>> import kobai
    >>> kobai.distributions.Bernoulli(0.25).log_prob(kobai.tensor(1.0)).exp()
    tensor(0.2500)
    """

    has_enumerate_support = True
    arg_constraints: ClassVar[Any] = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.boolean

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        name, given = one_of("Bernoulli", probs, logits)
        (given,) = parameters(given)
        setattr(self, name, given)
        super().__init__(given.shape, validate_args=validate_args)

    @cached_property
    def probs(self) -> Tensor:
        """σ(logits)."""
        return self.logits.sigmoid()  # type: ignore[no-any-return]

    @cached_property
    def logits(self) -> Tensor:
        """log(p / (1 − p))."""
        return clamped(self.probs).logit()  # type: ignore[no-any-return]

    @property
    def mean(self) -> Tensor:
        """p."""
        return self.probs

    @property
    def mode(self) -> Tensor:
        """1 if p > ½, else 0; nan if p is ½."""
        return (self.probs >= 0.5).to(self.probs.dtype).masked_fill(self.probs == 0.5, math.nan)  # type: ignore[no-any-return]

    @property
    def variance(self) -> Tensor:
        """p (1 − p)."""
        return self.probs * (1 - self.probs)

    @property
    def param_shape(self) -> Size:
        """Shape of the parameter that was given."""
        return self._like.shape

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """0 and 1."""
        return counted(2, self._like, self.batch_shape, expand)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Ones and zeros, as floats."""
        with no_grad():
            return (self._noise(rand, sample_shape) < self.probs).to(self.probs.dtype)  # type: ignore[no-any-return]

    def log_prob(self, value: Tensor) -> Tensor:
        """x log p + (1 − x) log(1 − p) = x·logit − log(1 + e^logit)."""
        return self._validate_sample(value) * self.logits - softplus(self.logits)

    def entropy(self) -> Tensor:
        """−p log p − (1 − p) log(1 − p)."""
        return softplus(self.logits) - self.probs * self.logits


class Categorical(Distribution):
    """One of K classes: by ``probs`` (..., K), which are divided by their sum, or ``logits``, their logarithms up to a
    constant. Values are class indices.

    >>> import kobai
    >>> policy = kobai.distributions.Categorical(logits=kobai.zeros(4))
    >>> policy.log_prob(kobai.tensor(2)).exp()
    tensor(0.2500)
    """

    has_enumerate_support = True
    arg_constraints: ClassVar[Any] = {"probs": constraints.simplex, "logits": constraints.real_vector}

    def __init__(
        self, probs: Tensor | None = None, logits: Tensor | None = None, validate_args: bool | None = None
    ) -> None:
        who = type(self).__name__
        name, given = one_of(who, probs, logits)
        if not isinstance(given, Tensor) or given.ndim < 1:
            raise ValueError(f"{who}: expected a Tensor (..., K) of K classes, got {given!r}")
        setattr(self, name, given / given.sum(-1, keepdim=True) if name == "probs" else log_softmax(given, -1))
        self._classes = given.shape[-1]
        super().__init__(given.shape[:-1], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> constraints.Constraint:
        """0 … K − 1."""
        return constraints.integer_interval(0, self._classes - 1)

    @property
    def param_shape(self) -> Size:
        """Shape of the parameter that was given."""
        return self._like.shape

    @property
    def mean(self) -> Tensor:
        """nan: classes are no numbers."""
        return self._like[..., 0].detach() * math.nan

    @property
    def variance(self) -> Tensor:
        """nan."""
        return self.mean

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """0 … K − 1."""
        return counted(self._classes, self._like, self.batch_shape, expand).long()  # type: ignore[no-any-return]

    @cached_property
    def probs(self) -> Tensor:
        """Probability of every class."""
        return self.logits.exp()  # type: ignore[no-any-return]

    @cached_property
    def logits(self) -> Tensor:
        """Its logarithm."""
        return clamped(self.probs).log()  # type: ignore[no-any-return]

    @property
    def mode(self) -> Tensor:
        """The most probable class."""
        return self.probs.argmax(-1)  # type: ignore[no-any-return]

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Class indices, int64."""
        shape = self._extended_shape(sample_shape)
        count = math.prod(shape[: len(shape) - len(self.batch_shape)])
        with no_grad():
            rows = self.probs.detach().reshape(-1, self._classes)
            drawn = multinomial(rows, max(count, 1), replacement=True)[:, :count]
            return drawn.t().reshape(shape)  # type: ignore[no-any-return]

    def log_prob(self, value: Tensor) -> Tensor:
        """Logarithm of the probability of the class."""
        index = self._validate_sample(value).long()
        shape = np.broadcast_shapes(index.shape, self.batch_shape)
        logits = self.logits.expand(*shape, self._classes)
        return gather(logits, -1, index.expand(shape).unsqueeze(-1)).squeeze(-1)  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        """−Σ p log p; a class of probability 0 adds nothing."""
        lowest = float(finfo(self.logits.dtype).min)
        return -(self.logits.clamp(min=lowest) * self.probs).sum(-1)  # type: ignore[no-any-return]


class OneHotCategorical(Distribution):
    """As :class:`Categorical`, with one-hot vectors (..., K) as values.

    >>> import kobai
    >>> kobai.distributions.OneHotCategorical(kobai.tensor([0.0, 1.0, 0.0])).sample()
    tensor([0., 1., 0.])
    """

    has_enumerate_support = True
    arg_constraints: ClassVar[Any] = {"probs": constraints.simplex, "logits": constraints.real_vector}
    support = constraints.one_hot

    def __init__(
        self, probs: Tensor | None = None, logits: Tensor | None = None, validate_args: bool | None = None
    ) -> None:
        self._categorical = Categorical(probs, logits, validate_args=False)
        name = "probs" if logits is None else "logits"
        setattr(self, name, getattr(self._categorical, name))
        super().__init__(self._categorical.batch_shape, (self._categorical._classes,), validate_args)

    @property
    def mode(self) -> Tensor:
        """The most probable class."""
        return one_hot(self._categorical.mode, self.event_shape[0]).to(self.probs.dtype)  # type: ignore[no-any-return]

    @property
    def param_shape(self) -> Size:
        """Shape of the parameter that was given."""
        return self._like.shape

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """The unit vectors."""
        k = self.event_shape[0]
        values = eye(k, dtype=self._like.dtype, device=self._like.device)
        values = values.reshape(k, *[1] * len(self.batch_shape), k)
        return values.expand(k, *self.batch_shape, k) if expand else values  # type: ignore[no-any-return]

    @cached_property
    def probs(self) -> Tensor:
        """Probability of every class."""
        return self._categorical.probs

    @cached_property
    def logits(self) -> Tensor:
        """Its logarithm."""
        return self._categorical.logits

    @property
    def mean(self) -> Tensor:
        """The probabilities."""
        return self.probs

    @property
    def variance(self) -> Tensor:
        """p (1 − p) of every class."""
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """One-hot vectors, as floats."""
        return one_hot(self._categorical.sample(sample_shape), self._categorical._classes).to(self.probs.dtype)  # type: ignore[no-any-return]

    def log_prob(self, value: Tensor) -> Tensor:
        """Logarithm of the probability of the class that is 1."""
        return self._categorical.log_prob(self._validate_sample(value).argmax(-1))

    def entropy(self) -> Tensor:
        """As of the classes."""
        return self._categorical.entropy()


class OneHotCategoricalStraightThrough(OneHotCategorical):
    """:class:`OneHotCategorical` whose draws have the gradient of the probabilities. Bengio et al., arXiv:1308.3432.

    >>> import kobai
    >>> p = kobai.tensor([0.25, 0.75], requires_grad=True)
    >>> kobai.distributions.OneHotCategoricalStraightThrough(p).rsample().requires_grad
    True
    """

    has_rsample = True

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """A draw, with the gradient of the probabilities."""
        return self.sample(sample_shape) + (self.probs - self.probs.detach())

"""Distributions on few values: ``Bernoulli``, ``Categorical``, ``OneHotCategorical``; by probabilities or by logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.distributions.base import Distribution, parameters, require
from kobai.dtypes import finfo
from kobai.ops.activation import softplus
from kobai.ops.gather import gather, one_hot
from kobai.ops.random import multinomial, rand
from kobai.ops.softmax import log_softmax


def _one_of(who: str, probs: Any, logits: Any) -> tuple[str, Any]:
    """Which of the two parameters is given, by its name, and the parameter."""
    if (probs is None) == (logits is None):
        raise ValueError(f"{who}: expected either probs or logits, got {'neither' if probs is None else 'both'}")
    return ("logits", logits) if probs is None else ("probs", probs)


def _clamped(probs: Tensor) -> Tensor:
    """Away from 0 and 1 by rounding, so that logarithms are finite."""
    eps = float(finfo(probs.dtype).eps)
    return probs.clamp(eps, 1 - eps)  # type: ignore[no-any-return]


class Bernoulli(Distribution):
    """1 with probability ``probs``, else 0. ``logits`` are log(p / (1 − p)).

    >>> import kobai
    >>> kobai.distributions.Bernoulli(0.25).log_prob(kobai.tensor(1.0)).exp()
    tensor(0.2500)
    """

    def __init__(self, probs: Any = None, logits: Any = None) -> None:
        name, given = _one_of("Bernoulli", probs, logits)
        (given,) = parameters(given)
        if name == "probs":
            require("Bernoulli", "probs", given, "in [0, 1]", lambda p: (p >= 0) & (p <= 1))
        setattr(self, name, given)
        self._shown = (name,)  # type: ignore[misc]
        super().__init__(given.shape)

    @cached_property
    def probs(self) -> Tensor:
        """σ(logits)."""
        return self.logits.sigmoid()  # type: ignore[no-any-return]

    @cached_property
    def logits(self) -> Tensor:
        """log(p / (1 − p))."""
        return _clamped(self.probs).logit()  # type: ignore[no-any-return]

    @property
    def mean(self) -> Tensor:
        """p."""
        return self.probs

    @property
    def variance(self) -> Tensor:
        """p (1 − p)."""
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Ones and zeros, as floats."""
        with no_grad():
            return (self._noise(rand, sample_shape) < self.probs).to(self.probs.dtype)  # type: ignore[no-any-return]

    def log_prob(self, value: Tensor) -> Tensor:
        """x log p + (1 − x) log(1 − p) = x·logit − log(1 + e^logit)."""
        return self._value(value) * self.logits - softplus(self.logits)

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

    def __init__(self, probs: Tensor | None = None, logits: Tensor | None = None) -> None:
        who = type(self).__name__
        name, given = _one_of(who, probs, logits)
        if not isinstance(given, Tensor) or given.ndim < 1:
            raise ValueError(f"{who}: expected a Tensor (..., K) of K classes, got {given!r}")
        if name == "probs":
            require(who, "probs", given, "≥ 0 with a positive sum", lambda p: (p >= 0) & (p.sum() > 0))
        setattr(self, name, given / given.sum(-1, keepdim=True) if name == "probs" else log_softmax(given, -1))
        self._shown = (name,)  # type: ignore[misc]
        self._classes = given.shape[-1]
        super().__init__(given.shape[:-1])

    @cached_property
    def probs(self) -> Tensor:
        """Probability of every class."""
        return self.logits.exp()  # type: ignore[no-any-return]

    @cached_property
    def logits(self) -> Tensor:
        """Its logarithm."""
        return _clamped(self.probs).log()  # type: ignore[no-any-return]

    @property
    def mode(self) -> Tensor:
        """The most probable class."""
        return self.probs.argmax(-1)  # type: ignore[no-any-return]

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Class indices, int64."""
        shape = self._extended(sample_shape)
        count = math.prod(shape[: len(shape) - len(self.batch_shape)])
        with no_grad():
            rows = self.probs.detach().reshape(-1, self._classes)
            drawn = multinomial(rows, max(count, 1), replacement=True)[:, :count]
            return drawn.t().reshape(shape)  # type: ignore[no-any-return]

    def log_prob(self, value: Tensor) -> Tensor:
        """Logarithm of the probability of the class."""
        index = self._value(value).long()
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

    def __init__(self, probs: Tensor | None = None, logits: Tensor | None = None) -> None:
        self._categorical = Categorical(probs, logits)
        self._shown = self._categorical._shown  # type: ignore[misc]
        setattr(self, self._shown[0], getattr(self._categorical, self._shown[0]))
        super().__init__(self._categorical.batch_shape, (self._categorical._classes,))

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
        return self._categorical.log_prob(self._value(value).argmax(-1))

    def entropy(self) -> Tensor:
        """As of the classes."""
        return self._categorical.entropy()

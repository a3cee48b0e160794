"""Distributions on the way from continuous to discrete: relaxed Bernoulli and categorical ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

from kobai.core.tensor import Tensor
from kobai.distributions import constraints
from kobai.distributions.base import Distribution, clamped, one_of, parameters
from kobai.distributions.transformed import TransformedDistribution
from kobai.distributions.transforms import ExpTransform, SigmoidTransform
from kobai.ops.softmax import log_softmax


def _log(temperature: Any) -> Any:
    return temperature.log() if isinstance(temperature, Tensor) else math.log(temperature)


class RelaxedBernoulli(TransformedDistribution):
    """Numbers between 0 and 1, nearer to them for a lower ``temperature``. Maddison, Mnih, Teh, arXiv:1611.00712.

    >>> import kobai
    >>> kobai.distributions.RelaxedBernoulli(kobai.tensor(0.5), probs=kobai.tensor([0.5])).rsample().shape
    kobai.Size([1])
    """

    arg_constraints: ClassVar[Any] = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.unit_interval

    def __init__(
        self, temperature: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        name, given = one_of("RelaxedBernoulli", probs, logits)
        (given,) = parameters(given)
        setattr(self, name, given)
        self.temperature = temperature
        super().__init__(
            LogitRelaxedBernoulli(temperature, **{name: given}, validate_args=False), SigmoidTransform(), validate_args
        )

    def _settings(self) -> dict[str, Any]:
        return {"temperature": self.temperature}

    @cached_property
    def probs(self) -> Tensor:
        """σ(logits)."""
        return self.logits.sigmoid()  # type: ignore[no-any-return]

    @cached_property
    def logits(self) -> Tensor:
        """log(p / (1 − p))."""
        return clamped(self.probs).logit()  # type: ignore[no-any-return]


class LogitRelaxedBernoulli(Distribution):
    """Logits of :class:`RelaxedBernoulli`.

    >>> import kobai
    >>> from kobai.distributions.relaxed import LogitRelaxedBernoulli
    >>> LogitRelaxedBernoulli(0.5, logits=0.0).log_prob(kobai.tensor(0.0)).exp()
    tensor(0.1250)
    """

    has_rsample = True
    arg_constraints: ClassVar[Any] = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.real

    def __init__(
        self, temperature: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        name, given = one_of("LogitRelaxedBernoulli", probs, logits)
        (given,) = parameters(given)
        setattr(self, name, given)
        self.temperature = temperature
        super().__init__(given.shape, validate_args=validate_args)

    _settings = RelaxedBernoulli._settings
    probs: Any = RelaxedBernoulli.probs
    logits: Any = RelaxedBernoulli.logits

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """(logit p + logit u) / temperature with u uniform."""
        u = clamped(self._uniform(sample_shape))
        return (u.log() - (-u).log1p() + self.logits) / self.temperature  # type: ignore[no-any-return]

    def log_prob(self, value: Tensor) -> Tensor:
        """log t + d − 2 log(1 + e^d) with d = logit p − t x."""
        d = self.logits - self._validate_sample(value) * self.temperature
        return _log(self.temperature) + d - 2 * d.exp().log1p()  # type: ignore[no-any-return]


class ExpRelaxedCategorical(Distribution):
    """Logarithms of :class:`RelaxedOneHotCategorical`.

    >>> import kobai
    >>> from kobai.distributions.relaxed import ExpRelaxedCategorical
    >>> ExpRelaxedCategorical(1.0, logits=kobai.zeros(3)).rsample().exp().sum().isclose(kobai.tensor(1.0))
    tensor(True)
    """

    has_rsample = True
    arg_constraints: ClassVar[Any] = {"probs": constraints.simplex, "logits": constraints.real_vector}
    support = constraints.real_vector

    def __init__(
        self, temperature: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        name, given = one_of("ExpRelaxedCategorical", probs, logits)
        setattr(
            self,
            name,
            given / given.sum(-1, keepdim=True) if name == "probs" else given - given.logsumexp(-1, keepdim=True),
        )
        self.temperature = temperature
        super().__init__(given.shape[:-1], given.shape[-1:], validate_args)

    _settings = RelaxedBernoulli._settings

    @cached_property
    def probs(self) -> Tensor:
        """Probability of every class."""
        return self.logits.exp()  # type: ignore[no-any-return]

    @cached_property
    def logits(self) -> Tensor:
        """Its logarithm."""
        return clamped(self.probs).log()  # type: ignore[no-any-return]

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Normalised (log p + Gumbel noise) / temperature."""
        noise = -(-clamped(self._uniform(sample_shape)).log()).log()
        scores = (self.logits + noise) / self.temperature
        return log_softmax(scores, -1)

    def log_prob(self, value: Tensor) -> Tensor:
        """log Γ(K) + (K − 1) log t + Σ sᵢ − K log Σ e^sᵢ with s = log p − t x."""
        scores = self.logits - self._validate_sample(value) * self.temperature
        k = self.event_shape[0]
        scores = log_softmax(scores, -1).sum(-1)
        return scores + math.lgamma(k) + (k - 1) * _log(self.temperature)  # type: ignore[no-any-return]


class RelaxedOneHotCategorical(TransformedDistribution):
    """Points of the simplex, nearer to its corners for a lower ``temperature``. Jang, Gu, Poole, arXiv:1611.01144.

    >>> import kobai
    >>> kobai.distributions.RelaxedOneHotCategorical(1.0, logits=kobai.zeros(3)).rsample().sum().isclose(kobai.tensor(1.0))
    tensor(True)
    """

    arg_constraints: ClassVar[Any] = {"probs": constraints.simplex, "logits": constraints.real_vector}
    support = constraints.simplex

    def __init__(
        self, temperature: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        base = ExpRelaxedCategorical(temperature, probs, logits, validate_args=False)
        name = "probs" if logits is None else "logits"
        setattr(self, name, getattr(base, name))
        self.temperature = temperature
        super().__init__(base, ExpTransform(), validate_args)

    _settings = RelaxedBernoulli._settings
    probs: Any = ExpRelaxedCategorical.probs
    logits: Any = ExpRelaxedCategorical.logits

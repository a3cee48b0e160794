"""Distributions on counts: binomial, geometric, negative binomial, multinomial, Poisson."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

from kobai.core.tensor import Tensor
from kobai.distributions import constraints
from kobai.distributions.base import Distribution, ExponentialFamily, clamped, counted, drawn, one_of, parameters
from kobai.distributions.discrete import Categorical
from kobai.ops.activation import softplus
from kobai.ops.broadcast import broadcast_tensors
from kobai.ops.create import as_tensor
from kobai.ops.gather import one_hot
from kobai.ops.special import lgamma, xlogy


class _Odds(Distribution):
    """A distribution with a probability, given as ``probs`` or as ``logits``, and perhaps a count."""

    arg_constraints: ClassVar[Any] = {"probs": constraints.unit_interval, "logits": constraints.real}

    def _given(self, probs: Any, logits: Any, **others: Any) -> None:
        """Keep the parameter, and ``others``, of one shape."""
        name, value = one_of(type(self).__name__, probs, logits)
        made = parameters(value, *others.values())
        for key, tensor in zip((name, *others), made, strict=True):
            setattr(self, key, tensor)

    @cached_property
    def probs(self) -> Tensor:
        """σ(logits)."""
        return self.logits.sigmoid()  # type: ignore[no-any-return]

    @cached_property
    def logits(self) -> Tensor:
        """log(p / (1 − p))."""
        return clamped(self.probs).logit()  # type: ignore[no-any-return]

    @property
    def param_shape(self) -> Any:
        """Shape of the parameter that was given."""
        return self._odds.shape

    @property
    def _odds(self) -> Tensor:
        """The parameter that was given."""
        return self.__dict__["probs"] if "probs" in self.__dict__ else self.__dict__["logits"]  # type: ignore[no-any-return]


class Geometric(_Odds):
    """Failures before the first success of probability p: P(k) = (1 − p)ᵏ p, k = 0, 1, ...

    >>> import kobai
    >>> kobai.distributions.Geometric(0.25).mean
    tensor(3.)
    """

    support = constraints.nonnegative_integer

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        self._given(probs, logits)
        super().__init__(self._odds.shape, validate_args=validate_args)
        if self._validate_args and probs is not None:
            self._confined("probs", self.probs, constraints.positive)

    @property
    def mean(self) -> Tensor:
        """(1 − p)/p."""
        return 1 / self.probs - 1

    @property
    def mode(self) -> Tensor:
        """0."""
        return self.probs * 0

    @property
    def variance(self) -> Tensor:
        """(1 − p)/p²."""
        return (1 / self.probs - 1) / self.probs

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """⌊log u / log(1 − p)⌋ with u uniform, without a gradient."""
        u = self._uniform(sample_shape)
        return (u.log() / (-self.probs.detach()).log1p()).floor()  # type: ignore[no-any-return]

    def log_prob(self, value: Tensor) -> Tensor:
        """k log(1 − p) + log p."""
        k = self._validate_sample(value)
        return xlogy(k, 1 - self.probs) + self.probs.log()  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        """That of one trial, over p."""
        return (softplus(self.logits) - self.probs * self.logits) / self.probs


class Binomial(_Odds):
    """Successes of probability p in ``total_count`` trials.

    >>> import kobai
    >>> kobai.distributions.Binomial(4, 0.25).mean
    tensor(1.)
    """

    total_count: Tensor
    has_enumerate_support = True
    arg_constraints: ClassVar[Any] = {"total_count": constraints.nonnegative_integer, **_Odds.arg_constraints}

    def __init__(
        self, total_count: Any = 1, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        self._given(probs, logits, total_count=total_count)
        self.total_count = self.total_count.to(self._odds.dtype)
        super().__init__(self._odds.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> constraints.Constraint:
        """0 … n."""
        return constraints.integer_interval(0, self.total_count)

    @property
    def mean(self) -> Tensor:
        """np."""
        return self.total_count * self.probs

    @property
    def mode(self) -> Tensor:
        """⌊(n + 1) p⌋, at most n."""
        return ((self.total_count + 1) * self.probs).floor().minimum(self.total_count)  # type: ignore[no-any-return]

    @property
    def variance(self) -> Tensor:
        """np(1 − p)."""
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Counts, as floats, without a gradient."""
        return self._drawn(sample_shape, "binomial", self.total_count, self.probs)

    def log_prob(self, value: Tensor) -> Tensor:
        """log n! − log k! − log (n − k)! + k logit p − n log(1 + e^logit)."""
        k, n = self._validate_sample(value), self.total_count
        ways = lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
        return ways + k * self.logits - n * softplus(self.logits)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """0 … n; NotImplementedError if the counts of the batch differ."""
        n = int(self.total_count.max())
        if n != int(self.total_count.min()):
            raise NotImplementedError("Binomial.enumerate_support: expected one total_count for all of the batch")
        return counted(n + 1, self._odds, self.batch_shape, expand)

    def entropy(self) -> Tensor:
        """−Σ P log P over all counts."""
        log_prob = self.log_prob(self.enumerate_support(False))
        return -(log_prob.exp() * log_prob).sum(0)  # type: ignore[no-any-return]


class NegativeBinomial(_Odds):
    """Successes of probability p before ``total_count`` failures.

    >>> import kobai
    >>> kobai.distributions.NegativeBinomial(3.0, 0.5).mean
    tensor(3.)
    """

    total_count: Tensor
    arg_constraints: ClassVar[Any] = {
        "total_count": constraints.greater_than_eq(0),
        "probs": constraints.half_open_interval(0.0, 1.0),
        "logits": constraints.real,
    }
    support = constraints.nonnegative_integer

    def __init__(
        self, total_count: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        self._given(probs, logits, total_count=total_count)
        super().__init__(self.total_count.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """n p / (1 − p)."""
        return self.total_count * self.logits.exp()  # type: ignore[no-any-return]

    @property
    def mode(self) -> Tensor:
        """⌊(n − 1) p / (1 − p)⌋, at least 0."""
        return ((self.total_count - 1) * self.logits.exp()).floor().clamp(min=0)  # type: ignore[no-any-return]

    @property
    def variance(self) -> Tensor:
        """n p / (1 − p)²."""
        return self.mean / (-self.logits).sigmoid()  # type: ignore[no-any-return]

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Poisson counts of a Gamma(n, (1 − p)/p) rate, without a gradient."""
        shape = self._extended_shape(sample_shape)
        rate = drawn("standard_gamma", shape, self.total_count) * self.logits.detach().exp()
        return drawn("poisson", shape, rate)

    def log_prob(self, value: Tensor) -> Tensor:
        """n log(1 − p) + k log p + log Γ(n + k) − log k! − log Γ(n)."""
        k, n = self._validate_sample(value), self.total_count
        ways = lgamma(n + k) - lgamma(k + 1) - lgamma(n)
        return ways - n * softplus(self.logits) - k * softplus(-self.logits)


class Poisson(ExponentialFamily):
    """Events in a time of which ``rate`` λ are expected: P(k) = λᵏ e^−λ / k!

    >>> import kobai
    >>> kobai.distributions.Poisson(4.0).variance
    tensor(4.)
    """

    arg_constraints: ClassVar[Any] = {"rate": constraints.nonnegative}
    support = constraints.nonnegative_integer

    def __init__(self, rate: Any, validate_args: bool | None = None) -> None:
        (self.rate,) = parameters(rate)
        super().__init__(self.rate.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """λ."""
        return self.rate

    @property
    def mode(self) -> Tensor:
        """⌊λ⌋."""
        return self.rate.floor()  # type: ignore[no-any-return]

    @property
    def variance(self) -> Tensor:
        """λ."""
        return self.rate

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Counts, as floats, without a gradient."""
        return self._drawn(sample_shape, "poisson", self.rate)

    def log_prob(self, value: Tensor) -> Tensor:
        """k log λ − λ − log k!."""
        k = self._validate_sample(value)
        return xlogy(k, self.rate) - self.rate - lgamma(k + 1)


class Multinomial(Distribution):
    """How often each of K classes is drawn in ``total_count`` draws, by ``probs`` (..., K) or ``logits``.

    >>> import kobai
    >>> kobai.distributions.Multinomial(4, kobai.tensor([1.0, 3.0])).mean
    tensor([1., 3.])
    """

    arg_constraints: ClassVar[Any] = {"probs": constraints.simplex, "logits": constraints.real_vector}

    def __init__(
        self,
        total_count: int = 1,
        probs: Tensor | None = None,
        logits: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(total_count, int):
            raise NotImplementedError(f"Multinomial: expected total_count as one integer, got {total_count!r}")
        self.total_count = total_count
        self._categorical = Categorical(probs, logits, validate_args=False)
        name = "probs" if logits is None else "logits"
        setattr(self, name, getattr(self._categorical, name))
        super().__init__(self._categorical.batch_shape, (self._categorical._classes,), validate_args)

    def _settings(self) -> dict[str, Any]:
        return {"total_count": self.total_count}

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> constraints.Constraint:
        """Counts with the sum n."""
        return constraints.multinomial(self.total_count)

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
        """n p."""
        return self.probs * self.total_count

    @property
    def variance(self) -> Tensor:
        """n p (1 − p)."""
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Counts, as floats, without a gradient."""
        shape = self._extended_shape(sample_shape)
        classes = self._categorical.sample((self.total_count, *shape[: len(shape) - 1 - len(self.batch_shape)]))
        return one_hot(classes, shape[-1]).sum(0).to(self.probs.dtype)  # type: ignore[no-any-return]

    def log_prob(self, value: Tensor) -> Tensor:
        """log n! − Σ log kᵢ! + Σ kᵢ log pᵢ."""
        k, logits = broadcast_tensors(self._validate_sample(value), self.logits)
        ways = lgamma(k.sum(-1) + 1) - lgamma(k + 1).sum(-1)
        return ways + (k * logits.masked_fill((k == 0) & (logits < -1e30), 0)).sum(-1)  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        """n times that of a class, less what the order is worth."""
        n = as_tensor(float(self.total_count), dtype=self.probs.dtype, device=self.probs.device)
        counts = Binomial(self.total_count, self.probs, validate_args=False)
        ways = lgamma(counts.enumerate_support(False)[1:] + 1)
        chances = counts.log_prob(counts.enumerate_support(False)[1:]).exp()
        return n * self._categorical.entropy() - lgamma(n + 1) + (chances * ways).sum((0, -1))  # type: ignore[no-any-return]

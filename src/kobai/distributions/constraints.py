"""Sets that parameters and values may be confined to, under the names of ``torch.distributions.constraints``.

``constraint.check(x)`` gives a truth value for each event, which are the last ``event_dim`` dimensions of x.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kobai import linalg
from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.ops.joining import cat as _cat, stack as _stack
from kobai.ops.parts import unbind

__all__ = [
    "Constraint",
    "boolean",
    "cat",
    "corr_cholesky",
    "dependent",
    "dependent_property",
    "greater_than",
    "greater_than_eq",
    "half_open_interval",
    "independent",
    "integer_interval",
    "interval",
    "is_dependent",
    "less_than",
    "lower_cholesky",
    "lower_triangular",
    "multinomial",
    "nonnegative",
    "nonnegative_integer",
    "one_hot",
    "positive",
    "positive_definite",
    "positive_integer",
    "positive_semidefinite",
    "real",
    "real_vector",
    "simplex",
    "square",
    "stack",
    "symmetric",
    "unit_interval",
]


class Constraint:
    """A set. ``words`` says in error messages what is expected."""

    is_discrete = False
    event_dim = 0
    words = "in its set"

    def check(self, value: Tensor) -> Tensor:
        """Whether each event of ``value`` is in the set."""
        raise NotImplementedError(f"{type(self).__name__} has no check")

    def __repr__(self) -> str:
        return f"{type(self).__name__.lstrip('_')}()"


class _Where(Constraint):
    """A set told by a function of tensors."""

    def __init__(
        self, name: str, words: str, holds: Callable[[Tensor], Any], event_dim: int = 0, is_discrete: bool = False
    ) -> None:
        self.name, self.words, self.holds = name, words, holds
        self.event_dim, self.is_discrete = event_dim, is_discrete

    def check(self, value: Tensor) -> Tensor:
        return self.holds(value)  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return self.name


class _Dependent(Constraint):
    """A set that depends on the parameters of an object."""

    words = "in a set that depends on other parameters"

    def __init__(self, *, is_discrete: bool = False, event_dim: int = 0) -> None:
        self.is_discrete, self.event_dim = is_discrete, event_dim

    def __call__(self, *, is_discrete: bool = False, event_dim: int = 0) -> _Dependent:
        return _Dependent(is_discrete=is_discrete, event_dim=event_dim)

    def check(self, value: Tensor) -> Tensor:
        raise ValueError("constraints.dependent: expected a constraint that does not depend on parameters to check")


class dependent_property(property, _Dependent):
    """A property that is a constraint of an instance, and ``dependent`` of its class."""

    def __init__(self, fn: Any = None, *, is_discrete: bool = False, event_dim: int = 0) -> None:
        super().__init__(fn)
        self.is_discrete, self.event_dim = is_discrete, event_dim

    def __call__(self, fn: Any) -> dependent_property:  # type: ignore[override]
        return dependent_property(fn, is_discrete=self.is_discrete, event_dim=self.event_dim)


def is_dependent(constraint: Any) -> bool:
    """Whether a constraint depends on parameters."""
    return isinstance(constraint, _Dependent)


def greater_than(lower_bound: Any) -> Constraint:
    """x > lower_bound."""
    return _bounded("GreaterThan", lower_bound=lower_bound)


def greater_than_eq(lower_bound: Any) -> Constraint:
    """x ≥ lower_bound."""
    return _bounded("GreaterThanEq", lower_bound=lower_bound)


def less_than(upper_bound: Any) -> Constraint:
    """x < upper_bound."""
    return _bounded("LessThan", upper_bound=upper_bound)


def interval(lower_bound: Any, upper_bound: Any) -> Constraint:
    """lower_bound ≤ x ≤ upper_bound."""
    return _bounded("Interval", lower_bound=lower_bound, upper_bound=upper_bound)


def half_open_interval(lower_bound: Any, upper_bound: Any) -> Constraint:
    """lower_bound ≤ x < upper_bound."""
    return _bounded("HalfOpenInterval", lower_bound=lower_bound, upper_bound=upper_bound)


def integer_interval(lower_bound: Any, upper_bound: Any) -> Constraint:
    """Integers from lower_bound to upper_bound."""
    return _bounded("IntegerInterval", lower_bound=lower_bound, upper_bound=upper_bound)


_BOUNDS: dict[str, tuple[str, Callable[..., Any]]] = {
    "GreaterThan": ("> {lower_bound}", lambda x, lower_bound: x > lower_bound),
    "GreaterThanEq": (">= {lower_bound}", lambda x, lower_bound: x >= lower_bound),
    "LessThan": ("< {upper_bound}", lambda x, upper_bound: x < upper_bound),
    "Interval": (
        "in [{lower_bound}, {upper_bound}]",
        lambda x, lower_bound, upper_bound: (x >= lower_bound) & (x <= upper_bound),
    ),
    "HalfOpenInterval": (
        "in [{lower_bound}, {upper_bound})",
        lambda x, lower_bound, upper_bound: (x >= lower_bound) & (x < upper_bound),
    ),
    "IntegerInterval": (
        "an integer in [{lower_bound}, {upper_bound}]",
        lambda x, lower_bound, upper_bound: (x % 1 == 0) & (x >= lower_bound) & (x <= upper_bound),
    ),
    "IntegerGreaterThan": (
        "an integer >= {lower_bound}",
        lambda x, lower_bound: (x % 1 == 0) & (x >= lower_bound),
    ),
}


class _Bounded(_Where):
    """Numbers between bounds, which are its attributes."""

    def __init__(self, kind: str, bounds: dict[str, Any]) -> None:
        words, holds = _BOUNDS[kind]
        shown = ", ".join(f"{name}={bound}" for name, bound in bounds.items())
        super().__init__(
            f"{kind}({shown})",
            words.format(**{name: f"{b:g}" if isinstance(b, float) else b for name, b in bounds.items()}),
            lambda x: holds(x, **bounds),
            is_discrete=kind.startswith("Int"),
        )
        self.kind = kind
        self.__dict__.update(bounds)


def _bounded(kind: str, **bounds: Any) -> Constraint:
    return _Bounded(kind, bounds)


class independent(Constraint):
    """The last ``reinterpreted_batch_ndims`` dimensions of a batch of events as one event, which all have to be in the set."""

    def __init__(self, base_constraint: Constraint, reinterpreted_batch_ndims: int) -> None:
        self.base_constraint, self.reinterpreted_batch_ndims = base_constraint, reinterpreted_batch_ndims
        self.is_discrete, self.words = base_constraint.is_discrete, base_constraint.words
        self.event_dim = base_constraint.event_dim + reinterpreted_batch_ndims

    def check(self, value: Tensor) -> Tensor:
        """Whether all events are."""
        result = self.base_constraint.check(value)
        n = self.reinterpreted_batch_ndims
        if result.ndim < n:
            raise ValueError(f"constraints.independent: expected {n} dimensions of events, got {tuple(value.shape)}")
        return result.flatten(result.ndim - n).all(-1) if n else result

    def __repr__(self) -> str:
        return f"Independent({self.base_constraint!r}, {self.reinterpreted_batch_ndims})"


class cat(Constraint):
    """Parts along ``dim``, of ``lengths`` (default: one each), that have constraints of their own."""

    def __init__(self, cseq: Sequence[Constraint], dim: int = 0, lengths: Sequence[int] | None = None) -> None:
        self.cseq, self.dim = list(cseq), dim
        self.lengths = [1] * len(self.cseq) if lengths is None else list(lengths)
        self.is_discrete = any(c.is_discrete for c in self.cseq)
        self.event_dim = max(c.event_dim for c in self.cseq)

    def check(self, value: Tensor) -> Tensor:
        """Of all parts, side by side."""
        parts = value.split(self.lengths, self.dim)
        return _cat([c.check(part) for c, part in zip(self.cseq, parts, strict=True)], self.dim)


class stack(Constraint):
    """Slices along ``dim`` that have constraints of their own."""

    def __init__(self, cseq: Sequence[Constraint], dim: int = 0) -> None:
        self.cseq, self.dim = list(cseq), dim
        self.is_discrete = any(c.is_discrete for c in self.cseq)
        self.event_dim = max(c.event_dim for c in self.cseq) + (dim < 0)

    def check(self, value: Tensor) -> Tensor:
        """Of all slices, side by side."""
        parts = unbind(value, self.dim)
        return _stack([c.check(part) for c, part in zip(self.cseq, parts, strict=True)], self.dim)


def _whole(x: Tensor) -> Any:
    """Whether all elements of each matrix hold."""
    return x.flatten(x.ndim - 2).all(-1)


def _triangle(x: Tensor) -> Any:
    return _whole(x.tril() == x)


def _positive_diagonal(x: Tensor) -> Any:
    return (x.diagonal(dim1=-2, dim2=-1) > 0).all(-1)


def _symmetric(x: Tensor) -> Any:
    return _whole((x - x.mT).abs() <= 1e-6 * (1 + x.abs()))


def _least_eigenvalue(x: Tensor) -> Any:
    with no_grad():
        return linalg.eigvalsh(x).amin(-1)


def _norms(x: Tensor) -> Any:
    return ((x * x).sum(-1) - 1).abs() < 1e-4


dependent = _Dependent()
real: Constraint = _Where("Real()", "a number, not nan", lambda x: x == x)
boolean: Constraint = _Where("Boolean()", "0 or 1", lambda x: (x == 0) | (x == 1), is_discrete=True)
nonnegative = greater_than_eq(0.0)
positive = greater_than(0.0)
nonnegative_integer = _bounded("IntegerGreaterThan", lower_bound=0)
positive_integer = _bounded("IntegerGreaterThan", lower_bound=1)
unit_interval = interval(0.0, 1.0)
real_vector: Constraint = independent(real, 1)
simplex: Constraint = _Where(
    "Simplex()",
    "numbers >= 0 with the sum 1",
    lambda x: (x >= 0).all(-1) & ((x.sum(-1) - 1).abs() < 1e-6 * max(1, x.shape[-1])),
    1,
)
one_hot: Constraint = _Where(
    "OneHot()", "one 1 among zeros", lambda x: ((x == 0) | (x == 1)).all(-1) & (x.sum(-1) == 1), 1, is_discrete=True
)
square: Constraint = _Where(
    "Square()", "square matrices", lambda x: _whole((x == x) | True) & (x.shape[-1] == x.shape[-2]), 2
)
lower_triangular: Constraint = _Where("LowerTriangular()", "lower triangular matrices", _triangle, 2)
lower_cholesky: Constraint = _Where(
    "LowerCholesky()", "lower triangles with a positive diagonal", lambda x: _triangle(x) & _positive_diagonal(x), 2
)
corr_cholesky: Constraint = _Where(
    "CorrCholesky()",
    "lower triangles with a positive diagonal and rows of norm 1",
    lambda x: _triangle(x) & _positive_diagonal(x) & _norms(x).all(-1),
    2,
)
symmetric: Constraint = _Where("Symmetric()", "symmetric matrices", _symmetric, 2)
positive_semidefinite: Constraint = _Where(
    "PositiveSemidefinite()",
    "positive semidefinite matrices",
    lambda x: _symmetric(x) & (_least_eigenvalue(x) >= 0),
    2,
)
positive_definite: Constraint = _Where(
    "PositiveDefinite()", "positive definite matrices", lambda x: _symmetric(x) & (linalg.cholesky_ex(x).info == 0), 2
)


class multinomial(Constraint):
    """Counts (..., K) with the sum ``upper_bound``."""

    is_discrete = True
    event_dim = 1

    def __init__(self, upper_bound: Any) -> None:
        self.upper_bound = upper_bound
        self.words = f"counts with a sum of at most {upper_bound}"

    def check(self, value: Tensor) -> Tensor:
        """Whether each vector is such counts."""
        return (value >= 0).all(-1) & (value.sum(-1) <= self.upper_bound)  # type: ignore[no-any-return]

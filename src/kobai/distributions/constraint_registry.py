"""``biject_to`` and ``transform_to``: a transform from free numbers to each constraint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kobai.distributions import constraints, transforms
from kobai.distributions.transform import Transform

Factory = Callable[[Any], Transform]


class ConstraintRegistry:
    """Constraints, or classes of them, and what makes the transform to one.

    >>> import kobai
    >>> from kobai.distributions import constraints, transform_to
    >>> transform_to(constraints.positive)(kobai.tensor(0.0))
    tensor(1.)
    """

    def __init__(self) -> None:
        self._factories: list[tuple[Any, Factory]] = []

    def register(self, constraint: Any, factory: Factory | None = None) -> Any:
        """Have ``factory(constraint)`` called for a constraint, or a class of them; a decorator without ``factory``."""
        if factory is None:
            return lambda made: self.register(constraint, made)
        self._factories.insert(0, (constraint, factory))
        return factory

    def __call__(self, constraint: Any) -> Transform:
        """The transform to a constraint."""
        for known, factory in self._factories:
            if constraint is known or (isinstance(known, type) and isinstance(constraint, known)):
                return factory(constraint)
        kind = getattr(constraint, "kind", None)
        if kind in _KINDS:
            return _KINDS[kind](constraint)
        raise NotImplementedError(f"constraint_registry: no transform to {constraint!r}")


def _above(c: Any) -> Transform:
    exponential = transforms.ExpTransform()
    if isinstance(c.lower_bound, (int, float)) and c.lower_bound == 0:
        return exponential
    return transforms.ComposeTransform([exponential, transforms.AffineTransform(c.lower_bound, 1)])


def _below(c: Any) -> Transform:
    return transforms.ComposeTransform([transforms.ExpTransform(), transforms.AffineTransform(c.upper_bound, -1)])


def _between(c: Any) -> Transform:
    if all(isinstance(b, (int, float)) for b in (c.lower_bound, c.upper_bound)) and (c.lower_bound, c.upper_bound) == (
        0,
        1,
    ):
        return transforms.SigmoidTransform()
    affine = transforms.AffineTransform(c.lower_bound, c.upper_bound - c.lower_bound)
    return transforms.ComposeTransform([transforms.SigmoidTransform(), affine])


_KINDS: dict[str, Factory] = {
    "GreaterThan": _above,
    "GreaterThanEq": _above,
    "LessThan": _below,
    "Interval": _between,
    "HalfOpenInterval": _between,
}

biject_to = ConstraintRegistry()
"""The bijection from free numbers to a constraint: ``biject_to(constraints.positive)`` is an ExpTransform."""

transform_to = ConstraintRegistry()
"""A transform from free numbers onto a constraint, simpler than a bijection: of the simplex it is softmax."""

for _registry in (biject_to, transform_to):
    _registry.register(constraints.real, lambda c: transforms.identity_transform)
    _registry.register(
        constraints.independent,
        lambda c, to=_registry: transforms.IndependentTransform(to(c.base_constraint), c.reinterpreted_batch_ndims),  # type: ignore[misc]
    )
    _registry.register(
        constraints.cat,
        lambda c, to=_registry: transforms.CatTransform([to(x) for x in c.cseq], c.dim, c.lengths),  # type: ignore[misc]
    )
    _registry.register(
        constraints.stack,
        lambda c, to=_registry: transforms.StackTransform([to(x) for x in c.cseq], c.dim),  # type: ignore[misc]
    )
    _registry.register(constraints.corr_cholesky, lambda c: transforms.CorrCholeskyTransform())
    _registry.register(constraints.lower_cholesky, lambda c: transforms.LowerCholeskyTransform())
    _registry.register(constraints.positive_definite, lambda c: transforms.PositiveDefiniteTransform())
biject_to.register(constraints.simplex, lambda c: transforms.StickBreakingTransform())
transform_to.register(constraints.simplex, lambda c: transforms.SoftmaxTransform())

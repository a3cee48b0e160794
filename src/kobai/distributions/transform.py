"""``Transform``, and transforms made of others. What they compute with is in :mod:`kobai.distributions.transforms`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from kobai.core.tensor import Size, Tensor
from kobai.distributions import constraints
from kobai.distributions.base import summed
from kobai.ops.joining import cat, stack
from kobai.ops.parts import unbind


class Transform:
    """y = t(x), x = t.inv(y), log |dy/dx| = t.log_abs_det_jacobian(x, y).

    A subclass defines ``_call``, and ``_inverse`` and ``log_abs_det_jacobian`` as far as there are such; ``domain`` and
    ``codomain`` are constraints, whose ``event_dim`` says how many last dimensions belong to one event. ``sign`` is ±1 for
    a rising or falling function of one number. With ``cache_size=1`` the last x and y are kept, so that t.inv(t(x)) is x.

    >>> import kobai
    >>> t = kobai.distributions.ExpTransform()
    >>> t.inv(t(kobai.tensor(1.5))), t.log_abs_det_jacobian(kobai.tensor(1.5), None)
    (tensor(1.5000), tensor(1.5000))
    """

    bijective: Any = False
    domain: Any = constraints.real
    codomain: Any = constraints.real
    sign: Any = None

    def __init__(self, cache_size: int = 0) -> None:
        if cache_size not in (0, 1):
            raise ValueError(f"{type(self).__name__}: expected cache_size 0 or 1, got {cache_size!r}")
        self._cache_size = cache_size
        self._last: tuple[Any, Any] = (None, None)

    @property
    def event_dim(self) -> int:
        """Dimensions of an event, where domain and codomain have as many."""
        if self.domain.event_dim != self.codomain.event_dim:
            raise ValueError(f"{type(self).__name__}: events of domain and codomain differ; use domain.event_dim")
        return self.domain.event_dim  # type: ignore[no-any-return]

    @property
    def inv(self) -> Transform:
        """The inverse transform."""
        return _InverseTransform(self)

    def with_cache(self, cache_size: int = 1) -> Transform:
        """The same transform with another ``cache_size``."""
        if cache_size == self._cache_size:
            return self
        made = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__)
        made._cache_size, made._last = cache_size, (None, None)
        return made

    def __call__(self, x: Tensor) -> Tensor:
        """t(x)."""
        if self._cache_size and x is self._last[0]:
            return self._last[1]  # type: ignore[no-any-return]
        y = self._call(x)
        if self._cache_size:
            self._last = x, y
        return y

    def _inv_call(self, y: Tensor) -> Tensor:
        if self._cache_size and y is self._last[1]:
            return self._last[0]  # type: ignore[no-any-return]
        x = self._inverse(y)
        if self._cache_size:
            self._last = x, y
        return x

    def _call(self, x: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no _call")

    def _inverse(self, y: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no inverse")

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log |det dy/dx| at x, where y = t(x)."""
        raise NotImplementedError(f"{type(self).__name__} has no log_abs_det_jacobian")

    def forward_shape(self, shape: Sequence[int]) -> Any:
        """Shape of t(x) for an x of ``shape``."""
        return shape

    def inverse_shape(self, shape: Sequence[int]) -> Any:
        """Shape of x for a t(x) of ``shape``."""
        return shape

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class _InverseTransform(Transform):
    """The inverse of another transform."""

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self._inv = transform
        self.domain, self.codomain = transform.codomain, transform.domain
        self.bijective = transform.bijective
        self.sign = transform.sign

    @property
    def inv(self) -> Transform:
        return self._inv

    def __call__(self, x: Tensor) -> Tensor:
        return self._inv._inv_call(x)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return -self._inv.log_abs_det_jacobian(y, x)

    def forward_shape(self, shape: Sequence[int]) -> Any:
        return self._inv.inverse_shape(shape)

    def inverse_shape(self, shape: Sequence[int]) -> Any:
        return self._inv.forward_shape(shape)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _InverseTransform) and self._inv == other._inv

    __hash__ = Transform.__hash__

    def __repr__(self) -> str:
        return f"{self._inv!r}.inv"


class ComposeTransform(Transform):
    """tₙ(… t₁(x)).

    >>> import kobai
    >>> from kobai.distributions import AffineTransform, ComposeTransform, ExpTransform
    >>> ComposeTransform([AffineTransform(0.0, 2.0), ExpTransform()])(kobai.tensor(0.0))
    tensor(1.)
    """

    def __init__(self, parts: Sequence[Transform], cache_size: int = 0) -> None:
        self.parts = [part.with_cache(cache_size) for part in parts] if cache_size else list(parts)
        super().__init__(cache_size)
        self.bijective = all(p.bijective for p in self.parts)
        signs = [p.sign for p in self.parts]
        self.sign = None if None in signs else math.prod(signs)

    @property
    def domain(self) -> Any:
        """That of the first, of as many dimensions as some part needs."""
        if not self.parts:
            return constraints.real
        needed = self.parts[-1].codomain.event_dim
        for part in reversed(self.parts):
            needed = max(needed + part.domain.event_dim - part.codomain.event_dim, part.domain.event_dim)
        return _widened(self.parts[0].domain, needed)

    @property
    def codomain(self) -> Any:
        """That of the last, of as many dimensions as some part needs."""
        if not self.parts:
            return constraints.real
        needed = self.parts[0].domain.event_dim
        for part in self.parts:
            needed = max(needed + part.codomain.event_dim - part.domain.event_dim, part.codomain.event_dim)
        return _widened(self.parts[-1].codomain, needed)

    @property
    def inv(self) -> Transform:
        """The inverses in reverse."""
        return ComposeTransform([p.inv for p in reversed(self.parts)])

    def with_cache(self, cache_size: int = 1) -> Transform:
        """The same of parts with another ``cache_size``."""
        return ComposeTransform([p.with_cache(cache_size) for p in self.parts], cache_size)

    def __call__(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x

    def _inv_call(self, y: Tensor) -> Tensor:
        for part in reversed(self.parts):
            y = part._inv_call(y)
        return y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The sum."""
        total: Any = x * 0 if not self.parts else 0
        event_dim = self.domain.event_dim
        for part in self.parts:
            after = part(x)
            total = total + summed(part.log_abs_det_jacobian(x, after), event_dim - part.domain.event_dim)
            event_dim += part.codomain.event_dim - part.domain.event_dim
            x = after
        return total  # type: ignore[no-any-return]

    def forward_shape(self, shape: Sequence[int]) -> Any:
        """One after the other."""
        for part in self.parts:
            shape = part.forward_shape(shape)
        return shape

    def inverse_shape(self, shape: Sequence[int]) -> Any:
        """Backwards."""
        for part in reversed(self.parts):
            shape = part.inverse_shape(shape)
        return shape

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ComposeTransform) and self.parts == other.parts

    __hash__ = Transform.__hash__

    def __repr__(self) -> str:
        inside = ",\n    ".join(repr(p).replace("\n", "\n    ") for p in self.parts)
        return f"ComposeTransform(\n    {inside}\n)"


identity_transform = ComposeTransform([])


def _widened(constraint: Any, event_dim: int) -> Any:
    more = event_dim - constraint.event_dim
    return constraints.independent(constraint, more) if more > 0 else constraint


class IndependentTransform(Transform):
    """The last ``reinterpreted_batch_ndims`` dimensions as one event, over which log-determinants are summed.

    >>> import kobai
    >>> from kobai.distributions import ExpTransform, transforms
    >>> transforms.IndependentTransform(ExpTransform(), 1).log_abs_det_jacobian(kobai.ones(2, 3), None)
    tensor([3., 3.])
    """

    def __init__(self, base_transform: Transform, reinterpreted_batch_ndims: int, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.base_transform, self.reinterpreted_batch_ndims = base_transform, reinterpreted_batch_ndims
        self.domain = constraints.independent(base_transform.domain, reinterpreted_batch_ndims)
        self.codomain = constraints.independent(base_transform.codomain, reinterpreted_batch_ndims)
        self.bijective, self.sign = base_transform.bijective, base_transform.sign

    def _call(self, x: Tensor) -> Tensor:
        return self.base_transform(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self.base_transform._inv_call(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The sum over the dimensions."""
        return summed(self.base_transform.log_abs_det_jacobian(x, y), self.reinterpreted_batch_ndims)

    def forward_shape(self, shape: Sequence[int]) -> Any:
        """As of the base."""
        return self.base_transform.forward_shape(shape)

    def inverse_shape(self, shape: Sequence[int]) -> Any:
        """As of the base."""
        return self.base_transform.inverse_shape(shape)

    def __repr__(self) -> str:
        return f"IndependentTransform({self.base_transform!r}, {self.reinterpreted_batch_ndims})"


class ReshapeTransform(Transform):
    """Events of ``in_shape`` as events of ``out_shape``.

    >>> import kobai
    >>> kobai.distributions.ReshapeTransform((4,), (2, 2))(kobai.ones(3, 4)).shape
    kobai.Size([3, 2, 2])
    """

    bijective = True

    def __init__(self, in_shape: Sequence[int], out_shape: Sequence[int], cache_size: int = 0) -> None:
        self.in_shape, self.out_shape = Size(in_shape), Size(out_shape)
        if math.prod(self.in_shape) != math.prod(self.out_shape):
            raise ValueError(f"ReshapeTransform: expected shapes of one size, got {in_shape} and {out_shape}")
        super().__init__(cache_size)
        self.domain = constraints.independent(constraints.real, len(self.in_shape))
        self.codomain = constraints.independent(constraints.real, len(self.out_shape))

    def _call(self, x: Tensor) -> Tensor:
        return x.reshape(self.forward_shape(x.shape))  # type: ignore[no-any-return]

    def _inverse(self, y: Tensor) -> Tensor:
        return y.reshape(self.inverse_shape(y.shape))  # type: ignore[no-any-return]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """0."""
        return x.new_zeros(x.shape[: x.ndim - len(self.in_shape)])  # type: ignore[no-any-return]

    def forward_shape(self, shape: Sequence[int]) -> Any:
        """``out_shape`` in place of ``in_shape``."""
        return Size((*shape[: len(shape) - len(self.in_shape)], *self.out_shape))

    def inverse_shape(self, shape: Sequence[int]) -> Any:
        """``in_shape`` in place of ``out_shape``."""
        return Size((*shape[: len(shape) - len(self.out_shape)], *self.in_shape))


class _Parts(Transform):
    """Transforms of parts of a tensor along one dimension."""

    transforms: list[Transform]

    @property
    def bijective(self) -> bool:
        """If all are."""
        return all(t.bijective for t in self.transforms)

    def _split(self, x: Tensor) -> Sequence[Tensor]:
        raise NotImplementedError

    def _join(self, parts: Sequence[Tensor]) -> Tensor:
        raise NotImplementedError

    def _call(self, x: Tensor) -> Tensor:
        return self._join([t(part) for t, part in zip(self.transforms, self._split(x), strict=True)])

    def _inverse(self, y: Tensor) -> Tensor:
        return self._join([t.inv(part) for t, part in zip(self.transforms, self._split(y), strict=True)])

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Of all parts, side by side."""
        pairs = zip(self.transforms, self._split(x), self._split(y), strict=True)
        return self._join([t.log_abs_det_jacobian(a, b) for t, a, b in pairs])


class CatTransform(_Parts):
    """Transforms of parts of ``lengths`` (default: one each) along ``dim``.

    >>> import kobai
    >>> from kobai.distributions import CatTransform, ExpTransform, TanhTransform
    >>> CatTransform([ExpTransform(), TanhTransform()], lengths=[2, 1])(kobai.zeros(3))
    tensor([1., 1., 0.])
    """

    def __init__(
        self, tseq: Sequence[Transform], dim: int = 0, lengths: Sequence[int] | None = None, cache_size: int = 0
    ) -> None:
        super().__init__(cache_size)
        self.transforms, self.dim = list(tseq), dim
        self.lengths = [1] * len(self.transforms) if lengths is None else list(lengths)
        self.domain = constraints.cat([t.domain for t in self.transforms], dim, self.lengths)
        self.codomain = constraints.cat([t.codomain for t in self.transforms], dim, self.lengths)

    def _split(self, x: Tensor) -> Sequence[Tensor]:
        return x.split(self.lengths, self.dim)  # type: ignore[no-any-return]

    def _join(self, parts: Sequence[Tensor]) -> Tensor:
        return cat(list(parts), self.dim)


class StackTransform(_Parts):
    """A transform for each slice along ``dim``.

    >>> import kobai
    >>> from kobai.distributions import ExpTransform, StackTransform, TanhTransform
    >>> StackTransform([ExpTransform(), TanhTransform()])(kobai.zeros(2))
    tensor([1., 0.])
    """

    def __init__(self, tseq: Sequence[Transform], dim: int = 0, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.transforms, self.dim = list(tseq), dim
        self.domain = constraints.stack([t.domain for t in self.transforms], dim)
        self.codomain = constraints.stack([t.codomain for t in self.transforms], dim)

    def _split(self, x: Tensor) -> Sequence[Tensor]:
        return unbind(x, self.dim)

    def _join(self, parts: Sequence[Tensor]) -> Tensor:
        return stack(list(parts), self.dim)


def one_before(x: Tensor) -> Tensor:
    """1 and x, along the last dimension."""
    return cat([x.new_ones(*x.shape[:-1], 1), x], -1)

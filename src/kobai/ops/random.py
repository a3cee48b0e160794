"""Random tensors. All numbers are drawn on the host by a :class:`kobai.Generator` and copied: the same on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np

from kobai import xp as _xp
from kobai.core.primitive import in_place, method, primitive
from kobai.core.tensor import Tensor
from kobai.dtypes import FLOATING, finfo, get_default_dtype, numeric
from kobai.engine.domains import check_unit_interval
from kobai.ops._args import cast, drawn, need, takes_format
from kobai.ops.arithmetic import add, mul
from kobai.ops.create import Device, _shape, _takes_size
from kobai.random import Generator, resolve
from kobai.xp import Array, asarray, is_array, xp_of

__all__ = [
    "bernoulli",
    "multinomial",
    "normal",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "randperm",
]


def _place(host: Any, dtype: Any, where: Device, requires_grad: bool = False) -> Tensor:
    host = host.astype(dtype, copy=False) if is_array(host) else np.asarray(host, dtype)
    made = asarray(host, device=where if where is not None else _xp.default_device())
    return Tensor._wrap(made, requires_grad)  # type: ignore[no-any-return]


def _drawn_as(dtype: Any) -> Any:
    """NumPy draws float32 and float64; other floats are rounded from float32."""
    return np.float64 if np.dtype(dtype) == np.float64 else np.float32


def _float(who: str, dtype: Any) -> np.dtype[Any]:
    found = numeric(dtype or get_default_dtype())
    if found.kind not in FLOATING:
        raise NotImplementedError(f"{who}: expected a float dtype, got {found}: its numbers have fractions")
    return found


def _need_each(who: str, values: Tensor, holds: Any, expected: str) -> None:
    """RuntimeError unless ``holds`` of every element. Elements on a device are not read, which would wait for it."""
    if type(values._array) is np.ndarray and not (fine := holds(values._array)).all():
        need(who, False, expected, values._array[~fine][0].item())


def _need_range(who: str, low: Any, high: Any, dtype: Any) -> None:
    """RuntimeError unless there are integers in [low, high) and ``dtype`` can hold them."""
    need(who, low < high, "low < high", f"low={low}, high={high}")
    kind = numeric(dtype)
    least, most = (0, 1) if kind.kind == "b" else (-np.inf, np.inf)
    if kind.kind in "iu":
        least, most = np.iinfo(kind).min, np.iinfo(kind).max
    need(who, least <= low and high - 1 <= most, f"bounds that {kind} can hold", f"low={low}, high={high}")


@_takes_size
def rand(
    *size: Any,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Device = None,
    requires_grad: bool = False,
) -> Tensor:
    """Uniform on [0, 1).

    >>> import kobai
    >>> x = kobai.rand(1000, generator=kobai.Generator().manual_seed(0))
    >>> bool((x >= 0).all()), bool((x < 1).all())
    (True, True)
    """
    dtype = _float("rand", dtype)
    host = resolve(generator).numpy.random(_shape("rand", size), dtype=_drawn_as(dtype))
    return _place(host, dtype, device, requires_grad)


@_takes_size
def randn(
    *size: Any,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Device = None,
    requires_grad: bool = False,
) -> Tensor:
    """Normal with mean 0 and standard deviation 1.

    >>> import kobai
    >>> kobai.randn(2, 3).shape, kobai.randn(10000).std().round(decimals=1)
    (kobai.Size([2, 3]), tensor(1.))
    """
    dtype = _float("randn", dtype)
    host = resolve(generator).numpy.standard_normal(_shape("randn", size), dtype=_drawn_as(dtype))
    return _place(host, dtype, device, requires_grad)


def randint(
    low: Any = None,
    high: Any = None,
    size: Any = None,
    *,
    generator: Generator | None = None,
    dtype: Any = np.int64,
    device: Device = None,
    requires_grad: bool = False,
) -> Tensor:
    """Integers from ``low`` (0 if one bound is given) up to but not including ``high``: ``randint(10, (3,))``.

    >>> import kobai
    >>> x = kobai.randint(1, 7, (100,))
    >>> x.dtype, kobai.unique(x)
    (kobai.int64, tensor([1, 2, 3, 4, 5, 6]))
    """
    if size is None:
        low, high, size = 0, low, high
    elif low is None or high is None:
        low, high = 0, low if high is None else high
    if size is None or not all(isinstance(bound, (int, np.integer)) for bound in (low, high)):
        raise TypeError(f"randint: expected integers as bounds, and a size, got low={low}, high={high}, size={size}")
    _need_range("randint", low, high, dtype)
    host = resolve(generator).numpy.integers(low, high, _shape("randint", (size,)))
    return _place(host, dtype, device, requires_grad)


def randperm(n: int, *, generator: Generator | None = None, dtype: Any = np.int64, device: Device = None) -> Tensor:
    """The integers 0 … n − 1 in random order.

    >>> import kobai
    >>> kobai.randperm(5).sort().values
    tensor([0, 1, 2, 3, 4])
    """
    (length,) = _shape("randperm", (n,))
    if length:
        _need_range("randperm", 0, length, dtype)
    return _place(resolve(generator).numpy.permutation(length), dtype, device)


def normal(
    mean: Any,
    std: Any = 1.0,
    size: Any = None,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Device = None,
    requires_grad: bool = False,
) -> Tensor:
    """Normal with the given means and standard deviations: tensors that broadcast, or numbers and a ``size``.

    The gradient of a draw is zero; ``rsample`` of ``kobai.distributions.Normal`` has that of the means and deviations.

    >>> import kobai
    >>> kobai.normal(kobai.tensor([5., 100.]), 0.0), kobai.normal(0.0, 1.0, (2, 3)).shape
    (tensor([  5., 100.]), kobai.Size([2, 3]))
    """
    like = mean if isinstance(mean, Tensor) else std if isinstance(std, Tensor) else None
    if isinstance(std, Tensor):
        _need_each("normal", std, lambda s: s >= 0, "std >= 0")
    else:
        need("normal", std >= 0, "std >= 0", std)
    if like is None:
        if size is None:
            raise TypeError("normal: expected a size, or tensors as mean or std")
        drawn = add(mul(randn(size, generator=generator, dtype=dtype, device=device), std), mean)
        return drawn.requires_grad_(requires_grad)
    shape = np.broadcast_shapes(*(t.shape for t in (mean, std) if isinstance(t, Tensor)))
    noise = randn(shape, generator=generator, dtype=like.dtype, device=like.device)
    return _drawn(add(mul(noise, _plain(std)), _plain(mean)), mean, std)


def _plain(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


@primitive(sample=[drawn([(2, 3), (3,), (2, 1)])], half="own")
def _constant_in(y: Array, *inputs: Array) -> Any:
    seen = [(a.shape, a.dtype) for a in inputs]

    return y.copy(), lambda dy: (dy, *(lambda like=like: xp_of(dy).zeros(*like) for like in seen))


def _drawn(y: Tensor, *parameters: Any) -> Tensor:
    """``y``, drawn from a distribution with these parameters: its gradient to them is zero rather than None."""
    inputs = [p for p in parameters if isinstance(p, Tensor) and p.requires_grad]
    return _constant_in(y, *inputs) if inputs else y


def _draw_like(name: str, draw: Any, doc: str) -> Any:
    def like(
        input: Tensor,
        *,
        generator: Generator | None = None,
        dtype: Any = None,
        device: Device = None,
        requires_grad: bool = False,
    ) -> Tensor:
        where = device if device is not None else input.device
        return draw(  # type: ignore[no-any-return]
            input.shape, generator=generator, dtype=dtype or input.dtype, device=where, requires_grad=requires_grad
        )

    like.__name__ = like.__qualname__ = name
    like.__doc__ = (
        f"{doc}\n\n>>> import kobai\n"
        f">>> x = kobai.{name}(kobai.zeros(2, 3, dtype=kobai.float64))\n>>> x.shape, x.dtype\n"
        "(kobai.Size([2, 3]), kobai.float64)"
    )
    return takes_format(like)


rand_like = _draw_like("rand_like", rand, "Uniform on [0, 1) with shape, dtype and device of ``input``.")
randn_like = _draw_like("randn_like", randn, "Standard normal with shape, dtype and device of ``input``.")


@takes_format
def randint_like(
    input: Tensor,
    low: int | None = None,
    high: int | None = None,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Device = None,
    requires_grad: bool = False,
) -> Tensor:
    """Integers in [low, high) – from 0 if one bound is given – with the shape of ``input``, and its dtype and device.

    >>> import kobai
    >>> kobai.randint_like(kobai.tensor([0.5, 0.5]), 3, 4)
    tensor([3., 3.])
    """
    where = device if device is not None else input.device
    kind = input.dtype if dtype is None else dtype
    return randint(low, high, input.shape, generator=generator, dtype=kind, device=where, requires_grad=requires_grad)


@method
def bernoulli(input: Tensor, p: float | None = None, *, generator: Generator | None = None) -> Tensor:
    """1 with the probability given by each element of ``input``, else 0; same dtype. The gradient is zero.

    With ``p`` that is the probability of all, and of ``input`` only shape, dtype and device count.
    ValueError for probabilities outside [0, 1].

    >>> import kobai
    >>> kobai.bernoulli(kobai.tensor([0., 1.]))
    tensor([0., 1.])
    """
    if p is not None:
        return bernoulli_(input.detach().clone(), p, generator=generator)
    dtype = _float("bernoulli", input.dtype)
    check_unit_interval("bernoulli", "probabilities", input._array)
    uniform = rand(input.shape, generator=generator, dtype=dtype, device=input.device)
    return _drawn(cast(uniform < input, input.dtype), input)


@method
def multinomial(
    input: Tensor, num_samples: int, replacement: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """Indices drawn with probability proportional to the weights in (every row of) ``input``.

    (C) → (num_samples) or (N, C) → (N, num_samples), int64. With replacement by inverting the cumulated weights; without,
    by the largest of log w + Gumbel noise (Efraimidis and Spirakis 2006), so that no weight is read by the host.
    Errors: RuntimeError for fewer weights than samples without replacement, and for weights in memory of the host that are
    negative, infinite or nan, or all 0.

    >>> import kobai
    >>> kobai.multinomial(kobai.tensor([0., 3., 0.]), 2, replacement=True)
    tensor([1, 1])
    """
    if input.ndim not in (1, 2):
        raise RuntimeError(f"multinomial: expected weights (C) or (N, C), got {tuple(input.shape)}")
    weights, categories = input._array, input.shape[-1]
    if not isinstance(num_samples, (int, np.integer)):
        raise TypeError(f"multinomial: expected num_samples to be an integer, got {num_samples!r}")
    need("multinomial", weights.dtype.kind in FLOATING, "weights of a float dtype", weights.dtype)
    need("multinomial", num_samples > 0, "num_samples >= 1", num_samples)
    if num_samples > categories and (not replacement or not categories):
        raise RuntimeError(f"multinomial: cannot draw {num_samples} of {categories} without replacement")
    xp = xp_of(weights)
    _need_each("multinomial", input, lambda w: (w >= 0) & (w < np.inf), "weights >= 0 and finite")
    if type(weights) is np.ndarray and weights.size:
        need("multinomial", weights.any(axis=-1).all(), "a weight > 0 in every row", "a row of zeros")
    if replacement:
        total = weights.cumsum(axis=-1)
        uniform = rand(*input.shape[:-1], num_samples, generator=generator, dtype=input.dtype, device=input.device)
        points = uniform._array * total[..., -1:]
        drawn = (total[..., None, :] <= points[..., :, None]).sum(axis=-1)
        return Tensor._wrap(xp.minimum(drawn, categories - 1).astype(np.int64))  # type: ignore[no-any-return]
    exponential = -xp.log1p(-rand(input.shape, generator=generator, dtype=np.float64, device=input.device)._array)
    # The smallest of Exp(1)/w wins with probability w/Σw; a weight of 0 comes last.
    keys = xp.where(weights > 0, exponential / xp.where(weights > 0, weights, 1), np.inf)
    return Tensor._wrap(xp.argsort(keys, axis=-1)[..., :num_samples].astype(np.int64))  # type: ignore[no-any-return]


# --- filling in place -------------------------------------------------------------------------------------------------


def _fill(self: Tensor, host: Any) -> Tensor:
    return in_place(self, lambda _: _place(host, self.dtype, self.device))


@method
def normal_(self: Tensor, mean: float = 0, std: float = 1, *, generator: Generator | None = None) -> Tensor:
    """Fill with normal numbers, in place. RuntimeError unless std ≥ 0."""
    need("normal_", std >= 0, "std >= 0", std)
    draw = resolve(generator).numpy.standard_normal(self.shape, dtype=_drawn_as(_float("normal_", self.dtype)))
    return _fill(self, draw * std + mean)


@method
def uniform_(self: Tensor, from_: float = 0, to: float = 1, *, generator: Generator | None = None) -> Tensor:
    """Fill with uniform numbers from [from_, to), in place. RuntimeError unless from_ ≤ to, both finite."""
    need("uniform_", -np.inf < from_ <= to < np.inf, "finite bounds, from_ <= to", f"from_={from_}, to={to}")
    draw = resolve(generator).numpy.random(self.shape, dtype=_drawn_as(_float("uniform_", self.dtype)))
    return _fill(self, draw * (to - from_) + from_)


@method
def bernoulli_(self: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Fill with 1 with probability p (a number, or a tensor of one for each element), else 0, in place.

    RuntimeError for a number outside [0, 1], ValueError for an element of a tensor outside.
    """
    if isinstance(p, Tensor):
        drawn = bernoulli(p.expand(self.shape), generator=generator)
        return in_place(self, lambda x: cast(drawn, x.dtype))
    need("bernoulli_", 0 <= p <= 1, "p in [0, 1]", p)
    return _fill(self, resolve(generator).numpy.random(self.shape) < p)


@method
def exponential_(self: Tensor, lambd: float = 1, *, generator: Generator | None = None) -> Tensor:
    """Fill with exponential numbers of rate ``lambd``, in place. RuntimeError unless lambd > 0."""
    need("exponential_", lambd > 0, "lambd > 0", lambd)
    _float("exponential_", self.dtype)
    return _fill(self, resolve(generator).numpy.standard_exponential(self.shape) / lambd)


@method
def random_(
    self: Tensor, from_: int | None = None, to: int | None = None, *, generator: Generator | None = None
) -> Tensor:
    """Fill with integers from [from_, to), in place; ``random_(n)`` draws from [0, n), ``random_()`` from what the dtype holds.

    A float holds the integers up to 2 to the number of its bits of precision. RuntimeError for an empty range, and for
    bounds that the dtype cannot hold.
    """
    if from_ is None:
        kind = np.dtype(self.dtype)
        if kind.kind in FLOATING:
            from_, to = 0, 2 ** (finfo(kind).nmant + 1)
        else:
            from_, to = 0, 2 if kind.kind == "b" else int(np.iinfo(kind).max) + 1
    elif to is None:
        from_, to = 0, from_
    _need_range("random_", from_, to, self.dtype)
    return _fill(self, resolve(generator).numpy.integers(from_, to, self.shape))

"""Functions that few programs use: windows, combinations, integrals by sums, histograms, and older methods of Tensor."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations as _without, combinations_with_replacement as _with
from typing import Any, NamedTuple

import numpy as np

from kobai.core.autocast import one_operation
from kobai.core.primitive import in_place, method
from kobai.core.tensor import Tensor
from kobai.ops._args import cast, existing_axis, need, need_tensor, normalize_axis
from kobai.ops.create import Device, arange, tensor
from kobai.ops.gather import index_select
from kobai.ops.joining import stack
from kobai.ops.random import _fill, _float, _place
from kobai.ops.rearrange import diag
from kobai.random import Generator, resolve
from kobai.xp import asarray, to_host, xp_of

__all__ = [
    "bartlett_window",
    "blackman_window",
    "combinations",
    "cumulative_trapezoid",
    "diagflat",
    "hamming_window",
    "hann_window",
    "histogram",
    "is_complex",
    "is_nonzero",
    "is_signed",
    "kaiser_window",
    "poisson",
    "renorm",
    "scalar_tensor",
    "trapezoid",
    "trapz",
    "unravel_index",
    "vander",
]

# --- windows of signals -----------------------------------------------------------------------------------------------


def _window(name: str, doc: str, curve: Any, quarter: float, **more: float) -> Any:
    """w(n) = curve(n/N); N is one less for the symmetric window. ``quarter`` is w(N/4), ``more`` the curve's own arguments."""

    def window(
        window_length: int,
        periodic: bool = True,
        *numbers: float,
        dtype: Any = None,
        device: Device = None,
        requires_grad: bool = False,
        **named: float,
    ) -> Tensor:
        given = {**dict(zip(more, numbers, strict=False)), **named}
        if given.keys() - more.keys() or len(numbers) > len(more):
            raise TypeError(f"{name}: expected at most ({', '.join(more)}), got {numbers} and {named}")
        period = max(1, window_length if periodic else window_length - 1)
        total = curve(arange(window_length, dtype=np.float64, device=device) / period, **{**more, **given})
        if window_length == 1:
            total = total * 0 + 1
        made = total.to(dtype if dtype is not None else tensor(0.0).dtype)
        return made.requires_grad_() if requires_grad else made  # type: ignore[no-any-return]

    window.__name__ = window.__qualname__ = name
    window.__doc__ = (
        f"{doc} ``periodic`` for spectra, else symmetric.\n\n"
        f">>> import kobai\n>>> kobai.{name}(4)[1:], kobai.{name}(5, periodic=False)[1:-1]\n"
        "({0}, {0})".format(f"tensor([{quarter:.4f}, 1.0000, {quarter:.4f}])")
    )
    return window


def _cosines(*terms: float) -> Any:
    """a₀ − a₁ cos 2πt + a₂ cos 4πt − ..."""

    def curve(t: Tensor) -> Any:
        total: Any = t * 0 + terms[0]
        for k, a in enumerate(terms[1:], 1):
            total = total + (-1) ** k * a * (t * (2 * math.pi * k)).cos()
        return total

    return curve


def _kaiser(t: Tensor, beta: float) -> Tensor:
    host = to_host((2 * t - 1).array)
    return _place(np.i0(beta * np.sqrt(np.maximum(1 - host * host, 0))) / np.i0(beta), t.dtype, t.device)


hann_window = _window("hann_window", "½ − ½ cos(2πn/N).", _cosines(0.5, 0.5), 0.5)
hamming_window = _window("hamming_window", "0.54 − 0.46 cos(2πn/N).", _cosines(0.54, 0.46), 0.54)
blackman_window = _window(
    "blackman_window", "0.42 − 0.5 cos(2πn/N) + 0.08 cos(4πn/N).", _cosines(0.42, 0.5, 0.08), 0.34
)
bartlett_window = _window("bartlett_window", "1 − |2n/N − 1|, a triangle.", lambda t: 1 - (2 * t - 1).abs(), 0.5)
kaiser_window = _window(
    "kaiser_window", "I₀(β √(1 − (2n/N − 1)²)) / I₀(β), from the Bessel function I₀.", _kaiser, 0.2157, beta=12.0
)

# --- making and taking apart ------------------------------------------------------------------------------------------


def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """All choices of ``r`` elements of a vector, one in each row.

    >>> import kobai
    >>> kobai.combinations(kobai.tensor([1, 2, 3]))
    tensor([[1, 2],
            [1, 3],
            [2, 3]])
    """
    need_tensor("combinations", input)
    need("combinations", input.ndim == 1 and r >= 0, "a vector and r >= 0", f"{tuple(input.shape)} and {r}")
    rows = list((_with if with_replacement else _without)(range(input.shape[0]), r))
    index = asarray(np.array(rows, dtype=np.int64).reshape(-1), device=input.device)
    return index_select(input, 0, Tensor._wrap(index)).reshape(len(rows), r)  # type: ignore[no-any-return]


@method
def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """A matrix with the elements of ``input``, seen as one row, on a diagonal.

    >>> import kobai
    >>> kobai.diagflat(kobai.tensor([[1], [2]]))
    tensor([[1, 0],
            [0, 2]])
    """
    need_tensor("diagflat", input)
    return diag(input.reshape(-1), offset)


def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """Rows of powers of the elements of a vector, from the highest down – or, ``increasing``, from 1 up.

    >>> import kobai
    >>> kobai.vander(kobai.tensor([2, 3]), 3)
    tensor([[4, 2, 1],
            [9, 3, 1]])
    """
    need_tensor("vander", x)
    need("vander", x.ndim == 1, "a vector", f"shape {tuple(x.shape)}")
    count = x.shape[0] if N is None else N
    need("vander", count >= 0, "N >= 0", count)
    powers = range(count) if increasing else range(count - 1, -1, -1)
    if not x.is_floating_point():
        x = cast(x, np.int64)
    return stack([x**n for n in powers], -1) if count else x.new_empty(x.shape[0], 0)


def unravel_index(indices: Tensor, shape: Any) -> tuple[Tensor, ...]:
    """Indices into a tensor seen as one row, as indices in every dimension of ``shape``.

    >>> import kobai
    >>> kobai.unravel_index(kobai.tensor([0, 5]), (2, 3))
    (tensor([0, 1]), tensor([0, 2]))
    """
    need_tensor("unravel_index", indices)
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    found, rest = [], cast(indices, np.int64)
    for size in reversed(sizes):
        found.append(rest % size)
        rest = rest // size
    return tuple(reversed(found))


def scalar_tensor(s: Any, *, dtype: Any = None, device: Device = None, requires_grad: bool = False) -> Tensor:
    """A number as a tensor without dimensions, of the default float dtype.

    >>> import kobai
    >>> kobai.scalar_tensor(2)
    tensor(2.)
    """
    return tensor(float(s) if dtype is None else s, dtype=dtype, device=device, requires_grad=requires_grad)


# --- sums and counts --------------------------------------------------------------------------------------------------


def _steps(y: Tensor, x: Tensor | None, dx: float, dim: int) -> Any:
    axis = existing_axis("trapezoid", dim, y.ndim)
    n = y.shape[axis]
    means = (y.narrow(axis, 1, max(n - 1, 0)) + y.narrow(axis, 0, max(n - 1, 0))) / 2
    if x is None:
        return means * dx
    need_tensor("trapezoid", x)
    if x.ndim == 1:
        x = x.reshape(-1, *(1,) * (y.ndim - axis - 1))
    at = axis - y.ndim
    return means * (x.narrow(at, 1, n - 1) - x.narrow(at, 0, n - 1))


def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: float = 1, dim: int = -1) -> Tensor:
    """∫ y dx by the trapezoidal rule, at points ``x`` or at equal distances ``dx``.

    >>> import kobai
    >>> kobai.trapezoid(kobai.tensor([1., 2., 3.])), kobai.trapezoid(kobai.tensor([1., 2., 3.]), dx=2)
    (tensor(4.), tensor(8.))
    """
    need_tensor("trapezoid", y)
    return _steps(y, x, dx, dim).sum(dim)  # type: ignore[no-any-return]


trapz = trapezoid


def cumulative_trapezoid(y: Tensor, x: Tensor | None = None, *, dx: float = 1, dim: int = -1) -> Tensor:
    """The sums that :func:`trapezoid` makes, one after the other.

    >>> import kobai
    >>> kobai.cumulative_trapezoid(kobai.tensor([1., 2., 3.]))
    tensor([1.5000, 4.0000])
    """
    need_tensor("cumulative_trapezoid", y)
    return _steps(y, x, dx, dim).cumsum(dim)  # type: ignore[no-any-return]


class Histogram(NamedTuple):
    """Counts, and the edges between them."""

    hist: Tensor
    bin_edges: Tensor


@method
def histogram(
    input: Tensor,
    bins: int | Tensor = 100,
    *,
    range: tuple[float, float] | None = None,
    weight: Tensor | None = None,
    density: bool = False,
) -> Histogram:
    """How many elements lie in each interval: ``bins`` equal ones over ``range`` (default: of the data), or given edges.

    ``weight`` counts elements by it; ``density`` divides by the total and the widths.

    >>> import kobai
    >>> kobai.histogram(kobai.tensor([1.0, 2.0, 1.0]), bins=4, range=(0.0, 4.0)).hist
    tensor([0., 2., 1., 0.])
    """
    need_tensor("histogram", input)
    need("histogram", input.is_floating_point(), "floats", input.dtype)
    array = input.detach().array.reshape(-1)
    xp = xp_of(array)
    if range is None and not isinstance(bins, Tensor) and array.size:
        low, high = float(array.min().item()), float(array.max().item())
        range = (low - 0.5, high + 0.5) if low == high else (low, high)  # numpy would do so too, but in its own words
    hist, edges = xp.histogram(
        array,
        bins=bins.array if isinstance(bins, Tensor) else bins,
        range=None if isinstance(bins, Tensor) else range,
        weights=None if weight is None else weight.detach().array.reshape(-1),
        density=density,
    )
    return Histogram(Tensor._wrap(hist.astype(input.dtype)), Tensor._wrap(edges.astype(input.dtype)))


@method(in_place=True)
@one_operation
def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """Every slice along ``dim`` scaled down to a p-norm of at most ``maxnorm``.

    >>> import kobai
    >>> kobai.renorm(kobai.tensor([[3., 4.], [0.3, 0.4]]), p=2, dim=0, maxnorm=1)
    tensor([[0.6000, 0.8000],
            [0.3000, 0.4000]])
    """
    need_tensor("renorm", input)
    axis = normalize_axis("renorm", dim, input.ndim)
    need("renorm", input.ndim >= 2, "at least 2 dimensions", tuple(input.shape))
    others = tuple(d for d in range(input.ndim) if d != axis)
    norm = input.norm(p, others, keepdim=True)
    scale = (maxnorm / (norm + 1e-7)).clamp(max=1.0)
    return input * scale.where(norm > maxnorm, norm * 0 + 1)  # type: ignore[no-any-return]


def poisson(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Counts drawn from Poisson distributions with the rates ``input``; drawn on the host.

    >>> import kobai
    >>> kobai.poisson(kobai.tensor([0., 0.])), kobai.poisson(kobai.full((10000,), 4.0)).mean().round()
    (tensor([0., 0.]), tensor(4.))
    """
    need_tensor("poisson", input)
    return _place(resolve(generator).numpy.poisson(to_host(input.detach().array)), input.dtype, input.device)


# --- questions --------------------------------------------------------------------------------------------------------


@method
def is_nonzero(input: Tensor) -> bool:
    """Whether the one element of ``input`` is not zero.

    >>> import kobai
    >>> kobai.is_nonzero(kobai.tensor([0.])), kobai.is_nonzero(kobai.tensor([[3]]))
    (False, True)
    """
    need_tensor("is_nonzero", input)
    return bool(input)


@method
def is_complex(input: Tensor) -> bool:
    """Whether the elements are complex: never, in Kobai.

    >>> import kobai
    >>> kobai.is_complex(kobai.tensor([1.]))
    False
    """
    need_tensor("is_complex", input)
    return False


@method
def is_signed(input: Tensor) -> bool:
    """Whether the dtype has negative numbers.

    >>> import kobai
    >>> kobai.is_signed(kobai.tensor([1])), kobai.is_signed(kobai.tensor([1], dtype=kobai.uint8))
    (True, False)
    """
    need_tensor("is_signed", input)
    return input.dtype.is_signed


@method
def get_device(input: Tensor) -> int:
    """Number of the GPU that holds the elements; −1 on the CPU."""
    return -1 if input.device.type == "cpu" else input.device.index or 0


@method
def storage_offset(input: Tensor) -> int:
    """Elements from the beginning of the memory that a view looks into to its own first one."""
    start = input if input._base is None else input._base
    return (input.data_ptr() - start.data_ptr()) // max(1, input.element_size())


@method
def new(input: Tensor, *data: Any) -> Tensor:
    """A tensor of these sizes (unset), or this data, with dtype and device of ``input``; older than ``new_empty``."""
    if data and not all(isinstance(n, int) for n in data):
        return input.new_tensor(data[0])  # type: ignore[no-any-return]
    return input.new_empty(*(data or (0,)))  # type: ignore[no-any-return]


@method
def pin_memory(input: Tensor) -> Tensor:
    """``input`` itself: copies to a GPU take page-locked memory by themselves where that is faster."""
    return input


@method
def sum_to_size(input: Tensor, *size: Any) -> Tensor:
    """Sums over the dimensions along which a tensor of ``size`` would have to be broadcast to the shape of ``input``."""
    wanted = tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else size
    extra = input.ndim - len(wanted)
    axes = [*range(extra), *(i + extra for i, n in enumerate(wanted) if n == 1 and input.shape[i + extra] != 1)]
    if extra < 0 or any(n not in (1, input.shape[i + extra]) for i, n in enumerate(wanted)):
        raise RuntimeError(f"sum_to_size: {tuple(wanted)} does not broadcast to {tuple(input.shape)}")
    if not wanted:
        return input.sum()  # type: ignore[no-any-return]
    return (input.sum(tuple(axes), keepdim=True) if axes else input).reshape(wanted)  # type: ignore[no-any-return]


# --- in place ---------------------------------------------------------------------------------------------------------


def _by_element(input: Tensor, values: list[Any]) -> Tensor:
    host = np.array(values, dtype=np.float64 if input.is_floating_point() else np.int64).reshape(input.shape)
    return _place(host, input.dtype, input.device)


@method
def apply_(input: Tensor, callable: Callable[[Any], Any]) -> Tensor:
    """Replace every element by ``callable`` of it, in place: in Python, one by one, hence slow."""
    return in_place(input, lambda x: _by_element(x, [callable(v) for v in x.detach().reshape(-1).tolist()]))


@method
def map_(input: Tensor, tensor: Tensor, callable: Callable[[Any, Any], Any]) -> Tensor:
    """Replace every element by ``callable`` of it and that of ``tensor``, in place, one by one."""
    others = tensor.expand(input.shape).reshape(-1).tolist()
    pairs = zip(input.detach().reshape(-1).tolist(), others, strict=True)
    return in_place(input, lambda x: _by_element(x, [callable(a, b) for a, b in pairs]))


@method
def log_normal_(self: Tensor, mean: float = 1, std: float = 2, *, generator: Generator | None = None) -> Tensor:
    """Fill with e to normal numbers of this mean and standard deviation, in place. RuntimeError unless std > 0."""
    need("log_normal_", std > 0, "std > 0", std)
    _float("log_normal_", self.dtype)
    return _fill(self, resolve(generator).numpy.lognormal(mean, std, self.shape))


@method
def geometric_(self: Tensor, p: float, *, generator: Generator | None = None) -> Tensor:
    """Fill with the number of trials up to the first success, of probability 0 < p < 1 each, in place."""
    need("geometric_", 0 < p < 1, "0 < p < 1", p)
    if self.dtype == np.bool_:
        raise NotImplementedError("geometric_: expected a dtype of numbers, got bool")
    return _fill(self, resolve(generator).numpy.geometric(p, self.shape))


@method
def cauchy_(self: Tensor, median: float = 0, sigma: float = 1, *, generator: Generator | None = None) -> Tensor:
    """Fill with Cauchy-distributed numbers, in place. RuntimeError unless sigma > 0."""
    need("cauchy_", sigma > 0, "sigma > 0", sigma)
    _float("cauchy_", self.dtype)
    return _fill(self, resolve(generator).numpy.standard_cauchy(self.shape) * sigma + median)

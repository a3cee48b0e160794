"""Arrays of samples that look like one sample.

Inside ``vmap`` a tensor holds a :class:`Batched`: an array of any library whose first axis counts the samples, and which shows
the others only. Kobai's operations ask ``xp_of(array)`` for their library; what they get here has NumPy's functions, each by a
*batching rule* – it does to all samples at once what was asked for one::

    shape (3,)  ──► Batched ──► inner (B, 3)          xp_of(x).sum(x, axis=0)  ──►  inner.sum(axis=1)
    shape (3,)  ──► Batched ──► inner (3,), the same for all samples

So a primitive's value and its vjp run as they are written, and backward inside ``vmap`` gives gradients per sample.

Samples of samples, as in ``vmap(vmap(f))``: the inner array is Batched in turn. For each number of samples, and for each type
of inner array, there is a type of its own (:func:`kind_of`), so that what does not belong together does not pass for alike,
and so that the namespace knows for how many samples it is to make a new array: new memory has room for every sample from the
start, since anything may be written there. What is the same for all samples stays so as long as nothing else meets it.
"""

from __future__ import annotations

import math
import operator
import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from kobai.core import tape
from kobai.core.primitive import RUNNERS
from kobai.core.stand_in import NUMBERS, StandIn
from kobai.core.tape import as_array
from kobai.xp import Backend, adopt_array_type, backend_of, is_array, to_host, xp_of


class NoRule(RuntimeError):
    """An operation that cannot be done for all samples at once."""


def _reads(what: str) -> Any:
    def read(self: Batched, *args: Any, **options: Any) -> Any:
        if not self.batched:
            return getattr(self.inner, what)(*args, **options)
        raise NoRule(
            f"vmap: {what.strip('_')}() asks for one value of a tensor of shape {self.shape} that has another in each of "
            f"{self.samples} samples; what depends on values is written with where(), or outside of vmap"
        )

    return read


class Batched(StandIn):
    """The same array of every sample; see the top of this file. Use the types that :func:`kind_of` makes."""

    __slots__ = ("__weakref__", "batched", "inner")

    samples: ClassVar[int]
    depth: ClassVar[int]
    parent: ClassVar[type]
    """The type of the inner arrays."""
    namespace: ClassVar[Any]
    library: ClassVar[Any]
    """The namespace of the inner arrays."""

    def __init__(self, inner: Any, batched: bool) -> None:
        self.inner = inner
        self.batched = batched

    shape = property(lambda self: self.inner.shape[1:] if self.batched else self.inner.shape)
    strides = property(lambda self: self.inner.strides[1:] if self.batched else self.inner.strides)
    ndim = property(lambda self: self.inner.ndim - self.batched)
    size = property(lambda self: math.prod(self.shape))
    nbytes = property(lambda self: self.size * self.inner.itemsize)
    base = property(lambda self: self.inner)  # in which every chain of bases ends with the owner of the memory

    data = property(lambda self: SimpleNamespace(ptr=_address(self.inner)))

    item, tolist = _reads("item"), _reads("tolist")
    __bool__, __float__, __int__, __index__ = map(_reads, ("__bool__", "__float__", "__int__", "__index__"))

    def __array__(self, *args: Any, **options: Any) -> Any:
        if not self.batched:
            return np.asarray(self.inner, *args, **options)
        raise NoRule(
            f"vmap: a tensor of shape {self.shape} with another value in each of {self.samples} samples cannot become an "
            "array of NumPy's, or be written into a tensor that is the same for all samples"
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        function = getattr(self.namespace, ufunc.__name__)
        if out is not None:
            options["out"] = out[0]
        return (function if method == "__call__" else getattr(function, method))(*inputs, **options)

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        return getattr(self.namespace, function.__name__)(*args, **options)

    def _takes(self, other: Any) -> bool:
        return is_array(other) or isinstance(other, NUMBERS)

    def _call(self, name: str, *operands: Any, in_place: bool = False) -> Any:
        function = getattr(self.namespace, name)
        if in_place and (self.batched or not getattr(operands[1], "batched", False)):
            return function(*operands, out=self)
        return function(*operands)  # ``a += b`` makes a new a where b has more

    def __len__(self) -> int:
        return int(self.shape[0])

    def __repr__(self) -> str:
        return f"Batched({self.inner!r}, samples={self.samples if self.batched else 'alike'})"

    def __getitem__(self, index: Any) -> Any:
        return self.namespace.getitem(self, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        self.namespace.setitem(self, index, value)

    def astype(self, dtype: Any, *args: Any, **options: Any) -> Any:
        made = self.inner.astype(dtype, *args, **options)
        return self if made is self.inner else type(self)(made, self.batched)

    def copy(self, order: str = "C") -> Any:
        return type(self)(self.inner.copy(order), True) if self.batched else self.with_room(self.inner)

    def view(self, dtype: Any) -> Any:
        if self.ndim == 0 and self.batched and np.dtype(dtype).itemsize != self.itemsize:
            raise NoRule("vmap: view() of a tensor without dimensions in another size")
        return type(self)(self.inner.view(dtype), self.batched)

    def sort(self, axis: int = -1, **options: Any) -> None:
        self.inner.sort(axis if axis < 0 else axis + self.batched, **options)

    @classmethod
    def within(cls, slots: Sequence[Any], into: Sequence[int]) -> list[Any]:
        """The inner arrays of a kernel's slots, of one shape; an error if one that it writes into has no room for samples."""
        if not any(slot.batched for slot in slots):
            return [slot.inner for slot in slots]
        for i in into:
            need_room(slots[i])
        every = enumerate([spread(slot, cls) for slot in slots])
        return [a if a.flags.c_contiguous or i in into else cls.library.ascontiguousarray(a) for i, a in every]

    @classmethod
    def with_room(cls, array: Any) -> Any:
        """A new array with the elements of one that is the same for all samples, and room for others in each of them."""
        within: Any = array if type(array) is cls.parent else cls.parent.with_room(array)  # type: ignore[attr-defined]
        return cls(cls.library.broadcast_to(within, (cls.samples, *within.shape)).copy(), True)

    def reshape(self, *shape: Any, **options: Any) -> Any:
        return self.namespace.reshape(self, shape[0] if len(shape) == 1 else shape, **options)

    def transpose(self, *axes: Any) -> Any:
        return self.namespace.transpose(
            self, axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes or None
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or not hasattr(np.ndarray, name):
            raise AttributeError(f"an array of samples has no {name!r}")
        function = getattr(self.namespace, name)
        return lambda *args, **options: function(self, *args, **options)


for _name in "dtype itemsize flags ctypes device".split():
    setattr(Batched, _name, property(operator.attrgetter(f"inner.{_name}")))


# --- the types --------------------------------------------------------------------------------------------------------

_MADE: dict[tuple[type, int], type[Batched]] = {}

maker: dict[str, Callable[..., Any]] = {}
"""What ``namespace.py`` and ``primitives.py`` give: the ``namespace`` of a type, how primitives ``run`` on its arrays, and how
nodes of the tape run ``backward``."""


_making = threading.Lock()


def kind_of(parent: type, samples: int, like: Any) -> type[Batched]:
    """The type whose inner arrays are of type ``parent``, such as ``like``, for so many samples."""
    found = _MADE.get((parent, samples))
    if found is None:
        with _making:
            found = _MADE.get((parent, samples)) or _made(parent, samples, like)
            _MADE[parent, samples] = found
    return found


def _made(parent: type, samples: int, like: Any) -> type[Batched]:
    depth = parent.depth + 1 if issubclass(parent, Batched) else 1
    slots: dict[str, Any] = {"__slots__": (), "samples": samples, "depth": depth, "parent": parent}
    made: type[Batched] = type("Batched", (Batched,), {**slots, "library": xp_of(like)})
    made.namespace = maker["namespace"](made)
    owner = backend_of(like)
    here = Backend(
        "samples",
        owner.device_type,
        lambda: (made.namespace, made),
        from_host=lambda host: made(lifted(owner.from_host(host), parent), False),
        to_host=_on_host,
        index_of=lambda array: owner.index_of(array.inner),
        on=owner.on,
        synchronize=owner.synchronize,
        linalg_errors=owner.linalg_errors,
    )
    adopt_array_type(made, made.namespace, here)
    RUNNERS[made] = maker["run"]
    tape.RUNNERS[made] = maker["backward"]
    return made


def _on_host(array: Any) -> Any:
    """Arrays of samples in memory of the host."""
    inner = to_host(array.inner)
    return kind_of(type(inner), array.samples, inner)(inner, array.batched)


def _address(array: Any) -> int:
    return int(getattr(array.data, "ptr", 0) or array.ctypes.data)


def lifted(array: Any, kind: type) -> Any:
    """An array as one of this type: the same for all samples, unless it has that type already."""
    if type(array) is kind or not issubclass(kind, Batched):
        return array
    return kind(lifted(as_array(array), kind.parent), False)


def inner_of(value: Any, kind: type[Batched]) -> Any:
    """The inner array of one of this type; anything else as it is, which is the same for all samples."""
    return value.inner if type(value) is kind else value


def is_batched(value: Any, kind: type[Batched]) -> bool:
    """Whether a value differs between the samples of this type."""
    return type(value) is kind and value.batched


def aligned(value: Any, ndim: int, kind: type[Batched]) -> Any:
    """The inner array, such that it broadcasts with others of ``ndim`` dimensions behind the axis of samples."""
    if type(value) is not kind:
        return value
    inner = value.inner
    missing = ndim + 1 - inner.ndim
    if value.batched and missing > 0:
        return inner[(slice(None), *(None,) * missing)]
    return inner


def spread(value: Any, kind: type[Batched]) -> Any:
    """The inner array of a value with an axis of samples in front, a view that repeats if they are alike."""
    if is_batched(value, kind):
        return value.inner
    inner = lifted(inner_of(value, kind), kind.parent)
    return kind.library.broadcast_to(inner, (kind.samples, *inner.shape))


def need_room(target: Any) -> None:
    """RuntimeError if what differs between samples cannot be written into an array."""
    if not target.batched:
        raise NoRule(
            f"vmap: values that differ between {target.samples} samples cannot be written into a tensor of shape "
            f"{tuple(target.shape)} that is the same for all of them; make it of one that differs, as by x.new_zeros(...)"
        )

"""Arrays whose operations go on the tape: how a vjp, written for arrays, is differentiated itself.

A vjp computes with arrays and asks ``xp_of(array)`` for their library. Here is one more library. Its arrays are
:class:`Taped`; each is a tensor in the clothes of an ndarray, and its namespace has NumPy's functions, made of tensor
operations::

    dy ──► Taped ── tensor                       xp_of(dy).exp(dy)  ──►  namespace.exp  ──►  Taped(dy.tensor.exp())

So the vjp of an operation, run on such arrays, records what it does, and that is differentiated as all else is: to any order,
on any backend, while a step is recorded too, for the tensors inside hold the arrays of whatever library they hold. A kernel
runs by its reference; one made of a formula, by an operation whose vjp is the formula's derivative (``numpy_on_tape.py``).

Writing into an array gives it another tensor, and views of it see that: what operations keep is never changed. A function
that is missing here raises, so nothing derived is ever taken for a constant.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from kobai import ops, xp
from kobai.core.stand_in import ARITHMETIC, COMPARISONS, NUMBERS, SIGNS, StandIn
from kobai.core.tensor import Tensor


class Taped(StandIn):
    """An array that is a tensor: an ndarray's attributes and methods, by operations that the tape records."""

    __slots__ = ("__weakref__", "_root", "_seen", "_step", "_tensor")

    def __init__(
        self, tensor: Tensor, root: Taped | None = None, step: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self._tensor = tensor
        self._root, self._step = root, step  # of a view: whose memory it sees, and how it comes from there
        self._seen = None if root is None else root._tensor

    @property
    def tensor(self) -> Tensor:
        """The values; of a view, as its root has them now."""
        if self._root is not None and self._root._tensor is not self._seen:
            assert self._step is not None
            self._seen = self._root._tensor
            self._tensor = self._step(self._seen)
        return self._tensor

    base = property(lambda self: self.tensor._array)
    mT = property(lambda self: self.swapaxes(-1, -2))

    def view_by(self, step: Callable[[Tensor], Tensor]) -> Taped:
        """What a function makes of this array: a view, if the memory is the same."""
        made = step(self.tensor)
        if made is self.tensor:
            return self
        if not same_memory(made, self.tensor):
            return Taped(made)
        if self._step is None:
            return Taped(made, self, step)
        before = self._step
        return Taped(made, self._root, lambda tensor: step(before(tensor)))

    def change(self, action: Callable[[Tensor], Any]) -> None:
        """Do ``action`` to this array in place, on a copy of the memory: operations keep what they were given."""
        root = self if self._root is None else self._root
        fresh = root._tensor.clone()
        seen = fresh if self._step is None else self._step(fresh)
        if seen is not fresh and not same_memory(seen, fresh):
            raise NotImplementedError("writing into a view of an array on the tape whose memory has another order")
        action(seen)
        root._tensor = fresh

    def write(self, value: Any) -> None:
        """self[...] = value"""
        value, tensor = given(value), self.tensor
        if not isinstance(value, Tensor):
            value = ops.full_like(tensor, value)
        if self._root is not None:
            self.change(lambda seen: seen.copy_(value))
        else:
            value = value if value.dtype == tensor.dtype else value.to(tensor.dtype)
            self._tensor = value if value.shape == tensor.shape else value.broadcast_to(tensor.shape).clone()

    def __getitem__(self, index: Any) -> Taped:
        index = _indices(index)

        def step(tensor: Tensor) -> Tensor:
            forwards, key = _forwards(tensor, index)
            return forwards[key]

        return self.view_by(step)

    def __setitem__(self, index: Any, value: Any) -> None:
        if index is Ellipsis or (isinstance(index, slice) and index == slice(None)):
            self.write(value)
        else:
            key, value = _indices(index), given(value)
            self.change(lambda seen: seen.__setitem__(key, value))

    def _takes(self, other: Any) -> bool:
        return isinstance(other, (Taped, *NUMBERS)) or xp.is_array(other)

    def _call(self, name: str, *operands: Any, in_place: bool = False) -> Any:
        values, dtype = [given(operand) for operand in operands], self.tensor._array.dtype
        values = [  # truth values as numbers, which Tensor refuses
            v.to(dtype) if isinstance(v, Tensor) and v._array.dtype == np.bool_ != dtype else v for v in values
        ]
        made = _FUNCTIONS[name](*values)
        if not in_place:
            return Taped(made)
        self.write(made)
        return self

    def __len__(self) -> int:
        return len(self.tensor)

    def __bool__(self) -> bool:
        return bool(self.tensor)

    def __float__(self) -> float:
        return float(self.tensor)

    def __int__(self) -> int:
        return int(self.tensor)

    def __index__(self) -> int:
        return operator.index(self.tensor)

    def __array__(self, *args: Any, **options: Any) -> Any:
        raise TypeError("an array on the tape was read as a numpy.ndarray, by which its history would be lost")

    def item(self) -> Any:
        """The value, for Python; its history ends here."""
        return self.tensor.item()

    def astype(self, dtype: Any, order: str = "K", copy: bool = True) -> Taped:
        if self.tensor._array.dtype == dtype:
            return self.copy() if copy else self
        return Taped(self.tensor.to(np.dtype(dtype)))

    def copy(self, order: str = "C") -> Taped:
        return Taped(self.tensor.clone())

    def reshape(self, *shape: Any, order: str = "C") -> Taped:
        return self.view_by(lambda tensor: tensor.reshape(*shape))

    def ravel(self) -> Taped:
        return self.reshape(-1)

    def flatten(self) -> Taped:
        return self.reshape(-1).copy()

    def transpose(self, *axes: Any) -> Taped:
        axes = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
        order = axes or range(self.ndim)[::-1]
        return self.view_by(lambda tensor: tensor.permute(*order))

    def view(self, dtype: Any) -> Taped:
        """The same bits as another dtype, which has no derivative."""
        if self.tensor.requires_grad:
            raise NotImplementedError("view of an array as another dtype has no derivative")
        return self.view_by(lambda tensor: Tensor._wrap(tensor._array.view(dtype)))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or not hasattr(np.ndarray, name):
            raise AttributeError(f"an array on the tape has no {name!r}")
        function = getattr(xp.xp_of(self), name)
        return lambda *args, **options: function(self, *args, **options)


for _name in "shape strides dtype ndim size itemsize nbytes flags".split():
    setattr(Taped, _name, property(operator.attrgetter(f"tensor._array.{_name}")))


_FUNCTIONS = {
    name: getattr(operator, f"__{symbol}__") for symbol, name in (ARITHMETIC | COMPARISONS | SIGNS).items()
}  # of tensors


def same_memory(a: Tensor, b: Tensor) -> bool:
    return bool(xp.xp_of(a._array).may_share_memory(a._array, b._array))


def given(value: Any) -> Any:
    """A value as tensor operations take it: arrays as tensors, NumPy's scalars as numbers."""
    if isinstance(value, Taped):
        return value.tensor
    if isinstance(value, np.generic):
        return value.item()
    if xp.is_array(value):
        return Tensor._wrap(value)
    if isinstance(value, (list, tuple)):
        parts = [given(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def taped(result: Any) -> Any:
    """Tensors as arrays on the tape, in tuples and lists too."""
    if isinstance(result, Tensor):
        return Taped(result)
    if isinstance(result, (list, tuple)):
        return tuple(taped(part) for part in result)
    return result


def _indices(index: Any) -> Any:
    return tuple(map(given, index)) if isinstance(index, tuple) else given(index)


def _forwards(tensor: Tensor, index: Any) -> tuple[Tensor, Any]:
    """A tensor and an index without slices that go backwards, which Tensor has not."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if not any(isinstance(part, slice) and (part.step or 1) < 0 for part in parts):
        return tensor, index
    axis = 0
    after = sum(part is not None and part is not Ellipsis for part in parts)
    for i, part in enumerate(parts):
        if part is Ellipsis:
            axis = tensor.ndim - after
            continue
        if isinstance(part, slice) and (part.step or 1) < 0:
            n = tensor.shape[axis]
            places = range(*part.indices(n))
            tensor = tensor.flip(axis)
            parts[i] = slice(n - 1 - places[0], n - places[-1], -part.step) if places else slice(0, 0)
        if part is not None:
            axis, after = axis + 1, after - 1
    return tensor, tuple(parts)

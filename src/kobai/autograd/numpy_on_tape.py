"""NumPy as a vjp on the tape sees it: its functions on :class:`~kobai.autograd.taped.Taped` arrays, by tensor operations.

Three tables say which operation a function is: by the same name, by another one, and those whose result views its argument.
Arrays without a history are constants, and the library that holds them computes with them itself, by any function it has. A
function that is in no table and meets a history raises.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from kobai import linalg, ops, xp
from kobai.autograd.taped import Taped, given, same_memory, taped
from kobai.core.primitive import operation
from kobai.core.tape import as_array
from kobai.core.tensor import Tensor

_library: ContextVar[Any] = ContextVar("kobai_taped_library")
"""The namespace in which new arrays are made while a vjp runs on taped ones."""


@contextmanager
def made_like(array: Any) -> Iterator[None]:
    """Block in which the namespace makes its arrays by the library, and on the device, of ``array``."""
    token = _library.set(xp.xp_of(array))
    try:
        with xp.beside(array):
            yield
    finally:
        _library.reset(token)


def _made(name: str) -> Any:
    def make(*args: Any, **options: Any) -> Taped:
        return Taped(Tensor._wrap(getattr(_library.get(), name)(*args, **options)))

    return make


def _made_like(name: str) -> Any:
    def make(like: Any, *args: Any, **options: Any) -> Taped:
        array = given(like)._array
        return Taped(Tensor._wrap(getattr(xp.xp_of(array), name)(array, *args, **options)))

    return make


def _constant(args: tuple[Any, ...], options: dict[str, Any]) -> tuple[list[Any], dict[str, Any]] | None:
    """The arguments with the arrays inside if none of them has a history, so that the library may compute with them itself."""
    plain = [_plain(arg) for arg in args]
    named = {key: _plain(value) for key, value in options.items()}
    return None if any(value is _HISTORY for value in (*plain, *named.values())) else (plain, named)


_HISTORY = object()


def _plain(value: Any) -> Any:
    if isinstance(value, Taped):
        return _HISTORY if value.tensor.requires_grad else value.tensor._array
    if isinstance(value, (list, tuple)):
        parts = [_plain(part) for part in value]
        if any(part is _HISTORY for part in parts):
            return _HISTORY
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _by_library(name: str, arguments: tuple[list[Any], dict[str, Any]]) -> Any:
    function: Any = _library.get()
    for part in name.split("."):
        function = getattr(function, part)
    result = function(*arguments[0], **arguments[1])
    if isinstance(result, (list, tuple)):
        return tuple(map(_as_taped, result))
    return _as_taped(result)


def _as_taped(result: Any) -> Any:
    result = as_array(result)
    return Taped(Tensor._wrap(result)) if xp.is_array(result) else result


class Function:
    """A function of NumPy's by one of tensors; with ``out``, and the methods that some ufuncs have.

    Where no operand has a history, the library of the arrays computes itself, and any function of its will do.
    """

    def __init__(self, name: str, function: Callable[..., Any], shares: bool = False, tensors: bool = False) -> None:
        self.name, self.function, self.shares = name, function, shares
        self.tensors = tensors  # whether numbers must be tensors

    def __call__(self, *args: Any, out: Taped | None = None, **options: Any) -> Any:
        if self.shares and isinstance(args[0], Taped):
            rest, named = list(map(given, args[1:])), {key: given(value) for key, value in options.items()}
            return args[0].view_by(lambda tensor: self.function(tensor, *rest, **named))
        if (constant := _constant(args, options)) is not None:
            result = _by_library(self.name, constant)
            if out is None:
                return result
            out.write(result)
            return out
        operands = list(map(given, args))
        if self.tensors:
            like = next((x for x in operands if isinstance(x, Tensor)), None)
            operands = [x if like is None or isinstance(x, Tensor) else _number(x, like) for x in operands]
        result = taped(self.function(*operands, **{key: given(value) for key, value in options.items()}))
        if out is None:
            return result
        out.write(result)
        return out

    def at(self, array: Taped, index: Any, values: Any) -> None:
        """array[index] = function(array[index], values), where places may repeat: of the sum alone."""
        if self.name != "add":
            raise NotImplementedError(f"{self.name}.at of arrays has no derivative")
        _add_at(array, index, values)

    def outer(self, a: Any, b: Any) -> Any:
        a, b = given(a), given(b)
        return taped(self.function(a.reshape(*a.shape, *(1,) * b.ndim), b))


def _number(value: Any, like: Tensor) -> Tensor:
    array = like._array
    return Tensor._wrap(xp.xp_of(array).asarray(value, dtype=array.dtype))  # type: ignore[no-any-return]


def _add_at(array: Taped, index: Any, values: Any) -> None:
    index = index if isinstance(index, tuple) else (index,)
    values = given(values)
    values = values if isinstance(values, Tensor) else ops.full_like(array.tensor, values)
    places = tuple(
        ops.arange(array.shape[i])[part] if isinstance(part, slice) else part for i, part in enumerate(index)
    )
    places, values = tuple(map(given, places)), values.to(array.tensor.dtype)
    array.change(lambda seen: seen.index_put_(places, values, accumulate=True))


def _axes(function: Callable[..., Any], many: bool = True) -> Callable[..., Any]:
    """A reduction with NumPy's arguments."""

    def reduce(x: Tensor, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
        if dtype is not None:
            x = x.to(np.dtype(dtype))
        if axis is None and not many:
            flat = function(x.reshape(-1), 0, False)
            return flat.reshape((1,) * x.ndim) if keepdims else flat
        return function(x, tuple(range(x.ndim)) if axis is None else axis, keepdims)

    return reduce


def _product(x: Tensor, axis: Any, keepdims: bool) -> Tensor:
    for dim in sorted((d % x.ndim for d in (axis if isinstance(axis, tuple) else (axis,))), reverse=True):
        x = x.prod(dim, keepdim=True)
    return x if keepdims else x.squeeze(axis)


def _scan(function: Callable[..., Any]) -> Callable[..., Any]:
    def scan(x: Tensor, axis: int | None = None, dtype: Any = None) -> Any:
        return function(x.reshape(-1) if axis is None else x, axis or 0, **({} if dtype is None else {"dtype": dtype}))

    return scan


def _where(condition: Any, *values: Any) -> Any:
    if not values:
        return ops.nonzero(condition, as_tuple=True)
    a, b = values
    if not isinstance(condition, Tensor):
        return a if condition else b
    if condition.dtype != np.bool_:
        condition = condition != 0
    return ops.where(condition, a, b)


def _asarray(x: Any, dtype: Any = None, order: Any = None) -> Any:
    if isinstance(x, Taped):
        return x if dtype is None else x.astype(dtype, copy=False)
    if isinstance(x, (list, tuple)) and any(isinstance(part, Taped) for part in x):
        return taped(ops.stack([given(part) for part in x]))
    return Taped(Tensor._wrap(_library.get().asarray(x, dtype=dtype)))


def _clip(x: Tensor, low: Any = None, high: Any = None) -> Any:
    return ops.clamp(x, low, high)


def _take(x: Tensor, index: Any, axis: int | None = None) -> Any:
    x, axis = (x.reshape(-1), 0) if axis is None else (x, axis % x.ndim)
    return x[(*(slice(None),) * axis, index)]


def _concatenate(parts: Any, axis: int = 0, dtype: Any = None) -> Any:
    made = ops.cat([p if isinstance(p, Tensor) else ops.tensor(p) for p in parts], axis)
    return made if dtype is None else made.to(np.dtype(dtype))


def _sort_places(x: Tensor, axis: int = -1, kind: Any = None) -> Any:
    return ops.argsort(x, axis, stable=kind == "stable")


def _repeat(x: Tensor, repeats: Any, axis: int | None = None) -> Any:
    return ops.repeat_interleave(x, repeats, axis)


def _roll(x: Tensor, shift: Any, axis: Any = None) -> Any:
    return ops.roll(x, shift, axis)


def _squeeze(x: Tensor, axis: Any = None) -> Any:
    return x.squeeze() if axis is None else x.squeeze(axis)


def _expanded(x: Tensor, axis: Any) -> Any:
    axes = axis if isinstance(axis, tuple) else (axis,)
    for dim in sorted(a % (x.ndim + len(axes)) for a in axes):
        x = x.unsqueeze(dim)
    return x


def _diagonal(x: Tensor, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    return ops.diagonal(x, offset, axis1, axis2)


def _flip(x: Tensor, axis: Any = None) -> Any:
    axes = tuple(range(x.ndim)) if axis is None else axis
    return x.flip(axes)


_ELEMENTS = """exp log log1p expm1 sqrt sin cos tan sinh cosh tanh sign floor ceil trunc isnan isinf isfinite square
reciprocal sinc maximum minimum fmax fmin copysign hypot logaddexp fmod ldexp nextafter exp2 log2 log10 erf signbit
logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_xor nan_to_num""".split()
_NAMED: dict[str, Callable[..., Any]] = {
    "add": operator.add, "subtract": operator.sub, "multiply": operator.mul, "divide": operator.truediv,
    "true_divide": operator.truediv, "floor_divide": operator.floordiv, "remainder": operator.mod, "power": operator.pow,
    "matmul": operator.matmul, "less": operator.lt, "less_equal": operator.le, "greater": operator.gt,
    "greater_equal": operator.ge, "equal": operator.eq, "not_equal": operator.ne, "negative": operator.neg,
    "invert": operator.invert, "absolute": ops.abs, "abs": ops.abs, "arcsin": ops.asin, "arccos": ops.acos,
    "arctan": ops.atan, "arctan2": ops.atan2, "arcsinh": ops.asinh, "arccosh": ops.acosh, "arctanh": ops.atanh,
    "rint": ops.round, "round": ops.round, "clip": _clip, "where": _where, "take": _take, "concatenate": _concatenate,
    "stack": lambda parts, axis=0: ops.stack(list(parts), axis), "argsort": _sort_places,
    "sort": lambda x, axis=-1, kind=None: ops.sort(x, axis).values, "repeat": _repeat, "roll": _roll,
    "take_along_axis": lambda x, index, axis: ops.take_along_dim(x, index, axis),
    "searchsorted": lambda a, v, side="left": ops.searchsorted(a, v, right=side == "right"),
    "sum": _axes(lambda x, axis, keep: x.sum(axis, keepdim=keep)),
    "mean": _axes(lambda x, axis, keep: x.mean(axis, keepdim=keep)),
    "max": _axes(lambda x, axis, keep: x.amax(axis, keepdim=keep)),
    "min": _axes(lambda x, axis, keep: x.amin(axis, keepdim=keep)),
    "prod": _axes(_product), "any": _axes(lambda x, axis, keep: x.any(axis, keepdim=keep)),
    "all": _axes(lambda x, axis, keep: x.all(axis, keepdim=keep)),
    "argmax": _axes(lambda x, axis, keep: x.argmax(axis, keepdim=keep), many=False),
    "argmin": _axes(lambda x, axis, keep: x.argmin(axis, keepdim=keep), many=False),
    "cumsum": _scan(ops.cumsum), "cumprod": _scan(ops.cumprod), "vdot": lambda a, b: (a * b).sum(),
    "dot": operator.matmul, "tril": ops.tril, "triu": ops.triu, "isclose": ops.isclose,
    "einsum": lambda *args, optimize=None: ops.einsum(*args),
    "tensordot": lambda a, b, axes=2: ops.tensordot(a, b, axes),
}  # fmt: skip
_VIEWS: dict[str, Callable[..., Any]] = {
    "reshape": lambda x, shape, order="C": x.reshape(shape),
    "transpose": lambda x, axes=None: x.permute(*(axes or range(x.ndim)[::-1])),
    "swapaxes": lambda x, a, b: x.transpose(a, b), "moveaxis": lambda x, a, b: ops.movedim(x, a, b),
    "squeeze": _squeeze, "expand_dims": _expanded, "flip": _flip, "diagonal": _diagonal, "ravel": lambda x: x.reshape(-1),
    "broadcast_to": lambda x, shape: (x if isinstance(x, Tensor) else ops.tensor(x)).broadcast_to(shape),
}  # fmt: skip
_PLAIN = """broadcast_shapes iinfo finfo result_type promote_types issubdtype errstate pi inf nan newaxis dtype ndarray
bool_ integer floating float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 generic""".split()


def _refuse(name: str, *args: Any, **options: Any) -> Any:
    raise NotImplementedError(f"{name} of arrays has no derivative")


class _Library:
    """A part of the namespace, such as ``linalg``."""

    def __init__(self, name: str, functions: dict[str, Callable[..., Any]]) -> None:
        self._name, self._functions = name, functions

    def __getattr__(self, name: str) -> Any:
        whole = f"{self._name}.{name}"
        if name in ("stride_tricks",):
            return _Library(whole, {})
        return Function(whole, self._functions.get(name) or partial(_refuse, whole))


def _solve(a: Tensor, b: Tensor) -> Tensor:
    return linalg.solve(a, b.unsqueeze(-1)).squeeze(-1) if b.ndim == 1 else linalg.solve(a, b)


class _Special:
    """The operations of ``kobai.special``, which kobai itself does not load."""

    def __getattr__(self, name: str) -> Any:
        function = getattr(import_module("kobai.special"), name)
        return lambda *args: taped(function(*map(given, args)))


_LINALG: dict[str, Callable[..., Any]] = {
    "solve": _solve, "inv": linalg.inv, "det": linalg.det, "slogdet": linalg.slogdet, "cholesky": linalg.cholesky,
    "eigh": linalg.eigh, "svd": lambda a, full_matrices=True: linalg.svd(a, full_matrices),
    "qr": lambda a, mode="reduced": linalg.qr(a, mode),
}  # fmt: skip


class _Namespace:
    """NumPy's functions on :class:`Taped` arrays."""

    __name__ = "numpy on the tape"
    ndarray = Taped

    def __getattr__(self, name: str) -> Any:
        return Function(name, partial(_refuse, name))

    linalg = _Library("linalg", _LINALG)
    lib = _Library("lib", {})
    special = _Special()

    def may_share_memory(self, a: Any, b: Any) -> bool:
        return same_memory(given(a), given(b))

    def broadcast_arrays(self, *arrays: Any) -> list[Any]:
        return [taped(x) for x in ops.broadcast_tensors(*map(given, arrays))]

    def apply_formula(self, kernel: Any, code: Any, slots: tuple[Any, ...], numbers: tuple[Any, ...]) -> None:
        """Run a kernel made of a formula, see :class:`kobai.formula.elementwise.Elementwise`."""
        from_slots = [given(slot) for slot in slots[: len(kernel.formula.arrays)]]
        options = dict(zip(kernel.formula.scalars, numbers, strict=True))
        made = [formula_operation(kernel.part(k))(*from_slots, **options) for k in range(len(code.into))]
        for slot, value in zip(code.into, made, strict=True):
            slots[slot].write(value)


_operations: dict[Any, Callable[..., Tensor]] = {}


def formula_operation(kernel: Any) -> Callable[..., Tensor]:
    """A kernel of one result as an operation on tensors, whose vjp is by the kernels of its derivatives."""
    found = _operations.get(kernel)
    if found is None:
        found = _operations[kernel] = _as_operation(kernel)
    return found


def _as_operation(kernel: Any) -> Callable[..., Tensor]:
    def function(*arrays: Any, **numbers: Any) -> Any:
        def vjp(dy: Any) -> Any:
            return [lambda k=k: kernel.slope(k)(*arrays, dy, **numbers) for k in range(len(arrays))]

        return kernel(*arrays, **numbers), vjp

    function.__name__ = kernel.name
    return operation(function)


namespace: Any = _Namespace()
for _name in _PLAIN:
    setattr(_Namespace, _name, getattr(np, _name))
for _name in "empty zeros ones full arange eye linspace".split():
    setattr(_Namespace, _name, staticmethod(_made(_name)))
for _name in "empty_like zeros_like ones_like full_like".split():
    setattr(_Namespace, _name, staticmethod(_made_like(_name)))
for _name in _ELEMENTS:
    setattr(_Namespace, _name, Function(_name, getattr(ops, _name), tensors=True))
for _name, _function in _NAMED.items():
    setattr(_Namespace, _name, Function(_name, _function))
for _name, _function in _VIEWS.items():
    setattr(_Namespace, _name, Function(_name, _function, shares=True))
for _name in ("asarray", "array", "ascontiguousarray"):
    setattr(_Namespace, _name, staticmethod(_asarray))

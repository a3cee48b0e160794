"""NumPy's functions on arrays of samples: the batching rules.

A rule is a function of the namespace and of NumPy's arguments. Behind the axis of samples the inner arrays have the axes that
the caller knows, so most rules say how an argument changes: an ``axis`` counts one more, a shape gets the samples in front, an
operand with fewer dimensions gets axes of size 1 between the samples and its own, so that it broadcasts as it did.
What has no rule works on what is the same for all samples, and else is a :class:`NoRule`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

from kobai.autograd.batching import arrays
from kobai.autograd.batching.arrays import Batched, NoRule, aligned, inner_of, is_batched, lifted, need_room
from kobai.core.tape import as_array
from kobai.xp import is_array

RULES: dict[str, Callable[..., Any]] = {}
"""By the name of a function, with the room's in front (``linalg.inv``): what is called with the namespace and its arguments."""


def rule(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: the batching rule of NumPy's function of that name."""
    RULES[function.__name__.rstrip("_")] = function
    return function


def rules(names: str, room: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: the batching rule of all these functions, which is given the name first."""

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names.split():
            RULES[room + name] = partial(function, name)
        return function

    return declare


class Namespace:
    """``numpy`` for arrays of samples of one type, or a room of it."""

    __name__ = "samples"

    def __init__(self, kind: type[Batched], library: Any, room: str = "") -> None:
        self.kind, self.ndarray = kind, kind
        self.library = library
        """The namespace of the inner arrays."""
        self._room = room

    special = None  # a library's own of functions such as erf

    def __getattr__(self, name: str) -> Any:
        known = RULES.get(self._room + name)
        if known is not None:
            made: Any = partial(known, self)
        elif name in ("linalg", "lib", "stride_tricks"):
            made = Namespace(self.kind, getattr(self.library, name), f"{self._room}{name}.")
        else:
            found = getattr(np if not self._room else self.library, name)
            if isinstance(found, np.ufunc) and found.signature is None:
                made = Elementwise(self, name)
            elif isinstance(found, type) or not callable(found):
                made = found
            else:
                made = partial(_same_for_all, self, name)
        setattr(self, name, made)
        return made

    def of(self, made: Any, batched: bool) -> Any:
        """What an inner function returned, as arrays of samples."""
        if isinstance(made, (tuple, list)):
            parts = [self.of(part, batched) for part in made]
            return type(made)(*parts) if hasattr(made, "_fields") else type(made)(parts)
        return self.kind(as_array(made), batched)

    def array_of(self, value: Any) -> Any:
        """An operand as an array of samples: the same for all of them if it is none yet."""
        if type(value) is self.kind:
            return value
        inner = value if is_array(value) else self.kind.library.asarray(value)
        return self.kind(lifted(as_array(inner), self.kind.parent), False)

    def apply_formula(self, kernel: Any, code: Any, slots: tuple[Any, ...], numbers: Any) -> None:
        """Run a kernel made of a formula, see :class:`kobai.formula.elementwise.Elementwise`."""
        kernel._run(code, tuple(self.kind.within(slots, code.into)), numbers)

    def ranks(self, operands: Iterable[Any]) -> int:
        """The largest number of dimensions among the operands, for one sample."""
        return max((value.ndim for value in operands if hasattr(value, "ndim")), default=0)


arrays.maker["namespace"] = lambda kind: Namespace(kind, kind.library)


def _any_batched(values: Iterable[Any], kind: type[Batched]) -> bool:
    return any(
        _any_batched(value, kind) if isinstance(value, (tuple, list)) else is_batched(value, kind) for value in values
    )


def _inner(value: Any, kind: type[Batched]) -> Any:
    if isinstance(value, (tuple, list)):
        return type(value)([_inner(part, kind) for part in value])
    return inner_of(value, kind)


def _same_for_all(ns: Namespace, name: str, *args: Any, **options: Any) -> Any:
    """A function without a rule, of what is the same for all samples."""
    kind = ns.kind
    if _any_batched((*args, *options.values()), kind):
        raise NoRule(f"vmap: {name} has no batching rule")
    made = getattr(ns.library, name)(*_inner(args, kind), **{key: _inner(v, kind) for key, v in options.items()})
    if isinstance(made, (tuple, list)):
        return type(made)(
            ns.of(part, False) if is_array(part) or isinstance(part, np.generic) else part for part in made
        )
    return ns.of(made, False) if is_array(made) or isinstance(made, np.generic) else made


# --- element by element -----------------------------------------------------------------------------------------------


class Elementwise:
    """A ufunc: operands aligned behind the axis of samples. Its methods too."""

    def __init__(self, ns: Namespace, name: str) -> None:
        self.ns, self.name, self.__name__ = ns, name, name

    def __call__(self, *operands: Any, out: Any = None, **options: Any) -> Any:
        return elementwise(self.name, self.ns, *operands, out=out, **options)

    def reduce(self, a: Any, axis: Any = 0, *args: Any, **options: Any) -> Any:
        return _reduced(getattr(self.ns.library, self.name).reduce, self.ns, a, axis, *args, **options)

    def accumulate(self, a: Any, axis: int = 0, *args: Any, **options: Any) -> Any:
        return _along(getattr(self.ns.library, self.name).accumulate, self.ns, a, axis, *args, **options)

    def outer(self, a: Any, b: Any) -> Any:
        return self(a[(..., *(None,) * b.ndim)], b)

    def at(self, target: Any, index: Any, *values: Any) -> None:
        self.ns.at(getattr(self.ns.library, self.name).at, target, index, *values)


def elementwise(name: str, ns: Namespace, *operands: Any, out: Any = None, **options: Any) -> Any:
    """A function that treats all elements alike."""
    kind, function = ns.kind, getattr(ns.library, name)
    out = out[0] if type(out) is tuple else out
    batched = any(type(value) is kind and value.batched for value in (*operands, *options.values()))
    if not batched:
        inner = [inner_of(value, kind) for value in operands]
        numbers = {key: inner_of(value, kind) for key, value in options.items()}
    else:
        ndim = ns.ranks(operands if out is None else (*operands, out))
        inner = [aligned(value, ndim, kind) for value in operands]
        numbers = {key: aligned(value, ndim, kind) for key, value in options.items()}
    if out is None:
        return ns.of(function(*inner, **numbers), batched)
    if type(out) is not kind:
        raise NoRule(f"vmap: {name} of samples cannot be written into an array that is the same for all of them")
    if batched:
        need_room(out)
        function(*inner, out=out.inner, **numbers)
    elif not out.batched:
        function(*inner, out=out.inner, **numbers)
    else:
        out[...] = ns.of(function(*inner, **numbers), False)
    return out


for _name in (
    "clip where isclose nan_to_num sinc round around fix real imag conj conjugate isposinf isneginf iscomplex isreal abs "
    "copysign angle i0 rad2deg deg2rad unwrap float_power"
).split():
    RULES[_name] = partial(elementwise, _name)


@rule
def where(ns: Namespace, condition: Any, *choices: Any) -> Any:
    return elementwise("where", ns, condition, *choices) if choices else ns.nonzero(condition)


@rule
def isin(ns: Namespace, element: Any, test_elements: Any, **options: Any) -> Any:
    if is_batched(test_elements, ns.kind):
        raise NoRule("vmap: isin has no batching rule for elements that differ")
    element = ns.array_of(element)
    return ns.of(ns.library.isin(element.inner, inner_of(test_elements, ns.kind), **options), element.batched)


# --- along axes -------------------------------------------------------------------------------------------------------


def behind(axis: Any, ndim: int) -> Any:
    """Axes, counted behind that of the samples; None: all."""
    if axis is None:
        return tuple(range(1, ndim + 1))
    if isinstance(axis, (tuple, list)):
        return tuple(behind(one, ndim) for one in axis)
    if not -ndim <= axis < ndim:
        raise np.exceptions.AxisError(axis, ndim)
    return int(axis) % ndim + 1


def _out(options: dict[str, Any], batched: bool, kind: type[Batched]) -> Any:
    out = options.get("out")
    if out is not None:
        if batched:
            need_room(out)
        options["out"] = out.inner
    if "where" in options:
        raise NoRule("vmap: a reduction with where= has no batching rule")
    return out


def _reduced(function: Callable[..., Any], ns: Namespace, a: Any, axis: Any = None, *args: Any, **options: Any) -> Any:
    a = ns.array_of(a)
    out = _out(options, a.batched, ns.kind)
    made = function(a.inner, behind(axis, a.ndim) if a.batched else axis, *args, **options)
    return ns.of(made, a.batched) if out is None else out


def _along(function: Callable[..., Any], ns: Namespace, a: Any, axis: Any, *args: Any, **options: Any) -> Any:
    a = ns.array_of(a)
    out = _out(options, a.batched, ns.kind)
    if axis is None:
        a, axis = a.reshape(-1), 0
    made = function(a.inner, *args, axis=behind(axis, a.ndim) if a.batched else axis, **options)
    return ns.of(made, a.batched) if out is None else out


@rules("sum prod max min amax amin any all mean std var median nansum nanprod nanmax nanmin nanmean count_nonzero ptp")
def reduction(name: str, ns: Namespace, a: Any, axis: Any = None, *args: Any, **options: Any) -> Any:
    return _reduced(getattr(ns.library, name), ns, a, axis, *args, **options)


@rules("argmax argmin nanargmax nanargmin")
def position(name: str, ns: Namespace, a: Any, axis: Any = None, **options: Any) -> Any:
    if axis is None and options.get("keepdims"):
        raise NoRule(f"vmap: {name} over all axes that keeps them has no batching rule")
    return _along(getattr(ns.library, name), ns, a, axis, **options)


@rules("cumsum cumprod")
def running(name: str, ns: Namespace, a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
    options = {"dtype": dtype, **({} if out is None else {"out": out})}
    return _along(getattr(ns.library, name), ns, a, axis, **options)


@rules("sort argsort")
def ordered(name: str, ns: Namespace, a: Any, axis: Any = -1, kind: Any = None, **options: Any) -> Any:
    return _along(getattr(ns.library, name), ns, a, axis, kind=kind, **options)


@rules("partition argpartition")
def parted(name: str, ns: Namespace, a: Any, kth: Any, axis: Any = -1, **options: Any) -> Any:
    return _along(getattr(ns.library, name), ns, a, axis, kth=kth, **options)


@rule
def flip(ns: Namespace, a: Any, axis: Any = None) -> Any:
    return ns.of(ns.library.flip(a.inner, behind(axis, a.ndim) if a.batched else axis), a.batched)


@rule
def roll(ns: Namespace, a: Any, shift: Any, axis: Any = None) -> Any:
    if axis is None:
        return roll(ns, a.reshape(-1), shift, 0).reshape(a.shape)
    return ns.of(ns.library.roll(a.inner, shift, behind(axis, a.ndim) if a.batched else axis), a.batched)


@rule
def repeat(ns: Namespace, a: Any, repeats: Any, axis: Any = None) -> Any:
    if is_batched(repeats, ns.kind):
        raise NoRule("vmap: repeat with another count in each sample gives other shapes")
    return _along(lambda inner, axis: ns.library.repeat(inner, inner_of(repeats, ns.kind), axis), ns, a, axis)


@rule
def diff(ns: Namespace, a: Any, n: int = 1, axis: int = -1) -> Any:
    return _along(partial(ns.library.diff, n=n), ns, a, axis)

"""What every function of ``kobai`` has without saying so: ``out=``, a tensor for the result, and its in-place form."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache, wraps
from types import FunctionType
from typing import Any

from kobai import xp
from kobai.core.tensor import Tensor
from kobai.ops._args import into, need
from kobai.refusals import beside_first, guards, names_a_device, reword

_OTHERS = frozenset(
    f"kobai.ops.{name}"
    for name in "activation assign broadcast conv convert dropout index parts pool resample shape".split()
)
"""Families whose functions return views, or have no ``out=`` in PyTorch."""
_WITHOUT = frozenset(
    """as_strided real imag conj adjoint resolve_conj resolve_neg
    as_tensor asarray detach from_dlpack from_numpy frombuffer tensor""".split()
)
"""Views in other families, and what makes tensors of data."""
_EXACT = frozenset(
    f"kobai.ops.{name}" for name in "extreme gather rearrange running scatter softmax sort statistics".split()
)
"""Families that choose or move elements: their ``out=`` has the dtype of the result. Others may be cast to a wider one."""
_WIDER = frozenset(("logsumexp", "max", "min"))
_CREATING = ("kobai.ops.create", "kobai.ops.random")


_MADE: set[Callable[..., Any]] = set()


def offer_out(namespace: dict[str, Any], names: Any = None) -> None:
    """Give ``out=`` to the functions of a public module that return new tensors, or to those of ``names``.

    The declaration says which: by the annotation of its result, ``Tensor`` or a named tuple of tensors. Only the public names
    take it, once :func:`kobai.refusals.guard` has put them up; methods, operators and what Kobai's files import from each
    other are the functions as they were declared.
    """
    for name in namespace if names is None else names:
        function = namespace[name]
        if type(function) is not FunctionType or name.startswith("_") or function in _MADE:
            continue
        if names or _returns_new(name, function):
            made = guards(_with_out(function), function)
            _MADE.add(made)


def _returns_new(name: str, function: FunctionType) -> bool:
    declared: Any = inspect.unwrap(function)
    if (
        not function.__module__.startswith("kobai.")
        or function.__module__ in _OTHERS
        or name in _WITHOUT
        or name.endswith("Tensor")
    ):
        return False
    if name.endswith("_") or "out" in (declared.__kwdefaults__ or ()):
        return False
    result = declared.__annotations__.get("return")
    return result in ("Tensor", "Any") or hasattr(declared.__globals__.get(result), "_fields")


def _with_out(function: FunctionType) -> Callable[..., Any]:
    who = function.__name__
    exact = (function.__module__ in _EXACT and who not in _WIDER) or who == "multinomial"
    declared: Any = inspect.unwrap(function)
    stays = not names_a_device(function)
    creates = function.__module__ in _CREATING and "dtype" in (declared.__kwdefaults__ or ())

    @wraps(function)
    def with_out(*args: Any, out: Any = None, **options: Any) -> Any:
        try:
            if out is None and not (stays and xp.many_devices):
                return function(*args, **options)
            if creates and isinstance(out, Tensor):
                options.setdefault("dtype", out.dtype)
            result = beside_first(function, args, options) if stays else function(*args, **options)
            return result if out is None else _into(who, out, result, exact)
        except Exception as error:
            reword(error, function, args, options)
            raise

    return with_out


def _into(who: str, out: Any, result: Any, exact: bool) -> Any:
    if exact or isinstance(result, tuple):
        pairs = zip(*(x if isinstance(x, (tuple, list)) else [x] for x in (out, result)), strict=False)
        for place, part in pairs:
            same = not isinstance(place, Tensor) or place.dtype == part.dtype
            need(who, same, f"out= of {part.dtype}", getattr(place, "dtype", None))
    if not isinstance(result, tuple):
        return into(who, out, result)
    several = isinstance(out, (tuple, list)) and len(out) == len(result)
    need(who, several, f"{len(result)} tensors as out=", f"{len(out) if hasattr(out, '__len__') else out}")
    written = [into(who, place, part) for place, part in zip(out, result, strict=True)]
    return type(result)(*written) if hasattr(result, "_fields") else tuple(written)


_FLAGS = {"_": "inplace", "_with_indices": "return_indices"}
"""What PyTorch's names end with that stand for a function with this flag set."""


def more_forms(namespace: dict[str, Any], layers: dict[str, Any], methods: bool = False) -> None:
    """Let a public module find other forms of its functions, of those for ``layers``, and ``methods`` in place.

    ``exp_(x)`` is ``x.exp_()``, ``elu_(x)`` is ``elu(x, inplace=True)``, ``max_pool2d_with_indices(x, 2)`` is
    ``max_pool2d(x, 2, return_indices=True)``. Only when they are asked for: a hundred names more would hide the others in
    ``dir()``.
    """
    others = namespace["__getattr__"]

    def __getattr__(name: str) -> Any:
        if not name.startswith("_"):
            if methods and name.endswith("_") and hasattr(Tensor, name):
                return getattr(Tensor, name)
            for ending, flag in _FLAGS.items():
                function = layers.get(name.removesuffix(ending)) if name.endswith(ending) else None
                if type(function) is FunctionType and flag in inspect.signature(function).parameters:
                    return _with_flag(name, function, flag)
        return others(name)

    namespace["__getattr__"] = __getattr__


@cache
def _with_flag(name: str, function: FunctionType, flag: str) -> Callable[..., Any]:
    def form(*args: Any, **options: Any) -> Any:
        return function(*args, **options, **{flag: True})

    form.__name__ = form.__qualname__ = name
    form.__module__, form.__doc__ = function.__module__, f":func:`{function.__name__}` with ``{flag}=True``."
    return form

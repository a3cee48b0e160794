"""Shapes of arrays of samples, and new arrays: more batching rules.

New memory has room for every sample, as anything may be written there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kobai.autograd.batching.arrays import NoRule, aligned, inner_of, is_batched, lifted, spread
from kobai.autograd.batching.namespace import RULES, Namespace, behind, rule, rules
from kobai.xp import is_array


@rule
def reshape(ns: Namespace, a: Any, shape: Any, order: str = "C") -> Any:
    shape = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    if order != "C":
        raise NoRule("vmap: reshape in another order has no batching rule")
    if not a.batched:
        return ns.of(a.inner.reshape(shape), False)
    if -1 in shape:
        rest = math.prod(n for n in shape if n != -1)
        shape = tuple((a.size // rest if rest else 0) if n == -1 else n for n in shape)
    return ns.of(a.inner.reshape(ns.kind.samples, *shape), True)


@rules("ravel flatten")
def raveled(name: str, ns: Namespace, a: Any) -> Any:
    flat = reshape(ns, a, -1)
    return flat.copy() if name == "flatten" else flat


@rule
def transpose(ns: Namespace, a: Any, axes: Any = None) -> Any:
    axes = range(a.ndim)[::-1] if axes is None else axes
    return ns.of(a.inner.transpose((0, *behind(tuple(axes), a.ndim)) if a.batched else tuple(axes)), a.batched)


@rule
def moveaxis(ns: Namespace, a: Any, source: Any, destination: Any) -> Any:
    places = [behind(axes, a.ndim) if a.batched else axes for axes in (source, destination)]
    return ns.of(ns.library.moveaxis(a.inner, *places), a.batched)


@rule
def swapaxes(ns: Namespace, a: Any, axis1: int, axis2: int) -> Any:
    axes = [behind(axis, a.ndim) if a.batched else axis for axis in (axis1, axis2)]
    return ns.of(a.inner.swapaxes(*axes), a.batched)


@rule
def expand_dims(ns: Namespace, a: Any, axis: Any) -> Any:
    axes = axis if isinstance(axis, tuple) else (axis,)
    places = behind(axes, a.ndim + len(axes)) if a.batched else axes
    return ns.of(ns.library.expand_dims(a.inner, places), a.batched)


@rule
def squeeze(ns: Namespace, a: Any, axis: Any = None) -> Any:
    axes = tuple(i for i, n in enumerate(a.shape) if n == 1) if axis is None else axis
    return ns.of(a.inner.squeeze(behind(axes, a.ndim) if a.batched else axes), a.batched)


@rule
def broadcast_to(ns: Namespace, a: Any, shape: Any) -> Any:
    a, shape = ns.array_of(a), (shape,) if isinstance(shape, int) else tuple(shape)
    full = (ns.kind.samples, *shape) if a.batched else shape
    return ns.of(ns.library.broadcast_to(aligned(a, len(shape), ns.kind), full), a.batched)


@rule
def broadcast_arrays(ns: Namespace, *operands: Any) -> Any:
    operands = tuple(ns.array_of(a) for a in operands)
    shape = np.broadcast_shapes(*(a.shape for a in operands))
    return tuple(broadcast_to(ns, a, shape) for a in operands)


@rules("concatenate stack")
def joined(name: str, ns: Namespace, parts: Sequence[Any], axis: int = 0, **options: Any) -> Any:
    parts = [ns.array_of(part) for part in parts]
    function = getattr(ns.library, name)
    if not any(part.batched for part in parts):
        return ns.of(function([part.inner for part in parts], axis=axis, **options), False)
    place = behind(axis, parts[0].ndim + (name == "stack"))
    return ns.of(function([spread(part, ns.kind) for part in parts], axis=place, **options), True)


@rules("tril triu")
def triangle(name: str, ns: Namespace, m: Any, k: int = 0) -> Any:
    if m.ndim < 2:
        raise NoRule(f"vmap: {name} of a vector has no batching rule")
    return ns.of(getattr(ns.library, name)(m.inner, k), m.batched)


@rules("diagonal trace")
def diagonals(name: str, ns: Namespace, a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, **options: Any) -> Any:
    axes = [behind(axis, a.ndim) if a.batched else axis for axis in (axis1, axis2)]
    return ns.of(getattr(ns.library, name)(a.inner, offset, *axes, **options), a.batched)


@rule
def pad(ns: Namespace, a: Any, pad_width: Any, *args: Any, **options: Any) -> Any:
    widths = np.broadcast_to(np.asarray(pad_width), (a.ndim, 2)).tolist()
    return ns.of(ns.library.pad(a.inner, [(0, 0)] * a.batched + widths, *args, **options), a.batched)


RULES["lib.stride_tricks.as_strided"] = lambda ns, x, shape, strides: ns.of(
    ns.library.as_strided(
        x.inner,
        (ns.kind.samples, *shape) if x.batched else shape,
        (x.inner.strides[0], *strides) if x.batched else strides,
    ),
    x.batched,
)


# --- new arrays: with room for every sample, as anything may be written there -----------------------------------------


@rule
def empty(ns: Namespace, shape: Any, dtype: Any = float, *args: Any, **options: Any) -> Any:
    shape = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    return ns.of(ns.library.empty((ns.kind.samples, *shape), dtype, *args, **options), True)


@rule
def empty_like(ns: Namespace, a: Any, dtype: Any = None, **options: Any) -> Any:
    if is_batched(a, ns.kind) and "shape" not in options:
        return ns.of(ns.library.empty_like(a.inner, dtype, **options), True)
    return empty(ns, options.get("shape", a.shape), a.dtype if dtype is None else dtype)


def _filled(out: Any, value: Any) -> Any:
    out[...] = value
    return out


@rule
def full(ns: Namespace, shape: Any, fill_value: Any, dtype: Any = None, *args: Any, **options: Any) -> Any:
    if dtype is None:
        dtype = fill_value.dtype if hasattr(fill_value, "dtype") else np.asarray(fill_value).dtype
    return _filled(empty(ns, shape, dtype, *args, **options), fill_value)


@rule
def full_like(ns: Namespace, a: Any, fill_value: Any, dtype: Any = None, **options: Any) -> Any:
    return _filled(empty_like(ns, a, dtype, **options), fill_value)


@rules("zeros ones")
def constant(name: str, ns: Namespace, shape: Any, dtype: Any = float, *args: Any, **options: Any) -> Any:
    shape = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    return ns.of(getattr(ns.library, name)((ns.kind.samples, *shape), dtype, *args, **options), True)


@rules("zeros_like ones_like")
def constant_like(name: str, ns: Namespace, a: Any, dtype: Any = None, **options: Any) -> Any:
    return _filled(empty_like(ns, a, dtype, **options), int(name == "ones_like"))


@rules("asarray array ascontiguousarray")
def converted(name: str, ns: Namespace, a: Any, dtype: Any = None, *args: Any, **options: Any) -> Any:
    if isinstance(a, (list, tuple)) and any(type(part) is ns.kind for part in a):
        return ns.stack(a).astype(a[0].dtype if dtype is None else dtype)
    batched, inner = is_batched(a, ns.kind), inner_of(a, ns.kind)
    if type(a) is ns.kind and name != "array":
        made = inner if dtype is None else inner.astype(dtype, copy=False)
        if name == "ascontiguousarray" and not made.flags.c_contiguous:
            made = made.copy()
        return a if made is inner else ns.of(made, batched)
    return ns.of(lifted(getattr(ns.library, name)(inner, dtype, *args, **options), ns.kind.parent), batched)


@rule
def copyto(ns: Namespace, dst: Any, src: Any) -> None:
    dst[...] = src


@rule
def may_share_memory(ns: Namespace, a: Any, b: Any) -> bool:
    return bool(ns.library.may_share_memory(inner_of(a, ns.kind), inner_of(b, ns.kind)))


RULES["shares_memory"] = may_share_memory


@rule
def result_type(ns: Namespace, *values: Any) -> Any:
    return np.result_type(*(value.dtype if is_array(value) else value for value in values))


for _name, _of in {"shape": lambda ns, a: a.shape, "ndim": lambda ns, a: a.ndim, "size": lambda ns, a: a.size}.items():
    RULES[_name] = _of

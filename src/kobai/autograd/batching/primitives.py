"""Primitives on arrays of samples.

A primitive's raw function runs on them as it is written, through the namespace's batching rules. Two things are quicker, or
possible at all, one level higher:

- What treats all elements alike is run on the inner arrays, once they are aligned: so compiled loops are used.
  :data:`RULES` has further primitives that can be told to do all samples at once.
- What has no rule is done sample by sample, forward and backward, which is slow and therefore said, once for each primitive.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

from kobai.autograd.batching import arrays as arrays_of_samples
from kobai.autograd.batching.arrays import Batched, NoRule, aligned, lifted, spread
from kobai.core.primitive import REGISTRY
from kobai.core.tape import Node, as_array, computed, kept
from kobai.errors import users_line

RULES: dict[str, Callable[..., Any]] = {}
"""By a primitive's key in the registry: ``rule(kind, function, arrays, options)``, which returns what the function would, or
None where it does not know."""

_warned: set[str] = set()

WAYS_IN = frozenset(("vmap_in", "vmap_share"))
"""The nodes through which a gradient leaves the samples."""

_of_one: set[Any] = set()
"""The code of vjps that cannot take gradients of samples where they hold arrays of one."""


def rule(*keys: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: the batching rule of these primitives."""

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        RULES.update(dict.fromkeys(keys, function))
        return function

    return declare


def run(key: str, function: Callable[..., Any], kind: type[Batched], /, *arrays: Any, **options: Any) -> Any:
    """The raw function of a primitive on arrays of samples: (y, vjp)."""
    alike = key not in REGISTRY or REGISTRY[key].kind == "elementwise"  # what is not in there is made of a formula
    known = RULES.get(key) or (aligned_elements if alike else None)
    made = None if known is None else known(kind, function, arrays, options)
    if made is None:
        try:
            return function(*arrays, **options)
        except NoRule as error:
            reason = error
        repeated = [kind(spread(x, kind).copy(), True) if type(x) is kind and not x.batched else x for x in arrays]
        if any(
            x is not y for x, y in zip(arrays, repeated, strict=True)
        ):  # nothing is the same for all samples any more
            try:
                made = function(*repeated, **options)
            except NoRule as error:
                reason = error
    if made is None:
        made = looped(kind, function, arrays, options)
        _say(key.rpartition(".")[2].strip("_"), str(reason))
    if made[1] is not None:  # derivatives of the gradient run the function again, see autograd/on_tape.py
        made[1].forward = function, arrays, options
    return made


def _say(name: str, reason: str) -> None:
    """That an operation is done for one sample after the other, once."""
    if name not in _warned:
        _warned.add(name)
        warnings.warn(
            f"vmap: {name} has no batching rule for these arguments and is done for one sample after the other, which is slow "
            f"({reason})",
            stacklevel=users_line(),
        )


def backward(node: Node, dy: Any) -> list[Any]:
    """The vjp of a node for a gradient of samples.

    It runs as it is written. If the operation was done outside of ``vmap``, it holds arrays of one sample, and may have chosen
    loops for their type: what cannot take the gradients of many samples takes one after the other, as a program without
    ``vmap`` would.
    """
    kind: Any = type(dy)
    if node.name_ in WAYS_IN:
        return computed(node, dy)
    code = getattr(node.vjp, "__code__", None)
    if code not in _of_one or not _of_one_sample(node, dy):
        try:
            return [_inside(g, kind) for g in computed(node, dy)]
        except Exception:
            if not _of_one_sample(node, dy):
                raise
            _of_one.add(code)
    every = [computed(node, as_array(dy.inner[b])) for b in range(kind.samples)]
    return [_together(parts, kind) for parts in zip(*every, strict=True)]


def _of_one_sample(node: Node, dy: Any) -> bool:
    """Whether there are gradients of samples for a node that holds arrays of one: it gives what its dy is."""
    if not dy.batched or not dy.samples or any(isinstance(array, Batched) for array in kept(node.vjp)):
        return False
    return not any(type(_value(g)) is type(dy) for g in computed(node, as_array(dy.inner[0])))


def _value(entry: Any) -> Any:
    """An entry of a vjp, computed."""
    return entry() if type(entry) is FunctionType else entry


def _inside(entry: Any, kind: type[Batched]) -> Any:
    """An entry of a vjp that may not know of samples."""
    g = _value(entry)
    if g is None or isinstance(g, (Batched, dict)):
        return entry
    return kind(lifted(as_array(g), kind.parent), False)


def _together(entries: Sequence[Any], kind: type[Batched]) -> Any:
    """What a vjp gave for each sample."""
    if entries[0] is None:
        return None
    return kind(kind.library.stack([as_array(_value(entry)) for entry in entries]), True)


arrays_of_samples.maker.update(run=run, backward=backward)


def looped(kind: type[Batched], function: Callable[..., Any], arrays: Sequence[Any], options: Any) -> Any:
    """One sample after the other."""
    stack = kind.library.stack
    if not kind.samples:
        raise NoRule("vmap: what has no batching rule cannot be done for no samples at all")

    def of_sample(value: Any, b: int) -> Any:
        return as_array(value.inner[b] if value.batched else value.inner) if type(value) is kind else value

    every = [function(*(of_sample(x, b) for x in arrays), **options) for b in range(kind.samples)]
    values = [as_array(y) for y, _ in every]
    if any(y.shape != values[0].shape for y in values):
        raise NoRule(f"vmap: results of the samples have different shapes: {sorted({y.shape for y in values})}")
    vjps = [vjp for _, vjp in every]
    if vjps[0] is None:
        return kind(stack(values), True), None

    def vjp(dy: Any) -> list[Any]:
        entries = [list(one(of_sample(dy, b))) for b, one in enumerate(vjps)]
        return [_together(parts, kind) for parts in zip(*entries, strict=True)]

    return kind(stack(values), True), vjp


@rule("ops.rare_special._incomplete_gamma")  # element by element, too
def aligned_elements(kind: type[Batched], function: Callable[..., Any], arrays: Sequence[Any], options: Any) -> Any:
    """All samples as one array: operands with axes of size 1 where others have more; what is the same for all samples is
    repeated, so that every sample has its own gradient of it. Where nothing differs, the function does it as it is."""
    if not any(type(x) is kind and x.batched for x in arrays):
        return None
    ndim = max(x.ndim for x in arrays if type(x) is kind)
    y, vjp = function(*(_in_front(x, ndim, kind) if type(x) is kind else x for x in arrays), **options)
    return of_all(kind, y, vjp, arrays)


def of_all(kind: type[Batched], y: Any, vjp: Any, arrays: Sequence[Any]) -> Any:
    """A value of all samples, with the axis of samples in front, and its vjp, as those of one sample of ``arrays``."""
    y = kind(as_array(y), True)
    if vjp is None:
        return y, None
    shapes = [x.shape if type(x) is kind else None for x in arrays]
    return y, lambda dy: [_shaped(kind, g, shape) for g, shape in zip(vjp(spread(dy, kind)), shapes, strict=False)]


def _in_front(x: Any, ndim: int, kind: type[Batched]) -> Any:
    """The inner array with the axis of samples in front of ``ndim`` others."""
    return aligned(x if x.batched else kind(spread(x, kind), True), ndim, kind)


def _shaped(kind: type[Batched], entry: Any, shape: tuple[int, ...] | None) -> Any:
    """An entry of an inner vjp as one for arrays of samples of this shape."""
    if entry is None or shape is None:
        return None
    if type(entry) is FunctionType:
        return lambda: _shaped(kind, entry(), shape)
    return kind(as_array(entry).reshape(kind.samples, *shape), True)


@rule("ops.scatter._scatter", "ops.scatter._scatter_extreme", "ops._products_at.scatter_product")
def scattered(kind: type[Batched], function: Callable[..., Any], arrays: Sequence[Any], options: Any) -> Any:
    """To scatter along an axis leaves the other dimensions where they are, and that of the samples with them."""
    x, index, src, axis, *rest = arrays
    if src.size == 1 and index.size != 1:
        return None
    inner = [spread(a, kind) for a in (x, index, src)]
    y, vjp = function(*inner, axis + 1, *rest, **options)
    return of_all(kind, y, vjp, arrays)

"""The border of ``vmap``: tensors that enter it, and those that leave.

A tensor enters along a dimension, which then counts the samples, or as it is, the same for all. Within, every gradient is that
of one sample, also that of a value that all samples share: as if each sample had a copy of its own. So at the border

- what entered along a dimension receives the gradients of the samples along that dimension;
- what entered as the same for all is one tensor again, of which all samples made use: it receives their *sum*;
- what leaves hands each sample the part of the gradient that belongs to it.

A tensor that was not passed through ``in_dims`` but is used inside, a weight in a closure, enters where it first meets samples.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from kobai.autograd.batching import indexing, layers, products, shapes  # noqa: F401  (their rules)
from kobai.autograd.batching.arrays import Batched, kind_of, lifted, spread
from kobai.core import tape
from kobai.core.grad_mode import state
from kobai.core.primitive import MEETING
from kobai.core.tape import Node
from kobai.core.tensor import Tensor
from kobai.ops.joining import cat
from kobai.ops.like import zeros_like
from kobai.xp import xp_of


@dataclass
class Level:
    """One ``vmap`` at work: how many samples, and what random functions are to do."""

    samples: int
    randomness: str


class _Levels(threading.local):
    def __init__(self) -> None:
        self.stack: list[Level] = []


levels = _Levels()
"""The ``vmap`` calls that this thread is in, the outermost first."""


def depth_of(array: Any) -> int:
    """How many axes of samples an array has, or could have."""
    return array.depth if isinstance(array, Batched) else 0


def kind_at(array: Any, depth: int) -> type:
    """The type of arrays with ``depth`` axes of samples, for inner arrays like this one."""
    kind, like = type(array), array
    for level in levels.stack[depth_of(array) : depth]:
        kind = kind_of(kind, level.samples, like)
        like = lifted(array, kind)
    return kind


def enter(tensor: Tensor, dim: int | None) -> Tensor:
    """A tensor inside the innermost ``vmap``: its dimension ``dim`` counts the samples; None: it is the same for all."""
    depth = len(levels.stack)
    if dim is None:
        return shared(tensor, kind_at(tensor._array, depth))
    if depth_of(tensor._array) < depth - 1:
        tensor = shared(tensor, kind_at(tensor._array, depth - 1))
    return _inside(tensor, kind_at(tensor._array, depth), dim)


def leave(tensor: Tensor, dim: int | None) -> Tensor:
    """A result of the innermost ``vmap`` outside, its samples along ``dim``; None: one for all, which must not differ."""
    depth = len(levels.stack)
    if depth_of(tensor._array) < depth:
        tensor = shared(tensor, kind_at(tensor._array, depth))
    if dim is not None:
        return _outside(tensor, dim)
    if tensor._array.batched:
        raise ValueError("vmap: out_dims is None for a result that differs between samples")
    return _one(tensor)


def _inside(tensor: Tensor, kind: Any, dim: int) -> Tensor:
    """A tensor whose dimension ``dim`` counts the samples as one of samples."""
    array = tensor._array
    inner = xp_of(array).moveaxis(array, dim, 0) if dim else array
    return _joined(
        "vmap_in", tensor, kind(inner, True), lambda dy: _along(spread(dy, kind), dim), lambda dy: _outside(dy, dim)
    )


def _outside(tensor: Tensor, dim: int) -> Tensor:
    """A tensor of samples as one whose dimension ``dim`` counts them."""
    array = tensor._array
    kind: Any = type(array)
    inner = spread(array, kind)
    there = _along(inner if array.batched else inner.copy(), dim)

    def vjp(dy: Any) -> Any:
        return kind(xp_of(dy).moveaxis(dy, dim, 0) if dim else dy, True)

    return _joined("vmap_out", tensor, there, vjp, lambda dy: _inside(dy, kind, dim))


def _along(inner: Any, dim: int) -> Any:
    return xp_of(inner).moveaxis(inner, 0, dim) if dim else inner


def shared(tensor: Tensor, kind: Any) -> Tensor:
    """A tensor that is the same for all samples, inside; outside it receives the sum of their gradients."""
    if type(tensor._array) is kind:
        return tensor
    if type(tensor._array) is not kind.parent:
        if not issubclass(kind.parent, Batched):
            raise RuntimeError(
                f"vmap: a tensor of {getattr(type(tensor._array), 'samples', 'no')} samples met others of {kind.samples}; it "
                "has escaped from the vmap that made it"
            )
        tensor = shared(tensor, kind.parent)

    def vjp(dy: Any) -> Any:
        return dy.inner.sum(axis=0) if dy.batched else dy.inner * kind.samples

    return _joined("vmap_share", tensor, lifted(tensor._array, kind), vjp, lambda dy: _outside(dy, 0).sum(0))


def _one(tensor: Tensor) -> Tensor:
    """A tensor that is the same for all samples, outside. Its gradient is that of the first: their sum is to be it."""
    kind: Any = type(tensor._array)

    def vjp(dy: Any) -> Any:
        every = kind.library.zeros((kind.samples, *dy.shape), dy.dtype)
        every[:1] = dy
        return kind(every, True)

    def on_tape(dy: Tensor) -> Tensor:
        others = zeros_like(dy)[None].expand(kind.samples - 1, *dy.shape)
        return _inside(cat([dy[None], others]), kind, 0)

    return _joined("vmap_out", tensor, tensor._array.inner, vjp, on_tape)


def _joined(name: str, tensor: Tensor, array: Any, vjp: Any, on_tape: Any) -> Tensor:
    """A tensor of the same elements on the other side; ``on_tape`` does to tensors what ``vjp`` does to arrays."""
    out: Tensor = Tensor._wrap(array)
    out._version = tensor._version
    edge = tensor._edge()
    if edge is not None and state.grad:

        def gradients(dy: Any) -> Any:
            return (vjp(dy),)

        gradients.on_tape = lambda binding, dy: (tape.taped_type(on_tape(dy.tensor)),)  # type: ignore[attr-defined]
        out._requires_grad, out._node = True, Node(name, gradients, [edge])
    return out


def leaf(tensor: Tensor) -> Tensor:
    """A fresh leaf that requires a gradient: in a ``vmap`` that of each sample, also where all of them share its values."""
    array = tensor._array
    made: Tensor = Tensor._wrap(lifted(array, kind_at(array, len(levels.stack))))
    return made.requires_grad_()


def meet(args: list[Any]) -> list[Any]:
    """The arguments of a primitive, all inside the innermost samples among them."""
    kind: Any = max((type(arg._array) for arg in args if isinstance(arg, Tensor)), key=lambda t: getattr(t, "depth", 0))
    if not issubclass(kind, Batched):
        return args
    return [shared(arg, kind) if isinstance(arg, Tensor) else arg for arg in args]


MEETING.append(meet)

"""Tensors that come out of one node together: those of a ``Function``, of a part that is recomputed, of a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from kobai.core.primitive import changed_by
from kobai.core.tape import Node, Parts, Vjp
from kobai.core.tensor import Tensor
from kobai.xp import Array, xp_of


def output_of(name: str, i: int, output: Tensor, node: Node, dirty: bool = False) -> Tensor:
    """Output ``i`` of a Function on the tape: its own node, which passes the gradient on to the common one.

    An input changed in place (``dirty``) is itself the output; another tensor, its own memory or not, stays out of the tape.
    """
    own = Node(name, _sending(i), [node])
    if dirty:
        changed_by(output, own)
        return output
    out = output.detach()
    out._requires_grad = True
    out._node = own
    return out


def results(joined: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """The results of an operation that has several, which it gives one behind another in one vector, ``joined``.

    They are not views of it to the tape: their gradients come to the operation together, zeros for those that have none.
    The first lies in its memory; the others are copies, which may be changed in place whatever the operation keeps.
    """
    edge = joined._edge()
    node = None if edge is None else Node(edge.name_, _joining(shapes), [edge])
    made = []
    start = 0
    for i, shape in enumerate(shapes):
        stop = start + prod(shape)
        array = joined._array[start:stop].reshape(shape)
        out: Tensor = Tensor._wrap(array.copy() if i else array)
        if not i:
            out._version = joined._version
        if node is not None:
            out._requires_grad = True
            out._node = Node(edge.name_, _sending(i), [node])
        made.append(out)
        start = stop
    return made


def _sending(i: int) -> Vjp:
    def send(dy: Array) -> tuple[Parts]:
        return (Parts({i: dy}),)

    send.sends = True  # type: ignore[attr-defined]
    return send


def _joining(shapes: Sequence[tuple[int, ...]]) -> Vjp:
    def vjp(parts: Any) -> tuple[Array]:
        some = next(iter(parts.values()))
        dy, start = xp_of(some).empty(sum(map(prod, shapes)), dtype=some.dtype), 0
        for i, shape in enumerate(shapes):
            stop = start + prod(shape)
            if i in parts:
                dy[start:stop].reshape(shape)[...] = parts[i]
            else:
                dy[start:stop] = 0
            start = stop
        return (dy,)

    return vjp

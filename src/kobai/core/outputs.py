"""Tensors made together: the results of one node (a ``Function``, a part recomputed, a sequence), and views of one tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from kobai import xp
from kobai.core.grad_mode import state
from kobai.core.primitive import RUNNERS, changed_by, new_object
from kobai.core.tape import RESULT, Node, Parts, Vjp
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


NO_OPTIONS: dict[str, Any] = {}


def views(op: Callable[..., Tensor], source: Tensor, keys: Sequence[Any]) -> tuple[Tensor, ...]:
    """``op(source, key)`` for every key, for an operation that gives views: what is the same for all is looked at once."""
    array = source._array
    if type(array) is not np.ndarray or not array.size or np.ndarray in RUNNERS or xp.many_devices:
        return tuple(op(source, key) for key in keys)
    function: Any = op.__wrapped__  # type: ignore[attr-defined]
    edge, version, made = source._edge(), source._version, []
    base = source if source._base is None else source._base
    operand = version, version[0], id(array), edge
    for key in keys:
        value, vjp = function(array, key)
        out: Tensor = new_object(Tensor)
        out._array, out._version, out._base, out._seen = value, version, base, base._node
        out._steps = (*source._steps, (function, (key,), NO_OPTIONS))
        if edge is not None and state.grad:
            operands = [operand, (version, version[0], id(value), RESULT)]
            out._requires_grad, out._node = True, Node(function.__name__, vjp, [edge, None], operands)
        made.append(out)
    return tuple(made)

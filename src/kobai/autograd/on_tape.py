"""Derivatives of derivatives: a node's vjp, run so that the tape records what it does.

A vjp is a closure over arrays: operands of its operation, the result, or something derived from them. In a backward pass with
``create_graph`` it is run on arrays that are tensors (``taped.py``), in one of two ways:

- *Bound anew.* Where it keeps operands and the result alone, a copy of the closure is made that keeps tensors in their place,
  with the edges that these have in the graph. Nothing is computed twice.
- *From the beginning.* Where it keeps something derived – means and deviations, a factor of a matrix – the operation is
  declared with ``again=True``, and its node keeps the operands besides: its function is run again on them, as tensors.

A vjp that is easier to say another way has an attribute ``on_tape``: a function of the binding and of dy.

So an operation's author writes nothing for second derivatives, nor for third ones. A float array in a closure that is neither
operand nor result is an error which names the operation: it is never taken for a constant. Whole numbers and truth values are
constants: their derivative is 0 wherever there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import CellType, FunctionType
from typing import Any

import numpy as np

from kobai import xp
from kobai.autograd.numpy_on_tape import made_like, namespace
from kobai.autograd.taped import Taped
from kobai.core import tape
from kobai.core.tape import Node, kept
from kobai.core.tensor import Tensor
from kobai.dtypes import FLOATING


def gradients(node: Node, dy: Any, edges: Sequence[Any]) -> list[Any]:
    """What the node's vjp gives for ``dy``, on the tape: an array for each of its ``edges`` that is not None."""
    if node.vjp is None:
        raise tape.freed(node)
    node.check_unchanged(forward=True)
    vjp: Any = node.vjp
    first = next(iter(dy.values())) if isinstance(dy, dict) else dy
    with made_like(first.tensor._array):
        if (own := getattr(vjp, "on_tape", None)) is not None:
            found = own(_Binding(node), dy)
        elif (forward := getattr(vjp, "forward", None)) is not None:
            function, arrays, options = forward
            found = function(*map(_Operands(node), arrays), **options)[1](dy)
        else:
            found = _Binding(node).value(vjp)(dy)
        pairs = zip(edges, found, strict=False)
        return [None if edge is None else _entry(g) for edge, g in pairs]


def _entry(g: Any) -> Any:
    g = g() if type(g) is FunctionType else g
    return (
        Taped(Tensor._wrap(tape.as_array(g)))
        if isinstance(g, np.generic) or (type(g) is not Taped and xp.is_array(g))
        else g
    )


class _Operands:
    """Arrays of a node's operation on the tape: operands and the result with their place in the graph, others as constants."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.known = {place: (version, edge) for version, _, place, edge in node.operands}
        self.made: dict[int, Taped] = {}

    def __call__(self, value: Any) -> Any:
        if not (isinstance(value, np.generic) or xp.is_array(value)):
            return value
        found = self.made.get(id(value))
        if found is None:
            found = self.made[id(value)] = Taped(self.tensor(value))
        return found

    def tensor(self, value: Any) -> Tensor:
        made: Tensor = Tensor._wrap(tape.as_array(value))
        version, edge = self.known.get(id(value), (None, None))
        if version is not None:
            made._version = version
        if edge is not None:
            made._requires_grad, made._node = True, self.node if edge is tape.RESULT else edge
        return made


class _Binding(_Operands):
    """A copy of a vjp, with taped arrays for those that it keeps."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.functions: dict[int, Any] = {}

    def tensor(self, value: Any) -> Tensor:
        if value.dtype.kind in FLOATING and value.size and id(value) not in self.known:
            raise NotImplementedError(
                f"{self.node.name()} has no derivative of its own: its gradient keeps an array of shape {value.shape} "
                "that was computed from the operands"
            )
        return super().tensor(value)

    def value(self, thing: Any) -> Any:
        kind = type(thing)
        if isinstance(thing, np.generic) or xp.is_array(thing):
            return self(thing)
        if kind is FunctionType:
            return self.function(thing)
        if kind in (tuple, list):
            return kind(map(self.value, thing))
        if kind is dict:
            return {key: self.value(value) for key, value in thing.items()}
        if isinstance(thing, tuple) and hasattr(thing, "_fields"):
            return kind(*map(self.value, thing))
        if kind is partial:
            return partial(self.value(thing.func), *map(self.value, thing.args), **self.value(thing.keywords))
        if any(thing is library for library in xp.namespaces):
            return namespace
        if (
            kind not in tape.PLAIN
            and kind not in tape.opaque
            and not isinstance(thing, type)
            and any(True for _ in kept(thing))
        ):
            raise NotImplementedError(
                f"{self.node.name()} has no derivative of its own: its gradient keeps arrays in a {kind.__name__}"
            )
        return thing

    def function(self, function: FunctionType) -> Any:
        cells, defaults, keywords = function.__closure__, function.__defaults__, function.__kwdefaults__
        if not (cells or defaults or keywords):
            return function
        known = self.functions.get(id(function))
        if known is not None:
            return known
        fresh = tuple(CellType() for _ in cells or ())
        made = FunctionType(function.__code__, function.__globals__, function.__name__, None, fresh)
        self.functions[id(function)] = made  # before its cells, which may hold the function itself
        made.__defaults__ = None if defaults is None else tuple(map(self.value, defaults))
        made.__kwdefaults__ = None if keywords is None else {key: self.value(value) for key, value in keywords.items()}
        for cell, new in zip(cells or (), fresh, strict=True):
            try:
                content = cell.cell_contents
            except ValueError:  # a variable that is not set
                continue
            new.cell_contents = self.value(content)
        return made


tape.on_tape, tape.taped_type = gradients, Taped
xp.adopt_array_type(
    Taped,
    namespace,
    xp.Backend(
        "taped",
        "cpu",
        load=lambda: (namespace, Taped),
        from_host=lambda array: Taped(Tensor._wrap(array)),
        to_host=lambda array: xp.to_host(array.tensor._array),
        inside=lambda array: array.tensor._array,
    ),
)

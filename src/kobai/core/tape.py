"""The tape: nodes, and the walk that takes gradients from a result back to the leaves.

A :class:`Node` keeps the *vector–Jacobian product* of one operation and edges to where its inputs came from. Backward visits
nodes from the newest to the oldest; inputs are always older than what is computed from them, so every node has received all
of its gradient when its turn comes. Nothing here computes: the mathematics is in the vjps (see ``core/primitive.py``).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterable, Iterator, Sequence, Set
from heapq import heappop, heappush
from types import FunctionType
from typing import Any, TypeAlias

import numpy as np

from kobai.core import anomaly
from kobai.xp import Array, is_array, quiet

Vjp: TypeAlias = Callable[[Array], Sequence[Any]]

tensor_type: Any = None
"""Tensor, once ``core/tensor.py`` has defined it: what hooks are given. The tape itself works on arrays."""

_order = itertools.count()


class Node:
    """One operation on the tape: its vjp, and for each input the edge to where that input came from.

    An edge is a Node, a leaf Tensor (whose ``.grad`` receives), or None (no gradient wanted).
    """

    __slots__ = ("__weakref__", "edges", "hooks", "name_", "order", "retain", "versions", "vjp")

    def __init__(
        self, name: str, vjp: Vjp, edges: Sequence[Any], versions: Sequence[tuple[int, list[int], int]] = ()
    ) -> None:
        self.name_ = name
        self.vjp: Vjp | None = vjp
        self.edges = edges
        self.versions = versions  # of every operand and of the result: id of its array, its counter, the count then
        self.order = next(_order)  # inputs are always older than what is computed from them
        self.hooks: dict[int, Callable[..., Any]] | None = None
        self.retain: Any = None
        if anomaly.used and anomaly.state.enabled:
            anomaly.note(self)

    def name(self) -> str:
        """The operation's name, as in PyTorch: ``MulBackward``."""
        return "".join(part.capitalize() for part in self.name_.strip("_").split("_")) + "Backward"

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        """(node, 0) for every input; a leaf stands for itself."""
        return tuple((edge, 0) for edge in self.edges)

    def __repr__(self) -> str:
        return f"<{self.name()}>"

    def keeps(self) -> bool:
        """Whether arrays are kept here for backward."""
        return any(True for _ in _kept(self.vjp))

    def free(self) -> None:
        """Let go of the arrays kept for backward; a node that keeps none can be used again."""
        for _ in _kept(self.vjp):
            self.vjp = None
            self.edges = self.versions = ()
            return

    def check_unchanged(self) -> None:
        """RuntimeError if an array that the vjp keeps was changed in place since; the others may change as they like."""
        for key, version, then in self.versions:
            # An id can be trusted here: the array lived when the vjp closed over what it still keeps.
            if version[0] != then and any(id(array) == key for array in _kept(self.vjp)):
                raise RuntimeError(
                    f"backward: a tensor that {self.name()} needs was changed in place after it was used (it is at version "
                    f"{version[0]}, expected {then}); use an out-of-place operation, or clone() it first"
                )


_INERT = frozenset((bool, int, float, str, type(None)))


def _kept(vjp: Any, depth: int = 3) -> Iterator[Array]:
    """The arrays that a vjp holds on to: in its closure or those of its inner functions; in tuples; in Tensors."""
    for cell in getattr(vjp, "__closure__", None) or ():
        content = cell.cell_contents
        for item in content if type(content) is tuple else (content,):
            if type(item) in _INERT:
                continue
            if is_array(item):
                yield item
            elif isinstance(item, tensor_type):
                yield item._array
            elif type(item) is FunctionType and depth > 0:
                yield from _kept(item, depth - 1)


class RemovableHandle:
    """What registering a hook returns: :meth:`remove` takes the hook away again; usable in a ``with`` statement."""

    _ids = itertools.count()

    def __init__(self, hooks: dict[int, Any]) -> None:
        self.id = next(RemovableHandle._ids)
        self._hooks = hooks

    def remove(self) -> None:
        """Take the hook away; doing it twice is harmless."""
        self._hooks.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


def as_array(y: Any) -> Array:
    """NumPy computes with 0-d arrays as with scalars, and its reductions return scalars; the tape holds arrays."""
    return np.asarray(y) if isinstance(y, np.generic) else y


def run_hooks(hooks: dict[int, Callable[..., Any]], g: Array) -> Array:
    g = g.copy()  # a hook may keep it or change it in place; other branches of the graph may hold the same array
    for hook in list(hooks.values()):
        result = hook(tensor_type._wrap(g))
        if result is not None:
            if not isinstance(result, tensor_type) or result.shape != g.shape:
                got = tuple(result.shape) if isinstance(result, tensor_type) else type(result).__name__
                raise RuntimeError(f"tensor hook: expected None or a Tensor of shape {g.shape}, got {got}")
            g = result._array
    return g


def _leading_to(targets: Container[int], roots: Iterable[Any]) -> tuple[set[int], Node | None]:
    """Orders of the nodes on a path from ``roots`` to an edge whose ``id`` is a target; a freed node if one was met.

    The target itself does not count, unless it lies on the path to another.
    """
    reached: dict[int, Node] = {}
    stack = [edge for edge in roots if type(edge) is Node]
    while stack:
        node = stack.pop()
        if node.order not in reached:
            reached[node.order] = node
            stack.extend(edge for edge in node.edges if type(edge) is Node)
    freed = next((node for node in reached.values() if node.vjp is None), None)
    leading: set[int] = set()
    for order in sorted(reached):  # inputs first
        if any(id(e) in targets or (type(e) is Node and e.order in leading) for e in reached[order].edges):
            leading.add(order)
    return leading, freed


@quiet
def run_backward(
    roots: Sequence[tuple[Any, Array]], retain_graph: bool = False, capture: Set[int] | None = None
) -> dict[int, Array]:
    """Propagate gradients from ``roots`` (edge, dy) to the leaves.

    Without ``capture`` they are added to the ``.grad`` of the leaves. With it – the ``id`` of edges (nodes and leaf
    tensors) – nothing is accumulated, only nodes on the way to those edges are visited (the rest of the graph stays as it
    is), and their gradients are returned by ``id``.
    """
    waiting: dict[int, tuple[Node, Array]] = {}  # by order; the arrays may be aliases of others
    heap: list[int] = []  # the orders of these nodes, negative: the newest comes first
    leaves: dict[int, list[Any]] = {}  # leaf, gradient, whether the array is ours alone
    found: dict[int, Array] = {}
    leading, freed = (None, None) if capture is None else _leading_to(capture, [edge for edge, _ in roots])

    def send(edge: Any, g: Any) -> None:
        fresh = type(g) is FunctionType
        if fresh:
            g = g()
        if type(edge) is Node:
            order = edge.order
            before = waiting.get(order)
            if before is None:
                waiting[order] = (edge, g)
                heappush(heap, -order)
            else:
                waiting[order] = (edge, before[1] + g)
            return
        entry = leaves.get(id(edge))
        if entry is None:
            leaves[id(edge)] = [edge, g, fresh]
        elif entry[2]:
            entry[1] += g
        else:
            entry[1:] = entry[1] + g, True

    for edge, dy in roots:
        send(edge, dy)
    while heap:
        node, dy = waiting.pop(-heappop(heap))
        beside = leading is not None and node.order not in leading
        asked = capture is not None and id(node) in capture
        if beside and not asked:
            continue
        dy = as_array(dy)
        if node.hooks:
            dy = run_hooks(node.hooks, dy)
        if asked:
            found[id(node)] = dy
        if beside:
            continue
        if node.retain is not None:
            tensor = node.retain()
            if tensor is not None:
                total = dy.copy() if tensor._grad is None else tensor._grad._array + dy
                tensor.grad = tensor_type._wrap(as_array(total))
        vjp = node.vjp
        if vjp is None:
            raise _freed(node)
        for _, version, then in node.versions:
            if version[0] != then:
                node.check_unchanged()
                break
        gradients = vjp(dy)
        if anomaly.used and anomaly.state.enabled:
            pairs = zip(node.edges, gradients, strict=False)
            gradients = [None if e is None else g() if type(g) is FunctionType else g for e, g in pairs]
            anomaly.check(node, gradients)
        for edge, g in zip(node.edges, gradients, strict=False):
            if edge is not None and g is not None:
                send(edge, g)
        if not retain_graph:
            node.free()
    for key, (leaf, g, ours) in leaves.items():
        g = as_array(g)
        if capture is None:
            leaf._accumulate(g, ours)
        elif key in capture:
            found[key] = run_hooks(leaf._hooks, g) if leaf._hooks else g
    if capture is not None and freed is not None and len(found) < len(capture):
        raise _freed(freed)  # a freed node has forgotten where it leads to
    return found


def _freed(node: Node) -> RuntimeError:
    return RuntimeError(
        f"backward: the graph of {node.name()} was freed by an earlier backward(); pass retain_graph=True to that one to go "
        "through it twice, or detach() what should not be differentiated again"
    )

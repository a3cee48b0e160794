"""The tape: nodes, and the walk that takes gradients from a result back to the leaves.

A :class:`Node` keeps the *vector–Jacobian product* of one operation and edges to where its inputs came from. Backward visits
nodes from the newest to the oldest; inputs are always older than what is computed from them, so every node has received all
of its gradient when its turn comes. Nothing here computes: the mathematics is in the vjps (see ``core/primitive.py``).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterable, Iterator, Sequence, Set
from contextlib import AbstractContextManager
from gc import get_referents
from heapq import heappop, heappush
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, TypeAlias
from weakref import ref

import numpy as np

from kobai import xp
from kobai.core import anomaly
from kobai.core.grad_mode import in_mode, state
from kobai.core.handles import RemovableHandle as RemovableHandle
from kobai.engine import dispatch
from kobai.errors import BackendError
from kobai.xp import Array, array_types, is_array, quiet, xp_of

Vjp: TypeAlias = Callable[[Array], Sequence[Any]]

tensor_type: Any = None
"""Tensor, once ``core/tensor.py`` has defined it: what hooks are given. The tape itself works on arrays."""

taped_type: Any = None
"""The type of arrays that are tensors, which a backward pass with ``create_graph`` works on (``autograd/taped.py``). None
until the first of them."""

on_tape: Any = None
"""What a node's vjp gives on such arrays: ``on_tape(node, dy, edges)`` (``autograd/on_tape.py``)."""

load_on_tape: Any = None
"""Imports what defines these two."""


def as_tensor(g: Any) -> Any:
    """A gradient as hooks and functions of users are given it."""
    return g.tensor if type(g) is taped_type else tensor_type._wrap(g)


def itself(binding: Any, dy: Any) -> Any:
    """The ``on_tape`` of a vjp that runs on such arrays as it is (and without a cycle of references)."""
    return binding.node.vjp(dy)


RESULT = object()
"""Stands among a node's operands for the edge of the result, which is the node itself."""

RUNNERS: dict[type, Callable[[Node, Any], list[Any]]] = {}
"""What runs the vjp of a node for a gradient of a type that needs more than :func:`computed`."""

_order = itertools.count()


class Node:
    """One operation on the tape: its vjp, and for each input the edge to where that input came from.

    An edge is a Node, a leaf Tensor (whose ``.grad`` receives), or None (no gradient wanted).
    """

    __slots__ = ("__weakref__", "edges", "hooks", "name_", "operands", "order", "retain", "vjp")

    def __init__(
        self, name: str, vjp: Vjp, edges: Sequence[Any], operands: Sequence[tuple[list[Any], int, int, Any]] = ()
    ) -> None:
        self.name_ = name
        self.vjp: Vjp | None = vjp
        self.edges = edges
        # Of every operand and of the result: its counter (Tensor._version), the count then, the id of its array, and its edge.
        self.operands = operands
        self.order = next(_order)  # inputs are always older than what is computed from them
        self.hooks: dict[int, Callable[..., Any]] | None = None
        self.retain: Any = None
        if anomaly.used and anomaly.state.enabled:
            anomaly.note(self)

    def name(self) -> str:
        """The operation's name, as in PyTorch: ``MulBackward``."""
        return "".join(part[:1].upper() + part[1:] for part in self.name_.strip("_").split("_")) + "Backward"

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        """(node, 0) for every input; a leaf stands for itself."""
        return tuple((edge, 0) for edge in self.edges)

    def __repr__(self) -> str:
        return f"<{self.name()}>"

    def keeps(self) -> bool:
        """Whether arrays are kept here for backward."""
        vjp: Any = self.vjp
        held = get_referents(
            *getattr(vjp, "__closure__", None) or ()
        )  # its variables: nearly always an array is among them
        kinds = set(map(type, held))
        if FunctionType in kinds:  # or among those of a function that it calls
            held = get_referents(*[cell for f in held if type(f) is FunctionType for cell in f.__closure__ or ()])
            kinds.update(map(type, held))
        while not kinds.isdisjoint(NESTED):  # shapes and indices
            held = get_referents(*[thing for thing in held if type(thing) in NESTED])
            kinds = kinds - NESTED | set(map(type, held))
        if not kinds.isdisjoint(array_types):
            return True
        if kinds <= PLAIN and type(vjp) is FunctionType and vjp.__defaults__ is None and vjp.__kwdefaults__ is None:
            return False
        return any(True for _ in kept(vjp))

    def free(self) -> None:
        """Let go of the arrays kept for backward; a node that keeps none can be used again."""
        if self.keeps():
            self.vjp = None
            self.edges = self.operands = ()

    def gradients(self, dy: Array) -> Sequence[Any]:
        """What the vjp gives for ``dy``: for every edge an array, a function that computes one, or None."""
        if self.vjp is None:
            raise freed(self)
        for version, then, _, _ in self.operands:
            if version[0] != then:
                self.check_unchanged()
                break
        gradients = self.vjp(dy)
        if anomaly.used and anomaly.state.enabled:
            pairs = zip(self.edges, gradients, strict=False)
            gradients = [None if e is None else g() if type(g) is FunctionType else g for e, g in pairs]
            anomaly.check(self, gradients)
        return gradients

    def check_unchanged(self, forward: bool = False) -> None:
        """RuntimeError if an array that the vjp keeps was changed in place since; the others may change as they like.

        Among the others are, unless ``forward``, those that it keeps for running the operation again.
        """
        vjp: Any = self.vjp
        whole = forward or not hasattr(vjp, "forward")
        owners = {id(owner(array)) for array in kept(vjp if whole else vjp.__closure__)}
        for version, then, _, _ in self.operands:
            if version[0] != then and any(id(memory()) in owners for memory in version[1:]):
                raise RuntimeError(
                    f"backward: a tensor that {self.name()} needs was changed in place after it was used (it is at version "
                    f"{version[0]}, expected {then}); use an out-of-place operation, or clone() it first"
                )


class Parts(dict[int, Array]):
    """Gradients of some of the results that a node has, by number. The tape adds them up, and the node receives the sum."""

    def __add__(self, other: Parts) -> Parts:
        return Parts({**self, **other})

    def __iadd__(self, other: Parts) -> Parts:
        self.update(other)
        return self


def owner(array: Any) -> Any:
    """What owns the memory of ``array``: the same for an array and all views of it."""
    while (base := getattr(array, "base", None)) is not None:
        array = base
    return array


def reference(memory: Any) -> Callable[[], Any]:
    """A weak reference to the owner of memory; its id may belong to another array once it is gone."""
    try:
        return ref(memory)
    except TypeError:  # a buffer that has no weak references
        return lambda: memory


opaque: set[type] = {Node, ModuleType, CodeType, FrameType, *dispatch.KINDS}
"""Types whose objects lead away from what a vjp keeps – into the rest of the graph or of the program, or into a compiler."""

PLAIN = frozenset((bool, int, float, complex, str, bytes, type(None), type(...)))

NESTED = frozenset((tuple, slice))

Waiting = dict[int, list[Any]]
"""By number: a node or leaf, its gradient so far, and whether the array is ours alone."""


def kept(vjp: Any) -> Iterator[Array]:
    """The arrays that a vjp reaches in any way but through the globals of its functions.

    The garbage collector says what an object refers to, whatever it is: containers, attributes and slots, partial functions,
    methods, suspended generators, and all else that can be part of a cycle.
    """
    stack, seen = [vjp], set()
    while stack:
        thing = stack.pop()
        kind = type(thing)
        if kind in PLAIN or kind in opaque or id(thing) in seen:
            continue
        seen.add(id(thing))
        if is_array(thing):
            yield thing
            if thing.dtype.hasobject:
                stack.extend(thing.flat)
        elif issubclass(kind, tensor_type):
            yield thing._array
        elif kind is FunctionType:
            for cell in thing.__closure__ or ():
                try:
                    stack.append(cell.cell_contents)
                except ValueError:  # a variable that is not set yet
                    continue
            stack += (thing.__defaults__, thing.__kwdefaults__, thing.__dict__)
        elif kind is tuple or kind is list:
            stack += thing
        elif not issubclass(kind, type):
            stack += get_referents(thing)


def as_array(y: Any) -> Array:
    """The tape holds arrays: no scalars, as NumPy makes of 0-d arrays, and no subclass, whose operators may mean others."""
    return np.asarray(y) if isinstance(y, (np.generic, np.ndarray)) else y


def run_hooks(hooks: dict[int, Callable[..., Any]], g: Array) -> Array:
    on_tape = type(g) is taped_type
    if not on_tape:
        with xp.beside(g):
            # A hook may keep it or change it in place, and other branches of the graph may hold the same array.
            g = g.copy()
    first = seen = as_tensor(g)
    for hook in list(hooks.values()):
        result = hook(seen)  # the same tensor for all, with the attributes that one may give it for the next
        if result is not None:
            if not isinstance(result, tensor_type) or result.shape != g.shape:
                got = tuple(result.shape) if isinstance(result, tensor_type) else type(result).__name__
                raise RuntimeError(f"tensor hook: expected None or a Tensor of shape {g.shape}, got {got}")
            seen = result
    return g if seen is first else taped_type(seen) if on_tape else seen._array


def root_edge(who: str, root: Any) -> Any:
    """Where backward starts for ``root``; RuntimeError if it requires no gradient."""
    edge = root._edge()
    if edge is None:
        raise RuntimeError(f"{who}: this tensor requires no gradient and was computed from none that does")
    return edge


def backward_into(
    roots: Sequence[tuple[Any, Array]], retain_graph: bool | None, create_graph: bool, inputs: Any
) -> None:
    """``backward`` as users call it: into the ``.grad`` of all leaves, or of ``inputs`` alone, which need not be leaves."""
    retain = create_graph if retain_graph is None else bool(retain_graph)
    if inputs is None:
        run_backward(roots, retain, create_graph=create_graph)
        return
    wanted = [inputs] if isinstance(inputs, tensor_type) else list(inputs)
    if not wanted:
        raise RuntimeError("backward: expected at least one tensor in inputs, got none")
    edges = {id(root_edge("backward", x)) for x in wanted}
    for x in wanted:
        x.retain_grad()
    run_backward(roots, retain, edges, accumulate=True, create_graph=create_graph)


def root_gradient(who: str, root: Any, gradient: Any, create_graph: bool = False) -> Array:
    """dL/d(root) as an array: ``gradient`` checked against ``root``, or 1 for a root of one element."""
    if create_graph:
        if taped_type is None:
            load_on_tape()
        checked = root_gradient(who, root, gradient)
        return taped_type(tensor_type._wrap(checked) if gradient is None else gradient.to(root.dtype))
    if gradient is None:
        if root._array.size != 1:
            raise RuntimeError(
                f"{who}: expected a tensor of one element (such as a loss), got shape {tuple(root.shape)}; "
                "reduce it with sum() or mean(), or pass gradient="
            )
        with xp.beside(root._array):
            return xp_of(root._array).ones_like(root._array)
    if not isinstance(gradient, tensor_type):
        raise TypeError(f"{who}: expected gradient to be a Tensor, got {type(gradient).__name__}")
    if gradient.shape != root.shape:
        raise RuntimeError(f"{who}: expected a gradient of shape {tuple(root.shape)}, got {tuple(gradient.shape)}")
    if gradient.device.type != root.device.type:
        raise BackendError(
            f"{who}: expected a gradient on {root.device}, got one on {gradient.device}; move it with .to()"
        )
    with xp.beside(root._array):
        return gradient._array.astype(root._array.dtype, copy=False)


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
    lost = next((node for node in reached.values() if node.vjp is None), None)
    leading: set[int] = set()
    for order in sorted(reached):  # inputs first
        if any(id(e) in targets or (type(e) is Node and e.order in leading) for e in reached[order].edges):
            leading.add(order)
    return leading, lost


@quiet
def run_backward(
    roots: Sequence[tuple[Any, Array]],
    retain_graph: bool = False,
    capture: Set[int] | None = None,
    accumulate: bool = False,
    create_graph: bool = False,
) -> dict[int, Array]:
    """Propagate gradients from ``roots`` (edge, dy) to the leaves.

    Without ``capture`` they are added to the ``.grad`` of the leaves. With it – the ``id`` of edges (nodes and leaf
    tensors) – nothing is accumulated, only nodes on the way to those edges are visited (the rest of the graph stays as it
    is), and their gradients are returned by ``id``. With ``accumulate`` too they are added to the ``.grad`` of those edges'
    tensors, and of no others. What is returned for a leaf then is nobody else's array.

    With ``create_graph`` the gradients are arrays on the tape (``autograd/taped.py``), as those of the roots must be.
    """
    if create_graph and not state.grad:
        return in_mode(True, run_backward, roots, retain_graph, capture, accumulate, create_graph)  # type: ignore[no-any-return]
    waiting, leaves = Waiting(), Waiting()  # by order of a node, and by id of a leaf
    heap: list[int] = []  # the orders of these nodes, negative: the newest comes first
    found: dict[int, Array] = {}
    leading, lost = (None, None) if capture is None else _leading_to(capture, [edge for edge, _ in roots])
    for edge, dy in roots:
        _send(edge, dy, dy, waiting, heap, leaves)
    while heap:
        node, dy, _ = waiting.pop(-heappop(heap))
        beside = leading is not None and node.order not in leading
        asked = capture is not None and id(node) in capture
        if beside and not asked:
            continue
        dy = as_array(dy)
        if node.hooks:
            dy = run_hooks(node.hooks, dy)
        if asked:
            found[id(node)] = dy
        if node.retain is not None and (not beside or accumulate):
            _retain(node.retain(), dy)
        if beside:
            continue
        edges = node.edges if leading is None else _wanted(node.edges, capture or (), leading)
        if create_graph:
            gradients: Sequence[Any] = on_tape(node, dy, edges)
        elif xp.many_devices or type(dy) in RUNNERS:
            gradients = _elsewhere(node, dy, edges)
        else:
            gradients = node.gradients(dy)
        for edge, g in zip(edges, gradients, strict=False):
            if edge is not None and g is not None:
                _send(edge, g, dy, waiting, heap, leaves)
        if not retain_graph:
            node.free()
    for key, (leaf, g, ours) in leaves.items():
        g = as_array(g)
        if capture is None or (accumulate and key in capture):
            if xp.many_devices:
                with xp.beside(g):
                    leaf._accumulate(g, ours)
            else:
                leaf._accumulate(g, ours)
            found[key] = g
        elif key in capture:
            g, ours = (run_hooks(leaf._hooks, g), False) if leaf._hooks else (g, ours)
            found[key] = g if create_graph or (ours and g.flags.c_contiguous) else g.copy()
    if capture is not None and lost is not None and len(found) < len(capture):
        raise freed(lost)  # a freed node has forgotten where it leads to
    return found


def _wanted(edges: Sequence[Any], targets: Container[int], leading: Container[int]) -> list[Any]:
    """The edges that lead to a target, None for the others: nobody asks for their gradients."""
    return [e if id(e) in targets or (type(e) is Node and e.order in leading) else None for e in edges]


def _beside(g: Any) -> AbstractContextManager[Any]:
    """Context on the device of a gradient, or of the first of several, which come by number."""
    return xp.beside(next(iter(g.values())) if isinstance(g, dict) else g)


def _elsewhere(node: Node, dy: Any, edges: Sequence[Any]) -> list[Any]:
    """What the vjp gives, all of it computed on the device of ``dy``, by what runs it for gradients of its type."""
    with _beside(dy):
        runner = RUNNERS.get(type(dy))
        return computed(node, dy, edges) if runner is None else runner(node, dy)


def computed(node: Node, dy: Any, edges: Sequence[Any] | None = None) -> list[Any]:
    """What the vjp gives for ``dy``, where it is wanted, nothing of it left to be computed."""
    pairs = zip(node.edges if edges is None else edges, node.gradients(dy), strict=False)
    return [None if edge is None else fresh(g()) if type(g) is FunctionType else g for edge, g in pairs]


def fresh(g: Array) -> Callable[[], Array]:
    """An entry of a vjp that nobody else holds, computed already."""
    return lambda: g


def _send(edge: Any, g: Any, dy: Any, waiting: Waiting, heap: list[int], leaves: Waiting) -> None:
    """Add what a vjp gave for ``dy`` to what waits for its node or leaf; in place if that is no memory of ``dy``."""
    inner, deferred = type(edge) is Node, type(g) is FunctionType
    place, key = (waiting, edge.order) if inner else (leaves, id(edge))
    if (entry := place.get(key)) is None:
        g = g() if deferred else g
        place[key] = [edge, g, deferred and owner(g) is not owner(dy) and type(g) not in RUNNERS]
        if inner:
            heappush(heap, -key)
    elif entry[2] and deferred and g.__kwdefaults__:
        g(onto=entry[1])
    else:
        g = g() if deferred else g
        with _beside(g):
            if entry[2]:
                entry[1] += g
            else:
                entry[1:] = as_array(entry[1] + g), type(g) not in RUNNERS


def _retain(tensor: Any, dy: Array) -> None:
    """Add to the ``.grad`` that ``retain_grad()`` asked for, if its tensor still lives."""
    if tensor is not None:
        if type(dy) is taped_type:
            tensor.grad = dy.tensor.clone() if tensor._grad is None else tensor._grad + dy.tensor
            return
        with xp.beside(dy):
            total = dy.copy() if tensor._grad is None else tensor._grad._array + dy
        tensor.grad = tensor_type._wrap(as_array(total))


def freed(node: Node) -> RuntimeError:
    """The error of a backward pass that comes to a node which was let go of."""
    return RuntimeError(
        f"backward: the graph of {node.name()} was freed by an earlier backward(); pass retain_graph=True to that one to go "
        "through it twice, or detach() what should not be differentiated again"
    )

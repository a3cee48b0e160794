"""Tensor, the tape, and ``@primitive``: reverse-mode differentiation in one file.

A :class:`Tensor` holds an array and, when it was computed from something that requires a gradient, a :class:`Node` of the
tape. A node keeps the *vector–Jacobian product* of one operation and edges to where its inputs came from; backward visits
nodes from the newest to the oldest, so every node has received all of its gradient when its turn comes.

An operation is declared once, gradient beside function::

    @primitive(sample=lambda rng: (rng.normal(size=(4, 3)),))
    def exp(x):
        y = xp_of(x).exp(x)
        return y, lambda dy: (dy * y,)

``vjp(dy)`` returns one entry per positional argument: an array; ``None`` where there is no gradient; or a function
``f(out)``, called only if that input needs its gradient, which returns a fresh array, or fills and returns ``out`` when it
is given. Entries that are arrays may be shared or be views; a ``vjp`` never writes into ``dy``.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Sequence, Set
from functools import partial, wraps
from heapq import heappop, heappush
from inspect import isgeneratorfunction
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, overload
from weakref import ref

import numpy as np

from kobai import _anomaly
from kobai import xp as _xp
from kobai._repr import describe
from kobai.errors import BackendError, nearest
from kobai.xp import Array, asarray, device, device_of, is_array, to_host, xp_of

Vjp: TypeAlias = Callable[[Array], Sequence[Any]]
F = TypeVar("F", bound=Callable[..., Any])


class Size(tuple[int, ...]):
    """Shape of a tensor: a tuple that also knows its number of elements.

    >>> Size((2, 3)), Size((2, 3)).numel()
    (kobai.Size([2, 3]), 6)
    """

    __slots__ = ()

    def numel(self) -> int:
        """Product of the sizes."""
        n = 1
        for size in self:
            n *= size
        return n

    def __getitem__(self, index: Any) -> Any:
        part = tuple.__getitem__(self, index)
        return Size(part) if type(part) is tuple else part  # x.shape[1:].numel()

    def __add__(self, other: Any) -> Size:
        return Size(tuple.__add__(self, tuple(other)))

    def __repr__(self) -> str:
        return f"kobai.Size({list(self)})"


# --- grad mode --------------------------------------------------------------------------------------------------------


class _Mode(threading.local):
    grad = True


_mode = _Mode()


class set_grad_enabled:
    """Switch the tape on or off: as a function call, a ``with`` block, or (its subclasses) a decorator.

    >>> import kobai
    >>> x = kobai.ones(2, requires_grad=True)
    >>> with kobai.set_grad_enabled(False):
    ...     (x * 2).requires_grad
    False
    """

    def __init__(self, mode: bool) -> None:
        self._before = _mode.grad
        self._new = bool(mode)
        _mode.grad = self._new

    def __enter__(self) -> None:
        _mode.grad = self._new

    def __exit__(self, *error: object) -> None:
        _mode.grad = self._before

    def __call__(self, function: F) -> F:
        _mode.grad = self._before  # as a decorator it acts inside the function only
        return _decorated(function, lambda: set_grad_enabled(self._new))


class _Switch:
    """Context manager and decorator (with or without parentheses) that sets grad mode to ``new``."""

    new: bool

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        switch = super().__new__(cls)
        switch._before = []
        return switch if function is None else _decorated(function, cls)

    _before: list[bool]

    def __enter__(self) -> None:
        self._before.append(_mode.grad)
        _mode.grad = self.new

    def __exit__(self, *error: object) -> None:
        _mode.grad = self._before.pop()

    def __call__(self, function: F) -> F:
        return _decorated(function, lambda: self)


def _decorated(function: F, context: Callable[[], Any]) -> F:
    """``function`` run inside a fresh ``context``; a generator only while it computes, not while its user has the turn."""

    @wraps(function)
    def inside(*args: Any, **kwargs: Any) -> Any:
        with context():
            return function(*args, **kwargs)

    @wraps(function)
    def generate(*args: Any, **kwargs: Any) -> Any:
        generator = function(*args, **kwargs)
        resume: Callable[[], Any] = partial(next, generator)
        while True:
            try:
                with context():
                    item = resume()
            except StopIteration as end:
                return end.value
            try:
                resume = partial(generator.send, (yield item))
            except GeneratorExit:
                with context():
                    generator.close()
                raise
            except BaseException as error:
                resume = partial(generator.throw, error)

    return generate if isgeneratorfunction(function) else inside  # type: ignore[return-value]


class no_grad(_Switch):
    """``with no_grad():`` or ``@no_grad()``: nothing inside is recorded on the tape.

    >>> import kobai
    >>> x = kobai.ones(2, requires_grad=True)
    >>> with kobai.no_grad():
    ...     y = x * 2
    >>> y.requires_grad
    False
    """

    new = False


class inference_mode(_Switch):
    """As :class:`no_grad`; the name PyTorch recommends for evaluation. ``inference_mode(False)`` changes nothing."""

    new = False

    def __new__(cls, mode: bool | Callable[..., Any] = True) -> Any:
        switch = super().__new__(cls, None if isinstance(mode, bool) else mode)
        if mode is False:
            switch.new = _mode.grad
        return switch


class enable_grad(_Switch):
    """``with enable_grad():`` records on the tape again inside a :class:`no_grad` block."""

    new = True


def is_grad_enabled() -> bool:
    """Whether operations are recorded on the tape here."""
    return _mode.grad


# --- the tape ---------------------------------------------------------------------------------------------------------

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
        if _anomaly.state.enabled:
            _anomaly.note(self)

    def name(self) -> str:
        """The operation's name, as in PyTorch: ``MulBackward``."""
        return "".join(part.capitalize() for part in self.name_.strip("_").split("_")) + "Backward"

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        """(node, 0) for every input; a leaf stands for itself."""
        return tuple((edge, 0) for edge in self.edges)

    def __repr__(self) -> str:
        return f"<{self.name()}>"

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
            elif isinstance(item, Tensor):
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


def _run_hooks(hooks: dict[int, Callable[..., Any]], g: Array) -> Array:
    g = g.copy()  # a hook may keep it or change it in place; other branches of the graph may hold the same array
    for hook in list(hooks.values()):
        result = hook(Tensor._wrap(g))
        if result is not None:
            if not isinstance(result, Tensor) or result.shape != g.shape:
                got = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
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
            g = g(None)
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
        if isinstance(dy, np.generic):  # NumPy computes with 0-d arrays as with scalars
            dy = np.asarray(dy)
        if node.hooks:
            dy = _run_hooks(node.hooks, dy)
        if asked:
            found[id(node)] = dy
        if beside:
            continue
        if node.retain is not None:
            tensor = node.retain()
            if tensor is not None:
                tensor.grad = Tensor._wrap(dy.copy() if tensor._grad is None else _as_result(tensor._grad._array + dy))
        vjp = node.vjp
        if vjp is None:
            raise _freed(node)
        for _, version, then in node.versions:
            if version[0] != then:
                node.check_unchanged()
                break
        gradients = vjp(dy)
        if _anomaly.state.enabled:
            pairs = zip(node.edges, gradients, strict=False)
            gradients = [None if e is None else g(None) if type(g) is FunctionType else g for e, g in pairs]
            _anomaly.check(node, gradients)
        for edge, g in zip(node.edges, gradients, strict=False):
            if edge is not None and g is not None:
                send(edge, g)
        if not retain_graph:
            node.free()
    for key, (leaf, g, ours) in leaves.items():
        if isinstance(g, np.generic):
            g = np.asarray(g)
        if capture is None:
            leaf._accumulate(g, ours)
        elif key in capture:
            found[key] = _run_hooks(leaf._hooks, g) if leaf._hooks else g
    if capture is not None and freed is not None and len(found) < len(capture):
        raise _freed(freed)  # a freed node has forgotten where it leads to
    return found


def _freed(node: Node) -> RuntimeError:
    return RuntimeError(
        f"backward: the graph of {node.name()} was freed by an earlier backward(); pass retain_graph=True to that one to go "
        "through it twice, or detach() what should not be differentiated again"
    )


# --- primitives -------------------------------------------------------------------------------------------------------


class Primitive:
    """A registered primitive: the raw function, its public wrapper, and the samples by which the tests examine it."""

    def __init__(self, function: Callable[..., tuple[Array, Vjp | None]], samples: Sequence[Any], kind: str) -> None:
        self.function = function
        self.name = function.__name__
        self.module = function.__module__
        self.samples = samples
        self.kind = kind
        self.op: Callable[..., Tensor]


REGISTRY: dict[str, Primitive] = {}
"""Every primitive by ``module.name``. The tests gradcheck, compare and examine all of them from here alone."""


def primitive(*, sample: Any, kind: str = "") -> Callable[[Callable[..., Any]], Callable[..., Tensor]]:
    """Declare a differentiable operation on raw arrays, see the top of this file.

    ``sample`` is a function of a ``numpy.random.Generator`` – or a list of them – returning the positional arguments of an
    example call as a tuple; a dict at its end holds keyword arguments. Float64 arrays in it are differentiated.
    ``kind`` is ``"view"`` for operations whose result shares memory with their first argument, ``"elementwise"`` for those
    that treat all elements alike (the tests then also try empty, one-element, and non-contiguous input of every rank).
    """
    is_view = kind == "view"

    def declare(function: Callable[..., Any]) -> Callable[..., Tensor]:
        name = function.__name__
        samples = sample if isinstance(sample, list) else [sample]
        declared = Primitive(function, samples, kind)

        @wraps(function)
        def op(*args: Any, **options: Any) -> Tensor:
            arrays: list[Any] = []
            edges: list[Any] = []  # where the gradient of each argument goes
            wanted = False
            array_type = None
            for arg in args:
                edge = None
                if isinstance(arg, Tensor):
                    array = arg._array
                    if type(array) is not array_type:
                        if array_type is not None:
                            return op(*_same_backend(name, args), **options)
                        array_type = type(array)
                    if arg._base is not None:
                        arg._refresh()
                    if arg._requires_grad:
                        edge = arg if arg._node is None else arg._node
                        wanted = True
                    arrays.append(array)
                else:
                    arrays.append(arg)
                edges.append(edge)
            try:
                if _xp.many_devices and array_type is not None:
                    with _guard(args):
                        y, vjp = function(*arrays, **options)
                else:
                    y, vjp = function(*arrays, **options)
            except ValueError as error:
                _explain(name, arrays, error)
                raise
            if type(y) is not array_type:
                y = _as_result(y)
            out: Tensor = Tensor._wrap(y)
            if is_view:
                _link_view(out, args[0], function, arrays[1:], options)
            if wanted and vjp is not None and _mode.grad:
                versions = [(id(y), out._version, out._version[0])]
                for arg in args:
                    if isinstance(arg, Tensor):
                        version = arg._version
                        versions.append((id(arg._array), version, version[0]))
                out._requires_grad = True
                out._node = Node(name, vjp, edges, versions)
            return out

        declared.op = op
        key = f"{function.__module__.removeprefix('kobai.')}.{name}"
        if key in REGISTRY:
            raise RuntimeError(f"primitive: {key} is declared twice")
        REGISTRY[key] = declared
        return op

    return declare


def _as_result(y: Any) -> Array:
    """NumPy's reductions return scalars; a Tensor always holds an array."""
    if isinstance(y, np.generic):
        return np.asarray(y)
    if not is_array(y):
        raise TypeError(f"primitive: expected an array as result, got {type(y).__name__}")
    return y


def _explain(name: str, arrays: Sequence[Any], error: ValueError) -> None:
    """The array library's complaint about shapes in our words."""
    if "broadcast" in str(error):
        shapes = " and ".join(str(tuple(array.shape)) for array in arrays if is_array(array))
        raise RuntimeError(f"{name.strip('_')}: expected shapes that broadcast together, got {shapes}") from error


def _guard(args: Sequence[Any]) -> Any:
    first = next(arg for arg in args if isinstance(arg, Tensor))
    return _xp.on(device_of(first._array))


def _same_backend(name: str, args: Sequence[Any]) -> list[Any]:
    """Arguments with zero-dimensional host tensors moved to the device of the others; error if arrays still differ."""
    places = [(i, arg) for i, arg in enumerate(args) if isinstance(arg, Tensor)]
    first, target = next(
        ((i, arg.device) for i, arg in places if arg._array.ndim > 0 or arg.device.type != "cpu"), (0, device("cpu"))
    )
    moved = list(args)
    for i, arg in places:
        here = arg.device
        if here.type == target.type:
            continue
        if arg._array.ndim > 0 or here.type != "cpu":
            raise BackendError(
                f"{name.strip('_')}: argument {i + 1} is on {here} but argument {first + 1} on {target}; move one of them, "
                f"for example argument {i + 1} with .to({str(target)!r})"
            )
        moved[i] = arg.to(target)
    return moved


def _link_view(
    out: Tensor, source: Tensor, function: Callable[..., Any], rest: list[Any], options: dict[str, Any]
) -> None:
    """Tie a result that shares memory with ``source`` to it: one version counter, and the way from base to view."""
    if out._array.size and not xp_of(out._array).may_share_memory(out._array, source._array):
        return
    out._version = source._version
    out._base = source if source._base is None else source._base
    out._steps = (*source._steps, (function, rest, options))
    out._seen = out._base._node


def _follow(steps: Sequence[Any], array: Array) -> Array:
    """From an array like a base's to the part of it that a view with these steps sees."""
    for function, rest, options in steps:
        array = function(array, *rest, **options)[0]
    return array


class Tensor:
    """An n-dimensional array that remembers how it was computed.

    Made by :func:`kobai.tensor`, :func:`kobai.zeros`, ...; ``requires_grad=True`` asks for ``.grad`` after
    :meth:`backward`. Operators, methods and their names are PyTorch's.

    >>> import kobai
    >>> x = kobai.tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> y = (x ** 2).sum()
    >>> y.backward()
    >>> x.grad
    tensor([2., 4., 6.])
    """

    _array: Array
    _version: list[int]  # shared by all tensors that view the same memory; counts in-place changes
    _requires_grad: bool = False
    _node: Node | None = None
    _grad: Tensor | None = None
    _hooks: dict[int, Callable[..., Any]] | None = None
    _accumulate_hooks: dict[int, Callable[..., Any]] | None = None
    _base: Tensor | None = None  # the tensor whose memory this one views
    _steps: tuple[Any, ...] = ()  # the view primitives, with their options, that lead from the base to this one
    _seen: Node | None = None  # the base's node when ours was made; another one means the base was changed in place

    __array_priority__ = 1000.0  # ndarray * Tensor calls Tensor.__rmul__

    def __init__(self, *data: Any, device: device | str | None = None) -> None:
        """``Tensor(2, 3)`` has that shape and unset elements, ``Tensor([2, 3])`` those elements; prefer kobai.tensor()."""
        if data and all(isinstance(size, int) for size in data):
            with _xp.on(device):
                self._array = _xp.namespace(device).empty(data, dtype=_default_dtype)
        elif len(data) > 1:
            raise TypeError(f"Tensor: expected sizes as integers, or one sequence of numbers, got {data!r}")
        else:
            first = data[0] if data else ()
            made = asarray(first._array if isinstance(first, Tensor) else first, device=device)
            self._array = made.astype(_default_dtype, copy=False)
        self._version = [0]

    @classmethod
    def _wrap(cls, array: Array, requires_grad: bool = False) -> Any:
        """Tensor around a raw array, without a copy."""
        self = cls.__new__(cls)
        self._array = array
        self._version = [0]
        if requires_grad:
            self.requires_grad_()
        return self

    # --- what it is ---------------------------------------------------------------------------------------------------

    @property
    def array(self) -> Array:
        """The raw NumPy or CuPy array, not a copy. Who writes into it calls ``_bump()``."""
        return self._array

    @property
    def shape(self) -> Size:
        """Size of every dimension."""
        return Size(self._array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type, a NumPy dtype (``kobai.float32`` is ``numpy.dtype("float32")``)."""
        return self._array.dtype  # type: ignore[no-any-return]

    @property
    def device(self) -> device:
        """Where the elements live."""
        return device_of(self._array)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return self._array.ndim  # type: ignore[no-any-return]

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self._array.itemsize  # type: ignore[no-any-return]

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self._array.nbytes  # type: ignore[no-any-return]

    @property
    def is_cuda(self) -> bool:
        """Whether the elements live on a GPU."""
        return self.device.type == "cuda"

    def dim(self) -> int:
        """Number of dimensions."""
        return self._array.ndim  # type: ignore[no-any-return]

    @overload
    def size(self, dim: None = None) -> Size: ...
    @overload
    def size(self, dim: int) -> int: ...
    def size(self, dim: int | None = None) -> Size | int:
        """Shape, or the size of one dimension."""
        if dim is None:
            return self.shape
        if not -self.ndim <= dim < self.ndim:
            raise IndexError(f"size: expected dim in [{-self.ndim}, {self.ndim - 1}], got {dim}")
        return int(self._array.shape[dim])

    def numel(self) -> int:
        """Number of elements."""
        return int(self._array.size)

    nelement, ndimension = numel, dim  # PyTorch's older names

    def element_size(self) -> int:
        """Bytes of one element."""
        return int(self._array.itemsize)

    def stride(self) -> tuple[int, ...]:
        """Steps, in elements, from one index to the next in every dimension."""
        return tuple(step // self._array.itemsize for step in self._array.strides)

    def is_contiguous(self) -> bool:
        """Whether the elements lie in memory row by row without gaps."""
        return bool(self._array.flags.c_contiguous)

    def is_floating_point(self) -> bool:
        """Whether the dtype is a float."""
        return self._array.dtype.kind == "f"  # type: ignore[no-any-return]

    def data_ptr(self) -> int:
        """Address of the first element."""
        xp = xp_of(self._array)
        return int(self._array.ctypes.data if xp is np else self._array.data.ptr)

    # --- gradient -----------------------------------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        """Whether operations on this tensor are recorded on the tape. Only leaves can be switched off again."""
        if self._base is not None:
            self._refresh()
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Switch recording on or off, in place; only float tensors can require a gradient."""
        if not requires_grad and self._node is not None:
            raise RuntimeError("requires_grad: only leaf tensors can be switched off; use detach()")
        if requires_grad and self._array.dtype.kind != "f":
            raise RuntimeError(f"requires_grad: expected a float tensor, got {self._array.dtype}")
        if requires_grad and self.grad_fn is None:
            self._base, self._steps = None, ()  # a leaf is where histories begin, also one that views other memory
        self._requires_grad = bool(requires_grad)
        return self

    @property
    def grad(self) -> Tensor | None:
        """Gradient accumulated by :meth:`backward`; None before it, and after ``zero_grad()``."""
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise TypeError(f"grad: expected a Tensor or None, got {type(value).__name__}")
            if value._array.shape != self._array.shape:
                raise RuntimeError(f"grad: expected shape {tuple(self.shape)}, got {tuple(value.shape)}")
            if value._array.dtype != self._array.dtype:
                raise RuntimeError(f"grad: expected dtype {self.dtype}, got {value.dtype}")
        self._grad = value

    @grad.deleter
    def grad(self) -> None:
        self._grad = None

    @property
    def grad_fn(self) -> Node | None:
        """Node of the tape that computed this tensor; None for leaves."""
        if self._base is not None:
            self._refresh()
        return self._node

    @property
    def is_leaf(self) -> bool:
        """Whether this tensor was made by the user rather than computed from something that requires a gradient."""
        return self.grad_fn is None

    @property
    def retains_grad(self) -> bool:
        """Whether this non-leaf keeps its gradient, see :meth:`retain_grad`."""
        return self._node is not None and self._node.retain is not None

    def _bump(self) -> None:
        """Count an in-place change of the memory."""
        self._version[0] += 1

    def _edge(self) -> Any:
        """Where a gradient of this tensor goes: its node, itself if a leaf that wants one, or nowhere."""
        if self._base is not None:
            self._refresh()
        if self._node is not None:
            return self._node
        return self if self._requires_grad else None

    def _refresh(self) -> None:
        """A view whose base was changed in place on the tape belongs to the base's new history."""
        base = self._base
        if base is not None and base._base is not None:  # it has become a view itself, as unsqueeze_() makes it
            base = self._base = base._base
        if base is None or base._node is self._seen or base._node is None:
            return
        array, edge = base._array, base._node
        for function, rest, options in self._steps:
            array, vjp = function(array, *rest, **options)
            edge = Node(function.__name__, vjp, [edge])
        self._node = edge
        self._requires_grad = True
        self._seen = base._node

    def _accumulate(self, g: Array, ours: bool) -> None:
        """Add ``g`` to ``.grad`` of this leaf; ``ours`` says that nobody else holds the array."""
        if g.shape != self._array.shape:
            raise RuntimeError(f"backward: expected a gradient of shape {self._array.shape}, got {g.shape}")
        if g.dtype != self._array.dtype:
            g, ours = g.astype(self._array.dtype), True
        if self._hooks:
            g, ours = _run_hooks(self._hooks, g), False
        if self._grad is None:
            self._grad = Tensor._wrap(g if ours and g.flags.c_contiguous else g.copy())
        else:
            self._grad._array += g
            self._grad._bump()
        if self._accumulate_hooks:
            for hook in list(self._accumulate_hooks.values()):
                hook(self)

    def backward(
        self, gradient: Tensor | None = None, retain_graph: bool | None = None, create_graph: bool = False
    ) -> None:
        """Add the gradient of this tensor to the ``.grad`` of every leaf it was computed from.

        ``gradient`` is dL/d(self), shape of self; it may be left out for a tensor of one element (it is then 1). Going
        through the same graph twice needs ``retain_graph=True`` the first time. ``create_graph=True`` (derivatives of
        derivatives) is not supported.

        Errors: RuntimeError for a tensor of several elements without ``gradient``, one that requires no gradient, a graph
        already freed, and a tensor changed in place that backward needs.
        """
        if create_graph:
            raise NotImplementedError("backward: create_graph=True (second derivatives) is not supported by Kobai")
        run_backward([(root_edge("backward", self), root_gradient("backward", self, gradient))], bool(retain_graph))

    def retain_grad(self) -> None:
        """Keep the gradient of this non-leaf in ``.grad`` during backward; does nothing for a leaf."""
        if not self.requires_grad:
            raise RuntimeError("retain_grad: this tensor does not require a gradient")
        if self._node is not None:
            self._node.retain = ref(self)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
        """Call ``hook(grad)`` when the gradient of this tensor is computed; what it returns, if anything, replaces it."""
        if not self.requires_grad:
            raise RuntimeError("register_hook: this tensor does not require a gradient")
        owner: Any = self._node if self._node is not None else self
        attribute = "hooks" if self._node is not None else "_hooks"
        hooks = getattr(owner, attribute)
        if hooks is None:
            hooks = {}
            setattr(owner, attribute, hooks)
        handle = RemovableHandle(hooks)
        hooks[handle.id] = hook
        return handle

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> RemovableHandle:
        """Call ``hook(tensor)`` after backward has added to the ``.grad`` of this leaf."""
        if self._node is not None or not self._requires_grad:
            raise RuntimeError("register_post_accumulate_grad_hook: expected a leaf that requires a gradient")
        if self._accumulate_hooks is None:
            self._accumulate_hooks = {}
        handle = RemovableHandle(self._accumulate_hooks)
        self._accumulate_hooks[handle.id] = hook
        return handle

    # --- same elements, other wrapping ----------------------------------------------------------------------------------

    def detach(self) -> Tensor:
        """The same memory without its history: requires no gradient; in-place changes are seen by both."""
        out: Tensor = Tensor._wrap(self._array)
        out._version = self._version
        return out

    def detach_(self) -> Tensor:
        """Forget the history, in place."""
        if self._base is not None:
            raise RuntimeError("detach_: this tensor is a view of another; use detach()")
        self._node, self._requires_grad = None, False
        return self

    @property
    def data(self) -> Tensor:
        """The same memory without history *and* unseen by the tape's check for in-place changes; prefer detach()."""
        return Tensor._wrap(self._array)  # type: ignore[no-any-return]

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"data: expected a Tensor, got {type(value).__name__}")
        self._array = value._array

    def item(self) -> Any:
        """The element of a one-element tensor as a Python number (waits for the device)."""
        if self._array.size != 1:
            raise RuntimeError(f"item: expected a tensor of one element, got shape {tuple(self.shape)}")
        return self._array.item()

    def tolist(self) -> Any:
        """Elements as nested Python lists (a number for a tensor without dimensions)."""
        return self._array.tolist()

    def numpy(self, *, force: bool = False) -> np.ndarray[Any, Any]:
        """The elements as a NumPy array sharing memory. ``force=True`` also detaches and copies from a device."""
        if not force:
            if self.requires_grad:
                raise RuntimeError("numpy: this tensor requires a gradient; use tensor.detach().numpy()")
            if self.device.type != "cpu":
                raise TypeError(f"numpy: this tensor is on {self.device}; use tensor.cpu().numpy()")
        return to_host(self._array)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        host = self.numpy()
        if dtype is not None and host.dtype != dtype:
            if copy is False:
                raise ValueError(f"__array__: a copy is needed to convert {host.dtype} to {dtype}")
            return host.astype(dtype)
        return host.copy() if copy else host

    def __dlpack__(self, **kwargs: Any) -> Any:
        if self.requires_grad:
            raise BufferError("__dlpack__: this tensor requires a gradient; use tensor.detach()")
        return self._array.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) in memo:
            return memo[id(self)]
        if not self.is_leaf:
            raise RuntimeError("deepcopy: only leaf tensors can be copied deeply; use detach().clone()")
        out = type(self)._wrap(self._array.copy())
        memo[id(self)] = out
        out._requires_grad = self._requires_grad
        if self._grad is not None:
            out._grad = Tensor._wrap(self._grad._array.copy())
        # Attributes the user has set travel along.
        out.__dict__.update({k: v for k, v in self.__dict__.items() if not k.startswith("_")})
        return out

    if TYPE_CHECKING:  # supplied by kobai.ops through @method, as are all methods that no class body here defines

        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __floordiv__(self, other: Any) -> Tensor: ...
        def __mod__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __rpow__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __invert__(self) -> Tensor: ...
        def __and__(self, other: Any) -> Tensor: ...
        def __or__(self, other: Any) -> Tensor: ...
        def __xor__(self, other: Any) -> Tensor: ...
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...
        def __eq__(self, other: object) -> Tensor: ...  # type: ignore[override]
        def __ne__(self, other: object) -> Tensor: ...  # type: ignore[override]
        def __getitem__(self, index: Any) -> Tensor: ...
        def __setitem__(self, index: Any, value: Any) -> None: ...

    # --- Python protocols -----------------------------------------------------------------------------------------------

    def _scalar(self, who: str) -> Any:
        if self._array.size != 1:
            raise RuntimeError(
                f"{who}: expected a tensor of one element, got shape {tuple(self.shape)}"
                + ("; use .any() or .all()" if who == "bool" else "")
            )
        return self._array.item()

    def __bool__(self) -> bool:
        return bool(self._scalar("bool"))

    def __float__(self) -> float:
        return float(self._scalar("float"))

    def __int__(self) -> int:
        return int(self._scalar("int"))

    def __index__(self) -> int:
        if self._array.dtype.kind not in "iub":
            raise TypeError(f"index: expected an integer tensor, got {self.dtype}")
        return int(self._scalar("index"))

    def __len__(self) -> int:
        if self._array.ndim == 0:
            raise TypeError("len: a tensor without dimensions has no length")
        return int(self._array.shape[0])

    def __contains__(self, element: Any) -> bool:
        return bool((self == element).any())

    def __reversed__(self) -> Tensor:
        return self.flip(0)  # type: ignore[no-any-return]

    def __pos__(self) -> Tensor:
        return self

    def __iter__(self) -> Iterator[Tensor]:
        if self._array.ndim == 0:
            raise TypeError("iter: a tensor without dimensions cannot be iterated")
        return (self[i] for i in range(self._array.shape[0]))

    def __format__(self, spec: str) -> str:
        # As in PyTorch a tensor without dimensions is formatted as the number it holds: f"{loss:.3f}", f"{loss}".
        if type(self) is Tensor and self._array.ndim == 0:
            return format(self._array.item(), spec)
        return object.__format__(self, spec)

    def __hash__(self) -> int:
        return id(self)

    def __dir__(self) -> list[str]:
        return [name for name in object.__dir__(self) if not name.startswith("_") or name.startswith("__")]

    def __getattr__(self, name: str) -> Any:
        hint = "" if name.startswith("_") else nearest(name, [n for n in dir(type(self)) if not n.startswith("_")])
        raise AttributeError(f"Tensor has no attribute {name!r}.{hint}")

    def __repr__(self) -> str:
        notes = []
        host = to_host(self._array)
        if host.dtype not in (get_default_dtype(), np.dtype(np.int64), np.dtype(np.bool_)) or (
            host.size == 0 and host.dtype != get_default_dtype()
        ):
            notes.append(f"dtype=kobai.{host.dtype}")
        if host.size == 0 and host.shape != (0,):
            notes.insert(0, f"size={tuple(host.shape)}")
        if self.device.type != "cpu":
            notes.append(f"device='{self.device}'")
        if self.grad_fn is not None:
            notes.append(f"grad_fn={self.grad_fn!r}")
        elif self._requires_grad:
            notes.append("requires_grad=True")
        return describe(host, notes)


def root_edge(who: str, root: Tensor) -> Any:
    """Where backward starts for ``root``; RuntimeError if it requires no gradient."""
    edge = root._edge()
    if edge is None:
        raise RuntimeError(f"{who}: this tensor requires no gradient and was computed from none that does")
    return edge


def root_gradient(who: str, root: Tensor, gradient: Tensor | None) -> Array:
    """dL/d(root) as an array: ``gradient`` checked against ``root``, or 1 for a root of one element."""
    if gradient is None:
        if root._array.size != 1:
            raise RuntimeError(
                f"{who}: expected a tensor of one element (such as a loss), got shape {tuple(root.shape)}; "
                "reduce it with sum() or mean(), or pass gradient="
            )
        return xp_of(root._array).ones_like(root._array)
    if not isinstance(gradient, Tensor):
        raise TypeError(f"{who}: expected gradient to be a Tensor, got {type(gradient).__name__}")
    if gradient.shape != root.shape:
        raise RuntimeError(f"{who}: expected a gradient of shape {tuple(root.shape)}, got {tuple(gradient.shape)}")
    if gradient.device.type != root.device.type:
        raise BackendError(
            f"{who}: expected a gradient on {root.device}, got one on {gradient.device}; move it with .to()"
        )
    return gradient._array.astype(root._array.dtype, copy=False)


# --- changing a tensor in place ---------------------------------------------------------------------------------------


def in_place(target: Tensor, op: Callable[..., Tensor], *args: Any, **options: Any) -> Tensor:
    """target ← op(target, ...): the memory changes, every view of it sees it, and the tape stays right.

    On the tape the tensor's old value becomes the input of the new node; if ``target`` views another tensor, that base gets
    a node too, whose gradient flows past the changed part to the base and through it to ``target``.
    """
    recorded = _mode.grad and (
        target.requires_grad or any(isinstance(arg, Tensor) and arg.requires_grad for arg in (*args, *options.values()))
    )
    if not recorded:
        with no_grad():
            _write(target, op(target, *args, **options))
        return target
    for owner, what in ((target, "a leaf"), (target._base, "a view of a leaf")):
        if owner is not None and owner._node is None and owner._requires_grad:
            raise RuntimeError(
                f"in-place operation: {what} that requires a gradient cannot be changed in place outside no_grad()"
            )
    before: Tensor = Tensor._wrap(target._array.copy())  # what the vjp may keep: the memory itself is about to change
    before._requires_grad, before._node = target._requires_grad, target._edge()
    result = op(before, *args, **options)
    _write(target, result)
    old = target._node
    target._node, target._requires_grad = result._node, result._requires_grad
    if old is not None and target._node is not None:
        target._node.retain, old.retain = old.retain, None  # .grad is that of the value after the change
    base, steps = target._base, target._steps
    if base is not None:
        memory = base._array

        def vjp(dy: Array) -> tuple[Array, Array]:
            around = xp_of(dy).empty_like(memory)  # in its layout: only then do the steps give views of it too
            around[...] = dy
            _follow(steps, around)[...] = 0
            return around, _follow(steps, dy)

        base._node = Node("view_assign", vjp, [base._edge(), target._node])
        base._requires_grad = True
        target._seen = base._node
    return target


@overload
def method(function: F, *, name: str = "", in_place: bool = False) -> F: ...
@overload
def method(function: None = None, *, name: str = "", in_place: bool = False) -> Callable[[F], F]: ...
def method(function: Any = None, *, name: str = "", in_place: bool = False) -> Any:
    """Make a function a method of Tensor too, under its own ``name`` or another; ``in_place`` adds ``name_``.

    This is how ``ops/`` (a higher floor) gives Tensor its operators: ``@method(in_place=True) def add`` makes
    ``Tensor.add`` and ``Tensor.add_``.
    """
    if function is None:
        return lambda f: method(f, name=name, in_place=in_place)
    setattr(Tensor, name or function.__name__, function)
    if in_place:

        @wraps(function)
        def changed(self: Tensor, *args: Any, **options: Any) -> Tensor:
            return _in_place(self, function, *args, **options)

        changed.__name__ = changed.__qualname__ = f"{name or function.__name__}_"
        changed.__doc__ = f"In-place form of :func:`{function.__name__}`."
        setattr(Tensor, changed.__name__, changed)
    return function


def _write(target: Tensor, result: Tensor) -> None:
    if result._array.shape != target._array.shape:
        raise RuntimeError(
            f"in-place operation: the result has shape {tuple(result.shape)}, the tensor {tuple(target.shape)}"
        )
    kinds = "biuf"
    if kinds.index(result._array.dtype.kind.replace("u", "i")) > kinds.index(
        target._array.dtype.kind.replace("u", "i")
    ):
        raise RuntimeError(
            f"in-place operation: a result of {result.dtype} cannot be kept in a tensor of {target.dtype}"
        )
    if 0 in target._array.strides and target._array.size > 1:
        for size, step in zip(target._array.shape, target._array.strides, strict=True):
            if step == 0 and size > 1:
                raise RuntimeError(
                    f"in-place operation: elements of this expanded tensor of shape {tuple(target.shape)} share memory; "
                    "clone() it first"
                )
    target._array[...] = result._array
    target._bump()


_in_place = in_place  # the name as seen inside ``method``, which has an argument called so

# --- default dtype ----------------------------------------------------------------------------------------------------

_default_dtype = np.dtype(np.float32)


def get_default_dtype() -> np.dtype[Any]:
    """Dtype of float tensors made without ``dtype``; float32 at the start."""
    return _default_dtype


def set_default_dtype(d: Any) -> None:
    """Make float tensors of dtype ``d`` (a float dtype) from now on.

    >>> import kobai
    >>> kobai.set_default_dtype(kobai.float64); kobai.tensor([0.5]).dtype
    dtype('float64')
    >>> kobai.set_default_dtype(kobai.float32)
    """
    global _default_dtype
    if np.dtype(d).kind != "f":
        raise TypeError(f"set_default_dtype: expected a float dtype, got {np.dtype(d)}")
    _default_dtype = np.dtype(d)

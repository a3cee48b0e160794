"""``Function``: an operation whose backward the user writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from kobai.core import tape
from kobai.core.grad_mode import is_grad_enabled, no_grad
from kobai.core.outputs import output_of
from kobai.core.primitive import need_no_leaf
from kobai.core.tape import Node, Parts, opaque
from kobai.core.tensor import Tensor
from kobai.xp import namespace, on


class Context:
    """What ``forward`` passes to ``backward`` of a :class:`Function`: saved tensors, and any attribute."""

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad
        self._saved: tuple[tuple[Tensor | None, int], ...] = ()  # with its version at the time
        self._not_differentiable: tuple[int, ...] = ()
        self._dirty: tuple[Tensor, ...] = ()
        self._materialize = True

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for backward, which checks that they were not changed in place."""
        for t in tensors:
            if t is not None and not isinstance(t, Tensor):
                raise TypeError(
                    f"save_for_backward: expected Tensors or None, got {type(t).__name__}; set an attribute of ctx"
                )
        self._saved = tuple((None, 0) if t is None else (t.detach(), t._version[0]) for t in tensors)

    def save_for_forward(self, *tensors: Tensor | None) -> None:
        """Does nothing: what is kept for ``jvp`` is not needed, for Kobai takes forward-mode derivatives from backward."""

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What :meth:`save_for_backward` kept."""
        for tensor, version in self._saved:
            if tensor is not None and tensor._version[0] != version:
                raise RuntimeError("saved_tensors: a tensor saved for backward was changed in place afterwards")
        return tuple(tensor for tensor, _ in self._saved)

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Declare outputs that have no gradient."""
        self._not_differentiable = tuple(id(t) for t in tensors)

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Declare inputs that ``forward`` changes in place and returns: from then on they are its outputs."""
        self._dirty = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Whether ``backward`` gets zeros (True, the default) or None for outputs that nothing depended on."""
        self._materialize = bool(value)


FunctionCtx = Context  # PyTorch's name, found in annotations

opaque.add(Context)  # what the user keeps in it as attributes is, as in PyTorch, neither watched nor let go of


class Function:
    """An operation with a hand-written gradient: subclass with static ``forward(ctx, ...)`` and ``backward(ctx, dy)``.

    ``backward`` receives one gradient per output of ``forward`` and returns one per input, None for those without. With a
    ``setup_context(ctx, inputs, output)`` of your own, ``forward`` takes the inputs alone.

    >>> import kobai
    >>> class Cube(kobai.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x ** 3
    ...     @staticmethod
    ...     def backward(ctx, dy):
    ...         (x,) = ctx.saved_tensors
    ...         return dy * 3 * x ** 2
    >>> x = kobai.tensor(2.0, requires_grad=True)
    >>> Cube.apply(x).backward()
    >>> x.grad
    tensor(12.)
    """

    @staticmethod
    def forward(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        """Compute the outputs."""
        raise NotImplementedError("Function: define a static method forward(ctx, ...)")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Compute the gradients of the inputs."""
        raise NotImplementedError("Function: define a static method backward(ctx, *grad_outputs)")

    @staticmethod
    def jvp(ctx: Any, *grad_inputs: Any) -> Any:
        """What PyTorch calls for forward-mode derivatives. Kobai derives them from ``backward``, and never calls it."""
        raise NotImplementedError("Function: Kobai takes forward-mode derivatives from backward, jvp is not called")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Fill ``ctx`` after a ``forward(...)`` written without it."""
        raise NotImplementedError("Function: define a static method setup_context(ctx, inputs, output)")

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Run ``forward`` and record ``backward`` on the tape."""
        ctx = Context(tuple(isinstance(a, Tensor) and a.requires_grad for a in args))
        with no_grad():
            if cls.setup_context is Function.setup_context:
                result = cls.forward(ctx, *args, **kwargs)
            else:
                result = cls.forward(*args, **kwargs)
                cls.setup_context(ctx, args, result)
        if not is_grad_enabled() or not any(ctx.needs_input_grad):
            return result
        for tensor in ctx._dirty:
            need_no_leaf(tensor)
        dirty = {id(tensor) for tensor in ctx._dirty}
        outputs = result if isinstance(result, tuple) else (result,)
        edges = [a._edge() if isinstance(a, Tensor) else None for a in args]
        node = Node(cls.__name__, _vjp_of(cls, ctx, args, outputs, edges), edges)
        made = [
            output_of(cls.__name__, i, o, node, id(o) in dirty)
            if isinstance(o, Tensor) and o.is_floating_point() and id(o) not in ctx._not_differentiable
            else o
            for i, o in enumerate(outputs)
        ]
        return tuple(made) if isinstance(result, tuple) else made[0]


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a ``backward`` that has no derivative itself: it computes without recording, and its results cannot be derived.

    >>> import kobai
    >>> from kobai.autograd.function import once_differentiable
    >>> class Double(kobai.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         return 2 * x
    ...     @staticmethod
    ...     @once_differentiable
    ...     def backward(ctx, dy):
    ...         return 2 * dy
    >>> Double.apply(kobai.ones(1))
    tensor([2.])
    """

    @wraps(backward)
    def unrecorded(ctx: Any, *grad_outputs: Any) -> Any:
        with no_grad():
            return backward(ctx, *grad_outputs)

    unrecorded.once = True  # type: ignore[attr-defined]
    return unrecorded


def _vjp_of(
    cls: type[Function], ctx: Context, args: Sequence[Any], outputs: Sequence[Any], edges: Sequence[Any]
) -> Any:
    """Call ``backward`` once with the gradients of all outputs."""
    shapes = [tuple(a.shape) if isinstance(a, Tensor) else None for a in args]
    like = [(o.shape, o.dtype, o.device) if isinstance(o, Tensor) else None for o in outputs]
    # Kept in this closure rather than in ctx, so that the tape can free them after backward.
    saved, ctx._saved = tuple(t for t, _ in ctx._saved), tuple((None, version) for _, version in ctx._saved)
    places = {id(o._array): -1 - i for i, o in enumerate(outputs) if isinstance(o, Tensor)}
    places |= {id(a._array): i for i, a in enumerate(args) if isinstance(a, Tensor)}
    origins = [None if t is None else places.get(id(t._array)) for t in saved]  # inputs by number, outputs from −1 down
    edges = edges if saved else ()  # a node that keeps nothing can be used again

    def vjp(parts: Parts) -> list[Any]:
        # Inputs as what they are in the graph: a backward may differentiate by them, as adjoint methods do.
        given = connected(lambda origin: edges[origin] if origin >= 0 else None)
        with no_grad():
            return [None if g is None else g._array for g in backward(parts, given)]

    def connected(edge_of: Callable[[int], Any]) -> tuple[Any, ...]:
        """What was saved, inputs and outputs among it on the way to their edges."""
        return tuple(
            t if t is None or o is None else _leading(t, edge_of(o)) for t, o in zip(saved, origins, strict=True)
        )

    def backward(parts: Parts, saved: tuple[Any, ...]) -> list[Tensor | None]:
        versions = ctx._saved
        ctx._saved = tuple((t, version) for t, (_, version) in zip(saved, versions, strict=True))
        dys: list[Tensor | None] = []
        for i, known in enumerate(like):
            if i in parts:
                dys.append(tape.as_tensor(parts[i]))
            elif known is None or not ctx._materialize:
                dys.append(None)
            else:
                shape, dtype, where = known
                with on(where):
                    dys.append(Tensor._wrap(namespace(where).zeros(shape, dtype=dtype)))
        try:
            grads = cls.backward(ctx, *dys)
        finally:
            ctx._saved = versions
        return _checked(f"{cls.__name__}.backward", grads, shapes)

    def on_tape(bind: Any, parts: Parts) -> list[Any]:
        """With inputs and outputs that were saved in their places in the graph; other tensors are constants, as in PyTorch."""
        node = bind.node

        def edge_of(origin: int) -> Any:
            if origin >= 0:
                return edges[origin]
            return Node(cls.__name__, lambda dy: (Parts({-1 - origin: dy}),), [node])

        grads = backward(parts, connected(edge_of))
        if getattr(cls.backward, "once", False):
            grads = [
                g if g is None else _leading(g, Node(cls.__name__, _refuse(cls.__name__), node.edges)) for g in grads
            ]
        return [g if g is None else tape.taped_type(g) for g in grads]

    vjp.on_tape = on_tape  # type: ignore[attr-defined]
    return vjp


def _leading(tensor: Tensor, edge: Any) -> Tensor:
    """The same elements, on the way to ``edge``."""
    made = tensor.detach()
    if edge is not None:
        made._requires_grad, made._node = True, edge
    return made


def _refuse(who: str) -> Any:
    def vjp(dy: Any) -> Any:
        raise RuntimeError(f"{who}: its backward is marked with once_differentiable, and cannot be differentiated")

    return vjp


def _broadcasts(shape: tuple[int, ...], wide: tuple[int, ...]) -> bool:
    """Whether an array of ``shape`` broadcasts to one of ``wide``."""
    return len(shape) <= len(wide) and all(n in (1, m) for n, m in zip(reversed(shape), reversed(wide), strict=False))


def _checked(who: str, result: Any, shapes: Sequence[Any]) -> list[Tensor | None]:
    """What ``backward`` returned, one per input; further entries must be None."""
    grads = list(result) if isinstance(result, tuple) else [result]
    if len(grads) < len(shapes) or any(g is not None for g in grads[len(shapes) :]):
        raise RuntimeError(f"{who}: expected {len(shapes)} gradients, one for each input of forward, got {len(grads)}")
    for i, (g, shape) in enumerate(zip(grads, shapes, strict=False)):
        if g is not None and not isinstance(g, Tensor):
            raise TypeError(f"{who}: expected a Tensor or None for input {i}, got {type(g).__name__}")
        if g is None or shape is None or tuple(g.shape) == shape:
            continue
        if _broadcasts(shape, tuple(g.shape)):  # of an input that backward broadcast
            grads[i] = g.sum_to_size(*shape)
        else:
            raise RuntimeError(f"{who}: expected a gradient of shape {shape} for input {i}, got {tuple(g.shape)}")
    return grads[: len(shapes)]

"""Transforms of functions, with the names of ``torch.func``: ``grad``, ``vjp``, ``jvp``, Jacobians, Hessians.

Each takes a function and returns one, or what one returns; they nest, also with ``vmap``. Inside, an argument to differentiate
by is a leaf of its own. If it – or another tensor in the function – requires a gradient outside, as inside another transform,
the results are on the tape and can be differentiated again; else they are constants, and nothing is kept.

Forward mode is reverse mode twice: J v is the derivative of uᵀ J by u in the direction of v, which costs two passes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from kobai.autograd.functional import columns, pushed, units
from kobai.autograd.grad import grad as _grad
from kobai.core.grad_mode import enable_grad, is_grad_enabled
from kobai.core.tape import Node
from kobai.core.tensor import Tensor
from kobai.ops.joining import cat, stack
from kobai.ops.like import zeros_like
from kobai.utils._pytree import tree_flatten, tree_map, tree_unflatten

__all__ = ["grad", "grad_and_value", "hessian", "jacfwd", "jacrev", "jvp", "vjp"]


class _Call:
    """One call of a function whose arguments ``places`` are differentiated by, with what it returned, flat."""

    def __init__(
        self, who: str, func: Callable[..., Any], args: Sequence[Any], places: Sequence[int], kwargs: Any, has_aux: bool
    ) -> None:
        from kobai.autograd.batching.border import enter, leaf, levels

        given, self.inputs = tree_flatten([args[i] for i in places])
        if not given or not all(isinstance(x, Tensor) for x in given):
            raise ValueError(f"{who}: expected tensors in the arguments to differentiate, and at least one")
        tracked, changed = is_grad_enabled(), list(args)
        with enable_grad():
            self.leaves = [_alias(enter(x, None)) if x.requires_grad and tracked else leaf(x) for x in given]
            for i, value in zip(places, tree_unflatten(self.leaves, self.inputs), strict=True):
                changed[i] = value
            result = func(*changed, **kwargs)
        if has_aux and not (isinstance(result, tuple) and len(result) == 2):
            raise RuntimeError(f"{who}: expected a pair (value, aux) with has_aux=True, got a {type(result).__name__}")
        self.value, aux = result if has_aux else (result, None)
        self.outputs, self.results = tree_flatten(self.value)
        for y in self.outputs:
            if not isinstance(y, Tensor):
                raise RuntimeError(f"{who}: expected the function to return Tensors, got a {type(y).__name__}")
        self.recorded = tracked and _leads_outside(self.outputs, self.leaves)
        self.among_samples = bool(levels.stack)
        self.aux = tree_map(lambda x: self.given(x) if isinstance(x, Tensor) else x, aux)

    def given(self, x: Tensor) -> Tensor:
        """A tensor as the caller gets it."""
        return x if self.recorded else x.detach()

    def gradients(self, weights: Sequence[Tensor], *, batched: bool = False) -> list[Tensor]:
        """Σ weights · ∂outputs/∂leaves; ``batched``: for several sets of weights, along their first dimension."""
        used = [i for i, y in enumerate(self.outputs) if y.requires_grad]
        if not used:
            before = (len(weights[0]),) if batched else ()
            return [zeros_like(x).expand(*before, *x.shape) for x in self.leaves]
        found: Any = _grad(
            [self.outputs[i] for i in used],
            self.leaves,
            [weights[i] for i in used],
            retain_graph=True,
            create_graph=self.recorded,
            is_grads_batched=batched,
            materialize_grads=not batched,
            allow_unused=batched or None,
        )
        n = len(weights[0]) if batched else 0
        return [zeros_like(x).expand(n, *x.shape) if g is None else g for x, g in zip(self.leaves, found, strict=True)]


def _alias(x: Tensor) -> Tensor:
    return x.view_as(x)  # type: ignore[no-any-return]


def _leads_outside(outputs: Sequence[Tensor], leaves: Sequence[Tensor]) -> bool:
    """Whether outputs depend on what requires a gradient, other than by ``leaves`` that are leaves."""
    own = {id(x) for x in leaves if x._edge() is x}
    stack, seen = [y._edge() for y in outputs], set()
    while stack:
        edge = stack.pop()
        if edge is None or id(edge) in seen or id(edge) in own:
            continue
        seen.add(id(edge))
        if type(edge) is not Node:
            return True
        stack.extend(edge.edges)
    return False


def _places(who: str, argnums: int | tuple[int, ...], count: int) -> list[int]:
    numbers = argnums if isinstance(argnums, tuple) else (argnums,)
    if not numbers or any(not -count <= i < count for i in numbers):
        raise RuntimeError(f"{who}: expected argnums to name some of {count} positional arguments, got {argnums!r}")
    places = [i % count for i in numbers]
    if len(set(places)) != len(places):
        raise RuntimeError(f"{who}: expected argnums to name different arguments, got {argnums!r}")
    return places


def _for_arguments(call: _Call, parts: Sequence[Any], argnums: int | tuple[int, ...]) -> Any:
    """One part for every leaf, as the arguments have them: a tuple if ``argnums`` is one."""
    made = tree_unflatten(list(parts), call.inputs)
    return tuple(made) if isinstance(argnums, tuple) else made[0]


def grad_and_value(
    func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that returns ``(∂f/∂x, f(x))``, for x the arguments ``argnums``: tensors, or dicts, lists, tuples of them.

    ``func`` returns a tensor of one element, with ``has_aux`` a pair of it and of anything else, which is passed on: the
    result is then ``(gradient, (value, aux))``.

    >>> import kobai
    >>> kobai.func.grad_and_value(lambda x: (x ** 2).sum())(kobai.tensor([1., 2.]))
    (tensor([2., 4.]), tensor(5.))
    """

    @wraps(func)
    def differentiated(*args: Any, **kwargs: Any) -> Any:
        call = _Call("grad", func, args, _places("grad", argnums, len(args)), kwargs, has_aux)
        value = call.value
        if not isinstance(value, Tensor):
            raise RuntimeError(f"grad: expected the function to return a Tensor, got a {type(value).__name__}")
        if value.ndim:
            raise RuntimeError(f"grad: expected a value without dimensions, got shape {tuple(value.shape)}; use sum()")
        if value.requires_grad:
            keep = None if call.recorded else False
            found: Any = _grad(
                value, call.leaves, retain_graph=keep, create_graph=call.recorded, materialize_grads=True
            )
        else:
            found = [zeros_like(x) for x in call.leaves]
        gradient = _for_arguments(call, [call.given(g) for g in found], argnums)
        value = call.given(value)
        return gradient, (value, call.aux) if has_aux else value

    return differentiated


def grad(func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that returns ∂f/∂x, for x the arguments ``argnums``; with ``has_aux`` the pair ``(gradient, aux)``.

    See :func:`grad_and_value`.

    >>> import kobai
    >>> kobai.func.grad(kobai.sin)(kobai.tensor(0.0))
    tensor(1.)
    >>> kobai.func.grad(kobai.func.grad(lambda x: x**3))(kobai.tensor(2.0))
    tensor(12.)
    """
    both = grad_and_value(func, argnums, has_aux)

    @wraps(func)
    def differentiated(*args: Any, **kwargs: Any) -> Any:
        gradient, value = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return differentiated


def vjp(func: Callable[..., Any], *primals: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """f(x) and a function that gives vᵀ ∂f/∂x for any v of the structure of f(x): a tuple with one entry for each argument.

    With ``has_aux`` ``func`` returns a pair, whose second part comes third in the result.

    >>> import kobai
    >>> value, pull = kobai.func.vjp(kobai.sin, kobai.zeros(2))
    >>> pull(kobai.tensor([1.0, 2.0]))
    (tensor([1., 2.]),)
    """
    call = _Call("vjp", func, primals, range(len(primals)), {}, has_aux)

    def pull(cotangents: Any) -> tuple[Any, ...]:
        weights = _alike("vjp", "cotangents", cotangents, call.outputs, call.results)
        return tuple(tree_unflatten([call.given(g) for g in call.gradients(weights)], call.inputs))

    value = tree_unflatten([call.given(y) for y in call.outputs], call.results)
    return (value, pull, call.aux) if has_aux else (value, pull)


def jvp(
    func: Callable[..., Any], primals: Any, tangents: Any, *, strict: bool = False, has_aux: bool = False
) -> tuple[Any, ...]:
    """f(x) and ∂f/∂x · v, for tuples ``primals`` of arguments x and ``tangents`` v of the same structure.

    ``strict=True``: RuntimeError for a result that does not depend on the arguments.

    >>> import kobai
    >>> kobai.func.jvp(kobai.sin, (kobai.zeros(2),), (kobai.tensor([1.0, 2.0]),))
    (tensor([0., 0.]), tensor([1., 2.]))
    """
    for name, given in (("primals", primals), ("tangents", tangents)):
        if not isinstance(given, tuple):
            raise RuntimeError(f"jvp: expected {name} to be a tuple, got a {type(given).__name__}")
    call = _Call("jvp", func, primals, range(len(primals)), {}, has_aux)
    directions = _alike("jvp", "tangents", list(tangents), call.leaves, call.inputs)
    found = pushed("jvp", call.outputs, call.leaves, directions, call.recorded, strict)
    value, derivative = (tree_unflatten(list(map(call.given, x)), call.results) for x in (call.outputs, found))
    return (value, derivative, call.aux) if has_aux else (value, derivative)


def _alike(who: str, name: str, given: Any, like: Sequence[Tensor], spec: Any) -> list[Tensor]:
    parts, found = tree_flatten(given)
    if found != spec or [getattr(p, "shape", None) for p in parts] != [x.shape for x in like]:
        shapes = ", ".join(str(tuple(x.shape)) for x in like)
        raise RuntimeError(f"{who}: expected {name} of the structure and shapes {shapes} of what they belong to")
    return parts


def jacrev(
    func: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """A function that returns ∂f/∂x, shape of f followed by shape of x, by a backward pass for every element of f.

    The passes are done together, by :func:`vmap`, ``chunk_size`` at a time. Where f returns several tensors, or x is a
    structure of them, the result has the structure of f's with that of x in each place.

    >>> import kobai
    >>> kobai.func.jacrev(lambda x: x ** 2)(kobai.tensor([1.0, 3.0]))
    tensor([[2., 0.],
            [0., 6.]])
    """
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"jacrev: expected a chunk_size of at least 1, got {chunk_size}")

    @wraps(func)
    def jacobian(*args: Any, **kwargs: Any) -> Any:
        call = _Call("jacrev", func, args, _places("jacrev", argnums, len(args)), kwargs, has_aux)
        rows = []
        for k, y in enumerate(call.outputs):
            parts = [call.given(g) for g in _rows(call, k, y, chunk_size)]
            rows.append(_for_arguments(call, parts, argnums))
        found = tree_unflatten(rows, call.results)
        return (found, call.aux) if has_aux else found

    return jacobian


def _rows(call: _Call, k: int, y: Tensor, chunk_size: int | None) -> list[Tensor]:
    """The derivatives of one output by all leaves."""
    every = units(y)
    weights = [zeros_like(other) for other in call.outputs]
    if call.recorded or call.among_samples or not y.numel():  # in a vmap a row of all samples is one pass already
        each = [call.gradients([unit if i == k else w for i, w in enumerate(weights)]) for unit in every]
        parts = [stack(list(column)) for column in zip(*each, strict=True)] if each else None
    else:
        chunks = every.split(chunk_size or len(every))
        wide = [[w.expand(len(chunk), *w.shape) for w in weights] for chunk in chunks]
        found = [
            call.gradients([chunk if i == k else w for i, w in enumerate(rest)], batched=True)
            for chunk, rest in zip(chunks, wide, strict=True)
        ]
        parts = [cat(list(column)) if len(column) > 1 else column[0] for column in zip(*found, strict=True)]
    if parts is None:
        parts = [zeros_like(x).reshape(1, *x.shape)[:0] for x in call.leaves]
    return [part.reshape(*y.shape, *x.shape) for part, x in zip(parts, call.leaves, strict=True)]


def jacfwd(
    func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False, *, randomness: str = "error"
) -> Callable[..., Any]:
    """As :func:`jacrev`, by columns: for functions with more results than arguments.

    ``randomness`` is as in :func:`vmap`: ``"error"`` refuses random functions; they are drawn once, so both other
    settings give the derivative of the same numbers.

    >>> import kobai
    >>> kobai.func.jacfwd(lambda x: x ** 2)(kobai.tensor([1.0, 3.0]))
    tensor([[2., 0.],
            [0., 6.]])
    """
    if randomness not in ("error", "same", "different"):
        raise ValueError(f"jacfwd: expected randomness to be error, same or different, got {randomness!r}")

    @wraps(func)
    def jacobian(*args: Any, **kwargs: Any) -> Any:
        call = _Call("jacfwd", func, args, _places("jacfwd", argnums, len(args)), kwargs, has_aux)
        whole = columns("jacfwd", call.outputs, call.leaves, call.recorded, False)
        parts = [_for_arguments(call, list(map(call.given, row)), argnums) for row in whole]
        found = tree_unflatten(parts, call.results)
        return (found, call.aux) if has_aux else found

    return jacobian


def hessian(func: Callable[..., Any], argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """A function that returns ∂²f/∂x²: shape of f followed by the shape of x twice.

    >>> import kobai
    >>> kobai.func.hessian(lambda x: (x ** 3).sum())(kobai.tensor([1.0, 2.0]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """
    return jacrev(jacrev(func, argnums), argnums)

"""Gradients as values: ``grad``, and ``backward`` of several tensors at once."""

from __future__ import annotations

from functools import partial
from typing import Any

from kobai.autograd.samples import vmap
from kobai.core import tape
from kobai.core.tape import Node, backward_into, root_edge, root_gradient, run_backward
from kobai.core.tensor import Tensor
from kobai.ops.like import zeros_like
from kobai.xp import Array


def _load() -> None:
    import kobai.autograd.on_tape  # noqa: F401 – a hundredth of a second, for those who derive derivatives


tape.load_on_tape = _load


def _sequence(x: Any) -> list[Any]:
    return [x] if isinstance(x, Tensor) or x is None else list(x)


def _roots(who: str, tensors: Any, gradients: Any, create_graph: bool) -> list[tuple[Any, Array]]:
    outputs = _sequence(tensors)
    given = [None] * len(outputs) if gradients is None else _sequence(gradients)
    if len(given) != len(outputs):
        raise RuntimeError(f"{who}: expected {len(outputs)} gradients, one for each output, got {len(given)}")
    return [(root_edge(who, t), root_gradient(who, t, g, create_graph)) for t, g in zip(outputs, given, strict=True)]


def backward(
    tensors: Any,
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Add the gradients of the sum of ``tensors`` (weighted by ``grad_tensors``) to the ``.grad`` of all leaves.

    With ``inputs``, tensors that need not be leaves, only theirs receive. ``create_graph=True``: as in
    :meth:`kobai.Tensor.backward`.

    >>> import kobai
    >>> x = kobai.tensor(3.0, requires_grad=True)
    >>> kobai.autograd.backward([x * x, 2 * x])
    >>> x.grad
    tensor(8.)
    """
    roots = _roots("backward", tensors, grad_tensors, create_graph)
    backward_into(roots, retain_graph, create_graph, inputs)


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """Gradients of ``outputs`` with respect to ``inputs``, returned rather than added to ``.grad``.

    ``create_graph=True`` records how the gradients are computed, so that they can be differentiated themselves, to any order;
    the graph of ``outputs`` is then kept unless ``retain_graph=False``. With ``is_grads_batched`` the ``grad_outputs`` have
    one more dimension in front, and so have the gradients: one for each, by :func:`kobai.vmap`. ``only_inputs`` has been True
    in every PyTorch for years. ``materialize_grads``: zeros for an input that is not used.

    Errors: RuntimeError for an input that the outputs do not depend on, unless ``allow_unused`` (then None);
    NotImplementedError, by name, for an operation whose gradient cannot be differentiated.

    >>> import kobai
    >>> x = kobai.tensor(3.0, requires_grad=True)
    >>> kobai.autograd.grad(x * x, x)
    (tensor(6.),)
    >>> (slope,) = kobai.autograd.grad(x**3, x, create_graph=True)
    >>> kobai.autograd.grad(slope, x)
    (tensor(18.),)
    """
    if not only_inputs:
        raise ValueError(
            "grad: only_inputs=False, to add up gradients elsewhere too, is what kobai.autograd.backward does"
        )
    if is_grads_batched:
        one = partial(grad, outputs, inputs, create_graph=create_graph, allow_unused=allow_unused)
        return _of_each(partial(one, retain_graph=retain_graph, materialize_grads=materialize_grads), grad_outputs)
    if materialize_grads and allow_unused is False:
        raise ValueError("grad: materialize_grads=True contradicts allow_unused=False")
    wanted = _sequence(inputs)
    edges = [root_edge("grad", x) for x in wanted]
    roots, keep = (
        _roots("grad", outputs, grad_outputs, create_graph),
        create_graph if retain_graph is None else retain_graph,
    )
    found = run_backward(roots, keep, {id(edge) for edge in edges}, create_graph=create_graph)
    result: list[Tensor | None] = []
    for i, edge in enumerate(edges):
        g = found.get(id(edge))
        if g is None and not (allow_unused or materialize_grads):
            raise RuntimeError(
                f"grad: input {i} was not used to compute the outputs; allow_unused=True gives None for it"
            )
        if g is not None:
            shared = type(edge) is Node or any(edge is other for other in edges[:i])
            result.append(g.tensor if create_graph else Tensor._wrap(g.copy() if shared else g))
        else:
            result.append(zeros_like(wanted[i]) if materialize_grads else None)
    return tuple(result)


def _of_each(one: Any, grad_outputs: Any) -> tuple[Tensor | None, ...]:
    """The gradients for each of several ``grad_outputs``, along their first dimension."""
    used: list[bool] = []

    def those_used(*given: Any) -> tuple[Tensor, ...]:
        found = one(list(given))
        used[:] = [g is not None for g in found]
        return tuple(g for g in found if g is not None)

    made = iter(vmap(those_used)(*_sequence(grad_outputs)))
    return tuple(next(made) if there else None for there in used)


def Variable(data: Tensor, requires_grad: bool = False, volatile: bool = False) -> Tensor:  # once a class of PyTorch's
    """The tensor itself, without its history: what was needed before tensors could require gradients themselves.

    ``volatile=True`` said that no gradient is wanted, of what is computed from it neither; PyTorch ignores it today, as is
    done here. Use :class:`kobai.no_grad`.

    >>> import kobai
    >>> kobai.autograd.Variable(kobai.tensor([1.]), requires_grad=True).requires_grad
    True
    """
    return data.detach().requires_grad_(requires_grad)

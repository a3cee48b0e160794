"""Derivatives of functions of tensors, with the names of ``torch.autograd.functional``.

For y = f(x), tensors or tuples of them, with J = ∂y/∂x and, where f has one element, H = ∂²f/∂x²::

    vjp   vᵀ J     one backward pass
    jvp   J v      two of them: J v = ∂(uᵀ J v)/∂u, for vᵀ J is linear in v
    hvp   H v      of ∂f/∂x · v, forwards over backwards
    vhp   vᵀ H     the same, as H is symmetric
    jacobian, hessian: a row, or with ``strategy="forward-mode"`` a column, at a time

``create_graph=True`` records the results, so that they can be differentiated with respect to ``inputs``, to any order;
without it they are constants. With ``strict=True`` an output that does not depend on an input is a RuntimeError; else its
derivative is zero.

Reference: B. Pearlmutter, *Fast exact multiplication by the Hessian*, Neural Computation 6, 1994.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kobai.autograd.grad import grad
from kobai.core.grad_mode import enable_grad
from kobai.core.tensor import Tensor
from kobai.ops.joining import stack
from kobai.ops.like import ones_like, zeros_like
from kobai.refusals import guard as _guard

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]


def _tensors(who: str, what: str, given: Any) -> tuple[Tensor, ...]:
    parts = given if isinstance(given, tuple) else tuple(given) if isinstance(given, list) else (given,)
    for part in parts:
        if not isinstance(part, Tensor):
            raise TypeError(f"{who}: expected {what} to be a Tensor or a tuple of them, got {type(part).__name__}")
    return parts


def _called(
    who: str, func: Callable[..., Any], inputs: Any, create_graph: bool
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], Callable[[Sequence[Any]], Any], Callable[[Sequence[Any]], Any]]:
    """The inputs, as leaves or on the way to the caller's, the outputs, and what brings results into the shape of either."""
    given = _tensors(who, "inputs", inputs)
    with enable_grad():
        if create_graph:
            leaves = tuple(x.view_as(x) if x.requires_grad else x.detach().requires_grad_() for x in given)
        else:
            leaves = tuple(x.detach().requires_grad_() for x in given)
        value = func(*leaves)
    outputs = _tensors(who, "the result of the function", value)
    return leaves, outputs, _shaped(inputs), _shaped(value)


def _shaped(like: Any) -> Callable[[Sequence[Any]], Any]:
    return lambda parts: tuple(parts) if isinstance(like, (tuple, list)) else parts[0]


def _weights(who: str, v: Any, like: Sequence[Tensor], what: str) -> list[Tensor]:
    """The vectors of a product: as given, or 1 where there is one element."""
    if v is None:
        if len(like) != 1 or like[0].numel() != 1:
            raise RuntimeError(f"{who}: expected v, as {what} has more than one element")
        return [ones_like(like[0])]
    weights = _tensors(who, "v", v)
    if [w.shape for w in weights] != [x.shape for x in like]:
        shapes = ", ".join(str(tuple(x.shape)) for x in like), ", ".join(str(tuple(w.shape)) for w in weights)
        raise RuntimeError(f"{who}: expected v of the shapes {shapes[0]} of {what}, got {shapes[1]}")
    return list(weights)


def _derived(
    who: str, outputs: Sequence[Tensor], leaves: Sequence[Tensor], weights: Any, create_graph: bool, strict: bool
) -> list[Tensor]:
    """Σ weights · ∂outputs/∂leaves, zeros where there is nothing."""
    wanted = [i for i, y in enumerate(outputs) if y.requires_grad]
    if strict and len(wanted) < len(outputs):
        lost = next(i for i in range(len(outputs)) if i not in wanted)
        raise RuntimeError(f"{who}: output {lost} does not depend on the inputs, which strict=True does not allow")
    found: Sequence[Tensor | None] = [None] * len(leaves)
    if wanted:
        roots, dys = [outputs[i] for i in wanted], [weights[i] for i in wanted]
        found = grad(roots, leaves, dys, retain_graph=True, create_graph=create_graph, allow_unused=True)
    for i, g in enumerate(found):
        if strict and (g is None or (create_graph and not g.requires_grad)):
            raise RuntimeError(
                f"{who}: the derivative by input {i} is independent of it, which strict=True does not allow"
            )
    return [zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]


def _given_back(create_graph: bool, tensors: Sequence[Tensor]) -> list[Tensor]:
    return list(tensors) if create_graph else [x.detach() for x in tensors]


def vjp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """f(x) and vᵀ J (``v`` may be left out where f has one element).

    >>> import kobai
    >>> kobai.autograd.functional.vjp(lambda x: x ** 2, kobai.tensor([1.0, 3.0]), kobai.tensor([1.0, 10.0]))
    (tensor([1., 9.]), tensor([ 2., 60.]))
    """
    leaves, outputs, as_inputs, as_outputs = _called("vjp", func, inputs, create_graph)
    weights = _weights("vjp", v, outputs, "the result")
    found = _derived("vjp", outputs, leaves, weights, create_graph, strict)
    return as_outputs(_given_back(create_graph, outputs)), as_inputs(found)


def jvp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """f(x) and J v (``v`` may be left out where x has one element).

    >>> import kobai
    >>> kobai.autograd.functional.jvp(lambda x: x ** 2, kobai.tensor([1.0, 3.0]), kobai.tensor([1.0, 10.0]))
    (tensor([1., 9.]), tensor([ 2., 60.]))
    """
    leaves, outputs, _, as_outputs = _called("jvp", func, inputs, create_graph)
    weights = _weights("jvp", v, leaves, "the input")
    found = pushed("jvp", outputs, leaves, weights, create_graph, strict)
    return as_outputs(_given_back(create_graph, outputs)), as_outputs(found)


def pushed(
    who: str, outputs: Sequence[Tensor], leaves: Sequence[Tensor], v: Sequence[Tensor], create_graph: bool, strict: bool
) -> list[Tensor]:
    """J v from the graph of ``outputs``: uᵀ J as a function of u, differentiated in the direction of v."""
    with enable_grad():
        us = [zeros_like(y).requires_grad_() for y in outputs]
        rows = _derived(who, outputs, leaves, us, True, strict)
        return _derived(who, rows, us, v, create_graph, False)


def jacobian(
    func: Callable[..., Any],
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Any:
    """∂y/∂x: shape of y followed by shape of x. Of tuples a tuple for each output, each with one entry for every input.

    Args:
        strategy: "reverse-mode", a backward pass for every element of y; "forward-mode", two for every element of x,
            which pays where y is much larger. PyTorch has the latter with ``vectorize=True`` alone.
        vectorize: all rows as one pass, by :func:`kobai.vmap`: quicker, and larger. Columns come one by one.

    >>> import kobai
    >>> kobai.autograd.functional.jacobian(lambda x: x ** 2, kobai.tensor([1.0, 3.0]))
    tensor([[2., 0.],
            [0., 6.]])
    """
    if strategy not in ("reverse-mode", "forward-mode"):
        raise ValueError(f"jacobian: expected strategy to be reverse-mode or forward-mode, got {strategy!r}")
    leaves, outputs, as_inputs, as_outputs = _called("jacobian", func, inputs, create_graph)
    if strategy == "forward-mode":
        whole = columns("jacobian", outputs, leaves, create_graph, strict)
    else:
        whole = [_rows(y, leaves, create_graph, strict, vectorize) for y in outputs]
    return as_outputs([as_inputs(row) for row in whole])


def units(like: Tensor) -> Tensor:
    """All unit vectors of the shape of ``like``, one behind another."""
    n = like.numel()
    units = zeros_like(like).reshape(1, n).expand(n, n).clone()
    units.fill_diagonal_(1)
    return units.reshape(n, *like.shape)  # type: ignore[no-any-return]


def _rows(y: Tensor, leaves: Sequence[Tensor], create_graph: bool, strict: bool, vectorize: bool) -> list[Tensor]:
    every = units(y)
    if vectorize and y.requires_grad and y.numel():
        found: Any = grad(
            y, leaves, every, retain_graph=True, create_graph=create_graph, allow_unused=True, is_grads_batched=True
        )
        rows = [
            zeros_like(x).expand(y.numel(), *x.shape) if g is None else g for x, g in zip(leaves, found, strict=True)
        ]
    else:
        each = [_derived("jacobian", [y], leaves, [unit], create_graph, strict) for unit in every]
        rows = [_stacked([row[i] for row in each], x) for i, x in enumerate(leaves)]
    return [row.reshape(*y.shape, *x.shape) for row, x in zip(rows, leaves, strict=True)]


def _stacked(parts: list[Tensor], like: Tensor) -> Tensor:
    return stack(parts) if parts else zeros_like(like).reshape(1, *like.shape)[:0]


def columns(
    who: str, outputs: Sequence[Tensor], leaves: Sequence[Tensor], create_graph: bool, strict: bool
) -> list[list[Tensor]]:
    """∂y/∂x for every output and, within, every leaf: a column for each element of x, by :func:`pushed`."""
    whole: list[list[Tensor]] = [[] for _ in outputs]
    for i, x in enumerate(leaves):
        pushes = [
            pushed(
                who,
                outputs,
                leaves,
                [unit if j == i else zeros_like(other) for j, other in enumerate(leaves)],
                create_graph,
                strict,
            )
            for unit in units(x)
        ]
        for k, y in enumerate(outputs):
            side_by_side = stack([push[k] for push in pushes], -1) if pushes else zeros_like(y).unsqueeze(-1)[..., :0]
            whole[k].append(side_by_side.reshape(*y.shape, *x.shape))
    return whole


def _scalar(who: str, outputs: Sequence[Tensor]) -> Tensor:
    if len(outputs) != 1 or outputs[0].numel() != 1:
        shapes = ", ".join(str(tuple(y.shape)) for y in outputs)
        raise RuntimeError(f"{who}: expected a function with one tensor of one element as result, got {shapes}")
    return outputs[0].reshape(())  # type: ignore[no-any-return]


def hessian(
    func: Callable[..., Any],
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:
    """∂²f/∂x² of a function of one element: shape of x twice. Of a tuple of inputs, a tuple of rows of blocks.

    ``outer_jacobian_strategy`` and ``vectorize``: how the gradient is differentiated, see :func:`jacobian`.

    >>> import kobai
    >>> kobai.autograd.functional.hessian(lambda x: (x ** 3).sum(), kobai.tensor([1.0, 2.0]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """
    several = isinstance(inputs, (tuple, list))

    def gradient(*xs: Tensor) -> Any:
        outputs = _tensors("hessian", "the result of the function", func(*xs))
        found = _derived(
            "hessian", [_scalar("hessian", outputs)], xs, [ones_like(outputs[0].reshape(()))], True, strict
        )
        return tuple(found) if several else found[0]

    return jacobian(gradient, inputs, create_graph, strict, vectorize, outer_jacobian_strategy)


def hvp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """f(x) and H v, the Hessian times a vector, without the Hessian: two backward passes.

    >>> import kobai
    >>> kobai.autograd.functional.hvp(lambda x: (x ** 3).sum(), kobai.tensor([1.0, 2.0]), kobai.tensor([1.0, 1.0]))
    (tensor(9.), tensor([ 6., 12.]))
    """
    return _times_hessian("hvp", func, inputs, v, create_graph, strict)


def vhp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """f(x) and vᵀ H: as :func:`hvp`, for the Hessian is symmetric.

    >>> import kobai
    >>> kobai.autograd.functional.vhp(lambda x: (x ** 3).sum(), kobai.tensor([1.0, 2.0]), kobai.tensor([1.0, 1.0]))
    (tensor(9.), tensor([ 6., 12.]))
    """
    return _times_hessian("vhp", func, inputs, v, create_graph, strict)


def _times_hessian(
    who: str, func: Callable[..., Any], inputs: Any, v: Any, create_graph: bool, strict: bool
) -> tuple[Any, Any]:
    leaves, outputs, as_inputs, as_outputs = _called(who, func, inputs, create_graph)
    with enable_grad():
        y = _scalar(who, outputs)
    weights = _weights(who, v, leaves, "the input")
    gradient = _derived(who, [y], leaves, [ones_like(y)], True, strict)
    found = _derived(who, gradient, leaves, weights, create_graph, strict)
    return as_outputs(_given_back(create_graph, outputs)), as_inputs(found)


_guard(globals())

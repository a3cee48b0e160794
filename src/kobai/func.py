"""``kobai.func``: functions of functions – gradients, a function of one sample as one of many – and a module as a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

from kobai.autograd.grad import grad as _grad
from kobai.autograd.samples import vmap
from kobai.compat.absent import within as _within
from kobai.core.grad_mode import enable_grad
from kobai.core.tensor import Tensor
from kobai.nn.module import Module
from kobai.ops.joining import stack
from kobai.ops.like import zeros_like
from kobai.refusals import guard as _guard
from kobai.utils._pytree import tree_flatten, tree_map, tree_unflatten

__all__ = ["functional_call", "grad", "grad_and_value", "stack_module_state", "vmap"]


def functional_call(
    module: Module,
    parameter_and_buffer_dicts: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]],
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """``module(*args, **kwargs)`` with other tensors in place of its parameters and buffers, by dotted name.

    Gradients flow to the given tensors; afterwards the module is unchanged.

    Args:
        parameter_and_buffer_dicts: name → tensor, or several such dicts.
        args: a tuple of arguments, or a single one.
        tie_weights: a tensor given for one name of a shared parameter replaces it under all its names.
        strict: every parameter and buffer must be given.

    Errors: KeyError for names that the module does not have, or with ``strict`` lacks in the dicts.

    >>> import kobai
    >>> line = kobai.nn.Linear(2, 1)
    >>> weights = {"weight": kobai.ones(1, 2), "bias": kobai.zeros(1)}
    >>> kobai.func.functional_call(line, weights, kobai.ones(1, 2))
    tensor([[2.]])
    """
    dicts = (
        [parameter_and_buffer_dicts] if isinstance(parameter_and_buffer_dicts, Mapping) else parameter_and_buffer_dicts
    )
    given = {name: tensor for d in dicts for name, tensor in d.items()}
    slots: dict[str, tuple[dict[str, Any], str]] = {}
    for path, owner in module.named_modules(remove_duplicate=False):
        tables: tuple[dict[str, Any], ...] = (owner._parameters, owner._buffers)
        for table in tables:
            for name, tensor in table.items():
                if tensor is not None:
                    slots[f"{path}.{name}" if path else name] = (table, name)
    unknown, missing = [n for n in given if n not in slots], [n for n in slots if n not in given]
    if unknown or (strict and missing):
        raise KeyError(
            f"functional_call: unexpected names {unknown}" + (f", missing names {missing}" if strict else "")
        )
    if tie_weights:
        by_identity = {id(slots[name][0][slots[name][1]]): tensor for name, tensor in given.items()}
        for key, (table, name) in slots.items():
            if id(table[name]) in by_identity:
                given.setdefault(key, by_identity[id(table[name])])
    before = [(table, name, table[name]) for table, name in slots.values()]
    try:
        for key, tensor in given.items():
            table, name = slots[key]
            table[name] = tensor
        arguments = () if args is None else args if isinstance(args, tuple) else (args,)
        return module(*arguments, **(kwargs or {}))
    finally:
        for table, name, tensor in before:
            table[name] = tensor


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
    from kobai.autograd.batching.border import leaf

    @wraps(func)
    def differentiated(*args: Any, **kwargs: Any) -> Any:
        numbers = argnums if isinstance(argnums, tuple) else (argnums,)
        if not numbers or any(not -len(args) <= i < len(args) for i in numbers):
            raise RuntimeError(
                f"grad: expected argnums to name some of {len(args)} positional arguments, got {argnums!r}"
            )
        places = [i % len(args) for i in numbers]
        if len(set(places)) != len(places):
            raise RuntimeError(f"grad: expected argnums to name different arguments, got {argnums!r}")
        given, spec = tree_flatten([args[i] for i in places])
        if not given or not all(isinstance(x, Tensor) for x in given):
            raise ValueError("grad: expected tensors in the arguments to differentiate, and at least one")
        leaves = [leaf(x) for x in given]
        changed = list(args)
        for i, value in zip(places, tree_unflatten(leaves, spec), strict=True):
            changed[i] = value
        with enable_grad():
            result = func(*changed, **kwargs)
            if has_aux and not (isinstance(result, tuple) and len(result) == 2):
                raise RuntimeError(
                    f"grad: expected a pair (value, aux) with has_aux=True, got a {type(result).__name__}"
                )
            value, aux = result if has_aux else (result, None)
            if not isinstance(value, Tensor):
                raise RuntimeError(f"grad: expected the function to return a Tensor, got a {type(value).__name__}")
            if value.ndim:
                raise RuntimeError(
                    f"grad: expected a value without dimensions, got shape {tuple(value.shape)}; use sum()"
                )
            if value.requires_grad:
                found: Any = _grad(value, leaves, materialize_grads=True)
            else:
                found = [zeros_like(x) for x in leaves]
        gradients = tree_unflatten([g.detach() for g in found], spec)
        gradient = tuple(gradients) if isinstance(argnums, tuple) else gradients[0]
        passed = tree_map(lambda x: x.detach() if isinstance(x, Tensor) else x, aux)
        return gradient, (value.detach(), passed) if has_aux else value.detach()

    return differentiated


def grad(func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that returns ∂f/∂x, for x the arguments ``argnums``; with ``has_aux`` the pair ``(gradient, aux)``.

    See :func:`grad_and_value`.

    >>> import kobai
    >>> kobai.func.grad(kobai.sin)(kobai.tensor(0.0))
    tensor(1.)
    """
    both = grad_and_value(func, argnums, has_aux)

    @wraps(func)
    def differentiated(*args: Any, **kwargs: Any) -> Any:
        gradient, value = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return differentiated


def stack_module_state(models: Sequence[Module]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The parameters, and the buffers, of modules of one class: name → tensor whose first dimension counts the modules.

    With :func:`functional_call` and :func:`vmap` they make an ensemble. The parameters are leaves that require gradients where
    those of the modules do.

    >>> import kobai
    >>> params, buffers = kobai.func.stack_module_state([kobai.nn.Linear(3, 2) for _ in range(5)])
    >>> params["weight"].shape
    kobai.Size([5, 2, 3])
    """
    if not models:
        raise RuntimeError("stack_module_state: expected at least one module, got none")
    if any(type(model) is not type(models[0]) for model in models):
        raise RuntimeError("stack_module_state: expected modules of one class")
    if any(model.training is not models[0].training for model in models):
        raise RuntimeError("stack_module_state: expected all modules in training mode, or all in evaluation mode")

    def stacked(tables: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        made = {}
        for name, first in tables[0].items():
            made[name] = stack([table[name].detach() for table in tables])
            if first.requires_grad:
                made[name].requires_grad_()
        return made

    return stacked([dict(m.named_parameters()) for m in models]), stacked([dict(m.named_buffers()) for m in models])


_guard(globals())
__getattr__ = _within(__name__, "functionalize hessian jacfwd jacrev jvp linearize vjp")

"""``kobai.func``: functions of functions – gradients, a function of one sample as one of many – and a module as a function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kobai.autograd.samples import vmap
from kobai.autograd.transforms import grad, grad_and_value, hessian, jacfwd, jacrev, jvp, vjp
from kobai.compat.absent import within as _within
from kobai.core.tensor import Tensor
from kobai.nn.module import Module
from kobai.ops.joining import stack
from kobai.refusals import guard as _guard
from kobai.xp import recorder, sessions

__all__ = [
    "functional_call",
    "grad",
    "grad_and_value",
    "hessian",
    "jacfwd",
    "jacrev",
    "jvp",
    "stack_module_state",
    "vjp",
    "vmap",
]


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
    at_work = recorder() if sessions else None
    for path, owner in module.named_modules(remove_duplicate=False):
        if at_work is not None:  # with its own tensors, which it will have again
            at_work.visit(owner)
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
__getattr__ = _within(__name__, "functionalize linearize")

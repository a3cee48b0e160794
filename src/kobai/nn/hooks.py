"""Hooks of every module at once, and how backward hooks see the gradients of a module's inputs and outputs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from kobai.core import tape
from kobai.core.grad_mode import is_grad_enabled
from kobai.core.primitive import _link_view
from kobai.core.tape import Node, RemovableHandle, itself
from kobai.core.tensor import Tensor
from kobai.nn.tree import Tree, type_name
from kobai.xp import Array, xp_of

Hook = Callable[..., Any]

of_every_module: OrderedDict[int, tuple[str, Hook]] = OrderedDict()
"""Hooks that all modules have, by the number of their handle: each with the name of the table of a module that it adds to."""

told_kwargs: set[int] = set()
"""The numbers of those that are given keyword arguments too."""

always_called: set[int] = set()
"""The numbers of those that are called also if ``forward`` fails."""


def hooks_of(module: Any, table: str) -> list[tuple[int, Hook]]:
    """The hooks of one kind for ``module``, with their numbers: those of every module come before its own."""
    return [
        *((key, hook) for key, (kind, hook) in of_every_module.items() if kind == table),
        *vars(module)[table].items(),
    ]


def _for_every_module(table: str, hook: Hook) -> RemovableHandle:
    if not callable(hook):
        raise TypeError(f"a hook must be callable, got {type_name(hook)}")
    return RemovableHandle(of_every_module, (table, hook))


def register_module_forward_pre_hook(hook: Hook) -> RemovableHandle:
    """As :meth:`Module.register_forward_pre_hook`, of every module, before its own hooks; so are the others below.

    >>> from kobai import nn, ones
    >>> from kobai.nn.modules.module import register_module_forward_pre_hook
    >>> with register_module_forward_pre_hook(lambda module, args: print(module._get_name())):
    ...     _ = nn.Sequential(nn.Linear(2, 3), nn.ReLU())(ones(1, 2))
    Sequential
    Linear
    ReLU
    """
    return _for_every_module("_forward_pre_hooks", hook)


def register_module_forward_hook(
    hook: Hook, *, with_kwargs: bool = False, always_call: bool = False
) -> RemovableHandle:
    """As :meth:`Module.register_forward_hook`, of every module."""
    handle = _for_every_module("_forward_hooks", hook)
    for wanted, numbers in ((with_kwargs, told_kwargs), (always_call, always_called)):
        if wanted:
            numbers.add(handle.id)
    return handle


def register_module_full_backward_pre_hook(hook: Hook) -> RemovableHandle:
    """As :meth:`Module.register_full_backward_pre_hook`, of every module."""
    return _for_every_module("_backward_pre_hooks", hook)


def register_module_full_backward_hook(hook: Hook) -> RemovableHandle:
    """As :meth:`Module.register_full_backward_hook`, of every module."""
    return _for_every_module("_backward_hooks", hook)


class BackwardWatch:
    """Gates on the tape around one call of a module.

    Every watched tensor passes through a *gate*, a node that notes its gradient and has an edge to the *keeper*, a node
    older than all gates on its side. Backward visits nodes from newest to oldest, so the keeper's turn comes when every
    gate has noted its gradient; it calls the hooks and passes on the gradients, which they may have replaced::

        inputs → keeper → gates → forward → keeper → gates → outputs
    """

    def __init__(self, module: Tree, pre_hooks: Sequence[Hook], hooks: Sequence[Hook]) -> None:
        self.module = module
        self.pre_hooks = pre_hooks
        self.hooks = hooks
        self.grad_output: tuple[Tensor | None, ...] = ()
        self.has_input = False

    def inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The positional arguments, tensors among them behind gates."""
        gated, self.has_input = _gate(args, self._input_gradients)
        return gated

    def outputs(self, output: Any) -> Any:
        """The output – a tensor, or a tuple or list of tensors – behind gates."""
        if isinstance(output, Tensor):
            return _gate((output,), self._output_gradients)[0][0]
        if isinstance(output, (tuple, list)):
            gated = _gate(tuple(output), self._output_gradients)[0]
            return type(output)(*gated) if hasattr(output, "_fields") else type(output)(gated)
        raise TypeError(
            f"{self.module._get_name()}: backward hooks need a Tensor, or a tuple or list of them, as output of "
            f"forward; got {type(output).__name__}"
        )

    def _output_gradients(self, grads: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        for hook in self.pre_hooks:
            grads = self._replaced(hook(self.module, grads), grads, "full backward pre-hook")
        self.grad_output = grads
        if not self.has_input:  # no gate further down will report
            self._input_gradients((None,))
        return grads

    def _input_gradients(self, grads: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        grad_output, self.grad_output = self.grad_output, ()  # they may lead back to here, if they are on the tape
        for hook in self.hooks if grad_output else ():  # a derivative of derivatives need not come by the outputs
            grads = self._replaced(hook(self.module, grads, grad_output), grads, "full backward hook")
        return grads

    def _replaced(self, result: Any, grads: tuple[Any, ...], what: str) -> tuple[Tensor | None, ...]:
        if result is None:
            return grads
        replacement: tuple[Tensor | None, ...] = result if isinstance(result, tuple) else (result,)
        if len(replacement) != len(grads):
            raise RuntimeError(
                f"{self.module._get_name()}: {what} returned {len(replacement)} gradient(s), expected {len(grads)}"
            )
        return replacement


def _gate(
    values: tuple[Any, ...], tell: Callable[[tuple[Tensor | None, ...]], tuple[Tensor | None, ...]]
) -> tuple[tuple[Any, ...], bool]:
    """``values`` with every tensor that requires a gradient behind a gate, and whether there was any."""
    watched = [isinstance(v, Tensor) and v.requires_grad for v in values]
    if not any(watched) or not is_grad_enabled():
        return values, False
    noted: list[Array | None] = [None] * len(values)

    def keep(_knock: Array) -> list[Array | None]:
        taped = any(type(g) is tape.taped_type for g in noted)
        grads = tuple(None if g is None else tape.as_tensor(g) for g in noted)
        noted[:] = [None] * len(values)  # for another backward through the same graph
        return [None if g is None else tape.taped_type(g) if taped else g.array for g in tell(grads)]

    keep.on_tape = itself  # type: ignore[attr-defined]
    keeper = Node("backward_hook", keep, [v._edge() if isinstance(v, Tensor) else None for v in values])

    def behind_gate(i: int, value: Tensor) -> Tensor:
        def note(dy: Array) -> tuple[Array]:
            noted[i] = dy
            return (xp_of(dy).zeros((), dtype=dy.dtype),)

        note.on_tape = itself  # type: ignore[attr-defined]
        gated: Tensor = Tensor._wrap(value.array)
        _link_view(gated, value, lambda array: (array, lambda dy: (dy,)), [], {})  # in-place changes are seen by both
        gated._requires_grad = True
        gated._node = Node("backward_hook", note, [keeper])
        return gated

    return tuple(
        behind_gate(i, v) if watch else v for i, (v, watch) in enumerate(zip(values, watched, strict=True))
    ), True

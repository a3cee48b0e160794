"""Hooks of a node of the tape, ``y.grad_fn.register_hook``: they see the gradients of all its inputs and of all its results.

They go around the node's vjp, so that a node without any costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

from kobai.core import tape
from kobai.core.handles import RemovableHandle
from kobai.core.tape import Node, Parts, opaque
from kobai.xp import Array


class _Hooks(dict[int, Callable[..., Any]]):
    """Of one node, before its vjp or after it. What they hold is the user's: the vjp does not keep it."""


opaque.add(_Hooks)


def _whole(node: Node) -> Node:
    """The node of an operation. Each of several results has one of its own before it, which sends a part."""
    return node.edges[0] if getattr(node.vjp, "sends", False) else node


def _hooked(node: Node) -> Any:
    node = _whole(node)
    if not hasattr(node.vjp, "hooks_after"):
        if node.vjp is None:
            raise tape.freed(node)
        tensors = (
            len(node.operands) - 1 if node.operands else len(node.edges)
        )  # numbers come behind them, and have none
        node.vjp = _around(node.vjp, [edge is not None for edge in node.edges[:tensors]])
    return node.vjp


def _around(vjp: Any, wanted: list[bool]) -> Any:
    """``vjp`` between hooks; of its gradients they see those that are ``wanted``."""
    before, after = _Hooks(), _Hooks()

    def hooked(dy: Any) -> Sequence[Any]:
        dy = _replaced_parts(before, dy)
        return _after(dy, vjp(dy))

    def on_tape(binding: Any, dy: Any) -> Sequence[Any]:
        node = binding.node
        dy = _replaced_parts(before, dy)
        node.vjp = vjp
        try:
            return _after(dy, tape.on_tape(node, dy, node.edges))
        finally:
            node.vjp = hooked

    def _after(dy: Any, found: Sequence[Any]) -> Sequence[Any]:
        if not after:
            return found
        pairs = zip(found, wanted, strict=False)
        gradients = [(g() if type(g) is FunctionType else g) if want and g is not None else None for g, want in pairs]
        results = tuple(map(_given, _parts(dy)))
        for hook in list(after.values()):
            changed = hook(tuple(map(_given, gradients)), results)
            if changed is not None:
                gradients = _taken("register_hook", changed, gradients)
        return gradients

    made: Any = hooked
    made.on_tape, made.hooks_before, made.hooks_after = on_tape, before, after
    return made


def _parts(dy: Any) -> list[Any]:
    return [dy.get(i) for i in range(max(dy) + 1)] if isinstance(dy, Parts) else [dy]


def _replaced_parts(hooks: _Hooks, dy: Any) -> Any:
    for hook in list(hooks.values()):
        parts = _parts(dy)
        changed = hook(tuple(map(_given, parts)))
        if changed is not None:
            new = _taken("register_prehook", changed, parts)
            dy = Parts({i: g for i, g in enumerate(new) if g is not None}) if isinstance(dy, Parts) else new[0]
    return dy


def _given(g: Array | None) -> Any:
    """A gradient as a hook sees it: it may change or keep it, so it is its own."""
    return None if g is None else tape.as_tensor(g if type(g) is tape.taped_type else tape.as_array(g).copy())


def _taken(who: str, changed: Any, gradients: Sequence[Any]) -> list[Any]:
    """What a hook returned in place of gradients, as arrays like them."""
    new = changed if isinstance(changed, tuple) else (changed,)
    if len(new) != len(gradients):
        raise RuntimeError(f"{who}: expected a hook to return {len(gradients)} gradients, got {len(new)}")
    for g, before in zip(new, gradients, strict=True):
        if g is not None and before is not None and tuple(g.shape) != tuple(before.shape):
            raise RuntimeError(f"{who}: expected a gradient of shape {tuple(before.shape)}, got {tuple(g.shape)}")
    taped = any(type(g) is tape.taped_type for g in gradients)
    return [None if g is None else tape.taped_type(g) if taped else g._array for g in new]


def register_hook(self: Node, hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(grad_inputs, grad_outputs)`` when backward has passed here; a tuple that it returns replaces the first.

    >>> import kobai
    >>> x = kobai.ones(2, requires_grad=True)
    >>> y = (3 * x).sum()
    >>> handle = y.grad_fn.register_hook(lambda inputs, outputs: print(inputs, outputs))
    >>> y.backward()
    (tensor([1., 1.]),) (tensor(1.),)
    """
    return RemovableHandle(_hooked(self).hooks_after, hook)


def register_prehook(self: Node, hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(grad_outputs)`` when backward comes here; a tuple that it returns replaces them."""
    return RemovableHandle(_hooked(self).hooks_before, hook)


Node.register_hook, Node.register_prehook = register_hook, register_prehook  # type: ignore[attr-defined]

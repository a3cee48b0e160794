"""Hooks of optimisers: around a step, and around saving and loading."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import wraps
from types import MappingProxyType
from typing import Any

from kobai.core.tape import RemovableHandle


class Hooked:
    """The part of :class:`Optimizer` that keeps hooks and calls them."""

    _optimizer_step_pre_hooks: Any = MappingProxyType(
        {}
    )  # of a wrapper that never called __init__, as several are written
    _optimizer_step_post_hooks: Any = _optimizer_step_pre_hooks
    _state_hooks: Any = _optimizer_step_pre_hooks

    def _patch_step_function(self) -> None:
        """Nothing: ``step`` has its hooks since the class was made. Wrappers that never call ``__init__`` call this."""

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(optimizer, args, kwargs)`` before each step; it may return new ``(args, kwargs)`` of the step."""
        return RemovableHandle(self._optimizer_step_pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(optimizer, args, kwargs)`` after each step."""
        return RemovableHandle(self._optimizer_step_post_hooks, hook)

    def register_state_dict_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call ``hook(optimizer)`` before :meth:`state_dict`."""
        return self._add_state_hook("state_dict_pre", hook, prepend)

    def register_state_dict_post_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call ``hook(optimizer, state_dict)`` with what :meth:`state_dict` found; it may return another."""
        return self._add_state_hook("state_dict_post", hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call ``hook(optimizer, state_dict)`` before :meth:`load_state_dict`; it may return another to load."""
        return self._add_state_hook("load_pre", hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call ``hook(optimizer)`` after :meth:`load_state_dict`."""
        return self._add_state_hook("load_post", hook, prepend)

    def _add_state_hook(self, when: str, hook: Callable[..., Any], prepend: bool) -> RemovableHandle:
        hooks = self._state_hooks.setdefault(when, OrderedDict())
        handle = RemovableHandle(hooks, hook)
        if prepend:
            hooks.move_to_end(handle.id, last=False)
        return handle

    def _run_state_hooks(self, when: str, *given: Any) -> Any:
        """The state dict ``given``, or the last one that a hook returned."""
        for hook in list(self._state_hooks.get(when, {}).values()):
            changed = hook(self, *given)
            if changed is not None and given:
                given = (changed,)
        return given[0] if given else None


def hooked_step(step: Callable[..., Any]) -> Callable[..., Any]:
    """``step`` with the hooks around it; also notes for the schedulers that a step was made."""

    @wraps(step)
    def hooked(self: Any, *args: Any, **kwargs: Any) -> Any:
        self._step_called = True
        for hook in list(self._optimizer_step_pre_hooks.values()):
            replaced = hook(self, args, kwargs)
            if replaced is not None:
                if not isinstance(replaced, tuple) or len(replaced) != 2:
                    raise RuntimeError(
                        f"{type(self).__name__}: a step pre-hook returns None or (args, kwargs), got {replaced!r}"
                    )
                args, kwargs = replaced
        result = step(self, *args, **kwargs)
        for hook in list(self._optimizer_step_post_hooks.values()):
            hook(self, args, kwargs)
        return result

    return hooked

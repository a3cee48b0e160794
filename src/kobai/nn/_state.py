"""The state of a module as a dictionary: saving it, and loading it after every key was checked."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from kobai.core.tape import RemovableHandle
from kobai.core.tensor import Tensor
from kobai.nn.parameter import Parameter
from kobai.nn.tree import Tree
from kobai.xp import move, write

EXTRA = "_extra_state"


class IncompatibleKeys(NamedTuple):
    """What ``load_state_dict`` found: keys the module wanted and did not get, and keys it did not want."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"_IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


class _Plan(dict[str, Any]):
    """What a load is going to write. It goes through ``_load_from_state_dict`` as PyTorch's ``local_metadata``, a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[tuple[Any, str, Tensor, Any]] = []  # (module, name, its tensor, the new value)
        self.extras: list[tuple[Any, Any]] = []
        self.known: set[str] = set()  # keys that some module wants
        self.checked: set[str] = set()  # the prefixes of modules that leave it to us which keys are theirs


class Stateful(Tree):
    """The part of :class:`Module` that saves and loads."""

    _state_hooks: dict[str, OrderedDict[int, Callable[..., Any]]]
    _version: int = 1
    """Of the layout of a class's state. ``state_dict`` notes it, and ``_load_from_state_dict`` finds it in its
    ``local_metadata["version"]``, to convert what an older class saved; none is there if none was noted."""

    def state_dict(
        self, destination: dict[str, Any] | None = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """All parameters and persistent buffers by dotted name, in order of definition.

        The tensors are detached but share the module's memory (``keep_vars=True`` gives the parameters themselves):
        clone those that further training must not change.
        """
        state: Any = destination
        if state is None:
            state = OrderedDict()
            state._metadata = OrderedDict()
        own = {"version": self._version}
        if hasattr(state, "_metadata"):
            state._metadata[prefix[:-1]] = own
        for hook in self._hooks_of("state_dict_pre"):
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(state, prefix, keep_vars)
        for name, module in self._modules.items():
            if module is not None:
                module.state_dict(destination=state, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        for hook in self._hooks_of("state_dict_post"):
            changed = hook(self, state, prefix, own)
            state = state if changed is None else changed
        return state  # type: ignore[no-any-return]

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Add what is this module's alone; a subclass may add more, or less."""
        for name, tensor in self._own_state().items():
            destination[prefix + name] = tensor if keep_vars else tensor.detach()
        if type(self).get_extra_state is not Stateful.get_extra_state:
            destination[prefix + EXTRA] = self.get_extra_state()

    def _own_state(self) -> dict[str, Tensor]:
        """Parameters and persistent buffers of this module alone."""
        own: dict[str, Tensor] = {name: param for name, param in self._parameters.items() if param is not None}
        for name, buffer in self._buffers.items():
            if buffer is not None and name not in self._non_persistent_buffers_set:
                own[name] = buffer
        return own

    def get_extra_state(self) -> Any:
        """State that is no tensor, for :meth:`state_dict`; a subclass that has some writes this and :meth:`set_extra_state`."""
        raise RuntimeError(
            f"{self._get_name()}: a module with extra state must define get_extra_state and set_extra_state"
        )

    def set_extra_state(self, state: Any) -> None:
        """Take over what :meth:`get_extra_state` gave."""
        raise RuntimeError(
            f"{self._get_name()}: a module with extra state must define get_extra_state and set_extra_state"
        )

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copy values by name into the parameters and persistent buffers, in place, casting to their dtype and device.

        Everything is checked before anything is written: an error leaves the module unchanged.

        Args:
            state_dict: dotted name -> Tensor, as from ``state_dict()`` or ``kobai.load``.
            strict: also refuse missing and unexpected keys (shapes are always checked).
            assign: put the given tensors themselves (their dtype, device and memory) in place of the module's.

        Returns:
            ``(missing_keys, unexpected_keys)``, both empty when ``strict``.

        Raises:
            RuntimeError: names every missing, unexpected and misshaped key at once.

        >>> from kobai import nn
        >>> model = nn.Linear(2, 3)
        >>> model.load_state_dict(model.state_dict())
        <All keys matched successfully>
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"{self._get_name()}.load_state_dict: expected a mapping, got {type(state_dict).__name__}")
        state = OrderedDict(state_dict)  # a hook may rename its keys
        plan = _Plan()
        found = IncompatibleKeys([], [])
        messages: list[str] = []
        modules = list(self.named_modules(remove_duplicate=False))
        noted = getattr(state_dict, "_metadata", {})
        for path, module in modules:
            prefix = f"{path}." if path else ""
            plan.clear()
            plan.update(noted.get(path, {}))
            for hook in module._hooks_of("load_pre"):
                hook(state, prefix, plan, True, found.missing_keys, found.unexpected_keys, messages)
            module._load_from_state_dict(state, prefix, plan, True, found.missing_keys, found.unexpected_keys, messages)
        found.unexpected_keys.extend(
            key for key in state if key not in plan.known and _owner(key, modules) in plan.checked
        )
        hooks = [(module, hook) for _, module in reversed(modules) for hook in module._hooks_of("load_post")]
        _refuse(self._get_name(), found if strict and not hooks else IncompatibleKeys([], []), messages)
        _carry_out(plan, assign)
        for module, hook in hooks:  # which may take keys from the lists, and so have the last word
            hook(module, found)
        if strict:
            _refuse(self._get_name(), found, [])
        return found

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Check what is this module's alone; it is written when all is known to fit.

        A subclass may change ``state_dict`` or its own tensors first, and then calls this one.
        """
        plan: _Plan = local_metadata
        plan.checked.add(prefix)
        for name, tensor in self._own_state().items():
            key = prefix + name
            plan.known.add(key)
            if key not in state_dict:
                missing_keys.append(key)
            elif not isinstance(state_dict[key], Tensor):
                error_msgs.append(f"{key}: expected a Tensor, got {type(state_dict[key]).__name__}.")
            elif tuple(state_dict[key].shape) != tuple(tensor.shape):
                error_msgs.append(
                    f"size mismatch for {key}: the model expects {tuple(tensor.shape)}, "
                    f"the state_dict holds {tuple(state_dict[key].shape)}."
                )
            else:
                plan.writes.append((self, name, tensor, state_dict[key]))
        if type(self).set_extra_state is not Stateful.set_extra_state:
            plan.known.add(prefix + EXTRA)
            if prefix + EXTRA in state_dict:
                plan.extras.append((self, state_dict[prefix + EXTRA]))
            else:
                missing_keys.append(prefix + EXTRA)

    # -- hooks ------------------------------------------------------------------------------------------------------

    def register_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, prefix, keep_vars)`` before this module is put into a state dict."""
        return self._add_state_hook("state_dict_pre", hook)

    def register_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, state_dict, prefix, local_metadata)`` when it and what is below it are in the dict."""
        return self._add_state_hook("state_dict_post", hook)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, state_dict, prefix, ...)`` before loading; it may rename or drop keys of ``state_dict``.

        The rest are ``local_metadata``, ``strict`` and the lists ``missing_keys``, ``unexpected_keys`` and ``error_msgs``.
        """
        return self._add_state_hook("load_pre", lambda *given: hook(self, *given))

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, incompatible_keys)`` after loading; it may take keys from those two lists."""
        return self._add_state_hook("load_post", hook)

    _register_state_dict_hook = register_state_dict_post_hook

    def _register_load_state_dict_pre_hook(
        self, hook: Callable[..., Any], with_module: bool = False
    ) -> RemovableHandle:
        return self.register_load_state_dict_pre_hook(hook) if with_module else self._add_state_hook("load_pre", hook)

    def _add_state_hook(self, when: str, hook: Callable[..., Any]) -> RemovableHandle:
        hooks = self.__dict__.setdefault("_state_hooks", {}).setdefault(when, OrderedDict())
        return RemovableHandle(hooks, hook)

    def _hooks_of(self, when: str) -> list[Callable[..., Any]]:
        hooks = self.__dict__.get("_state_hooks")
        return list(hooks[when].values()) if hooks and when in hooks else []


def _owner(key: str, modules: list[tuple[str, Any]]) -> str:
    """The prefix of the module to which a key would belong: of the deepest whose name it begins with."""
    paths = {path for path, _ in modules}
    path = key.rpartition(".")[0]
    while path not in paths:
        path = path.rpartition(".")[0]
    return f"{path}." if path else ""


def _refuse(who: str, found: IncompatibleKeys, messages: list[str]) -> None:
    problems = [
        f"{what} key(s) in state_dict: " + ", ".join(f'"{key}"' for key in keys) + "."
        for what, keys in (("Missing", found.missing_keys), ("Unexpected", found.unexpected_keys))
        if keys
    ]
    if problems := problems + messages:
        raise RuntimeError(f"Error(s) in loading state_dict for {who}:\n\t" + "\n\t".join(problems))


def _carry_out(plan: _Plan, assign: bool) -> None:
    fresh: dict[int, Parameter] = {}  # with assign: tied parameters stay tied
    for owner, name, tensor, value in plan.writes:
        if not assign:
            write(tensor.array, move(value.array, tensor.device))
            tensor._bump()
        elif isinstance(tensor, Parameter):
            owner._parameters[name] = fresh.setdefault(id(tensor), _as_parameter(value, tensor.requires_grad))
        else:
            owner._buffers[name] = value
    for owner, extra in plan.extras:
        owner.set_extra_state(extra)


def _as_parameter(value: Tensor, requires_grad: bool) -> Parameter:
    if isinstance(value, Parameter):
        value.requires_grad_(requires_grad)
        return value
    return Parameter(value, requires_grad)

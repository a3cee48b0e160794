"""Loading a state dict: check every key first, then write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from kobai.core.tensor import Tensor
from kobai.nn.parameter import Parameter
from kobai.nn.tree import Tree
from kobai.xp import move, write


class IncompatibleKeys(NamedTuple):
    """What ``load_state_dict`` found: keys the module wanted and did not get, and keys it did not want."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


def load_state(module: Tree, state: Mapping[str, Any], *, strict: bool, assign: bool) -> IncompatibleKeys:
    """See ``Module.load_state_dict``."""
    if not isinstance(state, Mapping):
        raise TypeError(f"{module._get_name()}.load_state_dict: expected a mapping, got {type(state).__name__}")
    slots = {
        (f"{path}.{name}" if path else name): (owner, name, tensor)
        for path, owner in module.named_modules(remove_duplicate=False)
        for name, tensor in owner._own_state().items()
    }
    missing = [key for key in slots if key not in state]
    unexpected = [key for key in state if key not in slots]
    problems: list[str] = []
    if strict and missing:
        problems.append("Missing key(s) in state_dict: " + ", ".join(f'"{key}"' for key in missing) + ".")
    if strict and unexpected:
        problems.append("Unexpected key(s) in state_dict: " + ", ".join(f'"{key}"' for key in unexpected) + ".")
    for key, (_, _, tensor) in slots.items():
        if key not in state:
            continue
        if not isinstance(state[key], Tensor):
            problems.append(f"{key}: expected a Tensor, got {type(state[key]).__name__}.")
        elif tuple(state[key].shape) != tuple(tensor.shape):
            problems.append(
                f"size mismatch for {key}: the model expects {tuple(tensor.shape)}, "
                f"the state_dict holds {tuple(state[key].shape)}."
            )
    if problems:
        raise RuntimeError(f"Error(s) in loading state_dict for {module._get_name()}:\n\t" + "\n\t".join(problems))

    fresh: dict[int, Parameter] = {}  # with assign: tied parameters stay tied
    for key, (owner, name, tensor) in slots.items():
        if key not in state:
            continue
        if not assign:
            write(tensor.array, move(state[key].array, tensor.device))
            tensor._bump()
        elif isinstance(tensor, Parameter):
            owner._parameters[name] = fresh.setdefault(id(tensor), _as_parameter(state[key], tensor.requires_grad))
        else:
            owner._buffers[name] = state[key]
    return IncompatibleKeys(missing, unexpected)


def _as_parameter(value: Tensor, requires_grad: bool) -> Parameter:
    if isinstance(value, Parameter):
        value.requires_grad_(requires_grad)
        return value
    return Parameter(value, requires_grad)

"""Parameter groups: which tensors an optimiser changes, and with which options."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Iterable
from numbers import Real
from typing import Any, ClassVar, TypeAlias, TypedDict

import numpy as np

from kobai.core.conversion import everything
from kobai.core.tensor import Tensor
from kobai.errors import users_line
from kobai.xp import Array, recorder, write

Params: TypeAlias = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]]
Group: TypeAlias = dict[str, Any]


class Engine(TypedDict, total=False):
    """PyTorch's choices of how a step is computed, which every optimiser here takes; groups keep those of its ``_switches``.

    ``foreach`` and ``fused`` ask that all parameters be updated together: so they are, by one launch of one kernel.
    ``capturable`` asks for a step that can be captured: every one can be. ``differentiable`` is none of speed: the step
    itself is then differentiated, :mod:`kobai.optim._differentiable`.
    """

    foreach: bool | None
    fused: bool | None
    capturable: bool
    differentiable: bool


USUAL: Group = {"foreach": None, "capturable": False, "differentiable": False, "fused": None}


class _Signature:
    """What ``inspect.signature`` of an optimiser gives: the switches by their names, which programs look for."""

    def __get__(self, optimizer: Any, cls: type) -> inspect.Signature:
        _, *parameters = inspect.signature(cls.__init__).parameters.values()  # type: ignore[misc]
        if parameters and parameters[-1].name == "engine":
            kind = inspect.Parameter.KEYWORD_ONLY
            names = cls._switches  # type: ignore[attr-defined]
            parameters[-1:] = [inspect.Parameter(name, kind, default=USUAL[name]) for name in names]
        return inspect.Signature(parameters)


class _Required:
    """Default of an option that every parameter group must give itself."""

    def __repr__(self) -> str:
        return "<required parameter>"


required = _Required()

NON_NEGATIVE = (math.inf, False)
UP_TO_ONE = (1.0, False)
BELOW_ONE = (1.0, True)


def non_negative(*names: str, **others: tuple[float, bool]) -> dict[str, tuple[float, bool]]:
    """The ``_ranges`` of an optimiser: options ≥ 0 by name, and others with their range."""
    return {**dict.fromkeys(names, NON_NEGATIVE), **others}


def options(arguments: dict[str, Any], *first: str) -> Group:
    """The default options of an optimiser: the arguments of its ``__init__``, given as ``locals()``, but for ``params``.

    Groups list them in this order, those named ``first`` before the others, as PyTorch's do; then the switches of
    :class:`Engine`: those that PyTorch's groups have, and others that are given.
    """
    given: Group = arguments.get("engine", {})
    for name in given:
        if name not in Engine.__annotations__:
            who = type(arguments["self"]).__name__
            raise TypeError(f"{who}: got an unexpected keyword argument {name!r}")
    names = dict.fromkeys((*first, *arguments))
    switches = arguments["self"]._switches if "engine" in arguments else ()
    own = {name: arguments[name] for name in names if name not in ("self", "params", "engine", "__class__")}
    return own | {name: USUAL[name] for name in switches} | given


def learning_rate(group: Group) -> float:
    """``group["lr"]`` as a number; of a tensor the value that it holds now, in replays of a captured step too."""
    lr: float = number(group["lr"])
    return lr


def set_learning_rate(group: Group, lr: float) -> None:
    """Set the rate of a group. A tensor is written into, so that everything that shares it sees the new rate."""
    present = group["lr"]
    if isinstance(present, Tensor):
        _host_memory(present)[...] = number(lr)
        present._bump()
    else:
        group["lr"] = lr


def in_numbers(group: Group) -> Group:
    """The options of a group, its learning rate as a number."""
    return {**group, "lr": learning_rate(group)} if isinstance(group.get("lr"), Tensor) else group


def number(value: Any) -> Any:
    """The element of a tensor of one element; numbers as they are."""
    return _host_memory(value).item() if isinstance(value, Tensor) else value


_PLAIN_NUMBERS = frozenset((float, int, bool))


def check_numbers(optimizer: Any, group: Group, numbers: tuple[Any, ...]) -> None:
    """What a kernel is given of a group: NumPy would make NaN of None and a number of a string, silently."""
    if _PLAIN_NUMBERS.issuperset(map(type, numbers)):
        return
    if any(not isinstance(value, Real) and getattr(value, "shape", None) != () for value in numbers):
        wrong = [
            f"{name} = {value!r}" for name, value in group.items() if value is None or isinstance(value, str | list)
        ]
        raise TypeError(f"{type(optimizer).__name__}: expected numbers as options, got {', '.join(wrong) or numbers}")


def _host_memory(tensor: Tensor) -> Array:
    """The tensor's memory, for what the host does at every step and every replay, outside the recorded operations."""
    _ = tensor._array  # tells a step that is being recorded, or run beside its replay
    array = everything(tensor)["_array"]
    if not isinstance(array, np.ndarray) and (at_work := recorder()) is not None:
        at_work.host_read(
            f"the optimizer, whose learning rate is a tensor on {tensor.device} (keep it on the CPU),", array
        )
    return array


class ParameterGroups:
    """The parameter groups of an :class:`~kobai.optim.Optimizer`: adding, checking, zeroing gradients."""

    defaults: dict[str, Any]
    param_groups: list[Group]

    _ranges: ClassVar[dict[str, tuple[float, bool]]] = {}
    """Options that must be numbers from 0 to an upper end: name → (the end, whether it is excluded)."""
    _switches: ClassVar[tuple[str, ...]] = ("foreach", "capturable", "differentiable")
    """Those of :class:`Engine` that PyTorch's groups of this optimiser have."""
    __signature__: ClassVar[Any] = _Signature()

    def add_param_group(self, param_group: Group) -> None:
        """Add a group: a dict with ``"params"`` (a tensor or an iterable of them) and any options of its own."""
        who = type(self).__name__
        if not isinstance(param_group, dict):
            raise TypeError(f"{who}: expected a parameter group as a dict, got {type(param_group).__name__}")
        if "params" not in param_group:
            raise ValueError(f"{who}: expected a parameter group with the key 'params', got {sorted(param_group)}")
        params = param_group["params"]
        if isinstance(params, set):
            raise TypeError(f"{who}: expected parameters in a fixed order, got a set; pass a list")
        entries = [params] if isinstance(params, Tensor) else list(params)
        names = [entry[0] for entry in entries if isinstance(entry, tuple)]
        if names and len(names) != len(entries):
            raise ValueError(
                f"{who}: expected all parameters with a name or all without, got {len(names)} named of {len(entries)}"
            )
        tensors = [entry[1] if isinstance(entry, tuple) else entry for entry in entries]
        for p in tensors:
            if not isinstance(p, Tensor):
                raise TypeError(f"{who}: expected tensors as parameters, got {type(p).__name__}")
            if not (p.is_leaf or p.retains_grad or {**self.defaults, **param_group}.get("differentiable")):
                raise ValueError(
                    f"{who}: expected leaf tensors, got one computed by {p.grad_fn}; pass what it was computed from"
                )
        group = {**param_group, "params": tensors}
        if names:
            group["param_names"] = names
        for name, default in self.defaults.items():
            if default is required and name not in group:
                raise ValueError(f"{who}: the parameter group gives no {name!r}, and there is no default")
            group.setdefault(name, default)
        self._check(group)
        if len({id(p) for p in tensors}) < len(tensors):
            warnings.warn(
                f"{who}: a parameter occurs twice in one group and will be updated twice", stacklevel=users_line()
            )
        for other in self.param_groups:
            if ("param_names" in other) != ("param_names" in group):
                raise ValueError(f"{who}: expected all parameter groups with names or all without")
            if {id(p) for p in other["params"]} & {id(p) for p in tensors}:
                raise ValueError(f"{who}: a parameter appears in more than one parameter group")
        self.param_groups.append(group)

    def _check(self, group: Group) -> None:
        """Raise for options outside their ``_ranges``; subclasses with further conditions extend it."""
        if not Engine.__annotations__.keys().isdisjoint(group):
            self._check_engine(group)
        for name, (high, open_end) in self._ranges.items():
            values = {name: group[name]}
            if name == "betas":
                if not isinstance(group[name], (tuple, list)) or len(group[name]) != 2:
                    raise ValueError(f"{type(self).__name__}: expected betas as a pair of numbers, got {group[name]!r}")
                values = {f"betas[{i}]": beta for i, beta in enumerate(group[name])}
            for key, value in values.items():
                if isinstance(value, Tensor) and (name == "betas" or value.numel() != 1):
                    raise ValueError(
                        f"{type(self).__name__}: expected {key} as a number, got Tensor {tuple(value.shape)}"
                    )
                if name == "lr":
                    value = number(value)
                if isinstance(value, Tensor) or not hasattr(value, "__float__"):
                    raise TypeError(f"{type(self).__name__}: expected {key} as a number, got {type(value).__name__}")
                if not 0.0 <= value <= high or (open_end and value == high):
                    bounds = ">= 0" if high == math.inf else f"in [0, {high:g}{')' if open_end else ']'}"
                    raise ValueError(f"{type(self).__name__}: expected {key} {bounds}, got {value}")

    def _check_engine(self, group: Group) -> None:
        who, given = type(self).__name__, {name: group.get(name) for name in Engine.__annotations__}
        for name, value in given.items():
            if value is not None and not isinstance(value, bool):
                raise TypeError(f"{who}: expected {name} to be True, False or None, got {value!r}")
        if given["fused"] and (given["foreach"] or given["differentiable"]):
            raise RuntimeError(f"{who}: expected one of fused, foreach and differentiable, got fused and another")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters; ``set_to_none=False`` fills them with zeros in place instead."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none:
                    p.grad = None
                elif p.grad is not None:
                    if not p.grad.is_leaf:
                        p.grad = p.grad.detach()
                    write(p.grad.array, 0)
                    p.grad._bump()

"""Optimizer: the parameter groups, the state, the loop over parameters, and saving all of it.

A subclass gives its options to ``super().__init__`` and defines two small methods: ``_kernel``, which formula (beside the
class) to run on which arrays of the state, and ``_numbers``, with which numbers. All parameters of a group that take the same
numbers are updated by one launch. Skipping parameters without gradient, counting steps, weight decay, ``maximize`` and the
state's zeros at the first step live here, once.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from functools import partial
from itertools import filterfalse
from operator import attrgetter, itemgetter
from typing import Any, TypeAlias

from kobai import xp
from kobai.core.grad_mode import in_mode
from kobai.core.tensor import Tensor
from kobai.dtypes import FLOATING
from kobai.engine import dispatch
from kobai.errors import BackendError
from kobai.formula.elementwise import Elementwise
from kobai.formula.many import Many, dtype_of_numbers
from kobai.optim import _formulas
from kobai.optim._counts import DeviceCounts, HostCounts, State as State, decay_number, item
from kobai.optim._hooks import Hooked, hooked_step
from kobai.optim.groups import Engine, Group, ParameterGroups, Params, in_numbers, required as required
from kobai.xp import Array, asarray, device_of, xp_of

Batch: TypeAlias = tuple[Any, list[Tensor], list[State], list[Array]]

_NUMBERS: dict[str, Callable[[Any], Any]] = {
    "step": int,
    "mu_product": float,
    "eta": float,
    "mu": float,
    "first": float,
}
"""Entries of the state that are tensors in PyTorch, or after steps under a scaler, and else numbers here."""

_ARRAY, _FORM = attrgetter("_array"), attrgetter("shape", "dtype")
_is_tensor: Callable[[Any], bool] = type.__instancecheck__.__get__(
    Tensor
)  # isinstance for map, without the interpreter

_UNFINISHED = "{}: define step(), or _kernel() and _numbers()"

_BEFORE = {
    ("", False): None,
    ("", True): _formulas.ascending,
    ("l2", False): _formulas.decayed,
    ("l2", True): _formulas.decayed_ascending,
    ("shrink", False): _formulas.shrunk,
    ("shrink", True): _formulas.shrunk_ascending,
}
"""By kind of weight decay and whether to maximise: the formula that comes before the update."""


class Optimizer(ParameterGroups, Hooked):
    """Base of all optimisers.

    Arguments:
        params: tensors, ``(name, tensor)`` pairs, or dicts with ``"params"`` and the options in which a group differs
            from ``defaults``. Only leaf tensors can be optimised.
        defaults: options of the groups that do not say otherwise.

    A learning rate ``lr`` may be a tensor of one element, on the CPU where steps are captured on a device: every step takes
    what it holds then, and schedules write into it.

    ``param_groups`` is a list of dicts, ``state`` a dict from parameter to its state. Own optimisers may subclass this
    and define ``step`` as in PyTorch.

    Errors: TypeError for what is no tensor; ValueError for no parameters at all, a non-leaf, a parameter in two groups,
    an option that is out of range.

    >>> import kobai
    >>> w = kobai.tensor([1.0, -2.0], requires_grad=True)
    >>> class SignSGD(kobai.optim.Optimizer):
    ...     def __init__(self, params, lr=0.1):
    ...         super().__init__(params, {"lr": lr})
    ...     @kobai.no_grad()
    ...     def step(self, closure=None):
    ...         for group in self.param_groups:
    ...             for p in group["params"]:
    ...                 p -= group["lr"] * p.grad.sign()
    >>> optimizer = SignSGD([w])
    >>> (w ** 2).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([ 0.9000, -1.9000], requires_grad=True)
    """

    found_inf: Tensor | None = None
    """While a :class:`~kobai.amp.GradScaler` steps: not 0 where a gradient overflowed, and the step leaves all as it is."""

    _counts_on_device = False  # since a step under a scaler

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.state: defaultdict[Tensor, State] = defaultdict(dict)
        self.param_groups: list[Group] = []
        self._optimizer_step_pre_hooks = OrderedDict()
        self._optimizer_step_post_hooks = OrderedDict()
        self._state_hooks = {}
        self._launchers: dict[Any, Many] = {}
        self._step_called = False  # read by the schedulers, which warn when they are stepped first
        if isinstance(params, Tensor) or not isinstance(params, Iterable):
            raise TypeError(
                f"{type(self).__name__}: expected an iterable of tensors or dicts, got {type(params).__name__}"
            )
        if isinstance(params, set):
            raise TypeError(f"{type(self).__name__}: expected parameters in a fixed order, got a set; pass a list")
        groups: list[Any] = list(params)
        if not groups:
            raise ValueError(f"{type(self).__name__}: got an empty parameter list")
        for group in groups if isinstance(groups[0], dict) else [{"params": groups}]:
            self.add_param_group(group)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "step" in cls.__dict__:  # a user's own step counts and runs the hooks as the built-in one does
            cls.step = hooked_step(cls.__dict__["step"])  # type: ignore[method-assign]

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_launchers": {}}  # they hold the addresses of these arrays
        hooks: dict[str, Any] = {
            "_optimizer_step_pre_hooks": OrderedDict(),
            "_optimizer_step_post_hooks": OrderedDict(),
            "_state_hooks": {},
        }
        state.update(hooks)  # they stay behind, as in PyTorch
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`__getstate__` gave; optimisers of users extend it."""
        self.__dict__.update(state)

    # --- the step -----------------------------------------------------------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        ``closure``, if given, computes loss and gradients first; its loss is returned.
        """
        loss = None
        if closure is not None:
            loss = in_mode(True, closure)
        if (at_work := xp.recorder()) is not None:
            at_work.guard(self._structure)
            at_work.touch(self)
        found = self.found_inf
        for group in self.param_groups:
            kernel, names, decay = self._group_kernel(group)
            if group.get("differentiable"):
                self._differentiable_step(group, kernel, names, decay)
                continue
            if found is not None:
                kernel = kernel.unless()
            for i, (like, tensors, states, grads) in enumerate(self._batches(group)):
                key = (id(group), i)
                many = self._launchers.get(key)
                if many is None or many.kernel is not kernel or many.count != len(tensors):
                    many = self._launchers[key] = Many(kernel, len(tensors))
                many.begun = False
                count: HostCounts | DeviceCounts
                if found is None and not self._counts_on_device:
                    count = HostCounts(self, group, decay, states)
                else:
                    count = DeviceCounts(self, group, decay, names, states, tensors[0], found)
                try:
                    numbers = count.numbers(dtype_of_numbers(like))
                    arrays = [*map(_ARRAY, tensors), *grads]
                    for name in names:
                        arrays += self._state_arrays(tensors, states, name)
                    with xp.beside(arrays[0]):
                        dispatch.launch(many, *arrays, numbers)
                except BaseException as error:
                    if not many.begun:
                        count.take_back()
                    if isinstance(error, TypeError):
                        for p, state in zip(tensors, states, strict=True):
                            self._check_places(p, {"grad": p.grad, **state})
                    raise
                count.finish()
                for p in tensors:
                    p._bump()
        return loss

    def _differentiable_step(self, group: Group, kernel: Elementwise, names: tuple[str, ...], decay: str) -> None:
        """The update of a group as operations on tensors, which the tape records: each formula stays as it is."""
        from kobai.optim._differentiable import update

        if self.found_inf is not None:
            raise NotImplementedError(
                f"{type(self).__name__}: differentiable=True does not go together with a GradScaler"
            )
        for _, tensors, states, _ in self._batches(group):
            for p, state in zip(tensors, states, strict=True):
                if "step" in state:
                    state["step"] += 1
                numbers = (*self._numbers(group, state), *decay_number(decay, group))
                for name in names:
                    self._state_arrays([p], [state], name)
                state.update(in_mode(True, update, kernel.formula, p, state, names, numbers))

    def _batches(self, group: Group) -> list[Batch]:
        """The parameters of a group that have a gradient, in batches: (dtype, parameters, their states, their gradients).

        A batch takes the same numbers: its states agree in everything that is not a tensor. A parameter that occurs twice is
        in two batches, so that its updates follow each other.
        """
        found: dict[Any, Batch] = {}
        last, batch = None, None
        for p, times in _counted(group["params"]):
            grad = p._grad
            if grad is None:
                continue
            array, g = p._array, grad._array
            dtype = array.dtype
            if g.shape != array.shape or g.dtype != dtype:
                raise ValueError(
                    f"{type(self).__name__}: expected a gradient of shape {array.shape} and dtype {dtype}, "
                    f"got {g.shape} and {g.dtype}"
                )
            state = self.state.get(p)
            if state is None:
                state = self._new_state(p, in_numbers(group))
                if state:
                    self.state[p] = state
                    if (at_work := xp.recorder()) is not None:
                        at_work.postpone()
            place = device_of(array) if xp.many_devices else None
            key = (type(array), dtype, place, times, *filterfalse(_is_tensor, state.values()))
            if self._counts_on_device:
                key += tuple([id(v) for v in state.values() if isinstance(v, Tensor) and v._array.ndim == 0])
            if batch is None or key != last:
                last, batch = key, found.setdefault(key, (dtype, [], [], []))
            batch[1].append(p)
            batch[2].append(state)
            batch[3].append(g)
        return list(found.values())

    def _group_kernel(self, group: Group) -> tuple[Elementwise, tuple[str, ...], str]:
        """A group's kernel with weight decay and direction, the names of its state arrays, and the kind of decay."""
        kernel, names = self._kernel(group)
        decay = ""
        if group.get("weight_decay", 0.0):
            decay = "shrink" if group.get("decoupled_weight_decay", False) else "l2"
        before = _BEFORE[decay, bool(group["maximize"])]
        return (kernel if before is None else kernel.after(before)), names, decay

    def _structure(self) -> tuple[Any, ...]:
        """What a captured step depends on: it is valid as long as this stays equal. Learning rates may change.

        Groups and states are compared by identity; a captured step keeps its own alive, as it counts their steps.
        """
        groups = [(id(group), *self._group_kernel(group)) for group in self.param_groups]
        return *groups, *map(id, self.state.values())

    def _capture_watch(self, walk: Any) -> None:
        """What else a captured step of this optimizer depends on, beside :meth:`_structure`: its parameters and its hooks.

        Each replay looks learning rates and other numbers up anew. What the program's own code reads of them is watched like
        everything else; where the step changes them, the values from before the step count.
        """
        walk.attributes(self, ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"))
        for group in self.param_groups:
            walk.watch_with_others(item("params"), group, "params", "a parameter group's ")
            walk.push(group["params"], "params")
            for p in group["params"]:
                for name, value in self.state.get(p, {}).items():
                    if isinstance(value, Tensor):
                        walk.watch_with_others(item(name), self.state[p], name, "the optimizer's state, ")
            if walk.ran is None:
                options = tuple(name for name in group if name != "params")
                walk.watch(partial(map, group.get, options), options, "an option of the optimizer, ")

    def _state_arrays(self, tensors: list[Tensor], states: list[State], name: str) -> list[Array]:
        """The arrays ``name`` of the states of parameters, made where there are none yet."""
        if not all(map(_is_tensor, map(itemgetter(name), states))):
            for p, state in zip(tensors, states, strict=True):
                state[name] = zeros_like(p) if state[name] is None else state[name]
            if (at_work := xp.recorder()) is not None:
                at_work.postpone()
        arrays: list[Array] = list(map(_ARRAY, map(itemgetter(name), states)))
        if (found := list(map(_FORM, arrays))) != (forms := list(map(_FORM, map(_ARRAY, tensors)))):
            (made, dtype), (shape, like) = next((f, w) for f, w in zip(found, forms, strict=True) if f != w)
            raise RuntimeError(
                f"{type(self).__name__}: expected {name} like its parameter, {like} of shape {shape}, got {dtype} of shape "
                f"{made}; convert the model before the optimizer's first step, or make it anew"
            )
        return arrays

    def _check_places(self, p: Tensor, tensors: dict[str, Any]) -> None:
        """BackendError if one of ``tensors`` is on another device than its parameter: the cause of a failed update."""
        for name, tensor in tensors.items():
            if isinstance(tensor, Tensor) and tensor.device != p.device:
                raise BackendError(
                    f"{type(self).__name__}: a parameter is on {p.device} but its {name} on {tensor.device}; move the model "
                    "first, then make the optimizer and call backward() (or load_state_dict, which moves the state)"
                )

    def _new_state(self, p: Tensor, group: Group) -> State:
        """State of a parameter at its first step. ``"step"``, if there, is counted by :meth:`step`, from 1 on."""
        return {"step": 0, **self._zeros(p, group)}

    def _zeros(self, p: Tensor, group: Group) -> State:
        """Zeros for every array of the kernel."""
        return {name: zeros_like(p) for name in self._kernel(group)[1]}

    def _kernel(self, group: Group) -> tuple[Elementwise, tuple[str, ...]]:
        """The kernel of this group, and the names in the state of its arrays after p and g. The base adds weight decay."""
        raise NotImplementedError(_UNFINISHED.format(type(self).__name__))

    def _numbers(self, group: Group, state: State) -> tuple[float, ...]:
        """The kernel's numbers at this step. ``state["step"]`` has been counted; other numbers in ``state`` may be updated.

        Called once per step, in replays of a captured step too; it must not read arrays. Under a scaler the numbers in
        ``state`` are arrays of one element (:mod:`kobai.optim._counts`), and so may the result's be.
        """
        raise NotImplementedError(_UNFINISHED.format(type(self).__name__))

    def _counts_of_the_device(self, group: Group, state: State) -> dict[str, float]:
        """Counts that a state needs only where the host does not know which steps are skipped."""
        return {}

    # --- saving -------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """``{"state": {index: state}, "param_groups": [...]}`` with parameters as indices in order of the groups.

        Tensors in it are the optimiser's own, not copies. The format is PyTorch's, except that ``step`` is an int.
        """
        self._run_state_hooks("state_dict_pre")
        index: dict[int, int] = {}
        groups: list[Group] = []
        start = 0
        for group in self.param_groups:
            for i, p in enumerate(group["params"], start):
                index.setdefault(id(p), i)
            start += len(group["params"])
            packed = {k: v for k, v in group.items() if k != "params"}
            groups.append({**packed, "params": [index[id(p)] for p in group["params"]]})
        state = {index[id(key)] if isinstance(key, Tensor) else key: value for key, value in self.state.items()}
        found: dict[str, Any] = self._run_state_hooks("state_dict_post", {"state": state, "param_groups": groups})
        return found

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over groups and state saved by :meth:`state_dict`, Kobai's or PyTorch's; tensors are copied.

        State goes to the device and dtype of its parameter. Errors: ValueError where groups, their sizes or the shape
        of a state tensor do not fit; the optimiser is then as it was.
        """
        who = type(self).__name__
        state_dict = self._run_state_hooks("load_pre", dict(state_dict))
        absent = {"state", "param_groups"} - set(state_dict)
        if absent:
            raise ValueError(f"{who}: expected a state_dict with state and param_groups, got {sorted(state_dict)}")
        saved = state_dict["param_groups"]
        if len(saved) != len(self.param_groups):
            raise ValueError(f"{who}: expected {len(self.param_groups)} parameter groups, got {len(saved)}")
        by_index: dict[Any, Tensor] = {}
        groups = []
        for i, (ours, theirs) in enumerate(zip(self.param_groups, saved, strict=True)):
            if len(ours["params"]) != len(theirs["params"]):
                raise ValueError(
                    f"{who}: expected {len(ours['params'])} parameters in group {i}, got {len(theirs['params'])}"
                )
            by_index.update(zip(theirs["params"], ours["params"], strict=True))
            options = {k: deepcopy(v) for k, v in theirs.items() if k not in ("params", *Engine.__annotations__)}
            groups.append({**{k: v for k, v in ours.items() if k in (*self.defaults, "param_names")}, **options})
            groups[-1]["params"] = ours["params"]
        state: defaultdict[Tensor, State] = defaultdict(dict)
        for key, values in state_dict["state"].items():
            if key in by_index:
                p = by_index[key]
                state[p] = {name: self._restore(name, value, p) for name, value in values.items()}
            else:  # a user's optimiser may keep state that belongs to no parameter
                state[key] = deepcopy(values)
        self.state, self.param_groups = state, groups
        self._counts_on_device = False
        self._launchers.clear()
        self._run_state_hooks("load_post")

    def _restore(self, name: str, value: Any, p: Tensor) -> Any:
        """A saved state value as this optimiser keeps it: scalars as numbers, arrays beside their parameter.

        What a user's own ``step`` keeps is of any kind and shape; only its device and the dtype of floats are the parameter's.
        """
        if not isinstance(value, Tensor):
            return deepcopy(value)
        if not type(self).step.__module__.startswith("kobai."):
            floats = value.array.dtype.kind in FLOATING and name != "step"
            return Tensor._wrap(asarray(value.array, p.dtype if floats else value.dtype, p.device).copy())
        if name in _NUMBERS:
            return _NUMBERS[name](value.item())
        if value.shape != p.shape:
            raise ValueError(
                f"{type(self).__name__}: expected state {name!r} of shape {tuple(p.shape)}, got {tuple(value.shape)}"
            )
        array = asarray(value.array, p.dtype, p.device)
        return Tensor._wrap(array.copy())

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines += [""] * (i > 0) + [f"Parameter Group {i}"]
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join([*lines, ")"])


def zeros_like(p: Tensor) -> Tensor:
    """State tensor of zeros with the shape, dtype and device of a parameter."""
    with xp.beside(p.array):
        return Tensor._wrap(xp_of(p.array).zeros_like(p.array))  # type: ignore[no-any-return]


def _counted(params: list[Tensor]) -> list[tuple[Tensor, int]]:
    """Each parameter, and how often it has come before."""
    if len(set(map(id, params))) == len(params):
        return [(p, 0) for p in params]
    seen: dict[int, int] = {}
    counted = []
    for p in params:
        counted.append((p, seen.get(id(p), 0)))
        seen[id(p)] = seen.get(id(p), 0) + 1
    return counted


Optimizer.step = hooked_step(Optimizer.step)  # type: ignore[method-assign]

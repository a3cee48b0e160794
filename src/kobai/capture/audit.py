"""``capture(verify=n)``: a step run as it is, beside its replay, from the same state; both must come to the same.

The eager run works on the program's own objects. What it touches is copied at its first touch and put back afterwards, so
that the replay, which counts, starts from the state that the eager run started from.
"""

from __future__ import annotations

import operator
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any

import numpy as np

from kobai.capture.guards import UNSET
from kobai.capture.kinds import in_cell
from kobai.capture.rules import Uncaptured
from kobai.capture.session import Replay, Session, map_tensors
from kobai.capture.watch import Watch, leaves
from kobai.core.tensor import Tensor
from kobai.engine.dispatch import Count
from kobai.errors import CaptureError
from kobai.random import Generator, default_generator
from kobai.xp import Array, backend_of

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_TOLERANCE = 1e-6


def audited(
    replay: Replay, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], inputs: list[Tensor]
) -> Any:
    """``replay(inputs)``; CaptureError if ``step(*args, **kwargs)`` comes to something else, and all is as before then."""
    audit = _Audit(replay, step, args, kwargs, inputs)
    audit.run_step()
    error = audit.raised
    if error is not None and not isinstance(error, Exception):
        raise error
    try:
        result = replay(inputs)
    except Exception as other:
        if type(other) is type(error):
            raise
        audit.put_back()
        outcome = "raises no error" if error is None else f"raises {type(error).__name__}: {error}"
        raise CaptureError(
            f"captured step: a replay of {audit.name} raises {type(other).__name__}, and the step itself {outcome}"
        ) from other
    if error is not None:
        audit.put_back()
        raise CaptureError(
            f"captured step: {audit.name} itself raises {type(error).__name__}: {error}, where its replay goes on. "
            f"{audit.cause()}"
        ) from error
    found = audit.first_difference(result)
    if found is None:
        return result
    audit.put_back()
    raise CaptureError(
        f"captured step: a replay of {audit.name} differs from the step itself in {found}. {audit.cause()}"
    )


class _Audit(Session):
    """One eager run of a step, what it touched, and what that was before and afterwards."""

    def __init__(self, replay: Replay, step: Any, args: Any, kwargs: Any, inputs: list[Tensor]) -> None:
        super().__init__(Uncaptured())
        self.program, self.step, self.args, self.kwargs, self.arguments = replay, step, args, kwargs, inputs
        self.name = getattr(step, "__name__", "step")
        self.raised: BaseException | None = None
        self.before: dict[int, tuple[Tensor, Array, Array, int]] = {}  # tensor, its array, a copy of it, its version
        self.grads: dict[int, tuple[Tensor, Tensor | None]] = {}
        self.after: dict[int, tuple[Tensor, Array]] = {}
        self.grads_after: dict[int, tuple[Tensor, Array | None]] = {}
        self.watch = Watch(step, (args, kwargs))
        self.memory = _Memory([*self.watch.before.seen.values(), *replay.touched, *replay.actions])
        for tensor in replay.tensors:
            self._note(tensor)
        for leaf in (*(leaf for leaf, _ in replay.grads), *replay.leaves_before):
            self._note_grad(leaf)

    # --- the run

    def run_step(self) -> None:
        """Run the step, keep what it comes to, and put everything back; an error of it is kept too."""
        result: Any = None
        try:
            try:
                result = self.within(lambda: self.step(*self.args, **self.kwargs))
            except BaseException as error:
                self.raised = error
            self.after = {k: (t, t.__dict__["_array"].copy()) for k, (t, *_) in self.before.items()}
            for key, (leaf, _) in self.grads.items():
                grad = leaf._grad
                self.grads_after[key] = leaf, None if grad is None else grad._array.copy()
            self.result = list(leaves(map_tensors(lambda tensor: tensor._array.copy(), result)))
            self.host_after = self.memory.now()
        finally:
            self.put_back()

    def put_back(self) -> None:
        """Everything as it was before the eager run."""
        for tensor, array, copy, version in reversed(
            self.before.values()
        ):  # of memory seen twice the first copy is right
            tensor._array = array
            array[...] = copy
            tensor._version[0] = version
        for leaf, grad in self.grads.values():
            leaf._grad = grad
        self.memory.put_back()

    def touched(self, tensor: Tensor) -> Array:
        self._note(tensor)
        return super().touched(tensor)

    def rebinds(self, tensor: Tensor) -> None:
        self._note(tensor)

    def sets_grad(self, tensor: Tensor, grad: Tensor | None) -> None:
        self._note_grad(tensor)

    def _note(self, tensor: Tensor) -> None:
        if id(tensor) not in self.before:
            array = tensor.__dict__["_array"]
            self.before[id(tensor)] = tensor, array, array.copy(), tensor._version[0]

    def _note_grad(self, leaf: Tensor) -> None:
        if id(leaf) not in self.grads:
            grad = self.grads[id(leaf)] = (leaf, leaf.__dict__.get("_grad"))
            if grad[1] is not None:
                self._note(grad[1])

    # --- the verdict

    def first_difference(self, result: Any) -> str | None:
        """What the replay, which has run by now, has come to otherwise than the step."""
        found = list(leaves(map_tensors(lambda tensor: tensor._array, result)))
        if len(found) != len(self.result):
            return f"what it returns: {len(found)} values, and {len(self.result)}"
        for i, (ours, theirs) in enumerate(zip(found, self.result, strict=True)):
            if isinstance(theirs, _PLAIN):
                if not _equal_plain(ours, theirs):
                    return f"result {i}: {ours!r}, and {theirs!r}"
            elif hasattr(theirs, "dtype") and not _agree(ours, theirs):
                return f"result {i}: {_shown(ours, theirs)}"
        known = self._names()
        grads = {id(grad) for _, grad in self.grads.values()}
        for key, (tensor, theirs) in self.after.items():
            if key not in grads and not _agree(tensor._array, theirs):
                return f"{known.get(key) or _role(tensor)}: {_shown(tensor._array, theirs)}"
        for key, (leaf, expected) in self.grads_after.items():
            grad = leaf._grad
            who = f"the gradient of {known.get(key) or _role(leaf)}"
            if (grad is None) != (expected is None):
                ours, theirs = ("none" if g is None else "there is one" for g in (grad, expected))
                return f"{who}: {ours}, and {theirs}"
            if grad is not None and not _agree(grad._array, expected):
                return f"{who}: {_shown(grad._array, expected)}"
        return self.memory.difference(self.host_after)

    def cause(self) -> str:
        """The likeliest cause, found by looking at what was read when it was recorded, and by running the step again."""
        for entry in self.program.rests_on.all_entries():
            if not entry.is_as_before():
                what = f"{entry.what}{entry.changed()}"
                return f"The likeliest cause: {what} has changed since the step was recorded, and that went unnoticed"
        again = _Audit(self.program, self.step, self.args, self.kwargs, self.arguments)
        again.run_step()
        if type(again.raised) is not type(self.raised) or not again._came_to_the_same_as(self):
            return (
                "The likeliest cause: the step comes to something else each time it is run, because it draws random numbers or "
                "reads a clock, a file or a counter that capture does not see; pass that to it as a tensor"
            )
        code = getattr(self.step, "__code__", None)
        place = "" if code is None else f" ({code.co_filename}:{code.co_firstlineno})"
        return (
            f"The likeliest cause: something that the step reads in Python has changed since it was recorded{place} where "
            "capture does not look; pass it to the step as an argument"
        )

    def _came_to_the_same_as(self, other: _Audit) -> bool:
        if len(self.result) != len(other.result):
            return False
        pairs = [*zip(self.result, other.result, strict=True)]
        pairs += [(array, other.after[key][1]) for key, (_, array) in self.after.items() if key in other.after]
        return all(_agree(a, b) if hasattr(a, "dtype") else _equal_plain(a, b) for a, b in pairs)

    def _names(self) -> dict[int, str]:
        """Tensors by what they are to the program."""
        names = {id(tensor): f"argument {i}" for i, tensor in enumerate(self.arguments)}
        modules = [thing for thing in self.program.touched if hasattr(thing, "named_parameters")]
        inner = {id(child) for module in modules for child in module.modules() if child is not module}
        for module in modules:
            if id(module) not in inner:
                for kind, named in (("parameter", module.named_parameters()), ("buffer", module.named_buffers())):
                    for name, tensor in named:
                        names.setdefault(id(tensor), f"{kind} {name!r} of {type(module).__name__}")
        for thing in self.program.touched:
            for i, group in enumerate(getattr(thing, "param_groups", ())):
                for j, p in enumerate(group["params"]):
                    names.setdefault(id(p), f"parameter group {i} parameter {j}")
                    for name, value in thing.state.get(p, {}).items():
                        names.setdefault(id(value), f"parameter group {i} parameter {j}'s {name}")
        return names


class _Memory:
    """What Python's containers and objects hold, to be compared and put back."""

    def __init__(self, roots: Iterable[Any]) -> None:
        self._seen: dict[int, Any] = {}
        self._kept: list[tuple[Any, Any, str]] = []  # container, what it held, how to speak of what it holds
        self._cells: list[tuple[CellType, Any]] = []
        self._arrays: list[tuple[Any, Any]] = []
        self._streams: list[tuple[Generator, Any]] = []
        self._random = random.getstate(), np.random.get_state()
        for root in (*roots, default_generator):
            self._keep(root)

    def _keep(self, thing: Any, owner: str = "") -> None:
        if isinstance(thing, (*_PLAIN, Tensor, type)) or id(thing) in self._seen:
            return
        self._seen[id(thing)] = thing
        if isinstance(thing, (dict, list, set, deque)):
            self._kept.append((thing, thing.copy(), owner or f"an entry of a {type(thing).__name__},"))
        elif isinstance(thing, np.ndarray):
            self._arrays.append((thing, thing.copy()))
        elif isinstance(thing, CellType):
            (value,) = in_cell(thing)
            if value is not UNSET:
                self._cells.append((thing, value))
                self._within(value)
        elif isinstance(thing, FunctionType):
            for cell in thing.__closure__ or ():
                self._keep(cell)
        elif isinstance(thing, MethodType):
            self._within(thing.__self__)
        elif isinstance(thing, partial):
            for part in (thing.func, *thing.args):
                self._within(part)
        elif isinstance(thing, Count):
            slots: Iterable[str] = type(thing).__slots__
            for slot in slots:
                self._within(getattr(thing, slot, None))
        elif isinstance(getattr(thing, "__dict__", None), dict):
            self._keep(thing.__dict__, f"{type(thing).__name__}.")
            self._within(thing)
        if isinstance(thing, Generator):
            self._streams.append((thing, thing._numpy.bit_generator.state))

    def _within(self, thing: Any) -> None:
        """Kobai's own objects are kept with all that they hold: the optimizer's state, the numbers of a schedule."""
        self._keep(thing)
        own = type(thing).__module__.startswith(("kobai.optim", "kobai.random"))
        parts: Iterable[Any] = ()
        if own and isinstance(getattr(thing, "__dict__", None), dict):
            parts = list(vars(thing).items())
        elif isinstance(thing, dict):
            parts = list(thing.items())
        elif isinstance(thing, (list, tuple)):
            parts = [(i, part) for i, part in enumerate(thing)]
        for name, part in parts:
            if id(part) not in self._seen and not isinstance(part, (*_PLAIN, Tensor)) and name != "_launchers":
                if isinstance(part, (dict, list)):
                    self._keep(part, f"{type(thing).__name__}'s {name if isinstance(name, (str, int)) else 'state'}, ")
                self._within(part)

    def now(self) -> list[dict[Any, Any]]:
        """The numbers and texts that everything holds."""
        found: list[dict[Any, Any]] = []
        for container, _, _ in self._kept:
            items = container.items() if isinstance(container, dict) else enumerate(_in_order(container))
            found.append(
                {name: value for name, value in items if isinstance(value, _PLAIN)} | {_LENGTH: len(container)}
            )
        found.append({_LENGTH: [generator.counter for generator, _ in self._streams]})
        found.append(
            {i: cell.cell_contents for i, (cell, _) in enumerate(self._cells) if isinstance(in_cell(cell)[0], _PLAIN)}
        )
        return found

    def difference(self, expected: list[dict[Any, Any]]) -> str | None:
        """What of it is other now than expected."""
        for (ours, theirs), (_, _, owner) in zip(
            zip(self.now(), expected, strict=True),
            (*self._kept, (None, None, "a generator's "), (None, None, "a variable of a closure, ")),
            strict=True,
        ):
            for name in {**theirs, **ours}:
                hidden = isinstance(name, str) and name.startswith("_")
                if not hidden and not _equal_plain(ours.get(name), theirs.get(name)):
                    what = (
                        {_LENGTH: "length"}.get(name, name) if isinstance(name, (str, int, type(_LENGTH))) else "entry"
                    )
                    return f"{owner}{what}: {ours.get(name)!r}, and {theirs.get(name)!r}"
        return None

    def put_back(self) -> None:
        for container, held, _ in self._kept:
            if isinstance(container, dict):
                if len(container) != len(held) or any(
                    a is not b for a, b in zip(container.values(), held.values(), strict=True)
                ):
                    container.clear()
                    container.update(held)
            elif len(container) != len(held) or not all(map(operator.is_, container, held)):
                container.clear()
                container.update(held) if isinstance(container, set) else container.extend(held)
        for cell, held in self._cells:
            cell.cell_contents = held
        for array, held in self._arrays:
            array[...] = held
        for generator, state in self._streams:
            generator._numpy.bit_generator.state = state
        random.setstate(self._random[0])
        np.random.set_state(self._random[1])


_LENGTH = object()


def _in_order(container: Any) -> Iterator[Any]:
    return iter(sorted(map(repr, container))) if isinstance(container, set) else iter(container)


def _equal_plain(a: Any, b: Any) -> bool:
    return a is b or bool(a == b) or (a != a and b != b)


def _agree(ours: Array, theirs: Array) -> bool:
    """On the host: the same bits. On a device, where sums may be added up in another order: 1e-6 of the largest."""
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return False
    exact = isinstance(ours, np.ndarray) or ours.dtype.kind != "f"
    ours, theirs = _on_host(ours), _on_host(theirs)
    if ours.tobytes() == theirs.tobytes():
        return True
    both_nan = (ours != ours) & (theirs != theirs)
    if exact:
        same = (ours == theirs) & (np.signbit(ours) == np.signbit(theirs)) if ours.dtype.kind == "f" else ours == theirs
        return bool((same | both_nan).all())
    finite = np.isfinite(theirs)
    largest = float(abs(theirs[finite]).max(initial=0))
    with np.errstate(invalid="ignore"):
        near = abs(ours - theirs) <= max(_TOLERANCE, float(np.finfo(ours.dtype).eps)) * largest
    return bool((near & finite | (ours == theirs) | both_nan).all())


def _on_host(array: Array) -> Any:
    return array if isinstance(array, np.ndarray) else backend_of(array).to_host(array)


def _shown(ours: Array, theirs: Array) -> str:
    """Of two arrays the first element in which they differ most plainly."""
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return f"shape {ours.shape} of {ours.dtype}, and {theirs.shape} of {theirs.dtype}"
    ours, theirs = _on_host(ours), _on_host(theirs)
    differ = (ours != theirs) & ~((ours != ours) & (theirs != theirs))
    at = tuple(int(i) for i in np.unravel_index(int(differ.reshape(-1).argmax()), ours.shape))
    return f"{ours[at].item():.9g}, and {theirs[at].item():.9g}" + (f" at {at}" if at else "")


def _role(tensor: Tensor) -> str:
    return f"a tensor of shape {tuple(tensor.shape)}"

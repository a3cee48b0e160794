"""``capture(verify=n)``: runs the step itself beside a replay, from the same state, and compares everything.

The step runs first, on the program's own objects. Its changes are found in two ways. Tensors report to a session
(``session.py``) when they are touched, and are copied then. Everything else – containers, variables, random generators, the
optimizer's numbers – is found by a walk (``walk.py``) and copied beforehand, as the table of kinds says (``kinds.py``).
Then everything is put back, and the replay starts from the same state::

    state ──► copy ──► step ──► its results, and the state it left ──┐
      ▲                 │                                            ├── the same?  ── no ──► put back, CaptureError
      └─── put back ◄───┘                                            │
    state ──► replay ──► its results, and the state it left ─────────┘

If they differ, the step runs once more: if it now gives a third result, it draws random numbers or reads a clock.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from types import CellType
from typing import Any

import numpy as np

from kobai.capture.kinds import in_cell, kind_of, kinds_of
from kobai.capture.rules import Uncaptured
from kobai.capture.session import Replay, Session, map_tensors
from kobai.capture.walk import Walk
from kobai.capture.watch import leaves, roots_of
from kobai.core.tensor import Tensor
from kobai.dtypes import FLOATING, finfo
from kobai.errors import CaptureError
from kobai.random import default_generator
from kobai.xp import Array, backend_of, beside, write

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_COMPARED = (dict, list, set, deque, CellType)
_TOLERANCE = 1e-6


def audited(
    replay: Replay, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], inputs: list[Tensor]
) -> Any:
    """``replay(inputs)``; CaptureError, with everything as before, if ``step(*args, **kwargs)`` does something else."""
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
    """One eager run of a step, with everything it touched, before and after."""

    def __init__(self, replay: Replay, step: Any, args: Any, kwargs: Any, inputs: list[Tensor]) -> None:
        super().__init__(Uncaptured())
        self.program, self.step, self.args, self.kwargs, self.arguments = replay, step, args, kwargs, inputs
        self.name = getattr(step, "__name__", "step")
        self.raised: BaseException | None = None
        self.before: dict[int, tuple[Tensor, Array, Array, int]] = {}  # tensor, its array, a copy of it, its version
        self.grads: dict[int, tuple[Tensor, Tensor | None]] = {}
        self.after: dict[int, tuple[Tensor, Array]] = {}
        self.grads_after: dict[int, tuple[Tensor, Array | None]] = {}
        moved = (*replay.touched, *replay.actions, default_generator, random.getstate, np.random.get_state)
        walk = Walk([*roots_of(step, (args, kwargs)), *((thing, kind_of(thing)) for thing in moved)], state=True)
        self.memory = _Memory(walk)
        for tensor in replay.tensors:
            self._note(tensor)
        for leaf in (*(leaf for leaf, _ in replay.grads), *replay.leaves_before):
            self._note_grad(leaf)

    # --- the run

    def run_step(self) -> None:
        """Run the step, keep its results or its error, and put everything back."""
        result: Any = None
        try:
            try:
                result = self.within(lambda: self.step(*self.args, **self.kwargs))
            except BaseException as error:
                self.raised = error
            self.after = {k: (t, _copied(t.__dict__["_array"])) for k, (t, *_) in self.before.items()}
            for key, (leaf, _) in self.grads.items():
                grad = leaf._grad
                self.grads_after[key] = leaf, None if grad is None else _copied(grad._array)
            self.result = list(leaves(map_tensors(lambda tensor: _copied(tensor._array), result)))
            self.memory_after = self.memory.now()
        finally:
            self.put_back()

    def put_back(self) -> None:
        """Everything as it was before the eager run."""
        for tensor, array, copy, version in reversed(
            self.before.values()
        ):  # of memory that was seen twice, the first copy is right
            tensor._array = array
            write(array, copy)
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
            self.before[id(tensor)] = tensor, array, _copied(array), tensor._version[0]

    def _note_grad(self, leaf: Tensor) -> None:
        if id(leaf) not in self.grads:
            grad = self.grads[id(leaf)] = (leaf, leaf.__dict__.get("_grad"))
            if grad[1] is not None:
                self._note(grad[1])

    # --- the verdict

    def first_difference(self, result: Any) -> str | None:
        """Where the replay, which has run by now, differs from the step."""
        found = list(leaves(map_tensors(lambda tensor: tensor._array, result)))
        if len(found) != len(self.result):
            return f"what it returns: {len(found)} values, and {len(self.result)}"
        known = self._names()
        grads = {id(grad) for _, grad in self.grads.values()}
        ends = [(f"result {i}", *both) for i, both in enumerate(zip(found, self.result, strict=True))]
        for key, (tensor, array) in self.after.items():
            if key not in grads:
                ends.append((known.get(key) or _role(tensor), tensor._array, array))
        for key, (leaf, array) in self.grads_after.items():
            grad = None if leaf._grad is None else leaf._grad._array
            ends.append((f"the gradient of {known.get(key) or _role(leaf)}", grad, array))
        for what, ours, theirs in ends:
            if not _agree(ours, theirs):
                return f"{what}: {_shown(ours, theirs)}"
        return self.memory.difference(self.memory_after)

    def cause(self) -> str:
        """The likeliest cause: something read at the recording has changed, or the step is not deterministic."""
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
        return all(_agree(a, b) for a, b in pairs)

    def _names(self) -> dict[int, str]:
        """What each tensor is to the program, by id."""
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
    """The contents of Python's containers, objects, variables and generators, to be compared and put back."""

    def __init__(self, walk: Walk) -> None:
        things = [(thing, f"the {kind_of(thing)} {walk.reached_by.get(key)}, ") for key, thing in walk.seen.items()]
        objects = [(table, thing) for thing, table, _ in walk.tables.values() if not isinstance(thing, Tensor)]
        things += [(table, f"{kind_of(thing)}.") for table, thing in objects]
        self._kept = [
            (kind, thing, kind.copy(thing), told)
            for thing, told in things
            for kind in kinds_of(thing)
            if kind.copy is not None
        ]
        self._compared = [(thing, told) for _, thing, _, told in self._kept if isinstance(thing, _COMPARED)]

    def now(self) -> list[dict[Any, Any]]:
        """The numbers and strings in containers and variables, by name or position, and the containers' lengths."""
        return [
            {name: value for name, value in _parts(thing) if isinstance(value, _PLAIN)} for thing, _ in self._compared
        ]

    def difference(self, expected: list[dict[Any, Any]]) -> str | None:
        """The first difference between now and ``expected``."""
        for (_, told), ours, theirs in zip(self._compared, self.now(), expected, strict=True):
            for name in {**theirs, **ours}:
                hidden = isinstance(name, str) and name.startswith("_")
                if not hidden and not _equal_plain(ours.get(name), theirs.get(name)):
                    what = name if isinstance(name, (str, int)) else "entry"
                    return f"{told}{what}: {ours.get(name)!r}, and {theirs.get(name)!r}"
        return None

    def put_back(self) -> None:
        for kind, thing, held, _ in self._kept:
            kind.put_back(thing, held)


def _parts(thing: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(thing, CellType):
        yield "its value", in_cell(thing)[0]
        return
    yield "its length", len(thing)
    if isinstance(thing, dict):
        yield from thing.items()
    else:
        yield from enumerate(sorted(map(repr, thing)) if isinstance(thing, set) else thing)


def _equal_plain(a: Any, b: Any) -> bool:
    return a is b or bool(a == b) or (a != a and b != b)


def _agree(ours: Any, theirs: Any) -> bool:
    """On the host: equal bits. On a device, where sums may be added in another order: 1e-6 of the largest value."""
    if not (hasattr(ours, "dtype") and hasattr(theirs, "dtype")):
        comparable = hasattr(ours, "dtype") or isinstance(theirs, _PLAIN) or hasattr(theirs, "dtype")
        return not comparable or (type(ours) is type(theirs) and _equal_plain(ours, theirs))
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return False
    exact = isinstance(ours, np.ndarray) or ours.dtype.kind not in FLOATING
    ours, theirs = _on_host(ours), _on_host(theirs)
    if ours.tobytes() == theirs.tobytes():
        return True
    both_nan = (ours != ours) & (theirs != theirs)
    if exact:
        same = (
            (ours == theirs) & (np.signbit(ours) == np.signbit(theirs))
            if ours.dtype.kind in FLOATING
            else ours == theirs
        )
        return bool((same | both_nan).all())
    finite = np.isfinite(theirs)
    largest = float(abs(theirs[finite]).max(initial=0))
    with np.errstate(invalid="ignore"):
        near = abs(ours - theirs) <= max(_TOLERANCE, float(finfo(ours.dtype).eps)) * largest
    return bool((near & finite | (ours == theirs) | both_nan).all())


def _copied(array: Array) -> Array:
    with beside(array):
        return array.copy()


def _on_host(array: Array) -> Any:
    return array if isinstance(array, np.ndarray) else backend_of(array).to_host(array)


def _shown(ours: Any, theirs: Any) -> str:
    """How two values differ; of two arrays the first element in which they do."""
    if not (hasattr(ours, "dtype") and hasattr(theirs, "dtype")):
        return ", and ".join(_role(v) if hasattr(v, "dtype") else repr(v) for v in (ours, theirs))
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return f"shape {ours.shape} of {ours.dtype}, and {theirs.shape} of {theirs.dtype}"
    ours, theirs = _on_host(ours), _on_host(theirs)
    differ = (ours != theirs) & ~((ours != ours) & (theirs != theirs))
    at = tuple(int(i) for i in np.unravel_index(int(differ.reshape(-1).argmax()), ours.shape))
    return f"{ours[at].item():.9g}, and {theirs[at].item():.9g}" + (f" at {at}" if at else "")


def _role(tensor: Any) -> str:
    return f"a tensor of shape {tuple(tensor.shape)}"

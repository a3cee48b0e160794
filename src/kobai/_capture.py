"""``kobai.capture``: a training step that is recorded once and then replayed, without Python's tape and without allocation."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from kobai import _anomaly
from kobai._grad_mode import state as grad_mode
from kobai._tape import Node
from kobai._tensor import Tensor
from kobai.errors import CaptureError
from kobai.kernels import engine
from kobai.memory import Workspace
from kobai.recording import Program, Recorded, Recorder
from kobai.runtime import get_float32_matmul_precision

__all__ = ["capture"]

log = logging.getLogger("kobai")

MOST_PROGRAMS = 32
"""Signatures of one step that are kept; more say that an argument changes at every call that should be a tensor."""

MOST_RENEWALS = 16
"""How often the step of one signature is recorded anew because its state changed; more cost more than capture gains."""


def capture(step: Callable[..., Any], *, fallback: bool = False) -> Captured:
    """``step``, a function of tensors, as a function that does the same by replaying what it did once.

    The first call runs the step as it is, which also creates what is created once (the optimizer's state). The second is
    recorded while it runs; from then on a call copies its arguments into the step's input places, runs the recorded
    operations one after another on memory that stays where it is, and returns copies of the results. Everything that the
    step changes – parameters, optimizer state, running statistics, ``.grad`` – changes as without capture, on the CPU bit
    for bit. A learning rate, a bias correction, a dropout counter is looked up anew at every call.

    Arguments are tensors, in tuples, lists and dicts if need be; their shapes and dtypes, and all other arguments by value,
    are the signature, and every signature is recorded for itself, such as the short batch at the end of an epoch. So it is
    when what the step rests on has changed since: a model between ``train()`` and ``eval()``, a parameter or gradient
    with other memory, a setting of the optimizer that means other operations.

    Inside a step, as in CUDA graphs: no value is read by Python (``item()``, ``if loss > 0``), no random number drawn on
    the host, no array made from host data, no state rebound (``self.h = h``; write ``self.h.copy_(h)``). Python code runs
    when the step is recorded and not again.

    Args:
        step: the function.
        fallback: go on without capture, with one warning that says why, where a step cannot be captured; by default
            that raises.

    Attributes of the result: ``bytes`` (memory held for intermediate arrays), ``programs`` (signatures recorded),
    ``failure`` (why there is no capture, or None).

    Raises:
        CaptureError: naming what the step does that cannot be captured, with file and line.

    >>> import kobai
    >>> w = kobai.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = kobai.optim.SGD([w], lr=0.25)
    >>> @kobai.capture
    ... def step(x):
    ...     optimizer.zero_grad()
    ...     loss = ((w - x) ** 2).sum()
    ...     loss.backward()
    ...     optimizer.step()
    ...     return loss
    >>> [step(kobai.zeros(2)).item() for _ in range(4)]
    [5.0, 1.25, 0.3125, 0.078125]
    >>> step.programs
    1
    """
    return Captured(step, fallback)


class Captured:
    """What :func:`capture` returns; see there."""

    def __init__(self, step: Callable[..., Any], fallback: bool = False) -> None:
        if not callable(step):
            raise TypeError(f"capture: expected a function, got {type(step).__name__}")
        self.step = step
        self.fallback = fallback
        self.failure: str | None = None
        self._workspace = Workspace()
        self._programs: dict[Any, _Replay] = {}
        self._renewals = 0
        self._warm = False
        self.__doc__ = step.__doc__
        self.__name__ = getattr(step, "__name__", "step")

    @property
    def bytes(self) -> int:
        """Bytes of memory held for the arrays that the step makes; those of inputs, parameters and state not counted."""
        return self._workspace.bytes + sum(replay.own_bytes for replay in self._programs.values())

    @property
    def programs(self) -> int:
        """How many signatures have been recorded."""
        return len(self._programs)

    def __repr__(self) -> str:
        state = f"not captured: {self.failure}" if self.failure else f"{self.programs} programs, {self.bytes} bytes"
        return f"<captured {self.__name__}: {state}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        result, lasting = self.run(args, kwargs)
        return result if lasting else _map(_copied, result)

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> tuple[Any, bool]:
        """The step's result, and whether it lasts: that of a replay is overwritten by the next one."""
        kwargs = kwargs or {}
        if self.failure is not None or engine.recorder is not None or _anomaly.state.enabled:
            return self.step(*args, **kwargs), True
        inputs: list[Tensor] = []
        key = (_signature((args, kwargs), inputs), grad_mode.grad, get_float32_matmul_precision())
        replay = self._programs.get(key)
        if replay is not None and replay.holds():
            return replay(inputs), False
        reason = self._hindrance(inputs, replay is None)
        if reason is not None:
            return self._give_up(reason, args, kwargs), True
        if not self._warm:
            self._warm = True
            result = self.step(*args, **kwargs)
            _map(self._need_finished, result)
            return result, True
        self._renewals += replay is not None
        self._programs.pop(key, None)
        return self._record(key, args, kwargs, inputs)

    def _hindrance(self, inputs: list[Tensor], new: bool) -> str | None:
        """Why this call is not worth recording or cannot be, if so."""
        if any(tensor.requires_grad for tensor in inputs):
            return "captured step: an argument requires a gradient; arguments are data, parameters belong to the step itself"
        if new and len(self._programs) >= MOST_PROGRAMS:
            return (
                f"captured step: {self.__name__} was called with more than {MOST_PROGRAMS} signatures; pass what changes at "
                "every call as a tensor"
            )
        if not new and self._renewals >= MOST_RENEWALS:
            return (
                f"captured step: {self.__name__} had to be recorded anew {MOST_RENEWALS} times, because the memory of its "
                "parameters, its gradients or its modes change; reset gradients inside the step"
            )
        return None

    def _need_finished(self, tensor: Tensor) -> None:
        if _waits(tensor):
            reason = (
                "captured step: its result waits for backward(), which a replay cannot give it; call backward() inside"
            )
            if not self.fallback:
                raise CaptureError(reason)
            self._failed(reason)

    def _give_up(self, reason: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self.fallback:
            raise CaptureError(reason)
        self._failed(reason)
        return self.step(*args, **kwargs)

    def _failed(self, reason: str) -> None:
        self.failure = reason
        self._programs.clear()
        log.warning("capture: going on without it. %s", reason)

    def _record(
        self, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: list[Tensor]
    ) -> tuple[Any, bool]:
        session = _Session(Recorder(self._workspace, lenient=self.fallback), inputs)
        result = session.run(self.step, args, kwargs)
        if session.recorder.failure is not None:
            self._failed(session.recorder.failure)
        elif not session.recorder.postponed:
            self._programs[key] = session.replay(result)
        return _map(_copied, result), True


# --- arguments and results --------------------------------------------------------------------------------------------


def _signature(value: Any, tensors: list[Tensor]) -> Any:
    """What must be equal for a program to fit: structure, shapes, dtypes, other values; collects the tensors in order."""
    kind = type(value)
    if isinstance(value, Tensor):
        tensors.append(value)
        array = value._array
        return Tensor, array.shape, array.dtype, type(array)
    if kind is tuple or kind is list:
        return kind, *(_signature(part, tensors) for part in value)
    if kind is dict:
        return kind, *((name, _signature(part, tensors)) for name, part in value.items())
    if isinstance(value, (bool, int, float, str, bytes, type(None), np.dtype)):
        return kind, value
    if isinstance(value, np.ndarray):
        raise TypeError(
            "capture: expected tensors as arguments, got a numpy.ndarray; make it one with kobai.from_numpy()"
        )
    return _Identity(value)


class _Identity:
    """An argument that is compared by being the same object, and kept alive so that no other can take its id."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def _map(function: Callable[[Tensor], Any], value: Any) -> Any:
    """``value`` with every tensor in it replaced."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple):
        parts = [_map(function, part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, list):
        return [_map(function, part) for part in value]
    if isinstance(value, dict):
        return {name: _map(function, part) for name, part in value.items()}
    return value


def _copied(tensor: Tensor) -> Tensor:
    return Tensor._wrap(tensor._array.copy())  # type: ignore[no-any-return]


def _waits(tensor: Tensor) -> bool:
    """Whether backward could still go from here: no node has been freed, and some node keeps arrays for it."""
    stack, seen, keeps = [tensor._node], set(), False
    while stack:
        node = stack.pop()
        if type(node) is not Node or node.order in seen:
            continue
        if node.vjp is None:
            return False
        seen.add(node.order)
        keeps = keeps or node.keeps()
        stack.extend(node.edges)
    return keeps


# --- one recording ----------------------------------------------------------------------------------------------------


class _Replay:
    """A recorded step: its program, its input places, its results, and what it rests on."""

    def __init__(
        self,
        program: Program,
        places: list[np.ndarray[Any, Any]],
        result: Any,
        grads: list[tuple[Tensor, Tensor | None]],
        versions: list[list[int]],
        arrays: list[tuple[Tensor, np.ndarray[Any, Any]]],
        grads_before: list[tuple[Tensor, Tensor | None]],
        guards: list[tuple[Callable[[], Any], Any]],
    ) -> None:
        self.program = program
        self.places = places
        self.result = result
        self.grads = grads
        self.versions = versions
        self.tensors = [tensor for tensor, _ in arrays]
        self.raws = [raw for _, raw in arrays]
        self.grads_before = grads_before
        self.guards = guards
        self.own_bytes = sum(place.nbytes for place in places)

    def holds(self) -> bool:
        """Whether all that the program rests on is as it was when it was recorded."""
        for tensor, raw in zip(self.tensors, self.raws, strict=True):
            if tensor._array is not raw:
                return False
        return all(get() == value for get, value in self.guards) and all(
            leaf._grad is grad for leaf, grad in self.grads_before
        )

    def __call__(self, inputs: list[Tensor]) -> Any:
        for place, tensor in zip(self.places, inputs, strict=True):
            array = tensor._array
            if array is not place:
                np.copyto(place, array)
        self.program.replay()
        for version in self.versions:
            version[0] += 1
        for leaf, grad in self.grads:
            leaf._grad = grad
        return self.result


class _Session:
    """Runs a step while it is recorded: its tensors show recorded arrays for that time, and their own again afterwards."""

    def __init__(self, recorder: Recorder, inputs: list[Tensor]) -> None:
        self.recorder = recorder
        self.places = [_place_for(tensor._array) for tensor in inputs]
        self.thread = threading.get_ident()
        self.adopted: dict[int, tuple[Tensor, np.ndarray[Any, Any], int]] = {}  # tensor, its array, its version then
        self.made: list[weakref.ref[Tensor]] = []
        self.grads_read: dict[int, tuple[Tensor, Tensor | None]] = {}
        self.grads_set: dict[int, Tensor] = {}
        self.inputs: list[Tensor] = []

    def run(self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """``step`` on input places that hold the arguments; what it returned."""
        for place in self.places:
            tensor: Tensor = Tensor._wrap(place)
            self.inputs.append(tensor)
        given: list[Tensor] = []
        _signature((args, kwargs), given)
        replaced = iter(self.inputs)
        for tensor, source in zip(self.inputs, given, strict=True):
            np.copyto(tensor._array, source._array)
        args, kwargs = _map(lambda _: next(replaced), (args, kwargs))
        with self.recorder, self._watching():
            result = step(*args, **kwargs)
            self.recorder.check_bindings()
        return result

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Put descriptors in the place of the tensors' ``_array`` and ``_grad``: what the step touches shows itself."""
        grad = Tensor._grad
        Tensor._array, Tensor._grad = _Arrays(self), _Grads(self)  # type: ignore[assignment]
        try:
            yield
        finally:
            del Tensor._array
            Tensor._grad = grad
            for tensor, raw, _ in self.adopted.values():
                tensor.__dict__["_array"] = raw
            for reference in self.made:
                tensor_or_none = reference()
                if tensor_or_none is not None:
                    array = tensor_or_none.__dict__["_array"]
                    if type(array) is Recorded:
                        tensor_or_none.__dict__["_array"] = self.recorder.keep(array)

    def replay(self, result: Any) -> _Replay:
        """The recorded step."""
        arrays = [
            (tensor, raw) for tensor, raw, _ in self.adopted.values() if not any(tensor is i for i in self.inputs)
        ]
        versions = [tensor._version for tensor, _, then in self.adopted.values() if tensor._version[0] != then]
        grads_before = [(leaf, grad) for leaf, grad in self.grads_read.values() if leaf._node is None]
        grads = [(leaf, leaf._grad) for leaf in self.grads_set.values()]
        return _Replay(
            self.recorder.program,
            self.places,
            _map(lambda tensor: tensor.detach(), result),
            grads,
            list({id(version): version for version in versions}.values()),
            arrays,
            grads_before,
            self.recorder.guards(),
        )


class _Arrays:
    """``Tensor._array`` while a step is recorded."""

    def __init__(self, session: _Session) -> None:
        self.session = session

    def __get__(self, tensor: Tensor, owner: Any = None) -> Any:
        session = self.session
        array = tensor.__dict__["_array"]
        if type(array) is Recorded or not isinstance(array, np.ndarray) or threading.get_ident() != session.thread:
            return array
        session.adopted[id(tensor)] = (tensor, array, tensor._version[0])
        recorded = tensor.__dict__["_array"] = session.recorder.external(array)
        return recorded

    def __set__(self, tensor: Tensor, array: Any) -> None:
        session = self.session
        if threading.get_ident() != session.thread:
            tensor.__dict__["_array"] = array
            return
        before = tensor.__dict__.get("_array")
        if array is before:  # as after +=
            return
        if isinstance(before, np.ndarray) or id(tensor) in session.adopted:
            session.recorder.fail(
                "captured step: a tensor from outside the step was given other memory (as by .data = or .to()), which a "
                "replay would not do; write into it with copy_()"
            )
        if isinstance(array, np.ndarray):
            array = session.recorder.constant(array)
        if before is None:
            session.made.append(weakref.ref(tensor))
        tensor.__dict__["_array"] = array


class _Grads:
    """``Tensor._grad`` while a step is recorded."""

    def __init__(self, session: _Session) -> None:
        self.session = session

    def __get__(self, tensor: Tensor, owner: Any = None) -> Any:
        grad = tensor.__dict__.get("_grad")
        key = id(tensor)
        if key not in self.session.grads_read and key not in self.session.grads_set:
            self.session.grads_read[key] = (tensor, grad)
        return grad

    def __set__(self, tensor: Tensor, grad: Tensor | None) -> None:
        self.session.grads_set[id(tensor)] = tensor
        tensor.__dict__["_grad"] = grad


def _place_for(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Memory for an argument, in its order of axes."""
    return np.empty_like(array, subok=False)

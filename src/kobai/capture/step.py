"""``kobai.capture``: records a training step once and then replays it, without Python's tape and without allocation.

:class:`Captured` decides at every call what to do. Calls with the same *signature* – structure, shapes and dtypes of the
arguments, other arguments, modes – share their programs::

    call ──► signature ──┬── a program whose guards hold ───────────► replay it; every n-th beside the step (audit.py)
                         ├── the first call (CUDA: per signature) ──► run the step, which creates what is created once
                         ├── any other ─────────────────────────────► record the step (session.py), keep the program
                         └── recording is impossible ───────────────► CaptureError; with fallback, run the step for good

A recording is also an ordinary step. Its program is kept only if the next step will do the same: not if this step created
something for later ones, such as an optimizer's state, and not if it ran code of a package that had not been examined.

Where processes exchange numbers by queueing that on GPUs, all do the same, the least of what they could do: a process that
waits inside an ordinary step would wait for a graph that another has not launched yet.
"""

from __future__ import annotations

import logging
import threading
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from kobai.capture.audit import audited
from kobai.capture.memory import Workspace
from kobai.capture.session import CudaSession, HostSession, Replay, Session, copied, map_tensors
from kobai.capture.watch import leaves
from kobai.core import anomaly, autocast
from kobai.core.grad_mode import state as grad_mode
from kobai.core.tape import Node
from kobai.core.tensor import Tensor
from kobai.dtypes import get_default_dtype
from kobai.engine import peers
from kobai.errors import CaptureError
from kobai.runtime import get_float32_matmul_precision
from kobai.xp import backend as default_backend, backend_of, recorder

__all__ = ["capture"]

log = logging.getLogger("kobai")


SESSIONS: dict[str, Any] = {"numpy": HostSession, "cupy": CudaSession}
"""The session class for steps whose first argument is on this backend; takes (workspace, lenient, inputs)."""

MOST_SIGNATURES = 32
"""Signatures kept per step; more than that mean that an argument changes at every call and should be a tensor."""

MOST_VARIANTS = 4
"""Programs kept per signature: training and evaluation, gradients reset and gradients accumulated."""

MOST_MISSES = 16
"""How many times in a row a step may be recorded again because what it depends on has changed."""

GIVE_UP, RUN, RECORD, REPLAY = range(4)
"""What a call can do: no capture from now on, the step as it is, a recording, a replay."""

VERIFY = 0
"""The default of ``verify``; the tests set it to 1."""


def capture(step: Callable[..., Any], *, fallback: bool = False, verify: int | None = None) -> Captured:
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

    Indices out of range, classes that are not there, probabilities outside [0, 1] and integers divided by 0 raise in a
    replay what they raise without capture: on the host before they are used, so that what stands behind them in the step
    has not been done, and what stands before them has; on a device when a result is read, after the step has run with
    nan or other indices in their place. The next call is a step like any other.

    Args:
        step: the function.
        fallback: go on without capture, with one warning that says why, where a step cannot be captured; by default
            that raises.
        verify: every so many replays, run the step as it is too, from the same state, and compare everything that both come
            to: results, parameters, buffers, gradients, the optimizer's state, the step's Python values. On the CPU all bits
            must be equal, on a device 1e-6 of the largest. That costs an eager step, and copies of all that it touches;
            hooks run once more, and what they do outside of what the step can reach is done twice. None or 0: never.

    Attributes of the result: ``bytes`` (memory held for intermediate arrays), ``programs`` (how many are kept),
    ``failure`` (why there is no capture, or None).

    Raises:
        CaptureError: naming what the step does that cannot be captured, with file and line. With ``verify``: naming the
            first tensor in which a replay differs from the step, and the likeliest cause; everything is then as it was before
            the call.

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
    return Captured(step, fallback, verify)


class Captured:
    """What :func:`capture` returns; see there."""

    def __init__(self, step: Callable[..., Any], fallback: bool = False, verify: int | None = None) -> None:
        if not callable(step):
            raise TypeError(f"capture: expected a function, got {type(step).__name__}")
        if verify is not None and (isinstance(verify, bool) or not isinstance(verify, int) or verify < 0):
            raise ValueError(f"capture: expected verify as an integer >= 0 or None, got {verify!r}")
        self.verify = VERIFY if verify is None else verify
        self._unverified = 0  # replays since the last one that was compared with the step
        self.step = step
        self.fallback = fallback
        self.failure: str | None = None
        self._workspaces = [Workspace()]  # programs share the last; see Session.crowded
        self._programs: dict[Any, list[Replay]] = {}
        self._misses = 0
        self._warmed: set[Any] = set()
        self._codes: set[types.CodeType] = set()  # code of installed packages that a recording has run
        self._surprises = 0
        self._changed: set[Any] = set()  # signatures of which a recording has changed something in Python
        self._exchanges = False  # with other processes, on GPUs
        self.turn = threading.RLock()
        """Held by the thread that runs the step: all threads share the memory of a replay."""
        self.__doc__ = step.__doc__
        self.__name__ = getattr(step, "__name__", "step")

    def _capture_watch(self, walk: Any) -> None:
        """Inside another captured step, this is the step itself."""
        walk.push(self.step, self.__name__)

    @property
    def bytes(self) -> int:
        """Bytes of memory held for the arrays that the step creates, without inputs, parameters and state."""
        own = sum(replay.own_bytes for variants in self._programs.values() for replay in variants)
        return own + sum(workspace.bytes for workspace in self._workspaces)

    @property
    def programs(self) -> int:
        """How many programs are kept: one per signature, more if what the step depends on alternates."""
        return sum(len(variants) for variants in self._programs.values())

    def __repr__(self) -> str:
        state = f"not captured: {self.failure}" if self.failure else f"{self.programs} programs, {self.bytes} bytes"
        return f"<captured {self.__name__}: {state}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self.turn:  # until the result is copied
            result, lasting = self.run(args, kwargs)
            return result if lasting else map_tensors(copied, result)

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> tuple[Any, bool]:
        """The step's result, and whether it lasts: the next replay overwrites the result of a replay."""
        kwargs = kwargs or {}
        if self.failure is not None or recorder() is not None or anomaly.state.enabled:
            return self.step(*args, **kwargs), True
        with self.turn:
            return self._run(args, kwargs)

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, bool]:
        inputs: list[Tensor] = []
        key = (_signature((args, kwargs), inputs), *_modes())
        found = next((replay for replay in self._programs.get(key, ()) if replay.holds()), None)
        plan, reason = (REPLAY, "") if found is not None else self._plan(key, inputs)
        if self._exchanges and peers.joined is not None:
            plan = peers.joined.least(f"captured step {self.__name__[:40]}", plan)
        if plan == REPLAY:
            assert found is not None
            self._misses = 0
            if self.verify:
                self._unverified += 1
                if self._unverified >= self.verify:
                    self._unverified = 0
                    return audited(found, self.step, args, kwargs, inputs), False
            return found(inputs), False
        if plan == RECORD:
            session = SESSIONS[_backend_of(inputs)](self._workspaces[-1], self.fallback, inputs)
            return self._record(key, args, kwargs, session), True
        if plan == GIVE_UP:
            self._give_up(reason or "captured step: another process cannot capture it, so none does")
            return self.step(*args, **kwargs), True
        return self._warm(key, inputs, args, kwargs), True

    def _plan(self, key: Any, inputs: list[Tensor]) -> tuple[int, str]:
        """What a call without a program can do, and why it is no more than giving up."""
        backend = _backend_of(inputs)
        reason = self._hindrance(key, inputs, backend)
        if reason is not None:
            return GIVE_UP, reason
        return RECORD if self._warmth(key, backend) in self._warmed else RUN, ""

    def _warmth(self, key: Any, backend: str) -> Any:
        return key if SESSIONS[backend].warms_each_signature else None

    def _warm(self, key: Any, inputs: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The step as it is, which creates what is created once."""
        others = peers.joined
        before = others and others.exchanges
        result = self.step(*args, **kwargs)
        self._exchanges |= others is not None and others.exchanges != before
        self._warmed.add(self._warmth(key, _backend_of(inputs)))
        if any(isinstance(part, Tensor) and _waits(part) for part in leaves(result)):
            self._give_up(
                "captured step: its result waits for backward(), which a replay cannot give it; call backward() inside"
            )
        return result

    def _hindrance(self, key: Any, inputs: list[Tensor], backend: str) -> str | None:
        """Why this call cannot be recorded or is not worth it; None if it can."""
        if backend not in SESSIONS:
            return f"captured step: backend {backend!r} has no capture"
        if any(tensor.requires_grad for tensor in inputs):
            return "captured step: an argument requires a gradient; arguments are data, parameters belong to the step itself"
        if key not in self._programs and len(self._programs) >= MOST_SIGNATURES:
            return (
                f"captured step: {self.__name__} was called with more than {MOST_SIGNATURES} signatures; pass what changes at "
                "every call as a tensor"
            )
        if self._misses >= MOST_MISSES:
            return (
                f"captured step: {self.__name__} had to be recorded anew {MOST_MISSES} times in a row, because the memory of "
                "its parameters, its gradients or its modes change at every call; reset gradients inside the step"
            )
        return None

    def _give_up(self, reason: str) -> None:
        """CaptureError; with ``fallback``, no capture from now on."""
        if not self.fallback:
            raise CaptureError(reason)
        self._failed(reason)

    def _failed(self, reason: str) -> None:
        self.failure = reason
        self._programs.clear()
        log.warning("capture: going on without it. %s", reason)

    def _record(self, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any], session: Session) -> Any:
        session.known = self._codes
        session.peers = peers.joined if self._exchanges else None
        result = session.run(self.step, args, kwargs)
        recorder = session.recorder
        if session.crowded:
            self._workspaces.append(Workspace())
            recorder.postpone()
        if recorder.failure is None and not recorder.postponed and self._settled(session, key):
            replay = session.replay(result)
            if recorder.failure is None:
                self._misses += key in self._programs
                variants = self._programs.setdefault(key, [])
                variants.append(replay)
                del variants[:-MOST_VARIANTS]
        if recorder.failure is not None:
            self._failed(recorder.failure)
        return map_tensors(copied, result)

    def _settled(self, session: Session, key: Any) -> bool:
        """Whether the step left everything in Python as it was. It may change things once, such as what is created lazily."""
        unforeseen = session.watch.unforeseen() - self._codes
        if unforeseen and self._surprises < MOST_VARIANTS:  # limited, because a package may create new code each time
            self._surprises += 1
            self._codes |= unforeseen
            return False
        changes = session.watch.changes()
        if not changes:
            return True
        if key not in self._changed:
            self._changed.add(key)
            return False
        what, place = changes[0]
        session.recorder.fail_at(
            place,
            f"captured step: it changes {what}, which a replay would not do; return what is to be kept as a tensor and keep it "
            "outside the step",
        )
        return False


def _backend_of(inputs: list[Tensor]) -> str:
    return backend_of(inputs[0]._array).name if inputs else default_backend()


def _modes() -> tuple[Any, ...]:
    """The modes that decide what operations compute, beside their arguments."""
    return grad_mode.grad, autocast.signature(), get_float32_matmul_precision(), get_default_dtype()


# --- arguments and results --------------------------------------------------------------------------------------------


def _signature(value: Any, tensors: list[Tensor]) -> Any:
    """What must be equal for a program to fit: structure, shapes, dtypes, other values. Appends the tensors in order."""
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
    """An argument compared by identity, and kept alive so that no other object can get its id."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def _waits(tensor: Tensor) -> bool:
    """Whether backward is still possible from here: no node has been freed, and some node keeps arrays for it."""
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

"""The session: the one object that is active in a thread while the thread runs a step under capture.

A step does not know that it is being recorded. Whatever has to behave differently during a recording asks one question, *which
session is active in this thread?*, of one table, ``xp.sessions``, which is almost always empty::

    xp.sessions ── thread ──► Session ──┬── recorder   is told of kernels, host numbers and reads (rules.py)
                                        ├── watch      sees which code runs and what it reads from Python (watch.py)
                                        └── tensors    those the step touches and creates; gradients it reads and sets

The session finds tensors through two descriptors that replace ``Tensor._array`` and ``Tensor._grad`` while any session is
active. A tensor from outside shows the step a recorded array instead of its own, and is remembered. A tensor that the step
creates shows the step its recorded array, and everyone else the memory behind it::

                       this thread, which records          other threads
    weight._array      Recorded(memory of the weight)      the ndarray, as always
    y = x @ weight     Recorded(place of y)                the ndarray of that place

Tensors from outside are never modified, so nothing has to be restored when the step ends or fails.

The descriptors sit on the class, where all threads see them; they come with the first session and go with the last. If they
stayed, there would be no switch, but every ``tensor._array`` of eager code would be a Python call, which takes about 15 times
as long as reading an attribute, and an operation reads it several times.

A session starts and ends in one place, :meth:`Session.within`. Ending twice is safe, and done, because a signal handler may
raise in the middle of the first time.
"""

from __future__ import annotations

import os
import threading
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from operator import attrgetter, is_
from typing import Any, ClassVar

from kobai.capture.graph import CudaRecorder, Graph
from kobai.capture.guards import Guards
from kobai.capture.memory import Workspace
from kobai.capture.recorder import Recorder
from kobai.capture.rules import Rules, Uncaptured
from kobai.capture.watch import Watch
from kobai.core.tensor import Tensor
from kobai.engine.peers import Refused
from kobai.errors import CaptureError
from kobai.xp import Array, beside, quiet, sessions, write


def map_tensors(function: Callable[[Tensor], Any], value: Any) -> Any:
    """``value`` – tensors in tuples, lists and dicts – with every tensor replaced."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple):
        parts = [map_tensors(function, part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, list):
        return [map_tensors(function, part) for part in value]
    if isinstance(value, dict):
        return {name: map_tensors(function, part) for name, part in value.items()}
    return value


def copied(tensor: Tensor) -> Tensor:
    """A copy of a result, independent of the step's memory."""
    with beside(tensor._array):
        return Tensor._wrap(tensor._array.copy())  # type: ignore[no-any-return]


_ARRAY, _GRAD = attrgetter("_array"), attrgetter("_grad")


class Replay:
    """A recorded step: how to run it, its input places, its results, and what it depends on."""

    def __init__(self, run: Callable[[], Any], session: Session, result: Any, held: int = 0) -> None:
        self.run = run
        self.places = [tensor._array for tensor in session.inputs]
        self.result = map_tensors(lambda tensor: tensor.detach(), result)
        adopted = session.adopted.values()
        outside = [entry for entry in adopted if not any(entry[0] is tensor for tensor in session.inputs)]
        self.tensors = [tensor for tensor, _, _ in outside]
        self.arrays = [array for _, array, _ in outside]
        self.rests_on = session.rests_on()
        self.touched, self.actions = session.recorder.touched, session.watch.actions
        changed = {id(tensor._version): tensor._version for tensor, _, then in adopted if tensor._version[0] != then}
        self.versions = list(changed.values())
        before = [(leaf, grad) for leaf, grad in session.grads_read.values() if leaf._node is None]
        self.leaves_before, self.grads_before = [leaf for leaf, _ in before], [grad for _, grad in before]
        self.grads = [(leaf, leaf.__dict__.get("_grad")) for leaf in session.grads_set.values()]
        self.guards = [(get, get()) for get in session.recorder.guarded]
        self.own_bytes: int = held + sum(place.nbytes for place in self.places)

    def holds(self) -> bool:
        """Whether everything the program depends on is as it was when it was recorded."""
        if not all(map(is_, map(_ARRAY, self.tensors), self.arrays)):
            return False
        if not all(map(is_, map(_GRAD, self.leaves_before), self.grads_before)):
            return False
        return all(get() == value for get, value in self.guards) and self.rests_on.hold()

    @quiet
    def __call__(self, inputs: list[Tensor]) -> Any:
        for place, tensor in zip(self.places, inputs, strict=True):
            array = tensor._array
            if array is not place:
                write(place, array)
        for version in self.versions:  # first: a run that fails may have changed the tensors too
            version[0] += 1
        self.run()
        for leaf, grad in self.grads:
            leaf._grad = grad
        return self.result


class Session:
    """What is active in a thread while it runs a step: a recorder, and the tensors that the step has touched.

    Subclasses can turn the step into a replay.
    """

    warms_each_signature: ClassVar[bool] = False
    """Whether each signature runs once before it is recorded, because kernels for its shapes may have to be compiled, which a
    capture does not allow; otherwise the first call of all is enough, which creates the optimizer's state."""

    of_one_thread: ClassVar[bool] = False
    """Whether no other thread may take part, because what CuPy allocates from is a thread's own."""

    watch: Any = None
    """The :class:`~kobai.capture.watch.Watch`, if the step is being recorded."""

    peers: Any = None
    """The processes (:class:`~kobai.distributed.world.World`) that record the step too, if it exchanges with others on GPUs."""

    def __init__(self, recorder: Rules, inputs: Iterable[Tensor] = ()) -> None:
        self.recorder = recorder
        self.thread = threading.get_ident()
        self.adopted: dict[int, tuple[Tensor, Array, int]] = {}  # tensor, its array, its version then
        self.shown: dict[int, Array] = {}  # what those show to the step
        self.made: list[weakref.ref[Tensor]] = []
        self.grads_read: dict[int, tuple[Tensor, Tensor | None]] = {}
        self.grads_set: dict[int, Tensor] = {}
        self.crowded = False
        """Whether a gradient that outlives the step came to lie where an earlier program writes. It has moved out by then, and
        the step must be recorded again with memory of its own: a call of that program would overwrite it."""
        self.inputs: list[Tensor] = [copied(tensor) for tensor in inputs]
        self.known: set[types.CodeType] = set()
        """Code of installed packages that earlier recordings of the step have run."""

    def within(self, function: Callable[[], Any]) -> Any:
        """Call ``function()`` with this session active in this thread."""
        try:
            self._begin()
            return function()
        finally:
            try:
                self._end()
            finally:  # again: a signal handler that raises may have cut the first call short
                self._end()

    def run(self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record ``step`` on the input places, which hold the arguments now; returns its result."""
        places = iter(self.inputs)
        self.watch = Watch(step, (args, kwargs), self.known)
        self.recorder.repeated = self.watch.repeated
        args, kwargs = map_tensors(lambda _: next(places), (args, kwargs))

        def recorded() -> Any:
            self.watch.begin(self.recorder.fail_at)
            result = step(*args, **kwargs)
            self.watch.end()
            self.recorder.check_bindings()
            return result

        return self.within(recorded)

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Block in which another thread takes part in the step, while the one that records waits for it."""
        if self.of_one_thread:
            raise CaptureError(
                "captured step: on a GPU, only the work of one thread is captured; shards that meet have one each"
            )
        me = threading.get_ident()
        with _switching:
            sessions[me] = self
        try:
            with nullcontext() if self.watch is None else self.watch.joined():
                yield
        finally:
            with _switching:
                sessions.pop(me, None)

    def rests_on(self) -> Guards:
        """Guards for what the step read from Python; CaptureError (or a failure) for what cannot be watched."""
        inputs = set(map(id, self.inputs))
        tensors = [tensor for tensor, _, _ in self.adopted.values() if id(tensor) not in inputs]
        walk = self.watch.after(*self.recorder.touched, *tensors)
        self.recorder.check_watchable(walk, self.watch)
        return Guards(walk.entries)

    def replay(self, result: Any) -> Replay:
        """The recorded step, ready to run again."""
        raise NotImplementedError

    def touched(self, tensor: Tensor) -> Array:
        """A tensor from outside is touched for the first time; returns what it shows to the step."""
        array = tensor.__dict__["_array"]
        self.adopted[id(tensor)] = (tensor, array, tensor._version[0])
        return self.recorder.adopt(array)

    def rebinds(self, tensor: Tensor) -> None:
        """A tensor from outside is about to be given another array."""
        self.recorder.fail(
            "captured step: a tensor from outside the step was given other memory (as by .data = or .to()), which a "
            "replay would not do; write into it with copy_()"
        )

    def sets_grad(self, tensor: Tensor, grad: Tensor | None) -> None:
        """A tensor is about to be given this gradient."""
        self.grads_set[id(tensor)] = tensor
        self.recorder.sets_grad(tensor, grad)

    def _begin(self) -> None:
        with _switching:
            if sessions.get(self.thread) is not None:
                raise RuntimeError("capture: another step is being recorded in this thread")
            sessions[self.thread] = self
            Tensor._array, Tensor._grad = _arrays, _grads  # type: ignore[assignment]

    def _end(self) -> None:
        """Leave everything as if there had been no session. Calling it twice is safe."""
        if self.watch is not None:
            self.watch.end()
        with _switching:
            if sessions.get(self.thread) is self:
                del sessions[self.thread]
            _plain_again()
        grads = {id(leaf.__dict__.get("_grad")) for leaf in self.grads_set.values()}
        while self.made:
            made = self.made[-1]()
            if made is not None and made.__dict__.get("_inside", (None,))[0] is self:
                if self.recorder.leave(made.__dict__["_inside"][1]) and id(made) in grads:
                    made.__dict__["_array"] = made.__dict__["_array"].copy()
                    self.crowded = True
                del made.__dict__["_inside"]
            self.made.pop()


class HostSession(Session):
    """A step on host arrays, recorded operation by operation."""

    recorder: Recorder

    def __init__(self, workspace: Workspace, lenient: bool, inputs: list[Tensor]) -> None:
        super().__init__(Recorder(workspace, lenient), inputs)

    def replay(self, result: Any) -> Replay:
        return Replay(self.recorder.finished().replay, self, result)


class CudaSession(Session):
    """A step on a CUDA device, captured as a graph. If that fails, the step runs uncaptured, without redoing host work."""

    warms_each_signature = of_one_thread = True
    recorder: CudaRecorder

    def __init__(self, workspace: Workspace, lenient: bool, inputs: list[Tensor]) -> None:
        super().__init__(CudaRecorder(lenient), inputs)
        self.device = inputs[0].device if inputs else None
        self.graph: Graph | None = None

    def run(self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        recorder, record = self.recorder, super().run
        lenient = recorder.lenient
        try:
            self.graph = Graph.capture(lambda: record(step, args, kwargs), device=self.device, recorder=recorder)
            if self.peers is not None:
                self._agree(lenient)
            self.graph.replay()
        except BaseException as error:
            if self.graph is None and self.peers is not None:
                self._disagree(error)
            if self.graph is None and lenient and isinstance(error, CaptureError):
                recorder.failure = str(error)
                return Session(Uncaptured(recorder.done)).within(lambda: step(*args, **kwargs))
            if self.graph is None or not self.graph.launched:
                recorder.counts.take_back()
            raise
        return self.graph.result

    def _agree(self, lenient: bool) -> None:
        """All processes must have a graph; if one has none, those that have launch theirs for the last time."""
        try:
            self.peers.agree("captured step, recorded")
        except CaptureError as error:
            if not lenient:
                raise
            self.recorder.failure = str(error)

    def _disagree(self, error: BaseException) -> None:
        """Tell the others that there is no graph here, unless they know: some may wait for this process inside the step."""
        if isinstance(error, CaptureError) and not isinstance(error, Refused):
            self.peers.refuse_capture()

    def replay(self, result: Any) -> Replay:
        assert self.graph is not None
        return Replay(self.graph.replay, self, result, self.graph.pool_bytes)


# --- the tensors ------------------------------------------------------------------------------------------------------

_switching = threading.Lock()


def _plain_again() -> None:
    """Without any session ``_array`` and ``_grad`` are plain attributes again, which cost nothing."""
    if not sessions and "_array" in Tensor.__dict__:
        del Tensor._array
        Tensor._grad = None


class _Arrays:
    """``Tensor._array`` while steps are recorded."""

    def __get__(self, tensor: Tensor, owner: Any = None) -> Any:
        state = tensor.__dict__
        session = sessions.get(threading.get_ident())
        if session is None:
            try:
                return state["_array"]
            except KeyError:
                raise AttributeError("_array") from None
        owner, shown = state.get("_inside", (None, None))
        if owner is session:
            return shown
        key = id(tensor)
        if key not in session.adopted:
            session.shown[key] = session.touched(tensor)
        return session.shown[key]

    def __set__(self, tensor: Tensor, array: Any) -> None:
        state = tensor.__dict__
        session = sessions.get(threading.get_ident())
        if session is None:
            state["_array"] = array
            return
        owner, shown = state.get("_inside", (None, None))
        own = owner is session
        if array is (shown if own else session.shown.get(id(tensor))):  # as after +=
            return
        if not own and "_array" in state:
            session.rebinds(tensor)
        array = session.recorder.enter(array)
        state["_inside"] = session, array
        state["_array"] = session.recorder.plain(array)
        if not own:
            session.made.append(weakref.ref(tensor))


class _Grads:
    """``Tensor._grad`` while steps are recorded. That of a tensor which the step has made itself is nobody else's."""

    def __get__(self, tensor: Tensor, owner: Any = None) -> Any:
        grad = tensor.__dict__.get("_grad")
        session = _session_outside(tensor)
        if session is not None:
            key = id(tensor)
            if key not in session.grads_read and key not in session.grads_set:
                session.grads_read[key] = (tensor, grad)
        return grad

    def __set__(self, tensor: Tensor, grad: Tensor | None) -> None:
        session = _session_outside(tensor)
        if session is not None:
            session.sets_grad(tensor, grad)
        tensor.__dict__["_grad"] = grad


def _session_outside(tensor: Tensor) -> Any:
    """The session of this thread, unless the tensor was made inside it."""
    session = sessions.get(threading.get_ident())
    return None if tensor.__dict__.get("_inside", (None,))[0] is session else session


_arrays, _grads = _Arrays(), _Grads()


def _only_this_thread() -> None:
    """After a fork: the parent's other threads do not exist in the child, and one of them may have held the lock."""
    global _switching
    _switching = threading.Lock()
    for thread in sessions.keys() - {threading.get_ident()}:
        del sessions[thread]
    _plain_again()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_only_this_thread)

"""What every recorder does: the rules for a step under capture, and the lists of what its replays depend on.

A session (``session.py``) owns one *recorder*. Any part of Kobai that does more than compute asks for it (``xp.recorder()``)
and tells it: a kernel is launched, the host computes a number, Python reads a value, a module is called. What happens then
depends on the kind of session::

                       host: Recorder           CUDA: CudaRecorder         no capture: Uncaptured
    launch(kernel)     run it and note it       queue it into the graph    run it
    numbers(compute)   a place that each        a place on the device,     the numbers
                       replay fills             fed before each replay
    host_read(array)   error                    error                      allowed

:class:`Rules` is the common part: the errors, each with the line of the program that caused it, and what must stay the same
for a replay to be valid. With ``lenient`` an error does not stop the step: it is finished like any other, and ``failure`` says
why it cannot be replayed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any

from kobai.errors import CaptureError
from kobai.xp import sessions

_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def _place() -> str:
    """File and line of the innermost frame that is not Kobai's own: where the program did it."""
    frame = sys._getframe(1)
    while frame.f_back is not None and os.path.abspath(frame.f_code.co_filename).startswith(_HERE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


class Rules:
    """The recorder of a session: it is told what the step does.

    ``lenient``: what cannot be captured does not raise; it is done, and ``failure`` says what it was.
    """

    namespace: Any = None
    """The namespace that records the host's arrays, if any."""

    def __init__(self, lenient: bool = False) -> None:
        self.lenient = lenient
        self.failure: str | None = None
        self.postponed = False
        self.guarded: list[Callable[[], Any]] = []
        self._on_host = False
        self.repeated: Callable[[Callable[[], Any]], Any] = lambda action: action()
        """Does what replays do as well (:meth:`kobai.capture.watch.Watch.repeated`)."""
        self.touched: list[Any] = []
        self._modules: dict[int, tuple[Any, dict[str, Any]]] = {}

    # --- what a step may not do

    def fail(self, message: str) -> None:
        """Report what a replay could not do: an error or, if ``lenient``, the end of this capture."""
        self.fail_at(_place(), message)

    def fail_at(self, place: str, message: str) -> None:
        """:meth:`fail`, with a known place."""
        if self.failure is None:
            self.failure = f"{message} ({place})"
        if not self.lenient:
            raise CaptureError(self.failure)

    def host_read(self, what: str, array: Any) -> Any:
        """Python reads a value; returns the array if that is allowed."""
        self.fail(
            f"captured step: {what} reads a value of shape {tuple(array.shape)} on the host; a replay runs without Python, so "
            "return the tensor from the step and read it outside"
        )
        return array

    def foreign(self, array: Any) -> Any:
        """The step uses an array from outside that belongs to none of its tensors."""
        self.fail(
            f"captured step: an array of shape {tuple(array.shape)} and dtype {array.dtype} was made on the host inside the "
            "step, and a replay would see it frozen; pass it to the step as an argument, or make it once before"
        )
        return array

    def host_seed(self) -> None:
        """Random streams are reseeded."""
        self.fail(
            "captured step: random streams are seeded inside the step, which a replay would not do again; seed them before it"
        )

    def host_draw(self) -> None:
        """Random numbers are drawn on the host."""
        self.fail(
            "captured step: random numbers are drawn on the host, and a replay would see the same ones again; draw them before "
            "the step and pass them to it (dropout draws its own, legally)"
        )

    # --- what replays depend on

    def guard(self, get: Callable[[], Any]) -> None:
        """The program is valid as long as ``get()`` returns what it returns at the end of this step."""
        self.guarded.append(get)

    def host(self, action: Callable[[], None]) -> None:
        """See :func:`kobai.engine.dispatch.on_host`."""
        if self._on_host:  # part of an action that is noted already
            action()
            return
        self._on_host = True
        try:
            self.repeated(action)
        finally:
            self._on_host = False

        self.feed(action, None)

    def postpone(self) -> None:
        """The step creates something that later steps will find: record the next call instead of this one."""
        self.postponed = True

    def visit(self, module: Any) -> None:
        """A module is called: the program depends on its mode and its tensors."""
        if id(module) not in self._modules:
            self._modules[id(module)] = (module, _tensors_of(module))
            self.touch(module)

    def touch(self, thing: Any) -> None:
        """The program is valid as long as this object stays as it is at the end of this step."""
        self.touched.append(thing)

    def check_bindings(self) -> None:
        """Fail if a name of a module is bound to another tensor than when it was called."""
        for module, before in self._modules.values():
            for name, tensor in _tensors_of(module).items():
                if before.get(name) is not tensor:
                    self.fail(
                        f"captured step: {type(module).__name__}.{name} was bound to a new tensor, which a replay would not "
                        f"do; write into the one that is there: self.{name}.copy_(...)"
                    )

    def check_watchable(self, walk: Any, watch: Any) -> None:
        """Fail if the step depends on something that cannot be compared before a replay."""
        if walk.too_many:
            self.fail("captured step: its code can reach more objects than can be compared before each replay")
        for name, place in watch.read_and_moved(walk):
            self.fail_at(
                place,
                f"captured step: it reads {name}, which it moves on itself, as a schedule does; read it outside, or move "
                "it on outside",
            )
        for place, message in walk.refused():
            self.fail_at(place, message)

    # --- what tensors show to the step

    def adopt(self, array: Any) -> Any:
        """What a tensor from outside shows to the step in place of its array."""
        return array

    def enter(self, array: Any) -> Any:
        """What a tensor that the step makes shows to it, for the array that it was made with."""
        return array

    def plain(self, array: Any) -> Any:
        """What a tensor that the step made shows to others, for the array that it shows to the step."""
        return array

    def leave(self, array: Any) -> bool:
        """The step is over, and a tensor that showed it this array lives on. Whether other programs write to its memory."""
        return False

    def sets_grad(self, tensor: Any, grad: Any) -> None:
        """Here the step gives a tensor this gradient, or None."""

    # --- what each backend does its own way

    def feed(self, compute: Callable[[], Any], place: Any) -> None:
        """Every replay calls ``compute`` on the host, as the step did, and writes the result to ``place``, if there is one."""

    def launch(self, kernel: Callable[..., Any], args: tuple[Any, ...]) -> None:
        """See :func:`kobai.engine.dispatch.launch`."""
        kernel(*args)

    def check(self, look: Callable[..., None], args: tuple[Any, ...]) -> None:
        """See :func:`kobai.engine.dispatch.check`."""
        look(*args)


class Uncaptured(Rules):
    """The recorder of a step that runs without being captured: everything is allowed, nothing is noted.

    ``done``: what the host has already done for this step in a capture that failed, in order: the numbers it computed, None
    for other actions. It is not done twice.
    """

    def __init__(self, done: Iterable[tuple[float, ...] | None] = ()) -> None:
        super().__init__(lenient=True)
        self._done = list(done)[::-1]

    def numbers(self, compute: Callable[[], tuple[float, ...]], dtype: Any) -> Any:
        values = self._done.pop() if self._done else None
        return compute() if values is None else values

    def host(self, action: Callable[[], None]) -> None:
        if self._done:
            self._done.pop()
        else:
            action()

    def fail(self, message: str) -> None:
        """Everything is allowed."""


@contextmanager
def apart() -> Iterator[None]:
    """As if nothing were at work in this thread. Its entry stays, for an empty table means that no thread has a session."""
    thread = get_ident()
    session = sessions.get(thread)
    if session is not None:
        sessions[thread] = None
    try:
        yield
    finally:
        if session is not None:
            sessions[thread] = session


def _tensors_of(module: Any) -> dict[str, Any]:
    """The tensors that the module itself holds, by name; a tensor is what has ``requires_grad``."""
    own = {**module.__dict__, **module._parameters, **module._buffers}
    return {name: value for name, value in own.items() if hasattr(type(value), "requires_grad")}

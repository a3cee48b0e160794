"""What holds for a step while it is captured, on every backend: what it may not do, and what its replays rest on."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Self

from kobai import xp as _xp
from kobai.errors import CaptureError

_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def _place() -> str:
    """File and line of the innermost frame that is not Kobai's own: where the program did it."""
    frame = sys._getframe(1)
    while frame.f_back is not None and os.path.abspath(frame.f_code.co_filename).startswith(_HERE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


class Rules:
    """The recorder of a step (``xp.recorder()``) from :meth:`__enter__` to :meth:`__exit__`, in the thread that made it.

    ``lenient``: what cannot be captured does not raise; it is done, and ``failure`` says what it was, so that the step
    can be finished like any other and not be captured.
    """

    namespace: Any = None
    """The namespace whose functions note what they do, where arrays of the host are recorded by such a one."""

    def __init__(self, lenient: bool = False) -> None:
        self.lenient = lenient
        self.failure: str | None = None
        self.postponed = False
        self.thread = threading.get_ident()
        self._watched: list[Callable[[], Any]] = []
        self._on_host = False
        self.repeated: Callable[[Callable[[], Any]], Any] = lambda action: action()
        """Does what replays do as well (:meth:`kobai.capture.watch.Watch.repeated`)."""
        self.touched: list[Any] = []
        self._modules: dict[int, tuple[Any, dict[str, Any]]] = {}

    def __enter__(self) -> Self:
        if self.thread in _xp.recorders:
            raise RuntimeError("capture: another step is being recorded in this thread")
        _xp.recorders[self.thread] = self
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        """Stop being the recorder, if it is. Also for a ``finally`` around the block: an exception that a handler of signals
        raises may come before the first line of :meth:`__exit__`."""
        if _xp.recorders.get(self.thread) is self:
            del _xp.recorders[self.thread]

    # --- what a step may not do

    def fail(self, message: str) -> None:
        """Something that a replay could not do: an error, or the end of this capture."""
        self.fail_at(_place(), message)

    def fail_at(self, place: str, message: str) -> None:
        """:meth:`fail` where the line is known."""
        if self.failure is None:
            self.failure = f"{message} ({place})"
        if not self.lenient:
            raise CaptureError(self.failure)

    def host_read(self, what: str, array: Any) -> Any:
        """A value is read by Python; returns the array where that is let pass."""
        self.fail(
            f"captured step: {what} reads a value of shape {tuple(array.shape)} on the host; a replay runs without Python, so "
            "return the tensor from the step and read it outside"
        )
        return array

    def foreign(self, array: Any) -> Any:
        """An array comes from outside the step, and is none of its tensors."""
        self.fail(
            f"captured step: an array of shape {tuple(array.shape)} and dtype {array.dtype} was made on the host inside the "
            "step, and a replay would see it frozen; pass it to the step as an argument, or make it once before"
        )
        return array

    def host_seed(self) -> None:
        """Random streams are started anew."""
        self.fail(
            "captured step: random streams are seeded inside the step, which a replay would not do again; seed them before it"
        )

    def host_draw(self) -> None:
        """Random numbers are drawn on the host."""
        self.fail(
            "captured step: random numbers are drawn on the host, and a replay would see the same ones again; draw them before "
            "the step and pass them to it (dropout draws its own, legally)"
        )

    # --- what replays rest on

    def guard(self, get: Callable[[], Any]) -> None:
        """The program holds only as long as ``get()`` gives what it gives at the end of this step."""
        self._watched.append(get)

    def guards(self) -> list[tuple[Callable[[], Any], Any]]:
        """What the program rests on, and its present value."""
        return [(get, get()) for get in self._watched]

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
        """Something is made that later steps will find: let the next call of the step be the one that is recorded."""
        self.postponed = True

    def visit(self, module: Any) -> None:
        """A module is called: the program holds for its mode, and as long as it is not given other tensors."""
        if id(module) not in self._modules:
            self._modules[id(module)] = (module, _tensors_of(module))
            self.touch(module)

    def touch(self, thing: Any) -> None:
        """The program holds as long as this object is as it is at the end of this step."""
        self.touched.append(thing)

    def check_bindings(self) -> None:
        """Fail if a module has another tensor under a name than when it was called."""
        for module, before in self._modules.values():
            for name, tensor in _tensors_of(module).items():
                if before.get(name) is not tensor:
                    self.fail(
                        f"captured step: {type(module).__name__}.{name} was bound to a new tensor, which a replay would not "
                        f"do; write into the one that is there: self.{name}.copy_(...)"
                    )

    def check_watchable(self, walk: Any, watch: Any) -> None:
        """Fail if the step rests on what cannot be compared before a replay."""
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

    # --- what every backend does in its own way

    def feed(self, compute: Callable[[], Any], place: Any) -> None:
        """Every replay does this on the host, as the step did, and puts what it gives into its place, if it has one."""
        raise NotImplementedError

    def numbers(self, compute: Callable[[], tuple[float, ...]], dtype: Any) -> Any:
        """See :func:`kobai.engine.dispatch.numbers`."""
        raise NotImplementedError

    def launch(self, kernel: Callable[..., Any], args: tuple[Any, ...]) -> None:
        """See :func:`kobai.engine.dispatch.launch`."""
        raise NotImplementedError

    def check(self, look: Callable[..., None], args: tuple[Any, ...]) -> None:
        """See :func:`kobai.engine.dispatch.check`."""
        look(*args)


def _tensors_of(module: Any) -> dict[str, Any]:
    """The tensors that a module holds itself, by name; tensors are what has ``requires_grad``."""
    own = {**module.__dict__, **module._parameters, **module._buffers}
    return {name: value for name, value in own.items() if hasattr(type(value), "requires_grad")}

"""Records a step on host arrays: what it computes becomes a flat program that runs again without tape or allocation.

During the recording the step's tensors hold arrays of type :class:`Recorded` (``arrays.py``). Each call on them is done at
once and noted: the function, its operands, and the place in memory where the result went. Places stay, so running the notes
again in order repeats the step on whatever the input places hold by then::

    y = relu(x @ w)          the step, in Python       the program
    ───────────────────      ───────────────────       ───────────────────────────────
    x, w: Recorded           np.matmul(x, w)    ──►    matmul(memory 1, memory 2, memory 3)
                             np.maximum(_, 0)   ──►    maximum(memory 3, 0, out=memory 4)

There is no graph and no analysis: notes run in the order they were taken, and the memory of arrays that the tape has dropped
is reused (``memory.py``). Views are places within places and need no note. ``numpy_calls.py`` says what NumPy's functions do.

Three things cannot be noted and are errors (:class:`~kobai.errors.CaptureError`, with the line of the program at fault): a
value read by Python, because nobody sees what is done with it; a size that depends on values; and an array from elsewhere,
because it may be another one the next time.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from operator import length_hint
from typing import Any

import numpy as np

from kobai import xp as _xp
from kobai.capture import numpy_calls
from kobai.capture.arrays import Recorded, active, namespace, raw_of
from kobai.capture.memory import Workspace
from kobai.capture.rules import Rules, apart
from kobai.cpu import blas
from kobai.engine import dispatch
from kobai.errors import CaptureError
from kobai.xp import Array, Backend

# --- the program ------------------------------------------------------------------------------------------------------


class Program:
    """The notes of a step: its calls in order, including the host's own work at the point where the step did it.

    So a replay that fails has counted as far as it got: a step of Adam counts if the parameters were updated. It has also set
    the gradients that the step sets up to that point; a replay that succeeds sets them all at its end.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self.renewed: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        """Calls that run before all others and restore constants that the step writes into."""
        self.allocating: list[str] = []
        """Names of functions without ``out=``, which allocate a new array in every replay."""
        self._grads: list[tuple[int, Any, Any]] = []  # number of calls before it, the tensor, the gradient
        self._last: tuple[Any, Any] | None = None  # the host's last action in this replay, and the state before it

    def replay(self) -> None:
        """Run the step on what its input places hold now."""
        blas.on_one_thread(self._run)  # as when the products were recorded

    def _run(self) -> None:
        self._last = None
        calls = iter(self.calls)
        try:
            for function, args in calls:
                function(*args)
        except BaseException:
            # A signal handler may raise between a count and the kernel that it belongs to.
            at = len(self.calls) - length_hint(calls) - 1
            function, args = self.calls[at]
            if function == self.host and self._last is not None and self._last[0] is args[0]:
                args[0].restore(self._last[1])
            for before, tensor, grad in self._grads:
                if before <= at:
                    tensor._grad = grad
            raise

    def sets_grad(self, tensor: Any, grad: Any) -> None:
        """At this point the step sets a tensor's gradient."""
        self._grads.append((len(self.calls), tensor, grad))

    def close(self) -> None:
        """The step is over."""
        self._grads = [(len(self.renewed) + before, tensor, grad) for before, tensor, grad in self._grads]
        self.calls, self.renewed = self.renewed + self.calls, []

    def host(self, compute: Callable[[], Any], place: Any) -> None:
        """The host's work in every replay: call ``compute`` and write its numbers to ``place``, if there is one."""
        if isinstance(compute, dispatch.Count):
            self._last = compute, compute.save()
        numbers = compute()
        if place is not None:
            place[...] = numbers


# --- the recorder -----------------------------------------------------------------------------------------------------

_COPY = partial(np.copyto, casting="unsafe")


class Recorder(Rules):
    """Notes in :attr:`program` what is computed with :class:`Recorded` arrays, using memory of ``workspace``."""

    namespace = namespace

    def __init__(self, workspace: Workspace, lenient: bool = False) -> None:
        super().__init__(lenient)
        self.workspace = workspace
        self._lent = set(map(id, workspace.free))
        self.program = Program()
        self._known: set[int] = set()  # ids of host arrays that are part of the program
        self._constants: set[int] = set()  # ids of blocks that hold constants
        self._kept: list[Any] = []

    def finished(self) -> Program:
        """The program, after the end of the step."""
        self.program.close()
        return self.program

    # --- places

    def adopt(self, array: Any) -> Any:
        """Memory that outlives the step: an input, a parameter, a buffer."""
        return Recorded(array, None) if isinstance(array, np.ndarray) else array

    def enter(self, array: Any) -> Any:
        return self.constant(array) if isinstance(array, np.ndarray) else array

    def plain(self, array: Any) -> Any:
        return raw_of(array)

    def leave(self, array: Any) -> bool:
        """Its place is never reused from now on. Whether programs that were recorded before write there."""
        if type(array) is not Recorded or array.block is None:
            return False
        array.block.keep()
        return id(array.block.memory) in self._lent

    def sets_grad(self, tensor: Any, grad: Any) -> None:
        self.program.sets_grad(tensor, grad)

    def place(self, like: np.ndarray[Any, Any]) -> Recorded:
        """A new array of the step with the shape, dtype and layout of ``like``."""
        return Recorded(*self.workspace.like(like))

    def constant(self, host: np.ndarray[Any, Any]) -> Recorded:
        """An array that every replay finds as it is now; restored before each replay if the step writes into it."""
        if host.ndim and host.size > 1 and host.flags.writeable and id(host) not in self._known:
            self.foreign(host)
        return self._constant(host)

    def _constant(self, host: np.ndarray[Any, Any]) -> Recorded:
        # In memory of its own: the earlier users of a reused block would overwrite it in every replay.
        made = Recorded(*Workspace().like(host))
        made.raw[...] = host
        assert made.block is not None
        made.block.keep()
        self._constants.add(id(made.block))
        self._kept.append(made.block)
        return made

    def _written(self, array: Recorded) -> None:
        """The step writes into this array; if it is a constant, every replay must restore it."""
        if array.block is not None and id(array.block) in self._constants:
            self._constants.remove(id(array.block))
            memory = array.block.memory
            self.program.renewed.append((np.copyto, (memory, memory.copy())))

    # --- numbers and kernels

    def feed(self, compute: Callable[[], Any], place: Any) -> None:
        """At this point every replay calls ``compute`` on the host."""
        self._note(self.program.host, (compute, place))

    def numbers(self, compute: Callable[[], tuple[float, ...]], dtype: Any) -> Recorded:
        """See :func:`kobai.engine.dispatch.numbers`."""
        place = np.array(self.repeated(compute), dtype)
        self.feed(compute, place)
        self._known.add(id(place))
        self._kept.append(place)
        return Recorded(place, None)

    def launch(self, kernel: Callable[..., Any], args: tuple[Any, ...]) -> None:
        """Run a kernel and note it; see :func:`kobai.engine.dispatch.launch`."""
        for arg in args:
            if type(arg) is Recorded:
                self._written(arg)  # possibly
        raw = tuple(self._unwrap(arg) for arg in args)
        if hasattr(kernel, "bind"):
            self._do(kernel.bind(*raw))
        else:
            self._do_apart(kernel, *raw)

    def check(self, look: Callable[..., None], args: tuple[Any, ...]) -> None:
        """Run a check and note it; see :func:`kobai.engine.dispatch.check`."""
        self._do_apart(look, *(self._unwrap(arg) for arg in args))

    # --- calls

    def _note(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.program.calls.append((function, args))

    def _do(self, function: Callable[..., Any], *args: Any) -> None:
        function(*args)
        self._note(function, args)

    def _do_apart(self, function: Callable[..., Any], *args: Any) -> None:
        """:meth:`_do` of what may launch kernels of its own: these are no part of the step, for it calls them anew."""
        with apart():
            self._do(function, *args)

    def _unwrap(self, value: Any) -> Any:
        kind = type(value)
        if kind is Recorded:
            return value.raw
        if kind is tuple or kind is list:
            return kind(self._unwrap(part) for part in value)
        if isinstance(value, np.ndarray) and value.size > 1 and value.flags.writeable and id(value) not in self._known:
            return self.foreign(value)  # a read-only array is a table, the same in every step
        return value

    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call ``function(*args, **kwargs)``, a NumPy function, and note it."""
        name = getattr(function, "__name__", str(function))
        raw = tuple(self._unwrap(arg) for arg in args)
        options = {key: self._unwrap(value) for key, value in kwargs.items()}
        if name in numpy_calls.ASKS:
            return function(*raw, **options)
        if name in numpy_calls.SIZED_BY_VALUES:
            self.fail(f"captured step: the size of what {name} gives depends on values, which a replay cannot follow")
        ufunc = isinstance(function, np.ufunc)
        of_ufunc = isinstance(getattr(function, "__self__", None), np.ufunc)
        if function in numpy_calls.WRITES_FIRST or function in numpy_calls.WRITES_ITSELF or (of_ufunc and name == "at"):
            self._written(args[0])
            self._do(partial(function, **options) if options else function, *raw)
            return None
        out = kwargs.get("out")
        if ufunc and len(args) > function.nin:
            out = args[function.nin] if function.nout == 1 else tuple(args[function.nin :])
            raw, args = raw[: function.nin], args[: function.nin]
        options.pop("out", None)
        if out is not None:
            return self._into(function, raw, options, out)
        result = function(*raw, **options)
        if ufunc and function.nout > 1:
            return self._into(function, raw, options, tuple(self.place(np.asarray(part)) for part in result))
        if isinstance(result, (tuple, list)):
            parts = [self._part(function, args, raw, options, np.asarray(part), i) for i, part in enumerate(result)]
            return type(result)(*parts) if hasattr(result, "_fields") else type(result)(parts)
        if isinstance(result, (bool, int, float, str, np.dtype)) and not isinstance(result, np.generic):
            self.host_read(f"{name}()", np.asarray(result))
            return result
        result = np.asarray(result)
        if name in numpy_calls.CONSTANTS:
            return self._constant(result)
        if name == "getitem" and any(
            isinstance(part, np.ndarray) and part.dtype == bool and part.ndim
            for part in (raw[1] if isinstance(raw[1], tuple) else (raw[1],))
        ):
            self.fail("captured step: the size of a selection by a boolean mask depends on values; use where()")
        takes_out = ufunc or of_ufunc or name in numpy_calls.TAKES_OUT
        return self._part(function, args, raw, options, result, None, takes_out)

    def _into(self, function: Any, raw: tuple[Any, ...], options: dict[str, Any], out: Any) -> Any:
        """Do and note a call that writes its result into ``out``; returns ``out``."""
        outs = out if isinstance(out, tuple) else (out,)
        for array in outs:
            self._written(array)
        places = tuple(self._unwrap(array) for array in outs)
        by_position = isinstance(function, np.ufunc) and function not in (
            np.maximum,
            np.minimum,
        )  # deprecated for these
        if by_position and not options:
            self._do(function, *raw, *places)
        else:
            self._do(partial(function, **options, out=places if isinstance(out, tuple) else places[0]), *raw)
        return out

    def _part(
        self, function: Any, args: Any, raw: Any, options: Any, part: Any, i: int | None, takes_out: bool = False
    ) -> Recorded:
        """A result, or the i-th of several: a view of an operand, which needs no note, or a new place, filled."""
        for arg, array in zip(args, raw, strict=True):
            if type(arg) is Recorded and part.size and np.may_share_memory(part, array):
                return Recorded(part, arg.block)
        made = self.place(part)
        if takes_out:
            return self._into(function, raw, options, made)  # type: ignore[no-any-return]
        made.raw[...] = part
        self.program.allocating.append(getattr(function, "__name__", str(function)))
        self._note(_into_copy, (made.raw, i, function, raw, options))
        return made

    def copied(self, result: np.ndarray[Any, Any], source: Recorded) -> Recorded:
        """A place for ``result``, which is a copy of ``source``, possibly with another dtype."""
        made = self.place(result)
        self._do(_COPY, made.raw, source.raw)
        return made

    def assign(self, target: Recorded, index: Any, value: Any) -> None:
        """target[index] = value"""
        self._written(target)
        index, value = self._unwrap(index), self._unwrap(value)
        part = target.raw[index] if _basic(index) else None
        if isinstance(part, np.ndarray):
            self._do(_COPY, part, value)
        else:
            self._do(operator.setitem, target.raw, index, value)

    def where(self, condition: Any, x: Any, y: Any) -> Recorded:
        """``numpy.where`` has no ``out``: copy y into one place, then x where the condition holds."""
        condition, x, y = map(self._unwrap, (condition, x, y))
        made = self.place(np.where(condition, x, y))
        mask = np.asarray(condition)
        if mask.dtype != bool:
            chosen = self.place(np.asarray(mask != 0))
            self._kept.append(chosen)
            self._do(np.not_equal, mask, 0, chosen.raw)
            mask = chosen.raw
        self._do(_COPY, made.raw, y)
        self._do(partial(np.copyto, casting="unsafe", where=mask), made.raw, x)
        return made


def _basic(index: Any) -> bool:
    return all(
        part is None or part is Ellipsis or isinstance(part, (int, np.integer, slice))
        for part in (index if isinstance(index, tuple) else (index,))
    )


def _into_copy(place: Array, i: int | None, function: Any, args: Any, options: Any) -> None:
    result = function(*args, **options)
    result = result if i is None else result[i]
    if np.shape(result) != place.shape:
        raise CaptureError(
            f"captured step: {function.__name__} gave shape {np.shape(result)}, recorded was {place.shape}"
        )
    place[...] = result


_backend = Backend(
    "numpy",
    "cpu",
    lambda: (namespace, Recorded),
    from_host=lambda array: active().constant(array),
    to_host=lambda array: active().host_read("a copy to the host", array.raw),
    linalg_errors=nullcontext,
)
_xp.adopt_array_type(Recorded, namespace, _backend)
dispatch.HOST_TYPES.add(Recorded)

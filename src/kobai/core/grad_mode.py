"""Whether operations are recorded on the tape: ``no_grad`` and its relatives. A state of each thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial, wraps
from inspect import isgeneratorfunction
from threading import get_ident
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


class Mode(threading.local):
    grad = True
    block = 0
    """id of the innermost :class:`_Block` that is open, 0 for none."""


state = Mode()


def in_mode(grad: bool, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """``function(*args, **kwargs)`` with the tape on or off."""
    before, block = state.grad, state.block
    try:
        state.grad = grad
        return function(*args, **kwargs)
    finally:  # no call in here: a signal handler could raise before it
        state.grad = before
        state.block = block


class _Block:
    """Context manager that sets grad mode to ``new``. Reentrant, and shared between threads."""

    new: bool
    _before: dict[int, list[tuple[bool, int]]]  # by thread: what its open blocks return to

    def _outer(self) -> bool:
        return state.grad

    def __enter__(self) -> None:
        self._before.setdefault(get_ident(), []).append((self._outer(), state.block))
        state.grad, state.block = self.new, id(self)

    def __exit__(self, *error: object) -> None:
        before = self._before[get_ident()]
        state.grad, state.block = before[-1]
        before.pop()

    def __del__(self) -> None:
        """A signal handler may have raised before the first line of :meth:`__exit__`."""
        if state.block == id(self):
            state.grad, state.block = self._before[get_ident()][0]

    def __call__(self, function: F) -> F:
        return _decorated(function, self.new)


class set_grad_enabled(_Block):
    """Switch the tape on or off: as a function call, a ``with`` block, or (its subclasses) a decorator.

    >>> import kobai
    >>> x = kobai.ones(2, requires_grad=True)
    >>> with kobai.set_grad_enabled(False):
    ...     (x * 2).requires_grad
    False
    """

    def __init__(self, mode: bool) -> None:
        self._before = {}
        self._called = get_ident(), state.grad
        self.new = state.grad = bool(mode)

    def _outer(self) -> bool:
        thread, before = self._called
        return before if thread == get_ident() else state.grad

    def __call__(self, function: F) -> F:
        state.grad = self._called[1]  # a decorator acts only inside the function
        return super().__call__(function)


class _Switch(_Block):
    """A block that is also a decorator, with or without parentheses."""

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        if function is not None:
            return _decorated(function, cls.new)
        switch = super().__new__(cls)
        switch._before = {}
        return switch


def _decorated(function: F, new: bool) -> F:
    """``function`` in grad mode ``new``; a generator only while it runs, not while it is suspended."""

    @wraps(function)
    def inside(*args: Any, **kwargs: Any) -> Any:
        return in_mode(new, function, *args, **kwargs)

    @wraps(function)
    def generate(*args: Any, **kwargs: Any) -> Any:
        generator = function(*args, **kwargs)
        resume: Callable[[], Any] = partial(next, generator)
        while True:
            try:
                item = in_mode(new, resume)
            except StopIteration as end:
                return end.value
            try:
                resume = partial(generator.send, (yield item))
            except GeneratorExit:
                in_mode(new, generator.close)
                raise
            except BaseException as error:
                resume = partial(generator.throw, error)

    return generate if isgeneratorfunction(function) else inside  # type: ignore[return-value]


class no_grad(_Switch):
    """``with no_grad():`` or ``@no_grad()``: nothing inside is recorded on the tape.

    >>> import kobai
    >>> x = kobai.ones(2, requires_grad=True)
    >>> with kobai.no_grad():
    ...     y = x * 2
    >>> y.requires_grad
    False
    """

    new = False


class inference_mode(_Switch):
    """As :class:`no_grad`; the name PyTorch recommends for evaluation. ``inference_mode(False)`` changes nothing.

    >>> import kobai
    >>> x = kobai.ones(2, requires_grad=True)
    >>> with kobai.inference_mode():
    ...     y = x * 2
    >>> y.requires_grad
    False
    """

    new = False

    def __new__(cls, mode: bool | Callable[..., Any] = True) -> Any:
        switch = super().__new__(cls, None if isinstance(mode, bool) else mode)
        if mode is False:
            switch.new = state.grad
        return switch


class enable_grad(_Switch):
    """``with enable_grad():`` records on the tape again inside a :class:`no_grad` block.

    >>> import kobai
    >>> x = kobai.ones(2, requires_grad=True)
    >>> with kobai.no_grad(), kobai.enable_grad():
    ...     y = x * 2
    >>> y.requires_grad
    True
    """

    new = True


def is_inference_mode_enabled() -> bool:
    """Whether this is inside a block of ``inference_mode``, or of ``no_grad``, which is the same here.

    >>> import kobai
    >>> with kobai.inference_mode():
    ...     kobai.is_inference_mode_enabled()
    True
    """
    return not state.grad


def is_grad_enabled() -> bool:
    """Whether operations are recorded on the tape here.

    >>> import kobai
    >>> with kobai.no_grad():
    ...     kobai.is_grad_enabled()
    False
    >>> kobai.is_grad_enabled()
    True
    """
    return state.grad

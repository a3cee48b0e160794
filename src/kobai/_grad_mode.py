"""Whether operations are recorded on the tape: ``no_grad`` and its relatives. Every thread has its own answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial, wraps
from inspect import isgeneratorfunction
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


class Mode(threading.local):
    grad = True


state = Mode()


class set_grad_enabled:
    """Switch the tape on or off: as a function call, a ``with`` block, or (its subclasses) a decorator.

    >>> import kobai
    >>> x = kobai.ones(2, requires_grad=True)
    >>> with kobai.set_grad_enabled(False):
    ...     (x * 2).requires_grad
    False
    """

    def __init__(self, mode: bool) -> None:
        self._before = state.grad
        self._new = bool(mode)
        state.grad = self._new

    def __enter__(self) -> None:
        state.grad = self._new

    def __exit__(self, *error: object) -> None:
        state.grad = self._before

    def __call__(self, function: F) -> F:
        state.grad = self._before  # as a decorator it acts inside the function only
        return _decorated(function, lambda: set_grad_enabled(self._new))


class _Switch:
    """Context manager and decorator (with or without parentheses) that sets grad mode to ``new``."""

    new: bool

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        switch = super().__new__(cls)
        switch._before = []
        return switch if function is None else _decorated(function, cls)

    _before: list[bool]

    def __enter__(self) -> None:
        self._before.append(state.grad)
        state.grad = self.new

    def __exit__(self, *error: object) -> None:
        state.grad = self._before.pop()

    def __call__(self, function: F) -> F:
        return _decorated(function, lambda: self)


def _decorated(function: F, context: Callable[[], Any]) -> F:
    """``function`` run inside a fresh ``context``; a generator only while it computes, not while its user has the turn."""

    @wraps(function)
    def inside(*args: Any, **kwargs: Any) -> Any:
        with context():
            return function(*args, **kwargs)

    @wraps(function)
    def generate(*args: Any, **kwargs: Any) -> Any:
        generator = function(*args, **kwargs)
        resume: Callable[[], Any] = partial(next, generator)
        while True:
            try:
                with context():
                    item = resume()
            except StopIteration as end:
                return end.value
            try:
                resume = partial(generator.send, (yield item))
            except GeneratorExit:
                with context():
                    generator.close()
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

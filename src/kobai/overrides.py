"""``kobai.overrides``: for functions of programs that ask a ``__torch_function__``, as Kobai's own do (see ``Tensor``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

from kobai.compat.absent import within
from kobai.core.subclasses import ask, having
from kobai.core.tensor import Tensor

__all__ = [
    "handle_torch_function",
    "has_torch_function",
    "has_torch_function_unary",
    "has_torch_function_variadic",
    "is_tensor_like",
    "is_tensor_method_or_property",
    "resolve_name",
    "wrap_torch_function",
]


def has_torch_function(relevant_args: Iterable[Any]) -> bool:
    """Whether a class among the types of the arguments has a ``__torch_function__`` to be asked.

    >>> import kobai
    >>> has_torch_function((kobai.ones(1), kobai.nn.Parameter(kobai.ones(1))))
    False
    """
    return bool(having(relevant_args))


def has_torch_function_unary(arg: Any) -> bool:
    """:func:`has_torch_function` of one argument."""
    return bool(having((arg,)))


def has_torch_function_variadic(*args: Any) -> bool:
    """:func:`has_torch_function` of these arguments."""
    return bool(having(args))


def handle_torch_function(
    public_api: Callable[..., Any], relevant_args: Iterable[Any], *args: Any, **kwargs: Any
) -> Any:
    """What the classes among the arguments make of ``public_api(*args, **kwargs)``; the function itself if there are none."""
    return ask(public_api, args, kwargs)


def wrap_torch_function(dispatcher: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator: the function asks the classes of what ``dispatcher`` gives for its arguments.

    >>> import kobai
    >>> @wrap_torch_function(lambda x: (x,))
    ... def twice(x):
    ...     return 2 * x
    >>> twice(kobai.ones(1))
    tensor([2.])
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if having(dispatcher(*args, **kwargs)):
                return ask(wrapped, args, kwargs)
            return function(*args, **kwargs)

        return wrapped

    return decorate


def is_tensor_like(inp: Any) -> bool:
    """Whether it is a tensor, or its class has a ``__torch_function__``."""
    return isinstance(inp, Tensor) or hasattr(type(inp), "__torch_function__")


def is_tensor_method_or_property(func: Callable[..., Any]) -> bool:
    """Whether a function that a ``__torch_function__`` was given is a method of Tensor."""
    return any(func in (value, getattr(value, "fget", None)) for value in vars(Tensor).values())


def resolve_name(f: Any) -> str | None:
    """A readable name of such a function."""
    name = getattr(f, "__name__", None)
    return None if name is None else f"kobai.Tensor.{name}" if is_tensor_method_or_property(f) else f"kobai.{name}"


__getattr__ = within(
    __name__,
    """
    BaseTorchFunctionMode TorchFunctionMode enable_reentrant_dispatch get_default_nowrap_functions get_ignored_functions
    get_overridable_functions get_testing_overrides redispatch_function
    """,
)

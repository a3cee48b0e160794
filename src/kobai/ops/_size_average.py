"""``size_average`` and ``reduce``: what PyTorch's losses had before ``reduction``, and programs still write."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from kobai.errors import users_line

F = TypeVar("F", bound=Callable[..., Any])


def size_average(order: str) -> Callable[[F], F]:
    """A loss, or the ``__init__`` of one, that takes them too: by name, or in their places in PyTorch's ``order`` of names.

    What stands in the place of ``size_average`` and is a string was meant as a ``reduction``, as the losses here take it.
    """
    names = order.split()
    first = names.index("size_average")

    def declare(function: F) -> F:
        @wraps(function)
        def loss(*args: Any, **options: Any) -> Any:
            if len(args) > first and not isinstance(args[first], str):
                if len(args) > len(names):
                    raise TypeError(f"{function.__name__}: expected at most {len(names)} arguments, got {len(args)}")
                options |= zip(names[first:], args[first:], strict=False)
                args = args[:first]
            if "size_average" in options or "reduce" in options:
                average, reduce = options.pop("size_average", None), options.pop("reduce", None)
                if average is not None or reduce is not None:
                    options["reduction"] = _reduction(average, reduce)
            return function(*args, **options)

        return loss  # type: ignore[return-value]

    return declare


def _reduction(average: Any, reduce: Any, warn: bool = True) -> str:
    """What they say; either is True where only the other is given."""
    meant = "none" if reduce is not None and not reduce else "mean" if average is None or average else "sum"
    if warn:
        warnings.warn(
            f"size_average and reduce are PyTorch's older names; write reduction={meant!r}", stacklevel=users_line()
        )
    return meant

"""``kobai.compiler``: what programs say to PyTorch's compiler. Kobai has none, so functions stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from kobai.compat.absent import within

__all__ = [
    "allow_in_graph",
    "assume_constant_result",
    "compile",
    "cudagraph_mark_step_begin",
    "disable",
    "is_compiling",
    "is_dynamo_compiling",
    "is_exporting",
    "list_backends",
    "reset",
]

T = TypeVar("T")


def compile(
    model: Any = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: Any = "inductor",
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    disable: bool = False,
) -> Any:
    """``model``, a module or a function, itself: as with PyTorch's backend ``"eager"``, it runs as it is written.

    The same numbers come at the same speed, and ``state_dict`` keys have no ``_orig_mod.`` before them. The other arguments
    choose and steer PyTorch's compilers, and change nothing here. What makes Kobai faster is :func:`kobai.capture`, which
    records a whole training step. Without ``model`` a decorator.

    >>> import kobai
    >>> model = kobai.nn.Linear(2, 3)
    >>> kobai.compile(model, mode="reduce-overhead") is model
    True
    """
    if model is None:
        return allow_in_graph
    if not callable(model):
        raise TypeError(f"compile: expected a module or a function, got {type(model).__name__}")
    return model


def allow_in_graph(fn: T) -> T:
    """``fn`` itself."""
    return fn


assume_constant_result = allow_in_graph


def disable(fn: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    """``fn`` itself, or without it a decorator that returns a function itself: it is not compiled anyway."""
    return allow_in_graph if fn is None else fn


def is_compiling() -> bool:
    """Whether this code is being compiled: no."""
    return False


is_dynamo_compiling: Callable[[], bool] = is_compiling
is_exporting: Callable[[], bool] = is_compiling


def reset() -> None:
    """Forget what was compiled: nothing was."""


cudagraph_mark_step_begin: Callable[[], None] = reset


def list_backends(exclude_tags: Any = ()) -> list[str]:
    """The compilers there are: ``"eager"``, which compiles nothing."""
    return ["eager"]


__getattr__ = within(
    __name__,
    """
    config get_default_backend load_cache_artifacts load_compiled_function nested_compile_region save_cache_artifacts
    set_default_backend set_stance substitute_in_graph wrap_numpy
    """,
)

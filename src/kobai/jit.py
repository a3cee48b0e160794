"""``kobai.jit``: TorchScript's decorators, which leave what they decorate as it is; the rest of TorchScript is lacking.

What PyTorch compiles Kobai runs as Python, with the same numbers. To make a training step faster: :func:`kobai.capture`.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any, Final as Final, TypeVar

from kobai.compat.absent import within
from kobai.nn.module import Module

__all__ = [
    "Final",
    "Future",
    "ScriptModule",
    "TracerWarning",
    "annotate",
    "export",
    "fork",
    "freeze",
    "ignore",
    "interface",
    "is_scripting",
    "is_tracing",
    "isinstance",
    "optimize_for_inference",
    "script",
    "script_if_tracing",
    "script_method",
    "trace",
    "trace_module",
    "unused",
    "wait",
]

T = TypeVar("T")
isinstance = builtins.isinstance


def script(obj: T, optimize: None = None, _frames_up: int = 0, _rcb: Any = None, example_inputs: Any = None) -> T:
    """``obj``, a function, class or module, itself: nothing is compiled. The other arguments steer PyTorch's compiler.

    >>> import kobai
    >>> @kobai.jit.script
    ... def twice(x: kobai.Tensor) -> kobai.Tensor:
    ...     return 2 * x
    >>> twice(kobai.ones(2))
    tensor([2., 2.])
    """
    return obj


def export(fn: T) -> T:
    """``fn`` itself. So are :func:`interface`, :func:`unused`, :func:`script_method` and :func:`script_if_tracing`."""
    return fn


interface = unused = script_method = script_if_tracing = export


def ignore(drop: Any = False, **kwargs: Any) -> Any:
    """A decorator, with arguments or without, that returns the function itself."""
    return drop if callable(drop) else export


def trace(
    func: T,
    example_inputs: Any = None,
    optimize: None = None,
    check_trace: bool = True,
    check_inputs: Any = None,
    check_tolerance: float = 1e-5,
    strict: bool = True,
    _force_outplace: bool = False,
    _module_class: Any = None,
    _compilation_unit: Any = None,
    example_kwarg_inputs: Any = None,
    _store_inputs: bool = True,
) -> T:
    """``func`` itself, a function or a module: what it does for other inputs than ``example_inputs`` may differ.

    >>> import kobai
    >>> model = kobai.nn.Linear(2, 3)
    >>> kobai.jit.trace(model, kobai.ones(1, 2)) is model
    True
    """
    return func


def trace_module(mod: T, inputs: Any, *args: Any, **kwargs: Any) -> T:
    """``mod`` itself, as :func:`trace`."""
    return mod


def freeze(mod: T, preserved_attrs: Any = None, optimize_numerics: bool = True, preserve_parameters: bool = False) -> T:
    """``mod`` itself. So is what :func:`optimize_for_inference` gives."""
    return mod


def optimize_for_inference(mod: T, other_methods: Any = None) -> T:
    """``mod`` itself."""
    return mod


class Future:
    """The result of :func:`fork`."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def wait(self) -> Any:
        """The result."""
        return self._value

    value = wait

    def done(self) -> bool:
        """Whether there is one: yes."""
        return True


def fork(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Future:
    """Call ``func`` at once; :func:`wait` gives what it returned.

    >>> import kobai
    >>> kobai.jit.wait(kobai.jit.fork(max, 2, 3))
    3
    """
    return Future(func(*args, **kwargs))


def wait(future: Future) -> Any:
    """The result of what was forked."""
    return future.wait()


class ScriptModule(Module):
    """A module whose methods :func:`script_method` marks: an ordinary one."""


class TracerWarning(Warning):
    """What PyTorch warns of while it traces; programs turn it off."""


def annotate(the_type: Any, the_value: T) -> T:
    """``the_value``, whatever type it is said to have."""
    return the_value


def is_scripting() -> bool:
    """Whether this code was compiled: no."""
    return False


is_tracing: Callable[[], bool] = is_scripting
__getattr__ = within(
    __name__,
    """
    Attribute CompilationUnit Error RecursiveScriptClass RecursiveScriptModule ScriptFunction
    ScriptWarning TopLevelTracedModule TracedModule TracingCheckError enable_onednn_fusion
    export_opnames fuser last_executed_optimized_graph load onednn_fusion_enabled
    optimized_execution run_frozen_optimizations save set_fusion_strategy set_module strict_fusion
    """,
)

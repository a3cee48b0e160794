"""``kobai.jit``: TorchScript's decorators, which leave what they decorate as it is; the rest of TorchScript is lacking.

What PyTorch compiles Kobai runs as Python, with the same numbers. To make a training step faster: :func:`kobai.capture`.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any, Final as Final, TypeVar

from kobai.compat.absent import within

__all__ = [
    "Final",
    "annotate",
    "export",
    "ignore",
    "interface",
    "is_scripting",
    "is_tracing",
    "isinstance",
    "script",
    "script_if_tracing",
    "script_method",
    "unused",
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
    Attribute CompilationUnit Error Future RecursiveScriptClass RecursiveScriptModule ScriptFunction ScriptModule
    ScriptWarning TopLevelTracedModule TracedModule TracerWarning TracingCheckError enable_onednn_fusion
    export_opnames fork freeze fuser last_executed_optimized_graph load onednn_fusion_enabled optimize_for_inference
    optimized_execution run_frozen_optimizations save set_fusion_strategy set_module strict_fusion trace trace_module
    wait
    """,
)

"""What optimisers written for PyTorch import from ``torch.optim.optimizer`` beside ``Optimizer``: parts of its own ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from kobai.compat.absent import unchanged
from kobai.core.grad_mode import in_mode
from kobai.core.tensor import Tensor
from kobai.dtypes import float32, float64, get_default_dtype
from kobai.optim.groups import Params as ParamsT

F = TypeVar("F", bound=Callable[..., Any])

_params_t = ParamsT
StateDict = dict[str, Any]
_foreach_doc = _fused_doc = _capturable_doc = _differentiable_doc = _maximize_doc = _params_doc = ""
_disable_dynamo_if_unsupported = unchanged


def _use_grad_for_differentiable(step: F) -> F:
    """``step`` recorded on the tape where the optimiser is made with ``differentiable=True``, else not.

    >>> import kobai
    >>> class Plain(kobai.optim.Optimizer):
    ...     @_use_grad_for_differentiable
    ...     def step(self):
    ...         return kobai.is_grad_enabled()
    >>> Plain([kobai.ones(1)], {"differentiable": False}).step()
    False
    """

    @wraps(step)
    def stepped(self: Any, *args: Any, **kwargs: Any) -> Any:
        return in_mode(bool(self.defaults.get("differentiable")), step, self, *args, **kwargs)

    return stepped  # type: ignore[return-value]


def _default_to_fused_or_foreach(params: Any, differentiable: bool, use_fused: bool = False) -> tuple[bool, bool]:
    """Whether to take PyTorch's fused kernels, and its operations on lists: only what programs do one by one is certain."""
    return False, False


def _get_capturable_supported_devices(supports_xla: bool = True) -> list[str]:
    """Types of devices on which a step can be recorded while its counts are tensors."""
    return ["cuda"]


def _get_value(x: Any) -> Any:
    """A number of a tensor that holds one."""
    return x.item() if isinstance(x, Tensor) else x


def _to_scalar(x: Any) -> Any:
    """A tensor of one element without dimensions; others as they are."""
    return x.squeeze() if isinstance(x, Tensor) and x.dim() else x


def _stack_if_compiling(x: Any) -> Any:
    """``x``: nothing is compiled."""
    return x


def _get_scalar_dtype(is_fused: bool | None = None) -> Any:
    """The dtype of counts of steps that are tensors."""
    return float64 if get_default_dtype() == float64 and not is_fused else float32


def _view_as_real(params: Any, *states: Any) -> None:
    """Changes nothing: no tensor is complex."""


def _device_dtype_check_for_fused(p: Tensor, cuda_unsupported: bool = False) -> None:
    """RuntimeError for a tensor that is no float."""
    if not p.is_floating_point():
        raise RuntimeError(f"fused optimizers: expected parameters of floats, got {p.dtype}")

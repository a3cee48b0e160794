"""``kobai.autograd``: gradients as values, and operations with a hand-written backward."""

from kobai._tensor import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled
from kobai.autograd import functional
from kobai.autograd.function import Function
from kobai.autograd.grad import backward, grad
from kobai.gradcheck import gradcheck

__all__ = [
    "Function",
    "backward",
    "enable_grad",
    "functional",
    "grad",
    "gradcheck",
    "inference_mode",
    "is_grad_enabled",
    "no_grad",
    "set_grad_enabled",
]

"""``kobai.autograd``: gradients as values, and operations with a hand-written backward."""

from kobai.autograd import functional
from kobai.autograd.check import gradgradcheck
from kobai.autograd.function import Function
from kobai.autograd.grad import Variable, backward, grad
from kobai.core.anomaly import detect_anomaly, set_detect_anomaly
from kobai.core.grad_mode import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled
from kobai.gradcheck import gradcheck
from kobai.refusals import guard as _guard

__all__ = [
    "Function",
    "Variable",
    "backward",
    "detect_anomaly",
    "enable_grad",
    "functional",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "inference_mode",
    "is_grad_enabled",
    "no_grad",
    "set_detect_anomaly",
    "set_grad_enabled",
]

_guard(globals())

"""Averaging of weights under the names of ``torch.optim.swa_utils``: the averaged model, and the schedule that goes with it."""

from kobai.nn.averaging import (
    AveragedModel,
    get_ema_avg_fn,
    get_ema_multi_avg_fn,
    get_swa_avg_fn,
    get_swa_multi_avg_fn,
    update_bn,
)
from kobai.optim.lr_scheduler.swa import SWALR
from kobai.refusals import guard as _guard

__all__ = [
    "SWALR",
    "AveragedModel",
    "get_ema_avg_fn",
    "get_ema_multi_avg_fn",
    "get_swa_avg_fn",
    "get_swa_multi_avg_fn",
    "update_bn",
]

_guard(globals(), classes=True)

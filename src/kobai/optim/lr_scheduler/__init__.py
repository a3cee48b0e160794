"""Learning-rate schedules. PyTorch's ``torch.optim.lr_scheduler``; the values are PyTorch's, step by step."""

from kobai.compat.paths import connect as _connect
from kobai.optim.lr_scheduler.base import LRScheduler
from kobai.optim.lr_scheduler.compose import ChainedScheduler, SequentialLR
from kobai.optim.lr_scheduler.cosine import CosineAnnealingLR, CosineAnnealingWarmRestarts
from kobai.optim.lr_scheduler.cycle import CyclicLR, OneCycleLR
from kobai.optim.lr_scheduler.decay import (
    ConstantLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)
from kobai.optim.lr_scheduler.plateau import ReduceLROnPlateau
from kobai.refusals import guard as _guard

_LRScheduler = LRScheduler  # the base class's name before PyTorch 2.0; programs still subclass it

__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LambdaLR",
    "LinearLR",
    "LRScheduler",
    "MultiplicativeLR",
    "MultiStepLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
]

_guard(globals(), classes=True)
_connect(__name__)

for _name in __all__:
    globals()[_name].__module__ = __name__  # programs compare it with this module's name

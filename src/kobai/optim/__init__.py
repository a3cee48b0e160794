"""Optimisers: from gradients to the next parameters. PyTorch's ``torch.optim``."""

from kobai.compat.paths import connect as _connect
from kobai.optim import lr_scheduler
from kobai.optim.adadelta import Adadelta
from kobai.optim.adafactor import Adafactor
from kobai.optim.adagrad import Adagrad
from kobai.optim.adam import Adam, AdamW
from kobai.optim.adamax import Adamax
from kobai.optim.asgd import ASGD
from kobai.optim.lbfgs import LBFGS
from kobai.optim.muon import Muon
from kobai.optim.nadam import NAdam
from kobai.optim.optimizer import Optimizer
from kobai.optim.radam import RAdam
from kobai.optim.rmsprop import RMSprop
from kobai.optim.rprop import Rprop
from kobai.optim.sgd import SGD
from kobai.optim.sparse_adam import SparseAdam
from kobai.refusals import guard as _guard

__all__ = [
    "ASGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "LBFGS",
    "Muon",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SGD",
    "SparseAdam",
    "lr_scheduler",
]

_guard(globals(), classes=True)
_connect(__name__, ("swa_utils",))
_connect("kobai.optim.optimizer")  # by this name, under whatever name the package was imported

"""Optimisers: from gradients to the next parameters. PyTorch's ``torch.optim``."""

from kobai.optim import lr_scheduler
from kobai.optim.adadelta import Adadelta
from kobai.optim.adagrad import Adagrad
from kobai.optim.adam import Adam, AdamW
from kobai.optim.adamax import Adamax
from kobai.optim.nadam import NAdam
from kobai.optim.optimizer import Optimizer
from kobai.optim.radam import RAdam
from kobai.optim.rmsprop import RMSprop
from kobai.optim.sgd import SGD

__all__ = [
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "SGD",
    "lr_scheduler",
]

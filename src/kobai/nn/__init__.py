"""Layers, losses and everything they are made of; names, arguments and ``state_dict`` keys are PyTorch's.

A file lists what it offers in its ``__all__``, which is passed on here.
"""

from kobai.nn import functional as functional, init as init, parallel as parallel, utils as utils
from kobai.nn.activation import *
from kobai.nn.adaptive import *
from kobai.nn.batchnorm import *
from kobai.nn.container import *
from kobai.nn.conv import *
from kobai.nn.distance import *
from kobai.nn.dropout import *
from kobai.nn.embedding import *
from kobai.nn.lazy import *
from kobai.nn.linear import *
from kobai.nn.loss import *
from kobai.nn.margin import *
from kobai.nn.module import *
from kobai.nn.multihead import *
from kobai.nn.normalization import *
from kobai.nn.padding import *
from kobai.nn.parallel import *
from kobai.nn.parameter import *
from kobai.nn.pooling import *
from kobai.nn.resample import *
from kobai.nn.rnn import *
from kobai.nn.softmax import *
from kobai.nn.transformer import *
from kobai.refusals import guard as _guard

_guard(vars(init))
_guard(globals(), classes=True)

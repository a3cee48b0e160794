"""Layers, losses and everything they are made of; names, arguments and ``state_dict`` keys are PyTorch's."""

from kobai.nn import (
    activation,
    batchnorm,
    container,
    conv,
    distance,
    dropout,
    embedding,
    functional,
    init,
    lazy,
    linear,
    loss,
    module,
    multihead,
    normalization,
    padding,
    parameter,
    pooling,
    resample,
    rnn,
    softmax,
    transformer,
    utils,
)
from kobai.nn.activation import *
from kobai.nn.batchnorm import *
from kobai.nn.container import *
from kobai.nn.conv import *
from kobai.nn.distance import *
from kobai.nn.dropout import *
from kobai.nn.embedding import *
from kobai.nn.lazy import *
from kobai.nn.linear import *
from kobai.nn.loss import *
from kobai.nn.module import *
from kobai.nn.multihead import *
from kobai.nn.normalization import *
from kobai.nn.padding import *
from kobai.nn.parameter import *
from kobai.nn.pooling import *
from kobai.nn.resample import *
from kobai.nn.rnn import *
from kobai.nn.softmax import *
from kobai.nn.transformer import *

__all__ = ["functional", "init", "utils"]
__all__ += activation.__all__
__all__ += batchnorm.__all__
__all__ += container.__all__
__all__ += conv.__all__
__all__ += distance.__all__
__all__ += dropout.__all__
__all__ += embedding.__all__
__all__ += lazy.__all__
__all__ += linear.__all__
__all__ += loss.__all__
__all__ += module.__all__
__all__ += multihead.__all__
__all__ += normalization.__all__
__all__ += padding.__all__
__all__ += parameter.__all__
__all__ += pooling.__all__
__all__ += resample.__all__
__all__ += rnn.__all__
__all__ += softmax.__all__
__all__ += transformer.__all__

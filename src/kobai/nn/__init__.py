"""Layers, losses and everything they are made of; names, arguments and ``state_dict`` keys are PyTorch's."""

from kobai.nn import functional, init, utils
from kobai.nn.activation import (
    CELU,
    ELU,
    GELU,
    GLU,
    SELU,
    Hardshrink,
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    LeakyReLU,
    LogSigmoid,
    LogSoftmax,
    Mish,
    PReLU,
    ReLU,
    ReLU6,
    RReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softmin,
    Softplus,
    Softshrink,
    Softsign,
    Tanh,
    Tanhshrink,
    Threshold,
)
from kobai.nn.batchnorm import BatchNorm1d, BatchNorm2d, BatchNorm3d, InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from kobai.nn.container import ModuleDict, ModuleList, ParameterDict, ParameterList, Sequential
from kobai.nn.conv import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from kobai.nn.distance import CosineSimilarity, PairwiseDistance
from kobai.nn.dropout import AlphaDropout, Dropout, Dropout1d, Dropout2d, Dropout3d
from kobai.nn.linear import Bilinear, Flatten, Identity, Linear, Unflatten
from kobai.nn.loss import (
    BCELoss,
    BCEWithLogitsLoss,
    CosineEmbeddingLoss,
    CrossEntropyLoss,
    GaussianNLLLoss,
    HingeEmbeddingLoss,
    HuberLoss,
    KLDivLoss,
    L1Loss,
    MarginRankingLoss,
    MSELoss,
    NLLLoss,
    PoissonNLLLoss,
    SmoothL1Loss,
    SoftMarginLoss,
    TripletMarginLoss,
)
from kobai.nn.module import Module
from kobai.nn.normalization import GroupNorm, LayerNorm, RMSNorm
from kobai.nn.parameter import Parameter
from kobai.nn.rnn import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from kobai.nn.sparse import Embedding
from kobai.nn.transformer import MultiheadAttention, TransformerEncoder, TransformerEncoderLayer

"""Layers and losses as plain functions; names and arguments are PyTorch's.

Primitives live in :mod:`kobai.ops`; functions composed of them live in this package.
"""

from kobai.nn.functional import attention, distance, likelihood, lookup, margin, misc, spatial
from kobai.nn.functional.attention import *
from kobai.nn.functional.distance import *
from kobai.nn.functional.likelihood import *
from kobai.nn.functional.lookup import *
from kobai.nn.functional.margin import *
from kobai.nn.functional.misc import *
from kobai.nn.functional.spatial import *
from kobai.ops.activation import (
    celu,
    elu,
    gelu,
    hardshrink,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    logsigmoid,
    mish,
    prelu,
    relu,
    relu6,
    selu,
    silu,
    softplus,
    softshrink,
    softsign,
    tanhshrink,
    threshold,
)
from kobai.ops.batch_norm import batch_norm
from kobai.ops.conv import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d
from kobai.ops.cross_entropy import cross_entropy, nll_loss
from kobai.ops.dropout import (
    alpha_dropout,
    dropout,
    dropout1d,
    dropout2d,
    dropout3d,
    feature_alpha_dropout,
    rrelu,
)
from kobai.ops.fold import fold, unfold
from kobai.ops.gather import one_hot
from kobai.ops.linear import linear
from kobai.ops.loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    smooth_l1_loss,
)
from kobai.ops.norm import group_norm, instance_norm, layer_norm, normalize, rms_norm
from kobai.ops.pointwise import sigmoid, tanh
from kobai.ops.pool import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from kobai.ops.resample import channel_shuffle, interpolate, pixel_shuffle, pixel_unshuffle
from kobai.ops.softmax import glu, log_softmax, softmax, softmin

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "alpha_dropout",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "celu",
    "channel_shuffle",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "cross_entropy",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "elu",
    "feature_alpha_dropout",
    "fold",
    "gelu",
    "glu",
    "group_norm",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "huber_loss",
    "instance_norm",
    "interpolate",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_softmax",
    "logsigmoid",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "mish",
    "mse_loss",
    "nll_loss",
    "normalize",
    "one_hot",
    "pixel_shuffle",
    "pixel_unshuffle",
    "prelu",
    "relu",
    "relu6",
    "rms_norm",
    "rrelu",
    "selu",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "softmax",
    "softmin",
    "softplus",
    "softshrink",
    "softsign",
    "tanh",
    "tanhshrink",
    "threshold",
    "unfold",
]
__all__ += attention.__all__
__all__ += distance.__all__
__all__ += likelihood.__all__
__all__ += lookup.__all__
__all__ += margin.__all__
__all__ += misc.__all__
__all__ += spatial.__all__

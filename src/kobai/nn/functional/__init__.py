"""Layers and losses as plain functions; names and arguments are PyTorch's.

What is a primitive of its own lives in :mod:`kobai.ops`; what is put together from those lives in this package.
"""

from kobai.nn.functional.attention import scaled_dot_product_attention
from kobai.nn.functional.distance import cosine_similarity, normalize, pairwise_distance
from kobai.nn.functional.likelihood import gaussian_nll_loss, poisson_nll_loss
from kobai.nn.functional.margin import (
    cosine_embedding_loss,
    hinge_embedding_loss,
    margin_ranking_loss,
    soft_margin_loss,
    triplet_margin_loss,
)
from kobai.nn.functional.misc import bilinear, embedding, gumbel_softmax, pad
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
from kobai.ops.gather import one_hot
from kobai.ops.linear import linear
from kobai.ops.pointwise import sigmoid, tanh
from kobai.ops.softmax import glu, log_softmax, softmax, softmin

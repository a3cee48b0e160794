"""Layers and losses as plain functions; names and arguments are PyTorch's.

Primitives live in :mod:`kobai.ops`; functions composed of them live in this package. A file lists what it offers in its
``__all__``, which is passed on here.
"""

from kobai.nn.functional.attention import *
from kobai.nn.functional.distance import *
from kobai.nn.functional.likelihood import *
from kobai.nn.functional.lookup import *
from kobai.nn.functional.margin import *
from kobai.nn.functional.misc import *
from kobai.nn.functional.spatial import *
from kobai.ops.activation import *
from kobai.ops.batch_norm import *
from kobai.ops.conv import *
from kobai.ops.cross_entropy import *
from kobai.ops.ctc import *
from kobai.ops.dropout import *
from kobai.ops.fold import *
from kobai.ops.gather import one_hot as one_hot
from kobai.ops.linear import linear as linear
from kobai.ops.loss import *
from kobai.ops.norm import *
from kobai.ops.pointwise import sigmoid as sigmoid, tanh as tanh
from kobai.ops.pool import *
from kobai.ops.pool.adaptive import *
from kobai.ops.pool.rarer import *
from kobai.ops.resample import *
from kobai.ops.softmax import *

WITH_OUT = ("avg_pool2d", "avg_pool3d", "gelu", "hardshrink", "logsigmoid", "normalize", "softplus", "softshrink")
"""The functions here that take ``out=``, as in PyTorch, where few for layers do."""

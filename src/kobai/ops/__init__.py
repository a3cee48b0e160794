"""The primitives, one file per family: forward and vjp on one screen. Importing this package gives Tensor its methods.

What a family offers is listed in its ``__all__``; this package and ``kobai`` re-export it by ``import *``, or
:mod:`kobai.nn.functional` does.
"""

from kobai.ops.activation import *
from kobai.ops.arithmetic import *
from kobai.ops.assign import *
from kobai.ops.augment import *
from kobai.ops.broadcast import *
from kobai.ops.compare import *
from kobai.ops.conv import *
from kobai.ops.convert import *
from kobai.ops.create import *
from kobai.ops.einsum import *
from kobai.ops.extreme import *
from kobai.ops.gather import *
from kobai.ops.index import *
from kobai.ops.joining import *
from kobai.ops.like import *
from kobai.ops.linear import *
from kobai.ops.logic import *
from kobai.ops.memory import *
from kobai.ops.older import *
from kobai.ops.parts import *
from kobai.ops.pointwise import *
from kobai.ops.pool import *
from kobai.ops.pool.adaptive import *
from kobai.ops.products import *
from kobai.ops.random import *
from kobai.ops.rarer import *
from kobai.ops.real import *
from kobai.ops.rearrange import *
from kobai.ops.reduce import *
from kobai.ops.resample import *
from kobai.ops.rounding import *
from kobai.ops.running import *
from kobai.ops.scatter import *
from kobai.ops.shape import *
from kobai.ops.softmax import *
from kobai.ops.sort import *
from kobai.ops.special import *
from kobai.ops.statistics import *
from kobai.ops.strided import *
from kobai.ops.vector_norm import *

"""Kobai (勾配, "gradient"): neural networks on NumPy and, with one flag, on CuPy.

The API is PyTorch's: ``Tensor`` and its functions here, layers in ``kobai.nn``, optimisers in ``kobai.optim``, loaders in
``kobai.utils.data``; ``kobai.data`` has real data sets and ``kobai.train`` the Trainer. ``kobai.use("cupy")`` puts new arrays
on the GPU.
"""

from importlib import import_module as _import_module
from typing import Any as _Any

from kobai import amp, autograd, backends, cuda, linalg, random
from kobai.amp import autocast
from kobai.capture.step import capture
from kobai.compat.absent import ABSENT as _ABSENT
from kobai.core import conversion as _conversion  # item(), numpy(), float(), repr() of a tensor
from kobai.core.grad_mode import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled
from kobai.core.printing import set_printoptions
from kobai.core.tensor import Size, Tensor
from kobai.cuda import amp as _cuda_amp  # torch.cuda.amp
from kobai.dtypes import *
from kobai.dtypes import get_default_dtype, set_default_dtype
from kobai.linalg.older import *

# A family of operations lists its functions in its ``__all__``: a new operation touches one file. Functions are named here
# where PyTorch has only some of a family at the top level, the others in nn.functional.
from kobai.ops.activation import celu, prelu, relu, relu_, selu, threshold
from kobai.ops.arithmetic import *
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
from kobai.ops.parts import *
from kobai.ops.pointwise import *
from kobai.ops.pool import adaptive_avg_pool1d, avg_pool1d, max_pool1d, max_pool2d, max_pool3d
from kobai.ops.products import *
from kobai.ops.random import *
from kobai.ops.rarer import *
from kobai.ops.rearrange import *
from kobai.ops.reduce import *
from kobai.ops.resample import pixel_shuffle, pixel_unshuffle
from kobai.ops.rounding import *
from kobai.ops.running import *
from kobai.ops.scatter import *
from kobai.ops.shape import *
from kobai.ops.softmax import log_softmax, softmax
from kobai.ops.sort import *
from kobai.ops.special import *
from kobai.ops.statistics import *
from kobai.ops.vector_norm import *
from kobai.random import Generator, get_rng_state, initial_seed, manual_seed, seed, set_rng_state
from kobai.runtime import *
from kobai.serialization import load, save
from kobai.xp import available_backends, backend, device, use, using
from kobai.xp import default_device as get_default_device
from kobai.xp import use as set_default_device

from kobai import nn, optim, utils  # isort: skip - they use all of the above
from kobai.nn.functional import bilinear, cosine_similarity, pairwise_distance  # isort: skip - torch has these here too
from kobai.optim import swa_utils as _swa_utils  # isort: skip - kobai.optim.swa_utils

__version__ = "0.1.0"

_LAZY = ("data", "distributions", "func", "lab", "special", "testing", "train")


def __getattr__(name: str) -> _Any:
    if name in _LAZY:
        return _import_module(f"kobai.{name}")
    if name in _ABSENT:
        raise AttributeError(f"kobai has no {name!r}, unlike torch: {_ABSENT[name]}")
    from kobai.errors import nearest

    hint = "" if name.startswith("_") else nearest(name, [n for n in globals() if not n.startswith("_")])
    raise AttributeError(f"module 'kobai' has no attribute {name!r}.{hint}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})

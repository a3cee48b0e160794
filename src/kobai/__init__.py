"""Kobai (勾配, "gradient"): neural networks on NumPy and, with one flag, on CuPy.

The surface is PyTorch's: ``Tensor`` and its functions here, layers in ``kobai.nn``, optimisers in ``kobai.optim``, loaders
in ``kobai.utils.data``. ``kobai.use("cupy")`` puts new arrays on the GPU.
"""

# The functions of each family are listed once, in its ``__all__``: a new operation touches one file.

from kobai import autograd, cuda, random
from kobai._tensor import (
    Size,
    Tensor,
    enable_grad,
    get_default_dtype,
    inference_mode,
    is_grad_enabled,
    no_grad,
    set_default_dtype,
    set_grad_enabled,
)
from kobai.dtypes import *
from kobai.ops.arithmetic import *
from kobai.ops.compare import *
from kobai.ops.create import *
from kobai.ops.einsum import *
from kobai.ops.extreme import *
from kobai.ops.gather import *
from kobai.ops.index import *
from kobai.ops.linear import *
from kobai.ops.random import *
from kobai.ops.rearrange import *
from kobai.ops.reduce import *
from kobai.ops.shape import *
from kobai.ops.sort import *
from kobai.random import Generator, get_rng_state, initial_seed, manual_seed, seed, set_rng_state
from kobai.serialization import load, save
from kobai.xp import available_backends, backend, device, use, using

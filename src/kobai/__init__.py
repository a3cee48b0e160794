"""Kobai (勾配, "gradient"): neural networks on NumPy and, with one flag, on CuPy.

The API is PyTorch's: ``Tensor`` and its functions here, layers in ``kobai.nn``, optimisers in ``kobai.optim``, loaders in
``kobai.utils.data``; ``kobai.data`` has real data sets and ``kobai.train`` the Trainer. ``kobai.use("cupy")`` puts new arrays
on the GPU.
"""

# "x as x" says to type checkers that a name is meant for users.
from typing import TYPE_CHECKING as _TYPE_CHECKING

from kobai import amp, autograd, backends, cuda, linalg, random
from kobai.amp import (
    GradScaler as GradScaler,
    autocast as autocast,
    clear_autocast_cache as clear_autocast_cache,
    get_autocast_cpu_dtype as get_autocast_cpu_dtype,
    get_autocast_dtype as get_autocast_dtype,
    get_autocast_gpu_dtype as get_autocast_gpu_dtype,
    is_autocast_cache_enabled as is_autocast_cache_enabled,
    is_autocast_cpu_enabled as is_autocast_cpu_enabled,
    is_autocast_enabled as is_autocast_enabled,
    set_autocast_cache_enabled as set_autocast_cache_enabled,
    set_autocast_cpu_dtype as set_autocast_cpu_dtype,
    set_autocast_cpu_enabled as set_autocast_cpu_enabled,
    set_autocast_dtype as set_autocast_dtype,
    set_autocast_enabled as set_autocast_enabled,
    set_autocast_gpu_dtype as set_autocast_gpu_dtype,
)
from kobai.capture.step import capture as capture
from kobai.compat.einops import connect as _einops
from kobai.compat.paths import connect as _connect
from kobai.compat.versions import __version__ as __version__, torch_version as torch_version
from kobai.compiler import compile as compile
from kobai.core import (
    conversion as _conversion,  # item(), numpy(), float(), repr() of a tensor
    node_hooks as _node_hooks,  # y.grad_fn.register_hook
)
from kobai.core.grad_mode import (
    enable_grad as enable_grad,
    inference_mode as inference_mode,
    is_grad_enabled as is_grad_enabled,
    is_inference_mode_enabled as is_inference_mode_enabled,
    no_grad as no_grad,
    set_grad_enabled as set_grad_enabled,
)
from kobai.core.printing import set_printoptions as set_printoptions
from kobai.core.tensor import Size as Size, Tensor as Tensor
from kobai.cpu import memory as _memory  # has freed memory kept
from kobai.cuda import amp as _cuda_amp  # torch.cuda.amp
from kobai.dtypes import *
from kobai.dtypes import get_default_dtype as get_default_dtype, set_default_dtype as set_default_dtype
from kobai.errors import OutOfMemoryError as OutOfMemoryError
from kobai.linalg.older import *
from kobai.ops import directly as _directly  # in-place forms of operations

# A family of operations lists its functions in its ``__all__``: a new operation touches one file. Functions are named here
# where PyTorch has only some of a family at the top level, the others in nn.functional.
from kobai.ops._out import more_forms as _more_forms, offer_out as _offer_out
from kobai.ops.activation import (
    celu as celu,
    prelu as prelu,
    relu as relu,
    relu_ as relu_,
    selu as selu,
    threshold as threshold,
)
from kobai.ops.arithmetic import *
from kobai.ops.assign import *
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
from kobai.ops.older import *
from kobai.ops.parts import *
from kobai.ops.pointwise import *
from kobai.ops.pool import (
    avg_pool1d as avg_pool1d,
    max_pool1d as max_pool1d,
    max_pool2d as max_pool2d,
    max_pool3d as max_pool3d,
)
from kobai.ops.pool.adaptive import (
    adaptive_avg_pool1d as adaptive_avg_pool1d,
    adaptive_max_pool1d as adaptive_max_pool1d,
)
from kobai.ops.products import *
from kobai.ops.random import *
from kobai.ops.rare_special import *
from kobai.ops.rarer import *
from kobai.ops.real import *
from kobai.ops.rearrange import *
from kobai.ops.reduce import *
from kobai.ops.resample import pixel_shuffle as pixel_shuffle, pixel_unshuffle as pixel_unshuffle
from kobai.ops.rounding import *
from kobai.ops.running import *
from kobai.ops.scatter import *
from kobai.ops.shape import *
from kobai.ops.softmax import log_softmax as log_softmax, softmax as softmax
from kobai.ops.sort import *
from kobai.ops.special import *
from kobai.ops.statistics import *
from kobai.ops.strided import *
from kobai.ops.typed import *
from kobai.ops.vector_norm import *
from kobai.random import (
    Generator as Generator,
    default_generator as default_generator,
    get_rng_state as get_rng_state,
    initial_seed as initial_seed,
    manual_seed as manual_seed,
    seed as seed,
    set_rng_state as set_rng_state,
)
from kobai.refusals import guard as _guard
from kobai.runtime import *
from kobai.runtime import _assert as _assert
from kobai.serialization import load as load, save as save
from kobai.xp import (
    available_backends as available_backends,
    backend as backend,
    default_device as _default_device,
    device as device,
    use as use,
    using as using,
)

from kobai import nn, utils  # isort: skip - they use all of the above

from kobai.nn.functional import (  # isort: skip - torch has these here too
    alpha_dropout as alpha_dropout,
    bilinear as bilinear,
    channel_shuffle as channel_shuffle,
    cosine_similarity as cosine_similarity,
    dropout as dropout,
    feature_alpha_dropout as feature_alpha_dropout,
    group_norm as group_norm,
    hardshrink as hardshrink,
    layer_norm as layer_norm,
    pairwise_distance as pairwise_distance,
    rms_norm as rms_norm,
    rrelu as rrelu,
)

from kobai.autograd.samples import vmap as vmap  # isort: skip

if _TYPE_CHECKING:  # it comes with its first use
    from kobai import optim as optim

get_default_device, set_default_device = _default_device, use

_offer_out(globals())
_offer_out(vars(linalg))
_offer_out(vars(nn.functional), nn.functional.WITH_OUT)
for _place in (globals(), vars(linalg), vars(nn.functional)):
    _guard(_place)

_LAZY = (
    *("data", "distributions", "func", "lab", "optim", "sklearn", "special", "testing", "train", "transforms"),
    *(
        "accelerator",
        "compiler",
        "distributed",
        "jit",
        "library",
        "multiprocessing",
        "onnx",
        "profiler",
        "version",
        "types",
        "__config__",
    ),
)
_LAZY_IN = {
    "backends": ("mkldnn", "openmp"),
    "cuda": ("nvtx",),
    "nn": ("_reduction", "attention"),
    "nn.utils": ("fusion", "parametrizations", "parametrize", "prune"),
    "utils": ("checkpoint", "data", "dlpack"),
}
_einops()
_connect(__name__, _LAZY)
for _path in (
    *("amp", "autograd", "backends", "cuda", "cuda.amp", "linalg", "nn", "nn.functional", "nn.parameter", "nn.utils"),
    *("cpu", "ops", "utils"),
):
    _connect(f"{__name__}.{_path}", _LAZY_IN.get(_path, ()))


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


_more_forms(globals(), vars(nn.functional), methods=True)
_more_forms(vars(nn.functional), vars(nn.functional))

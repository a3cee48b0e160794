"""What PyTorch has and Kobai deliberately lacks: a name of it says what to do instead.

There are two kinds. A function or a dtype is missing: reading its name raises. Of a module, programs import names long before
they need them, if they ever do; so it can be imported, and what it holds in PyTorch is a :class:`StandIn` here, a class that
can be named in annotations, ``isinstance`` and ``except``, and that raises when it is called.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, NamedTuple, NoReturn, TypeVar

from kobai.errors import likely

T = TypeVar("T")

ONE_PROCESS = "Kobai trains in one process"
COMPLEX = "use two tensors, for real and imaginary parts"
SCIPY = "use scipy.special on tensor.numpy()"
POLYNOMIALS = "use numpy.polynomial on tensor.numpy(), or its recurrence"
QUANTISED = "use float32, float16 or bfloat16"
DENSE = "use dense tensors, or index_add and scatter_add"
VIEW = "use the function without _copy, and clone()"
CAPTURE = "record a training step once with kobai.capture"
OWN = "write the operation with autograd.Function"
RANDOM_WINDOWS = "use adaptive_max_pool2d or 3d, whose windows are not drawn at random"

INSTEAD = {
    "sparse_coo_tensor sparse_csr_tensor sparse_csc_tensor sparse_bsr_tensor": DENSE,
    "smm dsmm hspmm sspaddmm": "use mm: all tensors are dense",
    "linalg.eig linalg.eigvals": "its results are complex, which Kobai lacks; linalg.eigh is for symmetric matrices",
    "linalg.ldl_factor linalg.ldl_factor_ex linalg.ldl_solve": "use linalg.solve, or linalg.lu_factor and lu_solve",
    "svd_lowrank": "use pca_lowrank(A, q, center=False)",
    "distributions.Wishart distributions.GeneralizedPareto": ("write it as a Distribution, or draw with NumPy"),
    "special.airy_ai special.bessel_j0 special.bessel_j1 special.bessel_y0 special.bessel_y1": SCIPY,
    "special.modified_bessel_k0 special.modified_bessel_k1 special.spherical_bessel_j0": SCIPY,
    "special.scaled_modified_bessel_k0 special.scaled_modified_bessel_k1": SCIPY,
    "special.modified_bessel_i0 special.modified_bessel_i1": "use special.i0 and special.i1",
    "special.chebyshev_polynomial_t special.chebyshev_polynomial_u special.chebyshev_polynomial_v": POLYNOMIALS,
    "special.chebyshev_polynomial_w special.shifted_chebyshev_polynomial_t": POLYNOMIALS,
    "special.shifted_chebyshev_polynomial_u special.shifted_chebyshev_polynomial_v": POLYNOMIALS,
    "special.shifted_chebyshev_polynomial_w special.hermite_polynomial_h special.hermite_polynomial_he": POLYNOMIALS,
    "special.laguerre_polynomial_l special.legendre_polynomial_p": POLYNOMIALS,
    "histogramdd": "use histogram of each dimension, or numpy.histogramdd on tensor.numpy()",
    "segment_reduce": "use scatter_reduce, with the number of its segment for each element",
    "return_types": "results with several parts are named tuples: isinstance(result, tuple), result.values",
    "while_loop scan associative_scan": "write the loop in Python: kobai.capture records it",
    "nonzero_static": "use nonzero, whose result has the size that it has",
    "constant_pad_nd": "use nn.functional.pad",
    "grid_sampler_2d grid_sampler_3d": "use nn.functional.grid_sample",
    "empty_permuted new_empty_strided": "use empty_strided, or empty and permute",
    "as_strided_scatter slice": "assign to a part: y = x.clone(); y[1:3] = part",
    "alias_copy as_strided_copy diagonal_copy expand_copy narrow_copy permute_copy split_with_sizes_copy": VIEW,
    "squeeze_copy t_copy transpose_copy unbind_copy unfold_copy unsqueeze_copy view_copy": VIEW,
    "native_batch_norm native_group_norm native_layer_norm native_dropout_backward": (
        "PyTorch's functions of nn.functional call it; call those"
    ),
    "jiterator_unary jiterator_binary jiterator_binary_return_by_ref": OWN,
    "jiterator_4inputs_with_extra_args jiterator_2inputs_2outputs": OWN,
    "signal": "use hann_window, hamming_window, blackman_window and their like, or scipy.signal.windows",
    "hash_tensor": "use hashlib on tensor.numpy().tobytes()",
    "nn.functional.fractional_max_pool2d nn.functional.fractional_max_pool3d": RANDOM_WINDOWS,
    "nn.FractionalMaxPool2d nn.FractionalMaxPool3d": RANDOM_WINDOWS,
    "nn.functional.linear_cross_entropy nn.LinearCrossEntropyLoss": "use cross_entropy(linear(x, weight, bias), target)",
    "nn.CrossMapLRN2d": "use nn.LocalResponseNorm",
    "lstsq": "use linalg.lstsq, with the matrix first",
    "eig symeig": "use linalg.eigh, for symmetric matrices",
    "solve": "use linalg.solve, with the matrix first",
    "quantize_per_tensor quantize_per_channel quantize_per_tensor_dynamic": QUANTISED,
}
"""Names of ``torch`` -> what to do instead. It is said of methods of the same names too."""

NAMED = {
    "complex view_as_complex view_as_real": COMPLEX,
    "polar": "use two tensors, r cos φ and r sin φ",
    "stft": "its results are complex, which Kobai lacks; use a signal library on tensor.numpy()",
    "istft": "its input is complex, which Kobai lacks; use a signal library on tensor.numpy()",
    "cuda.CUDAGraph cuda.graph cuda.graph_pool_handle cuda.make_graphed_callables": CAPTURE,
}
"""Functions and classes that programs name, in aliases, tables and annotations, and seldom call: a stand-in is read."""

METHODS = {
    "to_sparse to_sparse_coo to_sparse_csr to_sparse_csc coalesce is_coalesced sparse_mask sparse_dim dense_dim": DENSE,
    "chalf cfloat cdouble": COMPLEX,
    "set_": "assign to x.data, or make a view",
}
"""Methods of tensors -> what to do instead."""

DTYPES = {
    "complex32 complex64 complex128 chalf cfloat cdouble": COMPLEX,
    "uint16 uint32 uint64": "use int32 or int64",
    "float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz": QUANTISED,
    "quint8 qint8 qint32 quint4x2": QUANTISED,
}
"""Dtypes that programs name, in tables or to compare with, and seldom use -> what to use instead."""

INSIDE = {
    "func.linearize": "use func.jvp",
    "func.functionalize": "use the function itself",
    "SymInt SymFloat SymBool": "every size is a Python number",
}
"""Names that modules of ours lack, and that programs import with them -> what to do instead."""

MODULES = {
    "sparse": DENSE,
    "fft": "its results are complex, which Kobai lacks; use numpy.fft on tensor.numpy()",
    "jit": "call the model itself; to save one, save model.state_dict()",
    "compiler fx export _dynamo _inductor _functorch _subclasses _custom_ops _prims_common _refs _decomp "
    "_guards _higher_order_ops _jit_internal _ops": (
        "call the model itself, or record a training step once with kobai.capture"
    ),
    "distributed utils.data.datapipes nn.parallel cuda.nccl cuda.comm": (
        "Kobai trains on one device, or in one group of processes: all_reduce and the others of kobai.distributed"
    ),
    "multiprocessing": f"{ONE_PROCESS}; DataLoader(num_workers=...) loads data in threads",
    "futures": f"{ONE_PROCESS}; use concurrent.futures",
    "quantization ao nn.quantized nn.quantizable nn.qat nn.intrinsic utils.mobile_optimizer": QUANTISED,
    "nested masked": "use a padded tensor with a mask, or nn.utils.rnn.pack_padded_sequence",
    "onnx": "kobai.onnx.export(model, args, path) writes a file, and kobai.onnx.load(path) reads it",
    "hub utils.model_zoo": "load a state_dict saved as safetensors instead",
    "package utils.bundled_inputs": "save model.state_dict(), and ship the model's source",
    "profiler utils.benchmark utils.flop_counter utils.bottleneck monitor": (
        "use Python's cProfile, utils.benchmark.Timer, or time.perf_counter() after kobai.cuda.synchronize()"
    ),
    "library utils.cpp_extension classes": OWN,
    "overrides utils._python_dispatch": "write a function that takes tensors",
    "autograd.graph": "use hooks of tensors and of modules, and utils.checkpoint to keep less",
    "autograd.forward_ad": "use func.jvp, which gives the value and the derivative in a direction",
    "cuda.graphs cuda.jiterator": CAPTURE,
    "cuda.profiler": "use Python's cProfile, or time.perf_counter() after kobai.cuda.synchronize()",
    "nn.attention.flex_attention nn.attention.varlen nn.attention.bias nn.attention.experimental": (
        "use functional.scaled_dot_product_attention with a mask"
    ),
    "storage cuda.sparse": "use tensors",
    "backends.cpu backends.opt_einsum backends.quantized backends.xnnpack": "nothing of Kobai depends on it",
    "quasirandom": "use scipy.stats.qmc.Sobol, and kobai.from_numpy",
    "_C": "nothing of Kobai lies in PyTorch's C++ library",
    "xpu mps mtia": "Kobai computes on the CPU and, with CuPy, on CUDA",
}
"""Modules of ``torch`` -> what to do instead of what is in them."""

ANSWERS = {
    "xpu.is_available mps.is_available mtia.is_available cuda.nccl.is_available": False,
    "xpu.device_count mps.device_count mtia.device_count": 0,
    "backends.cpu.get_cpu_capability": "DEFAULT",
    "cuda.profiler.start cuda.profiler.stop": None,
    "fx.is_fx_tracing _dynamo.is_compiling package.is_from_package": False,
    "_C._are_functorch_transforms_active _C._is_tracing _subclasses.fake_tensor.is_fake": False,
    "profiler.kineto_available": False,
    "_C._get_tracing_state _C._log_api_usage_once": None,
}
"""What programs ask these modules before they use them -> what it is here."""

UNCHANGED = (
    "fx.wrap _dynamo.disable _dynamo.allow_in_graph jit._overload jit._overload_method "
    "distributed.rpc.api._require_initialized "
    "_jit_internal._copy_to_script_wrapper _jit_internal._overload _jit_internal._overload_method"
)
"""Decorators that say something to PyTorch's engines alone."""


def _by_name(table: dict[str, T]) -> dict[str, T]:
    return {name: advice for names, advice in table.items() for name in names.split()}


ABSENT, LACKING, ABSENT_MODULES = _by_name(INSTEAD), _by_name(INSIDE), _by_name(MODULES)
ABSENT_METHODS, ABSENT_NAMED = _by_name(METHODS), _by_name(NAMED)


class AbsentDtype:
    """A dtype of PyTorch's that no tensor of Kobai's has. It can be named and compared; making a tensor of it raises.

    >>> import kobai
    >>> kobai.ones(2).dtype == kobai.complex64, kobai.complex64.is_complex
    (False, True)
    """

    is_signed = True

    def __init__(self, name: str, advice: str) -> None:
        self._name, self._advice = name, advice
        self.__module__ = "kobai"  # where pickle finds it
        self.is_complex = advice is COMPLEX
        self.is_floating_point = name.startswith("float")

    def __repr__(self) -> str:
        return f"kobai.{self._name}"

    def __reduce__(self) -> str:
        return self._name

    @property
    def dtype(self) -> NoReturn:
        """What NumPy asks for."""
        raise TypeError(f"kobai has no tensors of {self._name}, unlike torch: {self._advice}")


NAMED_DTYPES = {name: AbsentDtype(name, advice) for name, advice in _by_name(DTYPES).items()}


def _answer(value: Any) -> Callable[..., Any]:
    def answer(*args: Any, **kwargs: Any) -> Any:
        return value

    answer.__doc__ = f"{value!r}, always."
    return answer


def unchanged(fn: Any = None, *args: Any, **kwargs: Any) -> Any:
    """``fn`` itself; without it, a decorator that returns a function itself."""
    return unchanged if fn is None else fn


class UnpackedDualTensor(NamedTuple):
    """A tensor, and its tangent in forward-mode differentiation."""

    primal: Any
    tangent: Any


def unpack_dual(tensor: Any, *, level: int | None = None) -> UnpackedDualTensor:
    """``tensor`` without a tangent: no tensor has one here."""
    return UnpackedDualTensor(tensor, None)


PRESENT: dict[str, Any] = {name: _answer(value) for name, value in _by_name(ANSWERS).items()}
PRESENT.update(dict.fromkeys(UNCHANGED.split(), unchanged))
PRESENT["autograd.forward_ad.unpack_dual"] = unpack_dual
PRESENT.update({"backends.opt_einsum.enabled": False, "backends.xnnpack.enabled": False})


def sentence(path: str) -> str:
    """What is said of ``path`` (``"hub.load"``), which Kobai lacks; empty if it does not lack it.

    >>> sentence("hub.load")
    "kobai has no 'hub.load', unlike torch: load a state_dict saved as safetensors instead"
    """
    advice = ABSENT.get(path) or LACKING.get(path) or ABSENT_NAMED.get(path)
    if advice is None:
        advice = ABSENT_MODULES.get(module_above(path))
    return "" if advice is None else f"kobai has no {path!r}, unlike torch: {advice}"


def of_tensors(name: str, known: Iterable[str]) -> str:
    """End of an error message about an attribute that tensors lack: what to do instead, or which name is meant.

    >>> of_tensors("to_sparse", []), of_tensors("resize_as", ["resize_as_"])
    (' Use dense tensors, or index_add and scatter_add.', " Did you mean 'resize_as_'?")
    """
    advice = ABSENT_METHODS.get(name) or ABSENT.get(name) or ABSENT_NAMED.get(name)
    return f" {advice[0].upper()}{advice[1:]}." if advice else likely(name, known)


def module_above(path: str) -> str:
    """The module of ABSENT_MODULES that ``path`` names or that it lies in; empty if there is none."""
    while path and path not in ABSENT_MODULES:
        path = path.rpartition(".")[0]
    return path


class MissingName(AttributeError):
    """A module of ours has no such name. What to do instead, or which name is meant, is found out when that is read."""

    args: tuple[str, str]  # the module's name, and what it lacks; nothing is worked out before it is shown

    def advice(self) -> str:
        """The sentence of what Kobai lacks, else the public name that looks the same; else nothing."""
        module, name = self.args
        hint = likely(name, dir(sys.modules.get(module)))
        return sentence(f"{module}.{name}".removeprefix("kobai.")) or (
            f"module {module!r} has no attribute {name!r}.{hint}" if hint else ""
        )

    def __str__(self) -> str:
        module, name = self.args
        return self.advice() or f"module {module!r} has no attribute {name!r}"


class StandIn(type):
    """Class of what stands for a name of PyTorch that Kobai lacks. Calling it raises, and nothing is an instance of it.

    >>> import kobai
    >>> isinstance(kobai.nn.Linear(2, 3), kobai.fx.GraphModule)
    False
    >>> kobai.hub.load()
    Traceback (most recent call last):
    NotImplementedError: kobai has no 'hub.load', unlike torch: load a state_dict saved as safetensors instead
    """

    path: str

    def __call__(cls, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(sentence(cls.path))

    def __getattr__(cls, name: str) -> Any:  # ReduceOp.SUM, an argument's default perhaps
        path = f"{cls.path}.{name}"
        if name.startswith("_") and path not in PRESENT:
            raise AttributeError(f"{cls!r} has no attribute {name!r}")
        setattr(cls, name, made := PRESENT.get(path) or stand_in(path))
        return made

    def __getitem__(cls, parameters: Any) -> StandIn:  # Future[Tensor], in an annotation
        return cls

    def __repr__(cls) -> str:
        return f"<{sentence(cls.path)}>"


@cache
def stand_in(path: str) -> StandIn:
    """What stands for ``path``."""
    above, _, name = f"kobai.{path}".rpartition(".")
    return StandIn(name, (), {"path": path, "__module__": above, "__doc__": sentence(path)})


def within(module: str, names: str | None = None) -> Callable[[str], Any]:
    """``__getattr__`` of a module that lacks what else PyTorch's has: ``names``, or whatever it is asked for.

    A file of ours gives names, because others than its users ask it for names: test runners, for example. Paths of PyTorch's
    lie beneath it, as beneath a package.

    >>> import kobai.hub
    >>> within("kobai.hub")("load").__module__
    'kobai.hub'
    """
    path = module.removeprefix("kobai.")
    vars(sys.modules[module]).setdefault("__path__", [])
    lacking = None if names is None else frozenset(names.split())

    def __getattr__(name: str) -> Any:
        made = PRESENT.get(f"{path}.{name}")
        if made is None:
            if name.startswith("_") or (lacking is not None and name not in lacking):
                raise MissingName(module, name)
            made = stand_in(f"{path}.{name}")
        setattr(sys.modules[module], name, made)
        return made

    return __getattr__

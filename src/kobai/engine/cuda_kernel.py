"""Kernels in CUDA C: how their source is put together, compiled at first use, and launched on CuPy's current stream.

A kernel is written once for all float dtypes: ``T`` is the type of the elements, ``A`` the one in which sums are added up.
CuPy compiles it with NVRTC for the device at hand and keeps the machine code on disk (``CUPY_CACHE_DIR``).
Without a device every kernel is still proven: ``tests/kernel_data`` says what each must give.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from kobai.dtypes import bfloat16
from kobai.engine.notices import compiling

KERNELS: dict[str, CudaKernel] = {}
"""Every kernel by name: what the proof without a device goes through, and ``kobai warmup``."""

TYPES = {
    "float32": ("float", "float"),
    "float64": ("double", "double"),
    "float16": ("half", "float"),
    "bfloat16": ("bfloat16", "float"),
}
"""dtype: (T, A)"""

EVERY_FLOAT = tuple(TYPES)
"""The dtypes of a kernel that loads and stores ``T`` and computes in ``A``."""

C_DTYPES = {
    "bool": np.bool_,
    "signed char": np.int8,
    "unsigned char": np.uint8,
    "short": np.int16,
    "unsigned short": np.uint16,
    "int": np.int32,
    "unsigned int": np.uint32,
    "long long": np.int64,
    "unsigned long long": np.uint64,
    "half": np.float16,
    "bfloat16": bfloat16.dtype,
    "float": np.float32,
    "double": np.float64,
}

PRELUDE = r"""
#define EACH(i, n) \
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < (n); i += (long long)gridDim.x * blockDim.x)

struct bfloat16 {  // the upper half of a float, rounded to the nearest, ties to even
    unsigned short bits;
    bfloat16() = default;
    __device__ bfloat16(float value) {
#if __CUDA_ARCH__ >= 800
        asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
#else
        unsigned word;
        memcpy(&word, &value, sizeof word);
        bits = value != value ? 0x7fff : (word + 0x7fff + (word >> 16 & 1)) >> 16;
#endif
    }
    __device__ operator float() const {
        const unsigned word = (unsigned)bits << 16;
        float value;
        memcpy(&value, &word, sizeof value);
        return value;
    }
};

// NaN wins, as in NumPy; CUDA's fmax and fmin drop it
template <typename V> __device__ inline V maximum(V a, V b) { return a > b || a != a ? a : b; }
template <typename V> __device__ inline V minimum(V a, V b) { return a < b || a != a ? a : b; }

struct Sum { template <typename V> __device__ static V of(V a, V b) { return a + b; } };
struct Max { template <typename V> __device__ static V of(V a, V b) { return maximum(a, b); } };
struct Min { template <typename V> __device__ static V of(V a, V b) { return minimum(a, b); } };

// Every thread of the warp gets the result. The whole warp must arrive.
template <typename F, typename V> __device__ inline V warp_reduce(V v) {
    for (int distance = 16; distance > 0; distance >>= 1) v = F::of(v, __shfl_xor_sync(0xffffffffu, v, distance));
    return v;
}

// Every thread of the block gets the result, the same bits in all of them. The whole block must arrive.
template <typename F, typename V> __device__ inline V block_reduce(V v, V nothing) {
    __shared__ V parts[32];
    v = warp_reduce<F>(v);
    if (blockDim.x <= 32) return v;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    __syncthreads();  // the parts of the reduction before have been read
    if (lane == 0) parts[warp] = v;
    __syncthreads();
    return warp_reduce<F>(lane < (int)(blockDim.x >> 5) ? parts[lane] : nothing);
}

template <typename V> __device__ inline V warp_sum(V v) { return warp_reduce<Sum>(v); }
template <typename V> __device__ inline V warp_max(V v) { return warp_reduce<Max>(v); }
template <typename V> __device__ inline V block_sum(V v) { return block_reduce<Sum>(v, V(0)); }
template <typename V> __device__ inline V block_max(V v) { return block_reduce<Max>(v, V(-INFINITY)); }
template <typename V> __device__ inline V block_min(V v) { return block_reduce<Min>(v, V(INFINITY)); }

// Leave a code and a value where the host will look, unless another thread or kernel has: see engine/faults.py
__device__ inline void report(unsigned long long* fault, unsigned long long code, unsigned long long value) {
    if (atomicCAS(fault, 0ULL, code) == 0) fault[1] = value;
}

// The memory that a kernel asked for with shared=: seen as an array of V
template <typename V> __device__ inline V* shared_memory() { return reinterpret_cast<V*>(shared_words); }
"""
"""What every kernel may use beside CUDA itself. Blocks are one-dimensional, of a multiple of 32 threads."""

DEVICE = r"""
#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif
#ifndef NAN
#define NAN __int_as_float(0x7fffffff)
#endif
extern __shared__ double2 shared_words[];  // double2: aligned for the widest loads

struct half {  // written out, for NVRTC has no header of its own for it
    unsigned short bits;
    half() = default;
    __device__ half(float value) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value)); }
    __device__ operator float() const {
        float value;
        asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
        return value;
    }
};
"""
"""What stands before it on a device; the proof on the host puts its own definitions there."""

OPTIONS = ("--std=c++17",)
"""For NVRTC. Neither fast mathematics nor flushed denormals: float32 means float32."""


def types(dtype: Any) -> str:
    """The definitions of T and A."""
    element, total = TYPES[np.dtype(dtype).name]
    return f"typedef {element} T;\ntypedef {total} A;\n"


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel as its signature declares it."""

    declared: str
    ctype: str
    name: str
    pointer: bool
    count: int
    """0, or n for ``ctype name[n]``: numbers that come by value in a tuple, or in an array on the device."""


_PARAMETER = re.compile(r"^(?:const\s+)?([\w\s]+?)\s*(\*?)\s*(?:__restrict__\s+)?(\w+)(?:\[(\d+)\])?$")


def _parameters(name: str, signature: str, structs: Mapping[str, Any]) -> tuple[Parameter, ...]:
    found = []
    for part in signature.split(","):
        match = _PARAMETER.match(part.strip())
        if match is None or match[1] not in {*C_DTYPES, *structs, "T", "A"}:
            raise ValueError(f"CudaKernel {name!r}: expected 'type name', 'type* name' or 'type name[n]', got {part!r}")
        found.append(Parameter(part.strip(), match[1], match[3], bool(match[2]), int(match[4] or 0)))
    return tuple(found)


class CudaKernel:
    """A kernel in CUDA C, for example ``CudaKernel("scale", "const T* x, T* y, A a, int n", "EACH(i, n) y[i] = a * x[i];")``.

    ``signature`` lists the parameters: pointers (``T*``, ``const long long*``), numbers by value (``int``, ``A``, …), and
    ``A h[3]`` for numbers that :func:`kobai.engine.dispatch.numbers` gave: the body reads ``h[0]`` … whether they came as a
    tuple (then they travel by value) or as an array on the device (in a captured step). ``body`` is the inside of the
    function; ``prelude`` stands before it, for functions of its own. ``threads`` per block, a multiple of 32; ``shared``
    bytes for ``shared_memory<V>()``. ``dtypes`` are those that ``T`` may be. ``structs`` are types of the prelude that may be
    parameters by value, with NumPy's dtypes: 0-d arrays of these are the arguments.

    Launched through :func:`kobai.engine.dispatch.launch`: ``launch(KERNEL, grid, args)``, with ``threads`` and ``shared``
    behind if this launch needs others. ``T`` is the dtype of the first ``T*`` argument that is not None; a kernel without
    one is launched as ``KERNEL.of(dtype)``. Every instance is in :data:`KERNELS`.
    """

    def __init__(
        self,
        name: str,
        signature: str,
        body: str,
        *,
        threads: int = 256,
        shared: int = 0,
        prelude: str = "",
        dtypes: Sequence[str] = ("float32", "float64"),
        structs: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        if name in KERNELS:
            raise ValueError(f"CudaKernel: there is a kernel {name!r} already")
        if threads % 32 or not 32 <= threads <= 1024:
            raise ValueError(f"CudaKernel {name!r}: expected threads to be a multiple of 32 up to 1024, got {threads}")
        self.name, self.body, self.prelude = name, body, prelude
        self.structs = structs
        self.parameters = _parameters(name, signature, structs)
        self.threads, self.shared, self.dtypes = threads, shared, tuple(dtypes)
        self._typed: dict[Any, TypedKernel] = {}
        self._elements = [i for i, p in enumerate(self.parameters) if p.pointer and p.ctype == "T"]
        KERNELS[name] = self

    def __repr__(self) -> str:
        return f"CudaKernel({self.name!r})"

    def of(self, dtype: Any) -> TypedKernel:
        """The kernel for elements of this dtype."""
        found = self._typed.get(dtype)
        if found is None:
            name = np.dtype(dtype).name
            if name not in self.dtypes:
                raise TypeError(
                    f"CUDA kernel {self.name!r}: expected elements of {' or '.join(self.dtypes)}, got {name}"
                )
            found = self._typed[dtype] = self._typed.get(np.dtype(dtype)) or TypedKernel(self, np.dtype(dtype))
        return found

    def __call__(self, grid: int | tuple[int, ...], args: Sequence[Any], threads: int = 0, shared: int = -1) -> None:
        for i in self._elements:
            if args[i] is not None:
                return self.of(args[i].dtype)(grid, args, threads, shared)
        raise TypeError(f"CUDA kernel {self.name!r}: no argument says its dtype, use .of(dtype)")

    def blocks(self, n: int) -> int:
        """How many blocks give each of ``n`` elements a thread; beyond 65,536, threads take several (``EACH``)."""
        return min(-(-n // self.threads), 1 << 16)

    def source(self, dtype: Any, on_device: Sequence[str] = ()) -> str:
        """CUDA C for one dtype, but for what stands before :data:`PRELUDE`; numbers named in ``on_device`` come in arrays."""
        return f"{PRELUDE}{types(dtype)}{self.prelude}{self.function(dtype, on_device)}"

    def function(self, dtype: Any, on_device: Sequence[str] = ()) -> str:
        """The function itself, behind the definitions of T and A and the kernel's own prelude."""
        parameters, values = [], ""
        for p in self.parameters:
            if not p.count:
                parameters.append(p.declared)
            elif p.name in on_device:
                parameters.append(f"const {p.ctype}* __restrict__ {p.name}")
            else:
                parts = [f"{p.name}_{i}" for i in range(p.count)]
                parameters += [f"{p.ctype} {part}" for part in parts]
                values += f"    const {p.ctype} {p.name}[{p.count}] = {{{', '.join(parts)}}};\n"
        head = f'extern "C" __global__ void __launch_bounds__({self.threads}) {self.symbol(dtype, on_device)}'
        return f"\n{head}({', '.join(parameters)}) {{\n{values}{self.body}\n}}\n"

    def symbol(self, dtype: Any, on_device: Sequence[str] = ()) -> str:
        """Name of the compiled function, as profilers show it."""
        return "_".join(["kobai", self.name, np.dtype(dtype).name, *on_device])


class TypedKernel:
    """A :class:`CudaKernel` for one dtype: converts the arguments as declared, compiles at the first launch."""

    def __init__(self, kernel: CudaKernel, dtype: Any) -> None:
        self.kernel, self.dtype = kernel, dtype
        names = dict(zip(("T", "A"), TYPES[dtype.name], strict=True))
        known = {**C_DTYPES, **kernel.structs}
        self.dtypes = tuple(np.dtype(known[names.get(p.ctype, p.ctype)]) for p in kernel.parameters)
        self._compiled: dict[tuple[str, ...], Any] = {}

    def __repr__(self) -> str:
        return f"{self.kernel!r}.of({self.dtype.name!r})"

    def __call__(self, grid: int | tuple[int, ...], args: Sequence[Any], threads: int = 0, shared: int = -1) -> None:
        kernel = self.kernel
        grid = grid if isinstance(grid, tuple) else (grid,)
        threads = threads or kernel.threads
        if len(args) != len(kernel.parameters) or threads % 32 or not 0 < threads <= kernel.threads:
            raise TypeError(
                f"CUDA kernel {kernel.name!r}: expected {len(kernel.parameters)} arguments and a multiple of 32 threads "
                f"up to {kernel.threads}, got {len(args)} and {threads}"
            )
        if 0 in grid:
            return  # nothing to do; CUDA would call it an error
        packed, on_device = self.packed(args)
        run = self._compiled.get(on_device) or self.compile(on_device)
        run(grid, (threads,), packed, shared_mem=kernel.shared if shared < 0 else shared)

    def packed(self, args: Sequence[Any]) -> tuple[tuple[Any, ...], tuple[str, ...]]:
        """The arguments as the compiled function takes them, and which numbers are in arrays on the device."""
        packed: list[Any] = []
        on_device: tuple[str, ...] = ()
        for p, dtype, arg in zip(self.kernel.parameters, self.dtypes, args, strict=True):
            if p.pointer:
                if arg is not None and arg.dtype != dtype:
                    raise TypeError(f"CUDA kernel {self.kernel.name!r}: expected {p.name} of {dtype}, got {arg.dtype}")
                packed.append(arg)
            elif p.ctype in self.kernel.structs:
                packed.append(arg)  # CuPy hands over the bytes of a NumPy array with one element
            elif not p.count:
                packed.append(dtype.type(arg))
            elif len(arg) != p.count:
                raise TypeError(
                    f"CUDA kernel {self.kernel.name!r}: expected {p.count} numbers {p.name}, got {len(arg)}"
                )
            elif isinstance(arg, (tuple, list)):
                packed += map(dtype.type, arg)
            elif arg.dtype != dtype:
                raise TypeError(f"CUDA kernel {self.kernel.name!r}: expected {p.name} of {dtype}, got {arg.dtype}")
            else:
                packed.append(arg)
                on_device += (p.name,)
        return tuple(packed), on_device

    def compile(self, on_device: tuple[str, ...] = ()) -> Any:
        """The function for CuPy to launch; NVRTC takes some tenths of a second unless its result is on disk already."""
        cupy = importlib.import_module("cupy")
        source = DEVICE + self.kernel.source(self.dtype, on_device)
        run = cupy.RawKernel(source, self.kernel.symbol(self.dtype, on_device), options=OPTIONS)
        with compiling(f"{self.kernel.name} (CUDA, {self.dtype.name})"):
            run.compile()
        self._compiled[on_device] = run
        return run

"""A simulated CUDA device beneath CuPy as it is on PyPI: for tests, on machines that have no GPU.

``KOBAI_SIMULATE_GPU=1 pytest -m gpu`` in an environment that has CuPy and g++ runs CuPy's own Python and Cython code, and
Kobai's, unchanged. What lies beneath is replaced::

    Kobai ──► CuPy's Python and Cython ──► runtime, driver      runtime.py, driver.py, device.py: memory, streams, graphs
                                      ├──► NVRTC                nvrtc.py: g++ with cuda.h, a library in place of a cubin
                                      ├──► cuBLAS, cuSOLVER     blas.py, solver.py: NumPy
                                      ├──► NCCL                 nccl.py: files that the processes leave for each other
                                      ├──► nvmath: cuBLASLt     blaslt.py: NumPy
                                      └──► Thrust, CUB          thrust.py, cub.py: NumPy; CUB's blocks: include/cub

It shows what is asked of a device and what comes out, in which order, from which memory:

- work is done when somebody has to see it, so that a host buffer that is reused too early, or a stream that does not wait for
  another, gives wrong numbers;
- every array lies between fences and is NaN until it is written, also in memory that a pool lends again; who writes beside an
  array is named, as is a launch on memory that is gone or lies on another device;
- captures follow CUDA's rules; a graph is not launched when arrays that it uses are gone, and nobody is lent its memory;
- with ``backwards`` the threads of a block run in the other order: what a missing barrier leaves undefined comes out
  differently in one order than in the other;
- every source is compiled by the real NVRTC too, where it is installed, for one generation of devices, each day another.

It cannot show races between the blocks of a grid, which run one after the other, nor atomic operations that are none; what
threads of one warp do to each other between two instructions; in which order the parts of a graph run that do not wait for
each other, which is that of the capture; the rounding of a device's functions and of its libraries, its limits of registers
and local memory; addresses that a kernel reads from a table in memory; or how long anything takes. There are no per-thread
default streams (``cupy.cuda.Stream.ptds``, ``CUPY_CUDA_PER_THREAD_DEFAULT_STREAM=1``): they are invalid handles.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

machine: Any = None
"""The machine beneath CuPy, once it is installed."""


def install(devices: int = 2, backwards: bool = False) -> Any:
    """Put the simulated machine beneath CuPy, which must not be imported yet; returns the machine.

    ``backwards``: the threads of a block, and the blocks of a grid, run in the other order.
    """
    global machine
    from simulator import capi, cub, driver, nvrtc, runtime
    from simulator.device import Machine

    folder = Path(os.environ.get("KOBAI_SIMULATOR_CACHE", Path(tempfile.gettempdir()) / "kobai-simulator"))
    os.environ.setdefault("CUPY_CACHE_DIR", str(folder / "kernels"))
    os.environ.setdefault("CUPY_ACCELERATORS", "cub")  # CuPy's default where there is a device
    os.environ.setdefault("NVCC", "nvcc")  # never called, but without it CuPy does not reduce by CUB's blocks
    machine = Machine(devices, backwards)
    for name, made in (
        ("cupy_backends.cuda.api.runtime", lambda module: runtime.functions(machine, module)),
        ("cupy_backends.cuda.api.driver", lambda module: driver.functions(machine, module)),
        ("cupy_backends.cuda.libs.nvrtc", lambda module: nvrtc.functions(module)),
    ):
        module = importlib.import_module(name)
        capi.replace(module, made(module), folder)

    where = importlib.util.find_spec("cupy")
    assert where is not None
    assert where.submodule_search_locations is not None
    (extension,) = Path(where.submodule_search_locations[0]).glob("cuda/cub.*.so")
    capi.interpose(extension, cub.functions(machine), folder)

    from simulator import blas, blaslt, nccl, pools, solver, thrust  # they import CuPy

    blaslt.install(machine)
    stand_in_for("cublas", blas.functions(machine), folder)
    stand_in_for("cusolver", solver.functions(machine), folder)
    stand_in_for("nccl", nccl.functions(machine), folder)
    module = importlib.import_module("cupy.cuda.thrust")
    capi.replace(module, thrust.functions(machine), folder)
    pools.install(machine)
    return machine


def stand_in_for(name: str, functions: Mapping[str, Callable[..., int]], folder: Path) -> None:
    """Load a compiled module of CuPy's on a library whose functions call Python, which is found where NVIDIA's would be."""
    from simulator import capi

    module = f"cupy_backends.cuda.libs.{name}"
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    loaded = capi.stand_in(Path(spec.origin), functions, folder)
    pathfinder = importlib.import_module("cuda.pathfinder")
    search = pathfinder.load_nvidia_dynamic_lib
    found = SimpleNamespace(_handle_uint=next(iter(loaded.values())))
    pathfinder.load_nvidia_dynamic_lib = lambda wanted: found if wanted == name else search(wanted)
    importlib.import_module(module)

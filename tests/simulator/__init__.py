"""A simulated CUDA device beneath CuPy as it is on PyPI: for tests, on machines that have no GPU.

``KOBAI_SIMULATE_GPU=1 pytest -m gpu`` in an environment that has CuPy and g++ runs CuPy's own Python and Cython code, and
Kobai's, unchanged. What lies beneath is replaced::

    Kobai ──► CuPy's Python and Cython ──► runtime, driver      runtime.py, driver.py, device.py: memory, streams, graphs
                                      ├──► NVRTC                nvrtc.py: g++ with cuda.h, a library in place of a cubin
                                      ├──► cuBLAS, cuBLASLt     blas.py, blaslt.py: NumPy
                                      └──► Thrust               thrust.py: NumPy

It shows what is asked of a device and what comes out, in which order, from which memory. It cannot show races between the
blocks of a grid, the rounding of a device's functions, or how long anything takes.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import tempfile
from pathlib import Path


def install(devices: int = 2, backwards: bool = False) -> object:
    """Put the simulated machine beneath CuPy, which must not be imported yet; returns the machine.

    ``backwards``: the threads of a block, and the blocks of a grid, run in the other order.
    """
    from simulator import capi, driver, nvrtc, runtime
    from simulator.device import Machine

    folder = Path(os.environ.get("KOBAI_SIMULATOR_CACHE", Path(tempfile.gettempdir()) / "kobai-simulator"))
    os.environ.setdefault("CUPY_CACHE_DIR", str(folder / f"kernels-{int(backwards)}"))
    os.environ["CUPY_ACCELERATORS"] = ""  # CUB's kernels are compiled for devices only
    machine = Machine(devices)
    for name, made in (
        ("cupy_backends.cuda.api.runtime", lambda module: runtime.functions(machine, module)),
        ("cupy_backends.cuda.api.driver", lambda module: driver.functions(machine, module)),
        ("cupy_backends.cuda.libs.nvrtc", lambda module: nvrtc.functions(module, backwards)),
    ):
        module = importlib.import_module(name)
        capi.replace(module, made(module), folder)

    from simulator import blas, blaslt, thrust  # they import CuPy

    blaslt.install(machine)
    spec = importlib.util.find_spec("cupy_backends.cuda.libs.cublas")
    assert spec is not None
    assert spec.origin is not None
    capi.stand_in(Path(spec.origin), folder)
    module = importlib.import_module("cupy_backends.cuda.libs.cublas")
    capi.replace(module, blas.functions(machine, module), folder)
    module = importlib.import_module("cupy.cuda.thrust")
    capi.replace(module, thrust.functions(machine), folder)
    return machine

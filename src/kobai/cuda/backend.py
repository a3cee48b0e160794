"""CuPy as a backend of :mod:`kobai.xp`: how it is loaded, and what it does differently."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from kobai import xp
from kobai.errors import BackendError, install


def install_cupy() -> str:
    """The commands that bring CuPy and what goes with it."""
    return f"{install('cuda12')} (CUDA 12) or {install('cuda13')} (CUDA 13)"


def _load() -> tuple[Any, type]:
    try:
        cupy = importlib.import_module("cupy")
    except Exception as error:  # a broken CUDA installation raises OSError, RuntimeError, ... at import
        raise BackendError(
            f"backend 'cupy': CuPy cannot be imported ({error}). Install it: {install_cupy()}"
        ) from error
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        raise BackendError(
            f"backend 'cupy': no usable CUDA device ({error}). Check the driver with nvidia-smi"
        ) from error
    if count == 0:
        raise BackendError("backend 'cupy': the CUDA driver reports no device. Check it with nvidia-smi")
    return cupy, cupy.ndarray


def _cupy() -> Any:
    return importlib.import_module("cupy")


xp.register(
    xp.Backend(
        "cupy",
        "cuda",
        _load,
        # blocking: a pinned source may be reused as soon as we return
        from_host=lambda a: _cupy().asarray(a, blocking=True),
        to_host=lambda a: _cupy().asnumpy(a),
        index_of=lambda a: int(a.device.id),
        on=lambda index: _cupy().cuda.Device(index or 0),
        synchronize=lambda: _cupy().cuda.get_current_stream().synchronize(),
        linalg_errors=lambda: importlib.import_module("cupyx").errstate(linalg="raise"),
    )
)


def pin(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Copy of a host array in page-locked memory, from which copies to the GPU run at full speed (needs CuPy)."""
    xp.namespace("cuda")  # raises with cause and cure where there is no device
    pinned: np.ndarray[Any, Any] = importlib.import_module("cupyx").empty_like_pinned(array)
    pinned[...] = array
    return pinned

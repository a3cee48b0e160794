"""NVIDIA's runtime compiler, as the wheel ``nvidia-cuda-nvrtc`` brings it: it needs neither device nor driver."""

from __future__ import annotations

import ctypes
import importlib.metadata
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType

DISTRIBUTIONS = ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12")  # since CUDA 13 without a suffix


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The compiler, or None where it is not installed."""
    for name in DISTRIBUTIONS:
        try:
            files = importlib.metadata.files(name) or ()
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in files:
            if file.name.startswith(("libnvrtc.so", "nvrtc64_")):
                return ctypes.CDLL(str(file.locate()))
    return None


def cubin(
    source: str,
    architecture: str,
    options: tuple[str, ...] = (),
    headers: Mapping[str, str] = MappingProxyType({}),
    instances: Iterable[str] = (),
) -> bytes:
    """Machine code for ``architecture`` (``sm_90``); RuntimeError with the compiler's words where the source is wrong.

    ``headers``: texts by the names under which they are included; ``instances``: expressions such as ``scale<float>``.
    """
    nvrtc = library()
    assert nvrtc is not None
    program = ctypes.c_void_p()
    texts, names = (
        (ctypes.c_char_p * len(headers))(*(text.encode() for text in each)) for each in (headers.values(), headers)
    )
    created = nvrtc.nvrtcCreateProgram(
        ctypes.byref(program), source.encode(), b"kernels.cu", len(headers), texts, names
    )
    _ask(nvrtc, created)
    try:
        for expression in instances:
            _ask(nvrtc, nvrtc.nvrtcAddNameExpression(program, expression.encode()))
        flags = [option.encode() for option in (f"--gpu-architecture={architecture}", *options)]
        failed = nvrtc.nvrtcCompileProgram(program, len(flags), (ctypes.c_char_p * len(flags))(*flags))
        log = _read(nvrtc, "ProgramLog", program).decode().rstrip("\0")
        if failed:
            raise RuntimeError(f"{architecture}:\n{log}")
        return _read(nvrtc, "CUBIN", program)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _read(nvrtc: ctypes.CDLL, what: str, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    _ask(nvrtc, getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _ask(nvrtc, getattr(nvrtc, f"nvrtcGet{what}")(program, buffer))
    return buffer.raw


def _ask(nvrtc: ctypes.CDLL, status: int) -> None:
    if status:
        nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise RuntimeError(f"NVRTC: {nvrtc.nvrtcGetErrorString(status).decode()}")

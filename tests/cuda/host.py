"""CUDA C compiled for the host by g++ (``host.h``): what a kernel computes can be seen without a device."""

from __future__ import annotations

import ctypes
import itertools
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kernel_checks import Launch, addressed, each
from kobai.engine.cuda_kernel import KERNELS, PRELUDE, CudaKernel, types

COMPILER = shutil.which("g++") or shutil.which("clang++")
MARGIN = 64
"""Elements before and behind every array, which no kernel may touch: NaN, or a pattern of bits."""


def compiled(dtype: str, folder: Path, races: bool = False) -> ctypes.CDLL:
    """All kernels for one dtype, in one library; with ``races`` one that watches every access to memory (``races.h``)."""
    parts = ['#include "host.h"', PRELUDE]
    for kernel in KERNELS.values():
        if dtype in kernel.dtypes:
            numbers = tuple(p.name for p in kernel.parameters if p.count)
            for on_device in dict.fromkeys([(), numbers]):
                parts += [f"namespace of_{kernel.symbol(dtype, on_device)} {{", types(dtype)]
                parts += [f'#line 1 "{kernel.name}"', kernel.prelude + entry(kernel, dtype, on_device) + "}"]
    return built("\n".join(parts), folder / f"{dtype}.cpp", races)


def built(text: str, source: Path, races: bool = False) -> ctypes.CDLL:
    """A library of this text, which includes ``host.h``."""
    source.write_text(text)
    made, library = source.with_suffix(".o"), source.with_suffix(".so")
    flags = [
        "-std=c++17",
        "-O1",
        "-ffp-contract=off",
        "-fPIC",
        "-w",
        "-fmax-errors=5",
        "-I",
        str(Path(__file__).parent),
    ]
    if str(COMPILER).endswith("g++"):
        flags.append("-fno-gnu-unique")  # or two libraries have one shared memory
    if races:
        flags += ["-DRACES", "-fsanitize=thread"]
    for command in ([*flags, "-c", str(source), "-o", str(made)], ["-shared", str(made), "-o", str(library)]):
        done = subprocess.run([str(COMPILER), *command], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{source.stem}:\n{done.stderr[:4000]}")
    return ctypes.CDLL(str(library))


def entry(kernel: CudaKernel, dtype: str, on_device: tuple[str, ...]) -> str:
    """The kernel as a static function, and one that a block's threads start with arguments taken from a list of pointers."""
    function = kernel.function(dtype, on_device).replace('extern "C" ', "")
    symbol = kernel.symbol(dtype, on_device)
    ctypes_ = []
    for p in kernel.parameters:
        if p.pointer or p.name in on_device:
            ctypes_.append(re.sub(r"__restrict__|\b\w+$", "", p.declared) if p.pointer else f"const {p.ctype}*")
        else:
            ctypes_ += [p.ctype] * max(p.count, 1)
    values = ", ".join(f"*({t.strip()}*)arguments[{i}]" for i, t in enumerate(ctypes_))
    return (
        f"{function}\nstatic void** arguments;\nstatic void thread() {{ {symbol}({values}); }}\n"
        f'extern "C" const char* run_{symbol}(void** a, const unsigned* shape, bool backwards, unsigned first) '
        "{ arguments = a; return host::run(thread, shape, true, backwards, sizeof shared_words, first); }\n"
    )


def run(library: ctypes.CDLL, name: str, dtype: str, launch: Launch, backwards: bool, rows: int = 0) -> list[Any]:
    """Launch once; the arguments as they are afterwards. Arrays stand between margins that must stay as they were.

    ``rows``: how many others lie before those of the arrays, one to a block. There is no memory for them.
    """
    kernel = KERNELS[name]
    typed = kernel.of(dtype)
    kept: list[Any] = []
    args = [each(arg, partial(fenced, kept)) for arg in launch.args]

    def address(array: np.ndarray) -> int:
        return int(array.ctypes.data) - rows * array.strides[0] * (len(array) == launch.grid[0])

    given = [addressed(arg, wanted, address) for arg, wanted in zip(args, typed.dtypes, strict=True)]
    packed, on_device = typed.packed(given)
    cells = []
    for value in packed:
        if isinstance(value, np.ndarray) and value.dtype.fields:
            cells.append(value.reshape(1))
            continue
        if value is None or isinstance(value, np.ndarray):
            value = np.uint64(0 if value is None else address(value))
        cells.append(np.array([value]))
    pointers = (ctypes.c_void_p * len(cells))(*(cell.ctypes.data for cell in cells))
    shape = (ctypes.c_uint * 6)(*itertools.islice((*launch.grid, 1, 1), 3), launch.threads, 1, 1)
    if 0 not in launch.grid:
        start = getattr(library, f"run_{kernel.symbol(dtype, on_device)}")
        start.restype = ctypes.c_char_p
        said = start(pointers, shape, ctypes.c_bool(backwards), ctypes.c_uint(rows))
        assert not said, f"{name}: {said.decode()}"
    for memory, size in kept:
        margins = np.concatenate([memory[:MARGIN], memory[MARGIN + size :]])
        assert (margins.view(np.uint8) == 0xFF).all(), f"{name}: wrote outside an array"
    return args


def fenced(kept: list[Any], array: np.ndarray) -> np.ndarray:
    """A copy of an array between two margins."""
    memory = np.empty(array.size + 2 * MARGIN, array.dtype)
    memory.view(np.uint8)[...] = 0xFF
    kept.append((memory, array.size))
    inside = memory[MARGIN : MARGIN + array.size].reshape(array.shape)
    inside[...] = array
    return inside

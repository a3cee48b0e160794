"""CUB's reductions, scans and histograms by NumPy: what ``cupy.cuda.cub`` has compiled into it, and CuPy's default on a device.

``CUPY_ACCELERATORS`` is ``cub`` unless somebody says otherwise. CuPy's own code decides which sums, extremes and scans go that
way, takes a workspace from the pool, and calls these. None waits for its stream, so that a capture may contain them. CuPy does
not look at what they return: what is wrong with a call is raised when somebody waits for the device, as an illegal access is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from simulator.capi import Long, Pointer
from simulator.device import INVALID_VALUE, CudaError, Machine
from simulator.libraries import get, view

DTYPES = "int8 uint8 int16 uint16 int32 uint32 int64 uint64 float16 float32 float64 complex64 complex128 bool".split()
"""By the numbers of ``cupy/type_dispatcher.cuh``."""
SUM, MIN, MAX, ARGMIN, ARGMAX, CUMSUM, CUMPROD, PROD = range(8)
REDUCED = {SUM: np.add, PROD: np.multiply, MIN: np.minimum, MAX: np.maximum}
WORKSPACE = 512


def functions(machine: Machine) -> dict[str, Callable[..., Any]]:
    """By the names that C++ gives them: arguments, and so another signature in another release, are part of a name."""

    def array(address: int, dtype: Any, *shape: int) -> np.ndarray:
        return view(machine, machine.device, address, dtype, shape)

    def ask(stream: int, workspace: int, given: int, do: Callable[[], None]) -> None:
        """``given``: where the size of the workspace stands."""
        size = int(get(given, np.uint64))
        if not workspace or size < WORKSPACE:
            raise CudaError(INVALID_VALUE, f"cub: expected a workspace of {WORKSPACE} bytes, got {size}")
        used = array(workspace, np.uint8, size)

        def done() -> None:
            with np.errstate(all="ignore"):
                do()
            used[...] = 0xFF

        machine.ask(machine.stream(stream), done)

    def reduce(
        work: Pointer, size: Pointer, x: Pointer, y: Pointer, n: int, stream: Pointer, op: int, kind: int
    ) -> None:
        values = array(x, DTYPES[kind], n)
        if op in REDUCED:
            made = array(y, DTYPES[kind], 1)
            ask(stream, work, size, lambda: np.copyto(made, reduced(REDUCED[op], values[None])))
        else:  # the place, and behind it the value, which CuPy does not read
            place, find = array(y, np.int32, 1), np.argmin if op == ARGMIN else np.argmax
            ask(stream, work, size, lambda: place.fill(find(values)))

    def segmented_reduce(
        work: Pointer, size: Pointer, x: Pointer, y: Pointer, rows: int, n: int, stream: Pointer, op: int, kind: int
    ) -> None:
        values, made = array(x, DTYPES[kind], rows, n), array(y, DTYPES[kind], rows)
        ask(stream, work, size, lambda: np.copyto(made, reduced(REDUCED[op], values)))

    def scan(work: Pointer, size: Pointer, x: Pointer, y: Pointer, n: int, stream: Pointer, op: int, kind: int) -> None:
        values, made = (array(address, DTYPES[kind], n) for address in (x, y))
        step = np.add if op == CUMSUM else np.multiply
        ask(stream, work, size, lambda: np.copyto(made, step.accumulate(values, dtype=values.dtype)))

    def histogram_range(
        work: Pointer,
        size: Pointer,
        x: Pointer,
        y: Pointer,
        levels: int,
        bins: Pointer,
        n: Long,
        stream: Pointer,
        kind: int,
    ) -> None:
        values, edges = array(x, DTYPES[kind], n), array(bins, DTYPES[kind], levels)
        counts = array(y, np.int64, levels - 1)

        def do() -> None:
            place = np.searchsorted(edges, values, side="right") - 1  # NaN comes behind all
            counts[...] = np.bincount(place[(place >= 0) & (place < levels - 1)], minlength=levels - 1)

        ask(stream, work, size, do)

    def histogram_even(
        work: Pointer, size: Pointer, x: Pointer, y: Pointer, levels: int, low: int, high: int, n: Long, stream: Pointer,
        kind: int,
    ) -> None:  # fmt: skip
        values, counts = array(x, DTYPES[kind], n), array(y, np.int64, levels - 1)

        def do() -> None:
            inside = values[(values >= low) & (values < high)].astype(np.int64)
            counts[...] = np.bincount((inside - low) * (levels - 1) // (high - low), minlength=levels - 1)

        ask(stream, work, size, do)

    def workspace() -> int:
        return WORKSPACE

    def later(function: Callable[..., None]) -> Callable[..., int]:
        @wraps(function)
        def called(*args: int) -> int:
            try:
                function(*args)
            except CudaError as error:
                machine.failure = machine.failure or error
            return 0

        return called

    made = {
        "_Z17cub_device_reducePvRmS_S_iP11CUstream_stii": reduce,
        "_Z27cub_device_segmented_reducePvRmS_S_iiP11CUstream_stii": segmented_reduce,
        "_Z15cub_device_scanPvRmS_S_iP11CUstream_stii": scan,
        "_Z26cub_device_histogram_rangePvRmS_S_iS_mP11CUstream_sti": histogram_range,
        "_Z25cub_device_histogram_evenPvRmS_S_iiimP11CUstream_sti": histogram_even,
    }
    sizes = (
        "_Z36cub_device_reduce_get_workspace_sizePvS_iP11CUstream_stii",
        "_Z46cub_device_segmented_reduce_get_workspace_sizePvS_iiP11CUstream_stii",
        "_Z34cub_device_scan_get_workspace_sizePvS_iP11CUstream_stii",
        "_Z45cub_device_histogram_range_get_workspace_sizePvS_iS_mP11CUstream_sti",
        "_Z44cub_device_histogram_even_get_workspace_sizePvS_iiimP11CUstream_sti",
    )
    return {name: later(function) for name, function in made.items()} | dict.fromkeys(sizes, workspace)


def reduced(op: np.ufunc, rows: np.ndarray) -> np.ndarray:
    """Each row as one number, in the dtype of the elements, in which CUB adds those of 16 bits, too: by halves, here."""
    if rows.dtype != np.float16 or rows.shape[1] == 0:
        return op.reduce(rows, axis=1, dtype=rows.dtype)
    while (n := rows.shape[1]) > 1:
        rows = np.concatenate([op(rows[:, : n // 2], rows[:, n // 2 : n // 2 * 2]), rows[:, n // 2 * 2 :]], axis=1)
    return rows[:, 0]

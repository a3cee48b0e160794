"""Thrust's sorting by NumPy: what ``cupy.cuda.thrust`` offers. Thrust waits for the stream that it has sorted on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from simulator.device import CudaError, Machine
from simulator.libraries import view


def functions(machine: Machine) -> dict[str, Callable[..., Any]]:
    import cupy

    def ask(do: Callable[[], None]) -> None:
        stream = machine.stream(cupy.cuda.get_current_stream().ptr)
        try:
            machine.ask(stream, do)
            machine.finish_stream(stream)
        except CudaError as error:
            raise RuntimeError(f"thrust: {error}") from None

    def array(address: int, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
        try:
            return view(machine, machine.device, address, dtype, shape)
        except CudaError as error:
            raise RuntimeError(f"thrust: {error}") from None

    def rows(keys: int, shape: tuple[int, ...]) -> np.ndarray:
        """Where there are many rows all are sorted at once, by pairs of a row's number, which is kept here, and a value."""
        return array(keys, np.uint64, shape if len(shape) > 1 else (0,))

    def sort(dtype: Any, data: int, keys: int, shape: list[int]) -> None:
        """Sort along the last dimension, in place."""
        values, numbers = array(data, dtype, tuple(shape)), rows(keys, tuple(shape))

        def do() -> None:
            values.sort(axis=-1, kind="stable")
            numbers[...] = 2**64 - 1

        ask(do)

    def argsort(dtype: Any, indices: int, data: int, keys: int, shape: list[int]) -> None:
        """Positions in sorted order; the data are sorted too."""
        values, places = array(data, dtype, tuple(shape)), array(indices, np.intp, tuple(shape))
        numbers = rows(keys, tuple(shape))

        def do() -> None:
            places[...] = np.argsort(values, axis=-1, kind="stable")
            values.sort(axis=-1, kind="stable")
            numbers[...] = 2**64 - 1

        ask(do)

    def lexsort(dtype: Any, indices: int, keys: int, k: int, n: int) -> None:
        """Positions in the order of the last of k keys, ties by the one before it."""
        sorted_by, places = array(keys, dtype, (k, n)), array(indices, np.intp, (n,))

        def do() -> None:
            places[...] = np.lexsort(sorted_by)

        ask(do)

    return {"sort": sort, "argsort": argsort, "lexsort": lexsort}

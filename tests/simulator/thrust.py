"""Thrust's sorting by NumPy: what ``cupy.cuda.thrust`` offers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from simulator.blas import view
from simulator.device import Machine


def functions(machine: Machine) -> dict[str, Callable[..., Any]]:
    import cupy

    def ask(do: Callable[[], None]) -> None:
        machine.ask(machine.stream(cupy.cuda.get_current_stream().ptr), do)

    def sort(dtype: Any, data: int, keys: int, shape: list[int]) -> None:
        """Sort along the last dimension, in place."""
        ask(lambda: view(machine, data, dtype, tuple(shape)).sort(axis=-1, kind="stable"))

    def argsort(dtype: Any, indices: int, data: int, keys: int, shape: list[int]) -> None:
        """Positions in sorted order; the data are sorted too."""

        def do() -> None:
            values, places = view(machine, data, dtype, tuple(shape)), view(machine, indices, np.intp, tuple(shape))
            places[...] = np.argsort(values, axis=-1, kind="stable")
            values.sort(axis=-1, kind="stable")

        ask(do)

    def lexsort(dtype: Any, indices: int, keys: int, k: int, n: int) -> None:
        """Positions in the order of the last of k keys, ties by the one before it."""

        def do() -> None:
            view(machine, indices, np.intp, (n,))[...] = np.lexsort(view(machine, keys, dtype, (k, n)))

        ask(do)

    return {"sort": sort, "argsort": argsort, "lexsort": lexsort}

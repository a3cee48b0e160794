"""Reductions over processes in one order: a balanced binary tree over the ranks, whatever the library or the network.

MPI's own ``Allreduce`` adds in an order that depends on the size of the message and on the library. Here each process is given
one slice of everybody's numbers, combines it in the order of the tree, and all slices are gathered again::

    P arrays of n numbers --Alltoall--> P × n/P numbers each --tree--> n/P --Allgather--> n

That sends 2 (P − 1)/P n numbers, as little as any algorithm (Thakur, Rabenseifner, Gropp 2005), and floating-point sums are the
same bits in every run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

COMBINE: dict[str, Callable[..., Any]] = {
    "sum": np.add,
    "avg": np.add,
    "product": np.multiply,
    "min": np.minimum,
    "max": np.maximum,
    "band": np.bitwise_and,
    "bor": np.bitwise_or,
    "bxor": np.bitwise_xor,
}
"""What two of the arrays become, by the name of the operation in small letters."""


def combined(rows: np.ndarray[Any, Any], combine: Callable[..., Any], out: Any = None) -> np.ndarray[Any, Any]:
    """The rows combined in a balanced binary tree: neighbours first. Works in place, and returns the first row.

    Of an odd number of rows the last goes up a level as it is. ``out``: a row elsewhere for the result.

    >>> combined(np.array([[1.0], [2.0], [4.0]]), np.subtract)  # (1 − 2) − 4
    array([-5.])
    """
    n, apart = len(rows), 1
    while 2 * apart < n:
        left, right = rows[: n - apart : 2 * apart], rows[apart :: 2 * apart]
        combine(left, right, out=left)
        apart *= 2
    first: np.ndarray[Any, Any] = rows[0] if out is None else out
    if apart < n:
        combine(rows[0], rows[apart], out=first)
    elif out is not None:
        first[...] = rows[0]
    return first

"""NumPy in six lists: what a recorder must know of a function, to note one call of it.

A recorder (``recorder.py``) sees calls, not loops: ``np.add(a, b)`` of two arrays, whatever NumPy does inside. It does the call
and writes down *function, operands, place of the result*; a replay goes through these notes. For that the result must go
where it went the first time, and what the function does beside giving a result must be known::

    np.add(a, b)          ufunc: takes ``out``        add(a, b, place)              no memory is made
    np.sum(a, 0)          TAKES_OUT                   sum(a, 0, out=place)          no memory is made
    np.roll(a, 1)         in no list                  place[...] = roll(a, 1)       right, and a copy slower
    a.T, a[1:], split     shares a's memory           nothing: the view stays       seen by may_share_memory, not by name
    np.copyto(a, b)       WRITES_FIRST                copyto(a, b)                  a is a constant no longer
    np.arange(3)          CONSTANTS                   nothing: the same each time
    np.result_type(a, b)  ASKS                        nothing: no element is read
    np.unique(a)          SIZED_BY_VALUES             refused: the next one may have another size

So a function in no list is slower, not wrong, unless its result has another size the next time (which raises) or it writes
into its operands: those must be listed.
"""

from __future__ import annotations

import numpy as np

TAKES_OUT = frozenset(
    "sum mean prod max amax min amin any all argmax argmin cumsum cumprod std var clip round dot concatenate stack einsum "
    "take choose trace nanmax nanmin nansum nanmean nanprod".split()
)
WRITES_FIRST = (np.copyto, np.put, np.put_along_axis, np.fill_diagonal, np.putmask, np.place)
WRITES_ITSELF = (np.ndarray.sort, np.ndarray.partition, np.ndarray.put)
CONSTANTS = frozenset(
    "arange eye identity linspace logspace tri indices tril_indices triu_indices diag_indices".split()
)
ASKS = frozenset(  # about shapes, dtypes and memory, not values
    "may_share_memory shares_memory result_type can_cast promote_types ndim shape size isscalar iinfo finfo issubdtype "
    "broadcast_shapes iscomplexobj min_scalar_type".split()
)
SIZED_BY_VALUES = frozenset(
    "nonzero argwhere flatnonzero unique extract union1d intersect1d setdiff1d bincount trim_zeros compress".split()
)

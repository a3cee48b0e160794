"""Values as plain JSON values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def plain(value: Any) -> Any:
    """``value`` as it comes back from JSON: NumPy's numbers and arrays as Python's, keys as text, NaN and infinity as None.

    >>> import numpy as np
    >>> plain({1: np.float32(0.5), "a": np.arange(2), "b": float("inf")})
    {'1': 0.5, 'a': [0, 1], 'b': None}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, (str, bool, int)) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Sequence):
        return [plain(entry) for entry in value]
    raise TypeError(f"lab: {type(value).__name__} cannot be written to JSON")

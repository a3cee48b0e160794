"""Tensors for tests of the tape."""

from __future__ import annotations

import kobai
from kobai.core.tensor import Tensor


def leaf(*values: float) -> Tensor:
    return kobai.tensor(values, dtype=kobai.float64, requires_grad=True)

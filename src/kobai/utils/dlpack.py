"""Memory shared with other libraries through DLPack, under the names of ``torch.utils.dlpack``."""

from __future__ import annotations

from typing import Any

from kobai.core.tensor import Tensor
from kobai.ops.create import from_dlpack

__all__ = ["from_dlpack", "to_dlpack"]


def to_dlpack(tensor: Tensor) -> Any:
    """A capsule of the tensor's memory, to be taken once, by a library that wants one; others take the tensor itself.

    Specification: https://dmlc.github.io/dlpack

    >>> import kobai
    >>> type(kobai.utils.dlpack.to_dlpack(kobai.ones(2))).__name__
    'PyCapsule'
    """
    return tensor.__dlpack__()

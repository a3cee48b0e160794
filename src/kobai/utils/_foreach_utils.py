"""Lists of tensors by what they have in common: PyTorch's ``utils._foreach_utils``, which libraries of optimisers import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kobai.core.tensor import Tensor

if TYPE_CHECKING:
    from kobai.dtypes import dtype
    from kobai.xp import device

__all__: list[str] = []

_Column = list[Tensor | None]


def _group_tensors_by_device_and_dtype(
    tensorlistlist: Sequence[Sequence[Tensor | None]], with_indices: bool = False
) -> dict[tuple[device, dtype], tuple[list[_Column], list[int]]]:
    """The columns of ``tensorlistlist``, lists of one length, by the device and dtype of their first tensor.

    Returns ``{(device, dtype): (lists, indices)}``: the part of each list that belongs there, and with ``with_indices``
    where its columns stood (otherwise no indices). The first list holds tensors only; the others may hold None.

    Raises ValueError for lists of different lengths, and for a None in the first.
    """
    who = "_group_tensors_by_device_and_dtype"
    lengths = [len(tensors) for tensors in tensorlistlist]
    if len(set(lengths)) > 1:
        raise ValueError(f"{who}: expected lists of one length, got lengths {lengths}")
    groups: dict[tuple[device, dtype], tuple[list[_Column], list[int]]] = {}
    for index, column in enumerate(zip(*tensorlistlist, strict=True)):
        if (first := column[0]) is None:
            raise ValueError(f"{who}: expected tensors in the first list, got None at {index}")
        lists, indices = groups.setdefault((first.device, first.dtype), ([[] for _ in column], []))
        for part, tensor in zip(lists, column, strict=True):
            part.append(tensor)
        if with_indices:
            indices.append(index)
    return groups

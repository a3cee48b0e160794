"""``kobai.types``: types for annotations, with the names of ``torch.types``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from kobai.core.tensor import Size, Tensor
from kobai.xp import device

Number: TypeAlias = int | float | bool
Device: TypeAlias = device | str | int | None
_int, _float, _bool = int, float, bool
_size: TypeAlias = Size | list[int] | tuple[int, ...]
_TensorOrTensors: TypeAlias = Tensor | Sequence[Tensor]

"""``kobai.types``: types for annotations, with the names of ``torch.types``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import IO, TypeAlias

from kobai.core.tensor import Size, Tensor
from kobai.xp import device

Number: TypeAlias = int | float | bool
Device: TypeAlias = device | str | int | None
_int, _float, _bool, _complex, _str, _bytes = int, float, bool, complex, str, bytes
_device, _Number = device, Number
FileLike: TypeAlias = str | os.PathLike[str] | IO[bytes]
_size: TypeAlias = Size | list[int] | tuple[int, ...]
_TensorOrTensors: TypeAlias = Tensor | Sequence[Tensor]

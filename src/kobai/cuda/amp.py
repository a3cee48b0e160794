"""The older names of :mod:`kobai.amp`."""

from typing import Any

from kobai import amp


class autocast(amp.autocast):  # PyTorch's spelling
    """:class:`kobai.amp.autocast` for CUDA."""

    def __init__(self, enabled: bool = True, dtype: Any = None) -> None:
        super().__init__("cuda", dtype, enabled)


class GradScaler(amp.GradScaler):
    """:class:`kobai.amp.GradScaler` for CUDA."""

    def __init__(self, *, enabled: bool = True) -> None:
        super().__init__("cuda", enabled=enabled)

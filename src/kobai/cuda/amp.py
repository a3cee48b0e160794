"""The older names of :mod:`kobai.amp`."""

from functools import partial
from typing import Any

from kobai import amp


class autocast(amp.autocast):  # PyTorch's spelling
    """:class:`kobai.amp.autocast` for CUDA."""

    def __init__(self, enabled: bool = True, dtype: Any = None, cache_enabled: bool = True) -> None:
        super().__init__("cuda", dtype, enabled, cache_enabled)


class GradScaler(amp.GradScaler):
    """:class:`kobai.amp.GradScaler` for CUDA."""

    def __init__(self, *, enabled: bool = True) -> None:
        super().__init__("cuda", enabled=enabled)


custom_fwd = partial(amp.custom_fwd, device_type="cuda")
custom_bwd = partial(amp.custom_bwd, device_type="cuda")

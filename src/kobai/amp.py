"""``kobai.amp``: mixed precision, which Kobai does not have yet; everything is computed in float32 (or as you cast it).

Scripts that leave mixed precision off (``enabled=False``) run. Asking for it is an error, except for CUDA on a machine
without it: there it is switched off with a warning, as in PyTorch.
"""

from __future__ import annotations

import warnings
from contextlib import ContextDecorator
from typing import Any

from kobai import xp
from kobai.xp import device

__all__ = ["GradScaler", "autocast"]


def _wanted(who: str, device_type: str, enabled: bool) -> None:
    if not enabled:
        return
    if device(device_type).type == "cuda" and xp.available_backends()["cupy"]:
        warnings.warn(f"{who}: CUDA is not available, so mixed precision on it is switched off", stacklevel=3)
        return
    raise NotImplementedError(
        f"{who}: Kobai has no mixed precision yet and computes in float32; pass enabled=False to run without it"
    )


class autocast(ContextDecorator):  # PyTorch's spelling
    """Block in which operations would run in lower precision; only ``enabled=False`` is supported, which does nothing.

    >>> import kobai
    >>> with kobai.autocast("cpu", enabled=False):
    ...     y = kobai.ones(2) * 2
    >>> y.dtype
    kobai.float32
    """

    def __init__(self, device_type: str, dtype: Any = None, enabled: bool = True) -> None:
        _wanted("autocast", device_type, enabled)

    def __enter__(self) -> None:
        """Nothing changes."""

    def __exit__(self, *error: object) -> None:
        """Nothing was changed."""


class GradScaler:
    """Loss scaling for lower precision; only ``enabled=False`` is supported, which scales by 1.

    >>> import kobai
    >>> scaler = kobai.amp.GradScaler("cpu", enabled=False)
    >>> scaler.scale(kobai.tensor(3.0))
    tensor(3.)
    """

    def __init__(self, device: str = "cuda", *, enabled: bool = True) -> None:
        _wanted("GradScaler", device, enabled)

    def is_enabled(self) -> bool:
        """Whether losses are scaled: no."""
        return False

    def get_scale(self) -> float:
        """The scale: 1."""
        return 1.0

    def scale(self, outputs: Any) -> Any:
        """``outputs`` as they are."""
        return outputs

    def unscale_(self, optimizer: Any) -> None:
        """Nothing is scaled."""

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """``optimizer.step()``."""
        return optimizer.step(*args, **kwargs)

    def update(self) -> None:
        """The scale stays."""

    def state_dict(self) -> dict[str, Any]:
        """Empty."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take an empty state; ValueError for one of a scaler that was switched on."""
        if state_dict:
            raise ValueError("GradScaler.load_state_dict: this state belongs to mixed precision, which Kobai lacks")

"""``kobai.version``: versions, with the names of ``torch.version``, and ``kobai``, the version of Kobai itself."""

from __future__ import annotations

from typing import Any

from kobai import __version__ as __version__, cuda as _cuda
from kobai.compat.versions import VERSION

kobai = VERSION
"""Kobai's own version; ``__version__`` is that of the PyTorch whose API it follows, with this one behind a "+"."""

debug = False
hip: str | None = None
xpu: str | None = None


def __getattr__(name: str) -> Any:
    if name == "cuda":  # CUDA's version, such as "12.8"; None without a device
        if not _cuda.is_available():
            return None
        number = _cuda.versions()[1]
        return f"{number // 1000}.{number % 1000 // 10}"
    raise AttributeError(f"module 'kobai.version' has no attribute {name!r}")

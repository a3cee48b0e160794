"""``kobai.backends``: the questions of ``torch.backends`` that training scripts ask, answered for Kobai.

Kobai calls neither cuDNN nor Apple's MPS. Both say that they are not available, as in a PyTorch built without them; the
switches of such a library can be set and read, and there is nothing they could change.
"""

from __future__ import annotations

__all__ = ["cudnn", "mps"]


class _Absent:
    """A library that Kobai does not use."""

    def __init__(self, name: str, **switches: bool) -> None:
        self._name = name
        self.__dict__.update(switches)

    def is_available(self) -> bool:
        """Whether Kobai computes with this library: no."""
        return False

    def is_built(self) -> bool:
        """Whether Kobai was built with this library: no."""
        return False

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_") and name not in self.__dict__:
            raise AttributeError(f"kobai.backends.{self._name} has no switch {name!r}")
        self.__dict__[name] = value

    def __repr__(self) -> str:
        return f"<kobai.backends.{self._name}: not used by Kobai>"


cudnn = _Absent("cudnn", enabled=False, deterministic=True, benchmark=False, allow_tf32=False)
mps = _Absent("mps")

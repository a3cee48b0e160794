"""cuDNN, which Kobai does not use: its switches change nothing, and results are as with ``deterministic``."""

from kobai.backends._switches import refuse_unknown as _refuse_unknown

enabled = False
deterministic = True
benchmark = False
allow_tf32 = False


def is_available() -> bool:
    """Whether Kobai computes with cuDNN: no."""
    return False


def version() -> None:
    """Version of cuDNN: None, it is not used."""
    return None


_refuse_unknown(__name__)

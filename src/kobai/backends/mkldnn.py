"""oneDNN, once MKL-DNN, which Kobai does not use: its switches change nothing."""

from kobai.backends._switches import refuse_unknown as _refuse_unknown

enabled = False
deterministic = True
allow_tf32 = False


def is_available() -> bool:
    """Whether Kobai computes with oneDNN: no."""
    return False


_refuse_unknown(__name__)

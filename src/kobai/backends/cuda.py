"""CUDA as ``torch.backends.cuda`` asks about it; the devices themselves are in :mod:`kobai.cuda`."""

from types import SimpleNamespace as _Namespace

from kobai import xp as _xp
from kobai.backends._switches import refuse_unknown as _refuse_unknown

matmul = _Namespace(allow_tf32=False)
"""``allow_tf32`` permits faster float32 products; Kobai makes no use of the permission so far."""


def is_built() -> bool:
    """Whether CuPy, through which Kobai reaches CUDA, can be used here."""
    return _xp.available_backends()["cupy"] == ""


_refuse_unknown(__name__)

"""``kobai.cuda.FloatTensor`` and its like, see :mod:`kobai.ops.typed`."""

from kobai.ops.typed import TYPES, named

__all__ = [*TYPES]
globals().update(named("cuda"))

"""1/√x inside compiled loops.

It is the root of a quotient, not the quotient by a root: for that LLVM takes an estimate in such loops, which is nan at 0
and ∞. The quotient overflows where x is denormal, so that x is scaled there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kobai.engine.dispatch import inlined

_ONE32, _SMALL32, _UP32, _ROOT32, _NAN32 = map(np.float32, (1, 2.0**-126, 2.0**48, 2.0**24, np.nan))


def _single(x: Any) -> Any:
    q = _ONE32 / (x * _UP32 if x < _SMALL32 else x)
    y = np.sqrt(q)
    y = y * _ROOT32 if x < _SMALL32 else y
    y = y if x >= 0 else _NAN32
    return q if x == 0 else y  # −∞ at −0


def _double(x: Any) -> Any:
    q = 1.0 / (x * 2.0**108 if x < 2.0**-1022 else x)
    y = np.sqrt(q)
    y = y * 2.0**54 if x < 2.0**-1022 else y
    y = y if x >= 0 else np.nan
    return q if x == 0 else y


rsqrt = inlined(_single, _double)

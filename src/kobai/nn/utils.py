"""Helpers on many parameters at once: clipping gradients, one flat vector of all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from kobai._tensor import Tensor, no_grad
from kobai.xp import Array, xp_of

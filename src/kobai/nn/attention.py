"""``kobai.nn.attention``: the switch between PyTorch's kernels for attention. Kobai has one way to compute it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import Enum

from kobai.compat.paths import connect as _connect

__all__ = ["SDPBackend", "sdpa_kernel"]


class SDPBackend(Enum):
    """PyTorch's kernels for :func:`kobai.nn.functional.scaled_dot_product_attention`."""

    ERROR = -1
    MATH = 0
    FLASH_ATTENTION = 1
    EFFICIENT_ATTENTION = 2
    CUDNN_ATTENTION = 3
    OVERRIDEABLE = 4


@contextmanager
def sdpa_kernel(backends: SDPBackend | Iterable[SDPBackend], set_priority: bool = False) -> Iterator[None]:
    """Block, or decorator, that names the kernels that PyTorch may use, the first first with ``set_priority``.

    They compute the same numbers but for rounding. Kobai always computes softmax(q kᵀ · scale + mask) v as it stands.

    >>> import kobai
    >>> from kobai.nn.attention import SDPBackend, sdpa_kernel
    >>> q = kobai.eye(2)
    >>> with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
    ...     kobai.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True)[0]
    tensor([1., 0.])
    """
    wanted = [backends] if isinstance(backends, SDPBackend) else list(backends)
    if not wanted or not all(isinstance(one, SDPBackend) for one in wanted):
        raise TypeError(f"sdpa_kernel: expected one SDPBackend or several, got {backends!r}")
    yield


_connect(__name__)

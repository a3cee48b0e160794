"""CUDA as ``torch.backends.cuda`` asks about it; the devices themselves are in :mod:`kobai.cuda`."""

from collections.abc import Iterator as _Iterator
from contextlib import contextmanager as _contextmanager

from kobai import runtime as _runtime, xp as _xp
from kobai.backends._switches import refuse_unknown as _refuse_unknown


class _Matmul:
    __slots__ = ()

    @property
    def allow_tf32(self) -> bool:
        """Whether float32 products may be rounded to TF32: another name for ``set_float32_matmul_precision("high")``."""
        return _runtime.get_float32_matmul_precision() != "highest"

    @allow_tf32.setter
    def allow_tf32(self, allow: bool) -> None:
        _runtime.set_float32_matmul_precision("high" if allow else "highest")


matmul = _Matmul()
"""``allow_tf32`` allows faster, less precise float32 products."""


def is_built() -> bool:
    """Whether CuPy, through which Kobai reaches CUDA, can be used here."""
    return _xp.available_backends()["cupy"] == ""


# PyTorch chooses among kernels for scaled_dot_product_attention; Kobai has the one that writes out its formula.


def flash_sdp_enabled() -> bool:
    """Whether attention may use FlashAttention's kernel: no, Kobai has none."""
    return False


def mem_efficient_sdp_enabled() -> bool:
    """Whether attention may use the memory-efficient kernel: no, Kobai has none."""
    return False


def cudnn_sdp_enabled() -> bool:
    """Whether attention may use cuDNN's kernel: no, Kobai has none."""
    return False


def math_sdp_enabled() -> bool:
    """Whether attention may be computed by its formula: yes, and in no other way."""
    return True


def enable_flash_sdp(enabled: bool) -> None:
    """Without effect: attention is computed by its formula."""


def enable_mem_efficient_sdp(enabled: bool) -> None:
    """Without effect: attention is computed by its formula."""


def enable_cudnn_sdp(enabled: bool) -> None:
    """Without effect: attention is computed by its formula."""


def enable_math_sdp(enabled: bool) -> None:
    """Without effect: attention is computed by its formula."""


@_contextmanager
def sdp_kernel(
    enable_flash: bool = True, enable_math: bool = True, enable_mem_efficient: bool = True, enable_cudnn: bool = True
) -> _Iterator[None]:
    """Block that names the kernels attention may use; RuntimeError for none of them. An older name of
    :func:`kobai.nn.attention.sdpa_kernel`, and as much without effect."""
    if not (enable_flash or enable_math or enable_mem_efficient or enable_cudnn):
        raise RuntimeError("sdp_kernel: expected one kernel at least, got all of them disabled")
    yield


_refuse_unknown(__name__)

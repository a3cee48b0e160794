"""What a script sets up before it computes: threads, determinism, precision. PyTorch's names."""

from __future__ import annotations

import operator
import warnings

from kobai.cpu import blas, threads
from kobai.cuda import cublaslt
from kobai.errors import nearest, users_line

__all__ = [
    "are_deterministic_algorithms_enabled",
    "get_deterministic_debug_mode",
    "get_float32_matmul_precision",
    "get_num_interop_threads",
    "get_num_threads",
    "is_deterministic_algorithms_warn_only_enabled",
    "set_deterministic_debug_mode",
    "set_float32_matmul_precision",
    "set_flush_denormal",
    "set_num_interop_threads",
    "set_num_threads",
    "use_deterministic_algorithms",
]


def _assert(condition: object, message: str) -> None:
    """AssertionError with this message unless the condition holds: libraries write it where PyTorch's compiler reads on."""
    assert condition, message


def set_num_threads(int: int) -> None:
    """Compute with this many threads on the CPU: Kobai's own, and outside of Kobai those of the matrix library (BLAS).

    Large products and loops are split among them. Results of one number of threads are the same bits, whatever else runs.
    By default there are as many as the process may keep busy: what its affinity and its container's quota allow.

    >>> import kobai
    >>> kobai.set_num_threads(0)
    Traceback (most recent call last):
        ...
    RuntimeError: set_num_threads: expected a positive integer, got 0
    """
    if isinstance(int, bool) or not hasattr(int, "__index__") or int < 1:
        raise RuntimeError(f"set_num_threads: expected a positive integer, got {int!r}")
    blas.set_library_threads(operator.index(int))
    threads.set_num_threads(operator.index(int))


def get_num_threads() -> int:
    """How many threads Kobai uses on the CPU; see :func:`set_num_threads`.

    >>> import kobai
    >>> kobai.get_num_threads() >= 1
    True
    """
    return blas.threads()


_determinism = "off"


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Promise that the same input gives the same bits. Kobai keeps it on the CPU always.

    On a GPU additions at repeated positions (the gradient of ``embedding`` or ``x[index]``, ``scatter_add``, ...) are
    atomic, in no fixed order, and Kobai has no other way; so with ``mode=True`` they raise there – with ``warn_only``
    they warn – as PyTorch does for what it cannot do in order.

    >>> import kobai
    >>> kobai.use_deterministic_algorithms(True)
    >>> kobai.are_deterministic_algorithms_enabled()
    True
    >>> kobai.use_deterministic_algorithms(False)
    """
    global _determinism
    _determinism = ("warn" if warn_only else "on") if mode else "off"


def are_deterministic_algorithms_enabled() -> bool:
    """Whether :func:`use_deterministic_algorithms` is on.

    >>> import kobai
    >>> kobai.are_deterministic_algorithms_enabled()
    False
    """
    return _determinism != "off"


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """Whether :func:`use_deterministic_algorithms` is on and only warns.

    >>> import kobai
    >>> kobai.is_deterministic_algorithms_warn_only_enabled()
    False
    """
    return _determinism == "warn"


_MODES = {"default": "off", "warn": "warn", "error": "on"}


def set_deterministic_debug_mode(debug_mode: int | str) -> None:
    """:func:`use_deterministic_algorithms` by a name or number: ``"default"`` (0), ``"warn"`` (1), ``"error"`` (2).

    >>> import kobai
    >>> kobai.set_deterministic_debug_mode("default")
    """
    global _determinism
    names = list(_MODES)
    name = names[debug_mode] if isinstance(debug_mode, int) and 0 <= debug_mode < 3 else debug_mode
    if name not in _MODES:
        raise RuntimeError(f"set_deterministic_debug_mode: expected {', '.join(names)} or 0 to 2, got {debug_mode!r}")
    _determinism = _MODES[name]


def get_deterministic_debug_mode() -> int:
    """0, 1 or 2, as :func:`set_deterministic_debug_mode` takes them.

    >>> import kobai
    >>> kobai.get_deterministic_debug_mode()
    0
    """
    return list(_MODES.values()).index(_determinism)


def set_flush_denormal(mode: bool) -> bool:
    """Whether tiny numbers were switched to count as zero: False, Kobai leaves the processor as it is.

    >>> import kobai
    >>> kobai.set_flush_denormal(True)
    False
    """
    return False


def set_num_interop_threads(int: int) -> None:
    """RuntimeError for less than one; else nothing: operations run one after another, each with its own threads.

    >>> import kobai
    >>> kobai.set_num_interop_threads(4)
    >>> kobai.get_num_interop_threads()
    1
    """
    if isinstance(int, bool) or not hasattr(int, "__index__") or int < 1:
        raise RuntimeError(f"set_num_interop_threads: expected a positive integer, got {int!r}")


def get_num_interop_threads() -> int:
    """How many operations run at the same time: 1.

    >>> import kobai
    >>> kobai.get_num_interop_threads()
    1
    """
    return 1


def adds_in_no_order(who: str) -> None:
    """Raise or warn if determinism was promised: called where a device adds up in no fixed order."""
    if _determinism == "off":
        return
    message = f"{who}: on a GPU this adds in no fixed order, and use_deterministic_algorithms(True) is set"
    if _determinism == "on":
        raise RuntimeError(f"{message}; use_deterministic_algorithms(True, warn_only=True) permits it")
    warnings.warn(message, stacklevel=users_line())


_PRECISIONS = ("highest", "high", "medium")


def set_float32_matmul_precision(precision: str) -> None:
    """Least precision that products of float32 matrices must have: "highest", "high" or "medium".

    "high" lets a GPU round the factors to TF32 (11 significant bits instead of 24), "medium" to bfloat16 (8 bits); sums are
    added up in float32 all the same. On GPUs with tensor cores that is several times as fast. It applies to products through
    cuBLASLt, which need nvmath; the CPU, other products and other dtypes compute as for "highest". A captured step keeps
    the setting it was captured with and is captured again under another.

    >>> import kobai
    >>> kobai.set_float32_matmul_precision("high")
    >>> kobai.get_float32_matmul_precision()
    'high'
    >>> kobai.set_float32_matmul_precision("highest")
    """
    if precision not in _PRECISIONS:
        hint = nearest(str(precision), _PRECISIONS)
        raise ValueError(f"set_float32_matmul_precision: expected one of {_PRECISIONS}, got {precision!r}.{hint}")
    cublaslt.float32_precision = precision


def get_float32_matmul_precision() -> str:
    """What :func:`set_float32_matmul_precision` set; "highest" at the start.

    >>> import kobai
    >>> kobai.get_float32_matmul_precision()
    'highest'
    """
    return cublaslt.float32_precision

"""What the C library does with memory that is freed: with glibc, keep it for the next array instead of giving it back.

glibc returns a large block to the system when it is freed, and the system clears every page of 4 KB anew when the next array
touches it: 500 page faults for 2 MB, which take longer than the arithmetic. x · x · x and its gradient on 3 MB arrays take
11.7 ms with 1,433 faults for a call, and 1.0 ms with none. So blocks up to :data:`KEPT` come from the heap, which gives its
end back only if more than that is free there. It holds for all arrays that NumPy makes in the process.

Settings of the user's stand: those of the environment (``MALLOC_…``, ``GLIBC_TUNABLES``) turn this off. Other C libraries have
no such settings, and keep freed memory longer anyway.
"""

from __future__ import annotations

import ctypes
import os

KEPT = 1 << 30
"""Bytes."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of <malloc.h>
_MOST = 32 << 20  # the highest M_MMAP_THRESHOLD that older versions take


def settings() -> list[str]:
    """The environment variables that set glibc's memory."""
    return [
        name
        for name, value in os.environ.items()
        if name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TOP_PAD_")
        or (name == "GLIBC_TUNABLES" and "glibc.malloc" in value)
    ]


def keep_freed() -> bool:
    """Have the C library keep what is freed; whether it does so now."""
    try:
        glibc = (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError):  # Windows has no confstr, macOS and musl not this name
        return False
    if not glibc or settings():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    taken = mallopt(_MMAP_THRESHOLD, KEPT) or mallopt(_MMAP_THRESHOLD, _MOST)
    return bool(taken and mallopt(_TRIM_THRESHOLD, KEPT))


kept = keep_freed()
"""Whether freed memory is kept."""

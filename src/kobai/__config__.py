"""``kobai.__config__``: how this Kobai was set up, with the names of ``torch.__config__``."""

from __future__ import annotations

from kobai import xp
from kobai.compat.versions import VERSION
from kobai.cpu import blas, thread_report


def show() -> str:
    """The version, the backends that can be used, and the threads."""
    ready = ", ".join(name for name, reason in xp.available_backends().items() if not reason)
    return f"Kobai {VERSION}; backends: {ready}\n{parallel_info()}"


def parallel_info() -> str:
    """The threads that Kobai computes with."""
    lines = [
        f"kobai: {blas.threads()}",
        *(f"{p['internal_api']}: {thread_report.describe(p)}" for p in thread_report.pools()),
    ]
    return "\n".join(lines)

"""Facts about the machine and its software, without which a timing means nothing."""

from __future__ import annotations

import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from kobai import cuda
from kobai.compat.versions import VERSION
from kobai.cpu import thread_report

PACKAGES = ("numpy", "numba", "llvmlite", "cupy-cuda12x", "cupy-cuda13x", "nvmath-python")


def facts() -> dict[str, Any]:
    """Processor, cores, load, matrix library with its threads, GPUs, versions, as plain JSON.

    >>> found = facts()
    >>> found["cores"] >= 1, "numpy" in found["packages"]
    (True, True)
    """
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load average": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "kobai": VERSION,
        "packages": {name: found for name in PACKAGES if (found := version(name))},
        "blas": blas(),
        "gpus": [cuda.get_device_name(index) for index in range(cuda.device_count())],
    }


def processor() -> str:
    """The name of the processor, as far as the system knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def blas() -> list[str]:
    """Matrix libraries in this process with kind, version and threads."""
    return [
        f"{pool['internal_api']} {pool['version'] or ''} {pool.get('architecture', '')}, {pool['num_threads']} threads"
        for pool in thread_report.pools()
        if pool["user_api"] == "blas"
    ]


def version(package: str) -> str:
    """The version of an installed package; empty if it is missing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""

"""The thread pools in this process, and the settings that make them starve each other, each with its cure."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from kobai.cpu import blas
from kobai.cpu.threads import cpu_quota, num_threads, processors, visible_processors

VARIABLES = (
    "KOBAI_EXCLUSIVE OMP_NUM_THREADS OMP_WAIT_POLICY OPENBLAS_NUM_THREADS MKL_NUM_THREADS BLIS_NUM_THREADS "
    "KMP_BLOCKTIME GOMP_SPINCOUNT"
).split()
"""Environment variables that the pools obey."""


def pools() -> list[dict[str, Any]]:
    """Every pool in the process as threadpoolctl describes it."""
    return list(importlib.import_module("threadpoolctl").threadpool_info())


def describe(pool: dict[str, Any]) -> str:
    """A pool in a line.

    >>> describe({"internal_api": "openmp", "user_api": "openmp", "num_threads": 2, "version": None, "prefix": "libgomp"})
    'libgomp, 2 threads, which spin for a while after their work'
    """
    version = f" {pool['version']}" if pool.get("version") else ""
    layer = f", {pool['threading_layer']}" if pool.get("threading_layer") else ""
    kind = f" for {pool['architecture']}" if pool.get("architecture") else ""
    n = pool["num_threads"]
    parts = f"{pool['prefix']}{version}{kind}{layer}, {n} thread{'s' * (n != 1)}"
    if pool["user_api"] == "openmp":
        passive = os.environ.get("OMP_WAIT_POLICY", "").lower() == "passive"
        return f"{parts}, which {'sleep' if passive else 'spin for a while'} after their work"
    if pool["user_api"] == "blas" and not blas.exclusive():
        return f"{parts}, held to one while Kobai computes"
    return parts


def settings() -> dict[str, str]:
    """The environment variables that the pools obey, those that are set."""
    return {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}


def granted() -> str:
    """How many processors there are for this process, and why not more: ``2 of 8: the container's quota is 1.5``."""
    machine, visible, quota = os.cpu_count() or 1, visible_processors(), cpu_quota()
    reasons = []
    if visible < machine:
        reasons.append(f"by affinity {visible}")
    if quota is not None:
        reasons.append(f"the container's quota is {quota:g}")
    return f"{processors()} of {machine}" + (f": {', '.join(reasons)}" if reasons else "")


WIDE = frozenset("avx512f avx512cd avx512dq avx512bw avx512vl".split())
NARROW = frozenset(
    "nehalem sandybridge haswell zen prescott barcelona bulldozer piledriver steamroller excavator".split()
)


def narrow_kernels(pool: dict[str, Any], cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether OpenBLAS runs code for narrower vectors than this processor has (False where that is unknown, as off Linux)."""
    if pool.get("internal_api") != "openblas" or str(pool.get("architecture", "")).lower() not in NARROW:
        return False
    try:
        with cpuinfo.open(encoding="utf-8", errors="replace") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return False
    return set(flags.split()) >= WIDE


def hints() -> list[str]:
    """What makes the library's products slower than this processor allows, with the cure. Kobai's own do not use it."""
    found = []
    for pool in pools():
        if narrow_kernels(pool) and not blas.own():
            named = os.environ.get("OPENBLAS_CORETYPE")
            cure = f"Unset OPENBLAS_CORETYPE={named}" if named else "Install a newer NumPy"
            found.append(
                f"OpenBLAS computes with its code for {pool['architecture']}, but this processor has AVX-512: products take up "
                f"to twice as long. {cure}"
            )
    return found


def warnings() -> list[str]:
    """What makes threads wait for each other here, each with its cure; empty where nothing does."""
    found = []
    n, loaded = processors(), pools()
    library = max((pool["num_threads"] for pool in loaded if pool["user_api"] == "blas"), default=0)
    spinning = [pool["prefix"] for pool in loaded if pool["user_api"] == "openmp" and pool["num_threads"] > 1]
    if blas.exclusive():
        if library > n:
            found.append(
                f"KOBAI_EXCLUSIVE is set, and BLAS has {library} threads for {n} processors: products wait for threads that do "
                f"not run. Unset KOBAI_EXCLUSIVE, or set OPENBLAS_NUM_THREADS={n}"
            )
        if spinning and library > 1:
            found.append(
                f"KOBAI_EXCLUSIVE is set, and {', '.join(spinning)} has threads in this process too: they take the processors "
                "from each other. Unset KOBAI_EXCLUSIVE"
            )
    if num_threads() > n:
        found.append(
            f"Kobai was told to use {num_threads()} threads, and there are {n} processors for it: call set_num_threads({n})"
        )
    if spinning and os.environ.get("OMP_WAIT_POLICY", "").lower() == "active":
        found.append(
            f"OMP_WAIT_POLICY=active keeps the threads of {', '.join(spinning)} on the processors between their work: "
            "set it to passive"
        )
    return found

"""``kobai info``: what is installed, what is missing, and how to install it."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path

from kobai import cuda, xp
from kobai.bench.machine import version
from kobai.cli.common import out, say
from kobai.cli.options import command
from kobai.compat.versions import VERSION
from kobai.cpu import blas, thread_report
from kobai.engine import dispatch
from kobai.engine.disk_cache import cache_folder
from kobai.errors import BackendError, install
from kobai.train.step import PRECISIONS

# package: the extra that installs it, and what it is for
PACKAGES = {
    "numpy": ("", "arrays"),
    "safetensors": ("", "checkpoints"),
    "threadpoolctl": ("", "threads of the matrix library"),
    "rich": ("", "the terminal"),
    "typer": ("", "the command line"),
    "numba": ("cpu", "compiled CPU kernels"),
    "matplotlib": ("plot", "figures"),
    "scikit-learn": ("data", "the embedded digits"),
    "pooch": ("data", "verified downloads"),
    "optuna": ("tune", "searches: kobai tune"),
    "onnx": ("onnx", "models as files of ONNX"),
    "psycopg": ("postgres", "searches in a database"),
    "cupy-cuda12x": ("cuda12", "GPU arrays, CUDA 12"),
    "cupy-cuda13x": ("cuda13", "GPU arrays, CUDA 13"),
    "nvmath-python": ("cuda13", "products on a GPU, captured"),
}


@command("backend")
def info() -> None:
    """Backends, devices, engines, threads, versions; what is missing and how to install it."""
    say(f"kobai {VERSION}, Python {platform.python_version()}, {platform.platform()}")
    _section("Backends")
    try:
        default = xp.backend()
    except BackendError as error:  # this command is asked what is wrong
        default = ""
        _row("default", f"none: {error}")
    for name, reason in xp.available_backends().items():
        mark = " (default)" if name == default else ""
        _row(name, f"ready{mark}" if not reason else f"not available: {reason.partition(': ')[2]}")
    _section("Devices")
    _row("cpu", f"{platform.processor() or platform.machine()}, {os.cpu_count()} logical cores")
    for index in range(cuda.device_count()):
        _row(f"cuda:{index}", cuda.get_device_name(index))
    _section("Engines")
    for name, what in _engines():
        _row(name, what)
    _row("precision", _precisions())
    _section("Threads")
    _row("processors", thread_report.granted())
    threads = blas.threads()
    _row("kobai", f"{threads} thread{'s' * (threads != 1)}: {_products()}")
    for pool in thread_report.pools():
        _row(pool["internal_api"], thread_report.describe(pool))
    for name, value in thread_report.settings().items():
        _row("environment", f"{name}={value}")
    for warning in thread_report.warnings():
        _row("warning", warning, style="yellow")
    for hint in thread_report.hints():
        _row("hint", hint, style="yellow")
    _section("Packages")
    for package, (extra, purpose) in PACKAGES.items():
        found = version(package) or (f"missing: {install(extra)}" if extra else "missing")
        say(f"  {package:<14} {found:<36} {purpose}")


def _section(title: str) -> None:
    out.print(f"\n{title}", style="bold")


def _row(name: str, what: str, style: str | None = None) -> None:
    out.print(f"  {name:<14} {what}", markup=False, soft_wrap=not out.is_terminal, style=style)


def _precisions() -> str:
    """What ``--precision`` means on this machine."""
    listed = ", ".join(PRECISIONS)
    if cuda.device_count():
        return listed
    return f"{listed}; on the CPU tf32 is fp32, and 16 bits are rounded between float32 arithmetic, which takes longer"


def _products() -> str:
    if blas.exclusive():
        return "all products are left to BLAS' own (KOBAI_EXCLUSIVE)"
    if blas.own():
        return "they sleep between their work, and take parts of products while they are awake"
    return "they sleep between their work; large products are split among them, and BLAS does each part on one"


def _engines() -> list[tuple[str, str]]:
    """What runs kernels on the host and on a GPU, and where compiled code is kept."""
    ours = "products, " if blas.own() else ""
    found = [("NumPy", f"{version('numpy')}: {'small ' * bool(ours)}products, and what has no kernel of its own")]
    if dispatch.numba_installed:
        loops = f"{ours}loops over host arrays, compiled at first use (kobai warmup)"
        found.append(("Numba", f"{version('numba')}: {loops}"))
        found += [("", f"{size / 1e6:.1f} MB of machine code in {at}") for at, size in _machine_code().items()]
    else:
        found.append(("Numba", f"missing, so that NumPy does it all: {install('cpu')}"))
    if xp.available_backends()["cupy"]:
        found.append(("CUDA", "not available, see above"))
    else:
        cupy, runtime = cuda.versions()
        found.append(("CUDA", f"CuPy {cupy}, CUDA {runtime}: kernels in CUDA C, products by cuBLASLt"))
    return found


def _machine_code() -> dict[Path, int]:
    """Folders of Numba's cache for Kobai, with their sizes in bytes."""
    named = os.environ.get("NUMBA_CACHE_DIR")
    folders = [*([Path(named)] if named else []), Path(dispatch.__file__).parent]
    with suppress(OSError):  # there is no home
        folders.append(cache_folder())
    return {folder: sum(f.stat().st_size for f in folder.rglob("*.nb[ci]")) for folder in folders if folder.is_dir()}

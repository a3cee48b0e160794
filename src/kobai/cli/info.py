"""``kobai info``: what is here, what is missing, and how to install it."""

from __future__ import annotations

import importlib
import os
import platform
from importlib import metadata

from kobai import cuda, xp
from kobai.cli.common import Debug, has, one_line, out, say
from kobai.errors import BackendError
from kobai.train import job

# package: the extra that installs it, and what it is for
PACKAGES = {
    "numpy": ("", "arrays"),
    "safetensors": ("", "checkpoints"),
    "rich": ("", "the terminal"),
    "typer": ("", "the command line"),
    "numba": ("cpu", "compiled CPU kernels (planned)"),
    "threadpoolctl": ("cpu", "threads of the matrix library"),
    "matplotlib": ("plot", "learning curves"),
    "scikit-learn": ("data", "the embedded digits"),
    "pooch": ("data", "verified downloads"),
    "optuna": ("tune", "hyper-parameter search (planned)"),
    "cupy-cuda12x": ("cuda12", "GPU arrays, CUDA 12"),
    "cupy-cuda13x": ("cuda13", "GPU arrays, CUDA 13"),
}


def info(debug: Debug = False) -> None:
    """Backends, devices, engines, versions; what is missing and how to install it."""
    with one_line(debug):
        say(f"kobai {job.kobai_version()}, Python {platform.python_version()}, {platform.platform()}")
        _section("Backends")
        try:
            default = xp.backend()
        except BackendError as error:  # what is wrong is what this command is asked
            default = ""
            say(f"  {'default':<14} none: {error}")
        for name, reason in xp.available_backends().items():
            mark = " (default)" if name == default else ""
            say(f"  {name:<14} {'ready' + mark if not reason else 'not available: ' + reason.partition(': ')[2]}")
        _section("Devices")
        say(f"  {'cpu':<14} {platform.processor() or platform.machine()}, {os.cpu_count()} logical cores")
        for index in range(cuda.device_count()):
            say(f"  {f'cuda:{index}':<14} {cuda.get_device_name(index)}")
        _section("Engines")
        say(f"  {'kernels':<14} NumPy's loops on the CPU; CuPy's on a GPU")
        for line in _threads():
            say(f"  {line}")
        _section("Packages")
        for package, (extra, purpose) in PACKAGES.items():
            try:
                found = metadata.version(package)
            except metadata.PackageNotFoundError:
                found = f"missing: pip install 'kobai[{extra}]'" if extra else "missing"
            say(f"  {package:<14} {found:<36} {purpose}")


def _section(title: str) -> None:
    out.print(f"\n[bold]{title}[/bold]")


def _threads() -> list[str]:
    if not has("threadpoolctl"):
        return [f"{'thread pools':<14} unknown without threadpoolctl: pip install 'kobai[cpu]'"]
    pools = importlib.import_module("threadpoolctl").threadpool_info()
    return [
        f"{pool['internal_api']:<14} {pool['num_threads']} threads, version {pool['version'] or 'unknown'}, "
        f"{pool.get('architecture', 'any architecture')}"
        for pool in pools
    ] or ["no thread pool is loaded"]

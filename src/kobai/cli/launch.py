"""``kobai launch``: a script in several processes that train together."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from kobai.distributed import is_available
from kobai.errors import install
from kobai.train.settings import SettingsError


def launch(
    script: Annotated[str, typer.Argument(help="A Python file; or a module, after -m.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="What the script is given.")] = None,
    n: Annotated[int, typer.Option("-n", "--processes", help="How many processes.")] = 2,
    hostfile: Annotated[
        Path | None, typer.Option(help="The machines, one in each line, as mpiexec takes them.")
    ] = None,
    module: Annotated[bool, typer.Option("-m", help="SCRIPT is the name of a module.")] = False,
) -> None:
    """Start a script in several processes, which find each other by MPI.

    Each has RANK, LOCAL_RANK and WORLD_SIZE in its environment, and its share of this machine's processors as
    OMP_NUM_THREADS, unless that is set. If one fails, all end.

    Exit codes:
        that of the script; 1 if there is no MPI, 2 usage

    Examples:
        kobai launch -n 2 train.py --lr 0.1
        kobai launch -n 4 -m my_package.train
        kobai launch -n 8 --hostfile machines.txt train.py
    """
    if n < 1:
        raise SettingsError("processes", f"expected >= 1, got {n}")
    raise typer.Exit(subprocess.call(command(script, arguments or [], n, hostfile, module), env=environment(n)))


def command(script: str, arguments: list[str], n: int, hostfile: Path | None = None, module: bool = False) -> list[str]:
    """What is run: ``mpiexec -n 4 python -m mpi4py -m kobai.distributed.started script.py …``."""
    beside = Path(sys.executable).with_name(
        "mpiexec"
    )  # that of the extra, in a virtual environment that is not activated
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    if mpiexec is None or not is_available():
        raise SettingsError("processes", f"there is no MPI: {install('mpi')} brings one")
    if hostfile is not None and not hostfile.is_file():
        raise SettingsError("hostfile", f"there is no file {hostfile}")
    hosts = [] if hostfile is None else ["-f" if _hydra(mpiexec) else "--hostfile", str(hostfile)]
    started = [sys.executable, "-m", "mpi4py", "-m", "kobai.distributed.started"]
    return [mpiexec, *hosts, "-n", str(n), *started, *(["-m"] if module else []), script, *arguments]


def environment(n: int) -> dict[str, str]:
    """This process's environment, with each process's share of the processors; Open MPI is told that root may."""
    share = max(1, (os.cpu_count() or 1) // n)
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return {"OMP_NUM_THREADS": str(share), "NUMBA_NUM_THREADS": str(share), **root, **os.environ}


def _hydra(mpiexec: str) -> bool:
    """Whether it is MPICH's, whose option for machines has another name than Open MPI's."""
    said = subprocess.run([mpiexec, "--version"], capture_output=True, text=True, check=False).stdout
    return "HYDRA" in said

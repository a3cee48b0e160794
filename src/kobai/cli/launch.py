"""``kobai launch``: a script in several processes that train together."""

from __future__ import annotations

import os
import select
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from kobai.cli.common import warn
from kobai.distributed import get_rank, init_process_group, is_available
from kobai.distributed.started import JOB
from kobai.errors import install
from kobai.train.settings import SettingsError

WATCH = 100
"""Milliseconds after which the launcher looks for processes that have begun since."""

OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
}
"""Root may start processes, also more than there are cores; none is bound to one core, which all its threads would share; and
those that wait let others run.

OMPI_MCA are the names of Open MPI 4, PRTE_MCA those of 5.
"""


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
    raise typer.Exit(run(command(script, arguments or [], n, hostfile, module), n)[0])


def command(script: str, arguments: list[str], n: int, hostfile: Path | None = None, module: bool = False) -> list[str]:
    """What is run: ``mpiexec -n 4 python -m mpi4py -m kobai.distributed.started script.py …``."""
    mpiexec = _mpiexec()
    if mpiexec is None or not is_available():
        raise SettingsError("processes", f"there is no MPI: {install('mpi')} brings one")
    if hostfile is not None and not hostfile.is_file():
        raise SettingsError("hostfile", f"there is no file {hostfile}")
    hosts = [] if hostfile is None else ["-f" if _hydra(mpiexec) else "--hostfile", str(hostfile)]
    started = [sys.executable, "-m", "mpi4py", "-m", "kobai.distributed.started"]
    return [mpiexec, *hosts, "-n", str(n), *started, *(["-m"] if module else []), script, *arguments]


def _mpiexec() -> str | None:
    """That of the MPI that mpi4py loads: the one it is told to, or that of the extra; else the first that is found."""
    if told := os.environ.get("MPI4PY_MPIABI"):
        return shutil.which(f"mpiexec.{told}") or shutil.which("mpiexec")
    beside = Path(sys.executable).with_name("mpiexec")  # in a virtual environment, also if it is not activated
    return str(beside) if beside.exists() else shutil.which("mpiexec")


def joined(n: int | None) -> int | None:
    """Join the processes that this one was started with, if there are some: its rank; else None.

    SettingsError if there are not ``n``.
    """
    found = int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1
    if found == 1:
        return None
    if n not in (None, found):
        raise SettingsError("processes", f"expected {n} processes, but {found} were started")
    init_process_group()
    return get_rank()


def again(line: list[str], n: int) -> int:
    """Run ``kobai`` with this command line in ``n`` processes; returns the exit code."""
    code, ended = run(command("kobai", line, n, module=True), n)
    if ended:
        where = [f" --out {shlex.quote(line[i + 1])}" for i, word in enumerate(line[:-1]) if word == "--out"]
        warn(f"go on, with as many processes as you like, by: kobai train --resume{''.join(where)}")
    return code


def run(command: list[str], n: int) -> tuple[int, bool]:
    """Run mpiexec; returns its exit code, and whether a process was ended from outside, which is named then."""
    with (
        TemporaryDirectory(prefix="kobai-job-") as folder,
        subprocess.Popen(command, env={**environment(n), JOB: folder}) as running,
    ):
        first = _first_to_end(running, Path(folder), n) if hasattr(os, "pidfd_open") else None
        code = running.wait()
    ended = code not in (0, 1, 2, 130)
    if ended:
        who = "a process" if first is None else f"rank {first[0]} (PID {first[1]})"
        warn(f"{who} was ended from outside, and all others with it (exit code {code})")
    return code, ended


def _first_to_end(running: subprocess.Popen[bytes], folder: Path, n: int) -> tuple[int, int] | None:
    """Rank and PID of the process on this machine that ended before all others; each has left a file with its PID."""
    watched: dict[int, tuple[int, int]] = {}
    poll = select.poll()
    try:
        while running.poll() is None:
            for path in folder.iterdir() if len(watched) < n else ():
                rank, pid = map(int, path.name.split("-"))
                if (rank, pid) not in watched.values():
                    try:
                        handle = os.pidfd_open(pid)
                    except ProcessLookupError:
                        return rank, pid
                    watched[handle] = rank, pid
                    poll.register(handle, select.POLLIN)
            for handle, _ in poll.poll(WATCH):
                return watched[handle]
        return None
    finally:
        for handle in watched:
            os.close(handle)


def environment(n: int) -> dict[str, str]:
    """This process's environment, with each process's share of the processors, and what makes Open MPI do as MPICH does."""
    share = str(max(1, (os.cpu_count() or 1) // n))
    return {"OMP_NUM_THREADS": share, "NUMBA_NUM_THREADS": share, **OPEN_MPI, **os.environ}


def _hydra(mpiexec: str) -> bool:
    """Whether it is MPICH's, whose option for machines has another name than Open MPI's."""
    said = subprocess.run([mpiexec, "--version"], capture_output=True, text=True, check=False).stdout
    return "HYDRA" in said

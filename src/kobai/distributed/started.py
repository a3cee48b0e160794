"""Run a script as one of the processes of a job: ``python -m mpi4py -m kobai.distributed.started script.py arguments``.

This is what ``kobai launch`` starts. The script finds ``RANK``, ``LOCAL_RANK``, ``WORLD_SIZE`` and ``LOCAL_WORLD_SIZE`` in its
environment, as from PyTorch's launcher. mpi4py ends the whole job when the script raises.
"""

from __future__ import annotations

import os
import runpy
import sys

JOB = "KOBAI_JOB"
"""The variable that names a folder of the launcher, where each process on its machine leaves a file: its rank and PID."""


def name_ranks() -> None:
    """Write the ranks that MPI gives into the environment, and tell the launcher who has which."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    beside = world.Split_type(MPI.COMM_TYPE_SHARED)  # the processes on this machine
    for name, value in (
        ("RANK", world.Get_rank()),
        ("WORLD_SIZE", world.Get_size()),
        ("LOCAL_RANK", beside.Get_rank()),
        ("LOCAL_WORLD_SIZE", beside.Get_size()),
    ):
        os.environ[name] = str(value)
    beside.Free()
    if os.path.isdir(folder := os.environ.get(JOB, "")):
        open(os.path.join(folder, f"{world.Get_rank()}-{os.getpid()}"), "x").close()


if __name__ == "__main__":
    name_ranks()
    sys.argv = sys.argv[1:]
    if sys.argv[0] == "-m":
        sys.argv = sys.argv[1:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
        runpy.run_path(sys.argv[0], run_name="__main__")

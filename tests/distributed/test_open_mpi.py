"""The jobs of ``test_distributed.py`` with Open MPI, where a machine has it: Debian's ``openmpi-bin`` is enough."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest
from test_distributed import launched

import kobai.distributed as dist

SAYS = "from mpi4py import MPI; print(MPI.Get_library_version())"


def loaded() -> str:
    """The version of the library that mpi4py loads when it is told to take Open MPI; empty if it cannot."""
    if not dist.is_available() or shutil.which("mpiexec.openmpi") is None:
        return ""
    told = {**os.environ, "MPI4PY_MPIABI": "openmpi"}
    done = subprocess.run([sys.executable, "-c", SAYS], capture_output=True, text=True, env=told, check=False)
    return done.stdout if done.returncode == 0 else ""


@pytest.fixture
def open_mpi(monkeypatch: pytest.MonkeyPatch) -> None:
    if not loaded().startswith("Open MPI"):
        pytest.skip("there is no Open MPI that mpi4py can load")
    monkeypatch.setenv("MPI4PY_MPIABI", "openmpi")


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["collectives", "training", "accumulation"])
def test_a_job_of_more_processes_than_cores(open_mpi: None, name: str) -> None:
    n = (os.cpu_count() or 1) + 1
    code, said, _ = launched(name, n)
    assert code == 0, said
    assert said.count("ok") == n


@pytest.mark.thorough
def test_training_ends_in_the_bits_of_the_other_library(open_mpi: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def digests() -> set[str]:
        return {*re.findall(r"digest (\w{64})", launched("training")[1])}

    here = digests()
    monkeypatch.delenv("MPI4PY_MPIABI")
    assert len(here) == 1
    assert digests() == here


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("runs_out", "rank 1: nothing more: it has ended, or its data ran out"),
        ("raises", "rank 1 has had enough"),
        ("killed", "(?i)killed|signal 9"),
    ],
)
def test_a_process_that_fails_ends_the_job(open_mpi: None, name: str, said: str) -> None:
    code, output, _ = launched(name)
    assert code != 0
    assert re.search(said, output), output

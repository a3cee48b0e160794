"""Several processes, each with a GPU: the bits of MPI and of one process, eager and captured, and nobody waits for ever.

Each process has devices of its own, of which it uses that of its rank; what NCCL moves between them lies in files.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import kobai.distributed as dist

JOB = Path(__file__).parents[1] / "distributed" / "gpu_job.py"
pytestmark = pytest.mark.skipif(not dist.is_available(), reason="mpi4py is not installed")


@pytest.fixture(autouse=True)
def _several_devices() -> None:
    import kobai

    if not dist.is_nccl_available():
        pytest.skip("CuPy finds no NCCL")
    if os.environ.get("KOBAI_SIMULATE_GPU") != "1" and kobai.cuda.device_count() < 2:
        pytest.skip("there is one GPU")


def launched(names: str, n: int, **environment: str) -> tuple[int, str]:
    """Exit code and output of a job."""
    command = [sys.executable, "-m", "kobai", "launch", "-n", str(n), str(JOB), names]
    names_of = {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=names_of)
    return done.returncode, done.stdout + done.stderr


def test_all_is_well_on_two() -> None:
    """Sums with MPI's bits; trainings, eager and captured; a step that one rank cannot capture, or not yet."""
    names = ["collectives", "training", "one_cannot", "one_is_late", "fast", "same_device", "other_order"]
    code, said = launched(",".join(names), 2)
    assert code == 0, said
    for name in names:
        assert said.count(f"{name} ok") == 2, said


def test_one_hash() -> None:
    """A training in four shards ends in the same bits on one GPU and on two, eager and captured."""
    digests = []
    for n in (1, 2):
        code, said = launched("shards", n)
        assert code == 0, said
        digests += re.findall(r"digest (\w+)", said)
    assert len(digests) == 3
    assert len(set(digests)) == 1


@pytest.mark.thorough
@pytest.mark.skipif(os.environ.get("KOBAI_SIMULATE_GPU") != "1", reason="needs four devices")
def test_four_do_what_two_do() -> None:
    code, said = launched("collectives,fast,training,shards", 4)
    assert code == 0, said
    assert len(set(re.findall(r"digest (\w+)", said) + re.findall(r"digest (\w+)", launched("shards", 1)[1]))) == 1


def test_a_rank_whose_data_ran_out_is_named() -> None:
    """The others replay a captured step, and hear of it before they launch its graph."""
    code, said = launched("runs_out", 2)
    assert code != 0
    assert re.search("rank 1: nothing more: it has ended, or its data ran out", said), said


@pytest.mark.skipif(os.environ.get("KOBAI_SIMULATE_GPU") != "1", reason="needs a machine with two devices")
def test_more_processes_than_devices() -> None:
    code, said = launched("too_many", 3, KOBAI_SIMULATED_DEVICES="2")
    assert code == 0, said


def test_without_nccl(monkeypatch: pytest.MonkeyPatch) -> None:
    from cupy.cuda import nccl

    monkeypatch.setattr(nccl, "available", False)
    assert not dist.is_nccl_available()
    assert not dist.is_backend_available("nccl")
    with pytest.raises(dist.DistError, match=r"CuPy finds no NCCL.*pip install nvidia-nccl-cu1\d"):
        dist.init_process_group("nccl")

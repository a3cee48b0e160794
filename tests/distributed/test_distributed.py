"""Several processes that train one model: PyTorch's functions, the same bits everywhere, and no process that waits for ever."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import kobai
import kobai.distributed as dist
from kobai import nn
from kobai.distributed.tree import combined

JOB = Path(__file__).with_name("job.py")
mpi = pytest.mark.skipif(not dist.is_available(), reason="mpi4py is not installed")


def launched(name: str, n: int = 2) -> tuple[int, str, float]:
    """Exit code, output, seconds of a job."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "kobai", "launch", "-n", str(n), str(JOB), name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout + done.stderr, time.perf_counter() - began


@mpi
@pytest.mark.parametrize("n", [2, pytest.param(3, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("name", ["collectives", "training", "accumulation"])
def test_a_job(name: str, n: int) -> None:
    code, said, _ = launched(name, n)
    assert code == 0, said
    assert said.count("ok") == n


@mpi
@pytest.mark.thorough
def test_a_training_ends_in_the_same_bits_again() -> None:
    first, second = ({*re.findall(r"digest (\w{64})", launched("training")[1])} for _ in range(2))
    assert len(first) == 1
    assert first == second


@mpi
@pytest.mark.parametrize(
    ("name", "said"),
    [
        pytest.param(
            "other_model",
            "same model and versions in all processes; rank 0 has .*4, 20.* rank 1 .*5, 20",
            marks=pytest.mark.thorough,
        ),
        ("runs_out", "rank 1: nothing more: it has ended, or its data ran out"),
        pytest.param("raises", "rank 1 has had enough", marks=pytest.mark.thorough),
        ("killed", "(?i)killed|signal 9|exit code: 9"),
    ],
)
def test_a_process_that_fails_ends_the_job(name: str, said: str) -> None:
    code, output, _ = launched(name)
    assert code != 0
    assert re.search(said, output), output


def test_without_a_group() -> None:
    for function in (dist.get_rank, dist.get_world_size, dist.barrier, dist.destroy_process_group):
        with pytest.raises(ValueError, match="there is no process group"):
            function()
    with pytest.raises(ValueError, match="there is no process group"):
        dist.all_reduce(kobai.ones(2))
    with pytest.raises(ValueError, match="there is no process group"):
        nn.parallel.DistributedDataParallel(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="expected backend auto, mpi, gloo, nccl, got 'mpj'"):
        dist.init_process_group("mpj")
    with pytest.raises(ValueError, match="'env://' or no init_method"):
        dist.init_process_group("mpi", init_method="tcp://10.0.0.1:23456")
    assert nn.SyncBatchNorm(2)(kobai.randn(4, 2)).shape == (4, 2)


@pytest.mark.parametrize("n", range(1, 18))
def test_the_tree_is_balanced(n: int) -> None:
    """Neighbours first: every number is written as the pair of what it was made from."""

    def tree(leaves: list[str]) -> str:
        while len(leaves) > 1:
            leaves = [
                "".join(("(", *leaves[i : i + 2], ")")) if i + 1 < len(leaves) else leaves[i]
                for i in range(0, len(leaves), 2)
            ]
        return leaves[0]

    rows = np.array([[f"{i} "] for i in range(n)], dtype=object)
    found = combined(rows, lambda a, b, out: np.copyto(out, "(" + a + b + ")"))
    assert found[0] == tree([f"{i} " for i in range(n)])

#!/usr/bin/env python3
"""What logical shards cost on one process, and what a second process gains: on M and CNN of benchmarks/README.md.

    python scripts/shards_timing.py             both, about two minutes on a quiet machine
    python scripts/shards_timing.py --rounds 3 --steps 10

Needs ``pip install 'kobai[cpu,mpi]'``. The first table: the time of a step on one thread with V = 1, 2, 4, 8 shards, over
that with V = 1, which take turns in one process. The second: V = 2 on one process over V = 2 on two, each process with one
thread, as jobs that take turns. Medians of the least of each round: other work on the machine only adds time.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import kobai
from kobai import distributed, nn
from kobai.cli.launch import command, environment
from kobai.train import Callback, Trainer

COUNTS = (1, 2, 4, 8)


def model(name: str) -> nn.Module:
    """M: 784-512-512-10; CNN: two convolutions of 32 and 64 channels, 3136-128-10."""
    if name == "M":
        layers = [nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)]
        return nn.Sequential(*layers)
    first, second = ([nn.Conv2d(m, n, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)] for m, n in ((1, 32), (32, 64)))
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(3136, 128), nn.ReLU(), nn.Linear(128, 10))


def batch(name: str) -> tuple[kobai.Tensor, kobai.Tensor]:
    """256 samples of 784 numbers, or 128 images of 28 × 28."""
    shape = (256, 784) if name == "M" else (128, 1, 28, 28)
    return kobai.randn(*shape), kobai.randint(0, 10, shape[:1])


class Clock(Callback):
    """The seconds between ends of batches."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.last: float | None = None

    def on_epoch_start(self, trainer: Trainer) -> None:
        self.last = None

    def on_batch_end(self, trainer: Trainer) -> None:
        now = time.perf_counter()
        if self.last is not None:
            self.times.append(now - self.last)
        self.last = now


class Run:
    """A training that goes on for some steps at a time."""

    def __init__(self, name: str, shards: int, capture: bool) -> None:
        kobai.manual_seed(0)
        net = model(name)
        rule = kobai.optim.Adam(net.parameters(), lr=1e-3)
        self.clock, self.data = Clock(), batch(name)
        self.trainer = Trainer(
            net, rule, callbacks=[self.clock], capture=capture, shards=shards, progress=False, metrics=[]
        )

    def least(self, steps: int) -> float:
        """Seconds of the quickest of so many steps."""
        self.clock.times = []
        self.trainer.fit([self.data] * (steps + 1), epochs=self.trainer.epoch + 1)
        return min(self.clock.times)


def job(name: str, shards: int, capture: bool, steps: int) -> None:
    """One process of a job; the first prints the seconds of a step."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        distributed.init_process_group()
    kobai.set_num_threads(1)
    run = Run(name, shards, capture)
    run.least(5)
    seconds = run.least(steps)
    if not distributed.is_initialized() or distributed.get_rank() == 0:
        print(f"seconds {seconds:.9f}", flush=True)


def of_job(n: int, name: str, capture: bool, steps: int) -> float:
    """Seconds of a step of V = 2 shards on ``n`` processes."""
    options = ["--job", name, "--steps", str(steps), *["--eager"] * (not capture)]
    script = str(Path(__file__).resolve())
    line = [sys.executable, script, *options] if n == 1 else command(script, options, n)
    told = {**environment(n), "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(line, capture_output=True, text=True, env=told, check=False)
    found = re.search(r"seconds ([\d.]+)", done.stdout)
    if done.returncode or found is None:
        sys.exit(done.stdout + done.stderr)
    return float(found[1])


def on_one_process(rounds: int, steps: int) -> None:
    """The first table."""
    print(
        f"| one process, one thread | {' | '.join(f'V = {count}' for count in COUNTS)} |\n|{'---|' * (len(COUNTS) + 1)}"
    )
    for name in ("M", "CNN"):
        for capture in (False, True):
            runs = [Run(name, count, capture) for count in COUNTS]
            for run in runs:
                run.least(5)
            times = [[run.least(steps) for run in runs] for _ in range(rounds)]
            first, *others = (statistics.median(column) for column in zip(*times, strict=True))
            ratios = " | ".join(f"{seconds / first:.2f}" for seconds in others)
            print(f"| {name}, {'captured' if capture else 'eager'} | {1e3 * first:.1f} ms | {ratios} |", flush=True)


def on_two_processes(rounds: int, steps: int) -> None:
    """The second table."""
    print("\n| V = 2, one thread each | one process | two processes | times as fast |\n|---|---|---|---|")
    for name in ("M", "CNN"):
        for capture in (False, True):
            times = [[of_job(n, name, capture, steps) for n in (1, 2)] for _ in range(rounds)]
            one, two = (statistics.median(column) for column in zip(*times, strict=True))
            how = "captured" if capture else "eager"
            print(f"| {name}, {how} | {1e3 * one:.1f} ms | {1e3 * two:.1f} ms | {one / two:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--only", choices=["shards", "processes"])
    parser.add_argument("--job", choices=["M", "CNN"], help=argparse.SUPPRESS)
    parser.add_argument("--eager", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    kobai.set_num_threads(1)
    if options.job:
        job(options.job, 2, not options.eager, options.steps)
        return
    if options.only != "processes":
        on_one_process(options.rounds, options.steps)
    if options.only != "shards":
        on_two_processes(options.rounds, options.steps)


if __name__ == "__main__":
    main()

"""``kobai train`` on MNIST, the whole command, beside the equivalent plain PyTorch script: wall time and CPU time.

    python benchmarks/whole_command.py --data-dir PATH [--rounds 3] [--threads 2] [--out FILE]

5 epochs of 784-100-100-100-100-10 with SGD in batches of 100, from the start of the interpreter to its end, in turns, in an
order drawn anew each round; medians. The test accuracies are shown too: all must have learnt the same.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
KOBAI = [
    "-m",
    "kobai",
    "train",
    "--data",
    "mnist",
    "--hidden",
    "100,100,100,100",
    "--optimizer",
    "sgd",
    "--lr",
    "0.1",
]
KOBAI += ["--schedule", "none", "--batch-size", "100"]
SCRIPT = [str(HERE / "mnist_torch.py")]
COMMANDS = {
    "kobai train": KOBAI,
    "PyTorch, DataLoader": [*SCRIPT, "--batches", "loader"],
    "PyTorch, batches by slices": [*SCRIPT, "--batches", "slices"],
}


def once(command: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Seconds by the clock, seconds of all cores together, and the accuracy printed last."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "output")
        with output.open("w") as file:
            start = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, *command, "--out", f"{folder}/run"], env=environment, stdout=file, stderr=file
            )
            _, status, used = os.wait4(process.pid, 0)  # of this child alone, and with its times
            wall = time.perf_counter() - start
        text = output.read_text()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with code {process.returncode}:\n{text}")
    (accuracy,) = [line.split()[-1] for line in text.splitlines() if line.startswith("test accuracy ")]
    return {"wall": wall, "cpu": used.ru_utime + used.ru_stime, "accuracy": float(accuracy)}


def main() -> None:
    """Run the commands in turns, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--data-dir", type=Path, required=True, help="folder with the four IDX files of MNIST, or above it"
    )
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "whole-command.json")
    args = parser.parse_args()
    folder = args.data_dir / "mnist" if (args.data_dir / "mnist").is_dir() else args.data_dir
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    environment = {**os.environ, **{name: str(args.threads) for name in names}}
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    commands = dict(COMMANDS)
    if find_spec("torch") is None:
        print("PyTorch is not installed: left out (pip install torch)")
        commands = {"kobai train": KOBAI}
    commands = {
        name: [*command, "--data-dir", str(folder.resolve()), "--epochs", str(args.epochs)]
        for name, command in commands.items()
    }
    order = random.Random(0)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for number in range(args.rounds + 1):  # the first one warms file caches and compiles what is kept compiled
        for name in order.sample(list(commands), len(commands)):
            result = once(commands[name], environment)
            print(f"{number or 'warm-up':>7}  {name:28}{result['wall']:7.2f} s wall", flush=True)
            if number:
                found[name].append(result)
    table: dict[str, Any] = {
        name: {key: round(statistics.median(r[key] for r in results), 4) for key in ("wall", "cpu", "accuracy")}
        for name, results in found.items()
    }
    print(f"\n{'':28}{'wall':>9}{'CPU':>9}{'test accuracy':>15}   against kobai train (wall, CPU)")
    ours = table["kobai train"]
    for name, row in table.items():
        print(
            f"{name:28}{row['wall']:7.2f} s{row['cpu']:7.2f} s{row['accuracy']:15.4f}"
            f"   {row['wall'] / ours['wall']:.2f} x, {row['cpu'] / ours['cpu']:.2f} x"
        )
    from kobai.bench import facts

    report = {"machine": facts(), "threads": args.threads, "epochs": args.epochs, "rounds": args.rounds}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({**report, "median": table, "each": found}, indent=1) + "\n")
    print(f"\n{args.out}")


if __name__ == "__main__":
    main()

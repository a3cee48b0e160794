"""Whole eager training steps of Kobai and PyTorch, alternating in one run; prints medians and their ratio.

    python benchmarks/peers.py [--rounds 15] [--threads 2] [--out FILE.json]

Each side works in a process of its own, so that two pools of spinning threads do not starve each other, and only one side
works at a time. Both train the same net from the same weights on the same batch; before anything is timed, their losses over
five steps must agree.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import multiprocessing.connection
import os
import platform
import statistics
import time
from itertools import pairwise
from pathlib import Path

# name: sizes, batch, batch normalisation, optimiser, steps in one block
CASES = {
    "S: 784-100-100-100-100-10, batch 100, SGD": ([784, 100, 100, 100, 100, 10], 100, False, "SGD", 40),
    "S + BatchNorm1d, Adam": ([784, 100, 100, 100, 100, 10], 100, True, "Adam", 20),
    "M: 784-512-512-10, batch 256, Adam": ([784, 512, 512, 10], 256, False, "Adam", 8),
}
SIDES = ("kobai", "torch")


def work(side: str, threads: int, pipe: multiprocessing.connection.Connection) -> None:
    """Serve one side: for every case make the step, report the first losses, then time blocks when told."""
    os.environ.update({name: str(threads) for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")})
    import importlib

    import numpy as np

    library = importlib.import_module(side)
    nn, functional = library.nn, importlib.import_module(f"{side}.nn.functional")
    if side == "torch":
        library.set_num_threads(threads)
    for sizes, batch, batch_norm, optimizer, n in CASES.values():
        rng = np.random.default_rng(0)
        layers = []
        for fan_in, fan_out in pairwise(sizes):
            linear = nn.Linear(fan_in, fan_out)
            with library.no_grad():
                weight = rng.standard_normal((fan_out, fan_in)) * (2 / fan_in) ** 0.5
                linear.weight.copy_(library.tensor(weight.astype("float32")))
                linear.bias.zero_()
            layers += [linear, *([nn.BatchNorm1d(fan_out)] if batch_norm else []), nn.ReLU()]
        model = nn.Sequential(*layers[: -2 if batch_norm else -1])
        update = getattr(library.optim, optimizer)(model.parameters(), lr=1e-2 if optimizer == "SGD" else 1e-3)
        x = library.tensor(rng.standard_normal((batch, sizes[0])).astype("float32"))
        t = library.tensor(rng.integers(0, sizes[-1], batch))

        def step(model=model, update=update, x=x, t=t):
            update.zero_grad()
            loss = functional.cross_entropy(model(x), t)
            loss.backward()
            update.step()
            return loss

        pipe.send([step().item() for _ in range(5)])
        while pipe.recv():
            for _ in range(3):  # caches and clocks back to where work leaves them
                step()
            start = time.perf_counter()
            for _ in range(n):
                step()
            pipe.send((time.perf_counter() - start) / n)


def main() -> None:
    """Run all cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()

    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for side in SIDES:
        pipes[side], theirs = context.Pipe()
        processes.append(context.Process(target=work, args=(side, args.threads, theirs), daemon=True))
        processes[-1].start()

    rows = []
    for case in CASES:
        losses = {side: pipes[side].recv() for side in SIDES}
        for a, b in zip(*losses.values(), strict=True):
            if abs(a - b) > 1e-3 * abs(b):
                raise SystemExit(f"{case}: the two sides disagree, losses {losses}")
        times: dict[str, list[float]] = {side: [] for side in SIDES}
        for _ in range(args.rounds):
            for side in SIDES:
                pipes[side].send(True)
                times[side].append(pipes[side].recv())
        for side in SIDES:
            pipes[side].send(False)
        median = {side: statistics.median(times[side]) * 1e6 for side in SIDES}
        ratios = sorted(b / a for a, b in zip(times["kobai"], times["torch"], strict=True))
        spread = (ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4])
        rows.append({"case": case, **{f"{s} us": round(m, 1) for s, m in median.items()}})
        rows[-1].update(
            {"ratio": round(median["torch"] / median["kobai"], 2), "quartiles": [round(r, 2) for r in spread]}
        )
        print(
            f"{case:44} kobai {median['kobai']:8.0f} us   torch {median['torch']:8.0f} us   "
            f"torch/kobai {median['torch'] / median['kobai']:.2f}  (quartiles {spread[0]:.2f} to {spread[1]:.2f})",
            flush=True,
        )
    for process in processes:
        process.join()
    if args.out:
        machine = {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
        args.out.write_text(json.dumps({**machine, "threads": args.threads, "steps": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

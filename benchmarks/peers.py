"""Whole training steps of Kobai beside those of PyTorch, JAX and NumPy by hand: medians and ratios out of one run.

    python benchmarks/peers.py [--cases S,M] [--sides kobai,torch,jax] [--rounds 15] [--threads 2] [--memory] [--tiny]
    python benchmarks/peers.py --device cuda [--precision tf32|bf16] [--own-memory] [--out FILE --resume]

Each side works in a process of its own, since pools of spinning threads in one process starve each other, and only one
side works at a time; the order is drawn anew in every round. All sides train the same net from the same weights on the same
batch, and before anything is timed their losses over five steps must agree. A side that cannot be had is named, with why.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import math
import multiprocessing
import multiprocessing.connection
import os
import random
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cases
from cases import Case
from sides import Absent


@dataclass(frozen=True)
class Side:
    """Who trains: a file in ``sides/``, a variant in it, and whether it counts as a peer that Kobai is held against."""

    title: str
    module: str
    variant: str
    peer: bool = False


SIDES = {
    "kobai": Side("Kobai, captured", "kobai_side", "captured"),
    "kobai-eager": Side("Kobai, eager", "kobai_side", "eager"),
    "kobai-plain": Side("Kobai, captured, without Numba", "kobai_side", "captured-plain"),
    "kobai-plain-eager": Side("Kobai, eager, without Numba", "kobai_side", "eager-plain"),
    "torch": Side("PyTorch, eager", "torch_side", "eager", True),
    "torch-fused": Side("PyTorch, eager, fused optimiser", "torch_side", "fused", True),
    "torch-graph": Side("PyTorch, one CUDA graph", "torch_side", "graph", True),
    "torch-compile": Side("PyTorch, torch.compile", "torch_side", "compile", True),
    "jax": Side("JAX, jit", "jax_side", "jit", True),
    "numpy": Side("NumPy by hand", "numpy_side", "by hand"),
    "products": Side("the products alone", "numpy_side", "products"),
}
ON_CPU = [name for name in SIDES if name not in ("torch-graph", "kobai-plain-eager")]
ON_CUDA = ["kobai", "kobai-eager", "torch", "torch-fused", "torch-graph", "torch-compile", "jax"]
MEASURED_IN_MEMORY = ("kobai", "kobai-eager", "torch-fused", "jax", "numpy")
CHECKED_STEPS = 5

Pipe = multiprocessing.connection.Connection


# --- in the processes of the sides ------------------------------------------------------------------------------------


def serve(side: Side, device: str, precision: str, pipe: Pipe) -> None:
    """Answer questions until None comes.

    ("make", case) → first losses; ("time", steps) → seconds per step; ("memory", None) → bytes by the library's own account.
    """
    try:
        module = importlib.import_module(f"sides.{side.module}")
        pipe.send({"versions": module.versions(side.variant)})
    except Absent as reason:
        pipe.send({"absent": str(reason)})
        return
    run: Any = None
    while (question := pipe.recv()) is not None:
        what, value = question
        try:
            if what == "make":
                run = None
                gc.collect()
                run = module.make(value, _draw(value), side.variant, device, precision)
                pipe.send({"losses": [run.read(run.step()) for _ in range(CHECKED_STEPS)]})
            elif what == "memory":
                pipe.send({"memory": run.memory()})
            else:
                # As in training that goes on: caches, clocks, and where the system lets threads run that it had put to rest.
                until = time.perf_counter() + (WARM if value > 3 else 0.0)
                run.step()
                while time.perf_counter() < until:
                    run.step()
                run.wait()
                start = time.perf_counter()
                for _ in range(value):
                    run.step()
                run.wait()
                pipe.send((time.perf_counter() - start) / value)
        except Absent as reason:
            pipe.send({"absent": str(reason)})
        except Exception as error:
            lines = f"{type(error).__name__}: {error}".strip().splitlines()
            pipe.send({"failed": " ".join(lines)[:400]})


def weigh(side: Side, device: str, precision: str, case: Case, pipe: Pipe) -> None:
    """Bytes that training one case takes, in a fresh process: see ``memory`` in README.md."""
    try:
        module = importlib.import_module(f"sides.{side.module}")
        module.versions(side.variant)
        small = cases.shrunk(case)
        run = module.make(small, _draw(small), side.variant, device, precision)
        for _ in range(CHECKED_STEPS):
            run.step()
        run.wait()
        del run
        gc.collect()
        problem = _draw(case)
        free = getattr(module, "free_memory", None)
        before = _resident(forget_peak=True) if device == "cpu" else free and -free()
        run = module.make(case, problem, side.variant, device, precision)
        for _ in range(CHECKED_STEPS):
            run.step()
        run.wait()
        after = _resident() if device == "cpu" else free and -free()
        pipe.send({"growth": after - before if before is not None else None, "own": run.memory()})
    except Exception as error:
        pipe.send({"failed": f"{type(error).__name__}: {error}"[:400]})


def _draw(case: Case) -> Any:
    """The case's weights and batch; NumPy is loaded by this at the latest, and not before the side's own library."""
    return importlib.import_module("problems").draw(case)


def _resident(forget_peak: bool = False) -> int:
    """Peak of the process's resident memory in bytes since it was last forgotten (Linux)."""
    if forget_peak:
        Path("/proc/self/clear_refs").write_text("5")
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


# --- in the process that asks -----------------------------------------------------------------------------------------


class Worker:
    """A side's process."""

    def __init__(self, side: Side, device: str, precision: str) -> None:
        self.side, self.settings = side, (device, precision)
        self.start()

    def start(self) -> None:
        """A new process, which says first whether it is there."""
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(self.side, *self.settings, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def restart(self) -> None:
        """After a failure: a device that reported an illegal access is lost to the process that hears of it."""
        self.process.kill()
        self.process.join()
        self.start()
        self.hear()

    def hear(self) -> Any:
        """The next answer; a side that died or says nothing for minutes has failed."""
        try:
            if not self.pipe.poll(PATIENCE):
                self.process.kill()
                return {"failed": f"no answer within {PATIENCE} s"}
            return self.pipe.recv()
        except EOFError:
            self.process.join(10)
            return {"failed": f"its process ended with code {self.process.exitcode}"}

    def ask(self, *question: Any) -> Any:
        self.pipe.send(question)
        return self.hear()

    def close(self) -> None:
        if self.process.is_alive():
            self.pipe.send(None)
        self.process.join(10)


def pin(threads: int) -> None:
    """Let every side have ``threads`` threads, on as many cores: read from the environment when its libraries load."""
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "NPROC")
    os.environ.update({name: str(threads) for name in names})
    if hasattr(os, "sched_setaffinity"):  # JAX has no setting for it: its pool is as large as the set of cores
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


WARM = 0.15
"""Seconds of steps before each block that is timed."""

PATIENCE = 300
"""Seconds for one answer: torch.compile takes minutes."""

TOLERANCE = {"fp32": 1e-3, "tf32": 2e-2, "bf16": 5e-2}
"""By how much losses of the first steps may differ, relative."""


def disagreements(case: Case, losses: dict[str, list[float]], tolerance: float) -> dict[str, str]:
    """Sides whose first losses are wrong, with what is wrong: they must be finite, and those of all sides equal.

    With dropout they differ from library to library, since each draws in its own way.
    """
    known = {name: found for name, found in losses.items() if name != "products"}
    wrong = {name: f"losses {found}" for name, found in known.items() if not all(map(math.isfinite, found))}
    if case.dropout:
        return wrong
    middle = [statistics.median(step) for step in zip(*known.values(), strict=True)]
    for name, found in known.items():
        worst = max(abs(a - b) / abs(b) for a, b in zip(found, middle, strict=True))
        if worst > tolerance:
            wrong[name] = f"losses {found}, while the median of all sides is {middle}"
    return wrong


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def compared(times: dict[str, list[float]], name: str) -> dict[str, Any]:
    """Kobai's captured (else eager) step against ``name``: median over the rounds of time/time, with its quartiles."""
    ours = times.get("kobai") or times["kobai-eager"]
    low, middle, high = quartiles([theirs / mine for theirs, mine in zip(times[name], ours, strict=True)])
    return {"with": name, "ratio": round(middle, 3), "quartiles": [round(low, 3), round(high, 3)]}


def measure(
    workers: dict[str, Worker], key: str, case: Case, rounds: int, precision: str, own_memory: bool = False
) -> dict[str, Any]:
    """Make, check, time one case on all sides."""
    row: dict[str, Any] = {"case": key, "title": case.title, "left out": {}}
    for worker in workers.values():
        worker.pipe.send(("make", case))
    losses = {}
    for name, worker in workers.items():
        answer = worker.hear()
        if "losses" in answer:
            losses[name] = answer["losses"]
        else:
            row["left out"][name] = answer.get("absent") or f"FAILED: {answer['failed']}"
            if "failed" in answer:
                worker.restart()
    for name, wrong in disagreements(case, losses, TOLERANCE[precision]).items():
        row["left out"][name] = f"FAILED: {wrong}"
        del losses[name]
    times: dict[str, list[float]] = {name: [] for name in losses}
    order = random.Random(0)
    for _ in range(rounds):
        for name in order.sample(list(times), len(times)):
            if workers[name].settings[0] == "cpu":
                # until the threads of the side before sleep: those of OpenBLAS look on for 30 ms, OpenMP's longer
                time.sleep(0.15)
            answer = workers[name].ask("time", case.steps)
            if isinstance(answer, dict):
                row["left out"][name] = f"FAILED while it was timed: {answer['failed']}"
                del times[name], losses[name]
                workers[name].restart()
                continue
            times[name].append(answer)
    if own_memory:
        found = {name: workers[name].ask("memory", None) for name in times}
        row["own memory"] = {name: answer["memory"] for name, answer in found.items() if answer.get("memory")}
    row["losses"] = {name: found for name, found in losses.items() if name != "products"}
    row["microseconds"] = {name: [round(q * 1e6, 1) for q in quartiles(found)] for name, found in times.items()}
    if "kobai" not in times and "kobai-eager" not in times:
        return row
    medians = {name: statistics.median(found) for name, found in times.items()}
    peers = [name for name in times if SIDES[name].peer]
    if peers:
        row["fastest peer"] = compared(times, min(peers, key=medians.__getitem__))
    for name, title in (("numpy", "by hand"), ("products", "floor")):
        if name in times:
            row[title] = compared(times, name)
    if "products" in times:
        row["floor"]["GFLOP/s"] = round(cases.flops(case) / medians["products"] / 1e9)
    return row


def memory(case: Case, device: str, precision: str, names: list[str]) -> dict[str, Any]:
    """Bytes that training takes, side by side, each in a fresh process."""
    context, found = multiprocessing.get_context("spawn"), {}
    for name in names:
        pipe, theirs = context.Pipe()
        process = context.Process(target=weigh, args=(SIDES[name], device, precision, case, theirs), daemon=True)
        process.start()
        theirs.close()
        try:
            found[name] = pipe.recv()
        except EOFError:
            found[name] = {"failed": "its process ended"}
        process.join()
    return found


def show(row: dict[str, Any]) -> None:
    """One case's table on the screen."""
    print(f"\n{row['title']}")
    found = row["microseconds"]
    ours = found.get("kobai") or found.get("kobai-eager")
    for name, (low, middle, high) in sorted(found.items(), key=lambda item: item[1][1]):
        print(
            f"  {SIDES[name].title:34}{middle:12,.0f} us   {low:11,.0f} to {high:11,.0f}"
            + (f"   {middle / ours[1]:6.2f} x Kobai's" if ours else "")
        )
    for name, reason in row["left out"].items():
        print(f"  {SIDES[name].title:34}left out: {reason}")
    for title in ("fastest peer", "by hand", "floor"):
        if title in row:
            ratio, (low, high) = row[title]["ratio"], row[title]["quartiles"]
            what = f"{title} ({SIDES[row[title]['with']].title}) / Kobai"
            tail = f", that is Kobai at {1 / ratio:.2f} x the floor" if title == "floor" else ""
            print(f"  {what:60}{ratio:6.2f}   quartiles {low:.2f} to {high:.2f}{tail}")
    for name, bytes_ in row.get("memory", {}).items():
        if "failed" in bytes_:
            print(f"  memory of {SIDES[name].title}: {bytes_['failed']}")
            continue
        grown = "         not known" if bytes_["growth"] is None else f"{bytes_['growth'] / 2**20:10.1f} MiB grown"
        own = f"; by its own account {bytes_['own'] / 2**20:.1f} MiB" if bytes_["own"] is not None else ""
        print(f"  memory of {SIDES[name].title:36}{grown}{own}")
    sys.stdout.flush()


def _table(device: str, tiny: bool) -> dict[str, Case]:
    found = cases.CUDA if device == "cuda" else cases.CPU
    return {key: cases.shrunk(case) for key, case in found.items()} if tiny else found


def _chosen(names: str | None, known: list[str], usual: list[str], parser: argparse.ArgumentParser) -> list[str]:
    chosen = usual if names is None else [name.strip() for name in names.split(",")]
    if unknown := [name for name in chosen if name not in known]:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    return chosen


def main(arguments: list[str] | None = None) -> None:
    """Run the cases, print the tables, write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=tuple(TOLERANCE), default="fp32", help="of products on a GPU")
    parser.add_argument("--cases", help="with commas between them; default: all")
    parser.add_argument("--sides", help=f"with commas between them: {', '.join(SIDES)}")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2, help="of every side, on the CPU")
    parser.add_argument("--tiny", action="store_true", help="next to no data: only to see that all of it works")
    parser.add_argument("--memory", action="store_true", help="also what training takes (Linux; some minutes)")
    parser.add_argument("--own-memory", action="store_true", help="also what each library says a step takes")
    parser.add_argument("--resume", action="store_true", help="leave out the cases that stand in the JSON file already")
    parser.add_argument("--out", type=Path, help="JSON file; default: results/peers-<device>-<precision>.json here")
    args = parser.parse_args(arguments)
    if args.precision != "fp32" and args.device == "cpu":
        parser.error(f"--precision {args.precision} is for --device cuda")
    if args.rounds < 1 or args.threads < 1:
        parser.error("--rounds and --threads must be at least 1")
    table = _table(args.device, args.tiny)
    keys = _chosen(args.cases, list(table), list(table), parser)
    names = _chosen(args.sides, list(SIDES), ON_CPU if args.device == "cpu" else ON_CUDA, parser)
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # three quarters of a GPU otherwise
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if args.device == "cpu":
        pin(args.threads)
    from kobai.bench import machine  # after pin: it loads NumPy

    facts = machine.facts()
    load = facts["load average"]
    if load is not None and load[0] > 0.3:
        print(f"This machine is not quiet: load average {load[0]:.2f}. Believe ratios, not times.", flush=True)

    workers, report = {}, {"versions": {}, "left out": {}}
    for name in names:
        workers[name] = Worker(SIDES[name], args.device, args.precision)
    for name in names:
        answer = workers[name].hear()
        if "versions" in answer:
            report["versions"] |= answer["versions"]
        else:
            report["left out"][name] = answer.get("absent") or answer["failed"]
            print(f"{SIDES[name].title}: left out, {report['left out'][name]}", flush=True)
            workers.pop(name).close()
    settings = {"device": args.device, "precision": args.precision, "threads": args.threads, "rounds": args.rounds}
    out = args.out or Path(__file__).parent / "results" / f"peers-{args.device}-{args.precision}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = json.loads(out.read_text())["cases"] if args.resume and out.exists() else []
    keys = [key for key in keys if key not in [row["case"] for row in rows]]
    if args.own_memory:  # what a library keeps from its first step on belongs to no case
        for worker in workers.values():
            worker.ask("make", cases.shrunk(next(iter(table.values()))))
    try:
        for key in keys:
            row = measure(workers, key, table[key], args.rounds, args.precision, args.own_memory)
            if args.memory:
                present = [name for name in MEASURED_IN_MEMORY if name in row["microseconds"]]
                row["memory"] = memory(table[key], args.device, args.precision, present)
            rows.append(row)
            out.write_text(json.dumps({"machine": facts, **settings, **report, "cases": rows}, indent=1) + "\n")
            show(row)
    finally:
        for worker in workers.values():
            worker.close()
    print(f"\n{out}")
    if any(reason.startswith("FAILED") for row in rows for reason in row["left out"].values()):
        sys.exit(1)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Mistakes that only a GPU would show, put into the sources one at a time: which of them do the tests catch?

    python scripts/seeded_faults.py                      every fault of seeded_faults.toml, with the tests named there
    python scripts/seeded_faults.py --only bias-swapped  one fault, with what its tests say
    python scripts/seeded_faults.py --all                every fault, with all GPU tests
    python scripts/seeded_faults.py --invisible          all faults at once, without a GPU: the CPU's tests must pass

Faults go into a copy of the tree; the checkout is never touched. Needs what ``scripts/test.py --simulate-gpu`` needs, or a GPU.
First the tests run without any fault, and must pass. A fault is caught if a test fails or the process dies. One that ends in
no time is caught too (a deadlock), as is one whose tests cannot be collected. Exit status 1 if fewer than 95 % are caught.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import multiprocessing
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIST = Path(__file__).with_suffix(".toml")
COPIED = (
    "src",
    "tests",
    "scripts",
    "docs",
    "benchmarks",
    "pyproject.toml",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
)
ENOUGH = 0.95


@dataclass(frozen=True)
class Edit:
    """A text that stands in a file exactly once, and what comes in its place."""

    file: str
    old: str
    new: str

    def applied(self, text: str) -> str:
        found = text.count(self.old)
        if found != 1:
            raise ValueError(f"{self.file}: expected this text once, found it {found} times:\n{self.old}")
        return text.replace(self.old, self.new)


@dataclass(frozen=True)
class Fault:
    """A mistake: what it is, what it changes, and the tests (arguments of pytest) that should catch it."""

    name: str
    kind: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]


def changed(edits: Iterable[Edit], tree: Path) -> dict[Path, str]:
    """The files of a tree with these edits in them."""
    texts: dict[Path, str] = {}
    for edit in edits:
        path = tree / "src" / "kobai" / edit.file
        texts[path] = edit.applied(texts.get(path) or path.read_text())
    return texts


def listed() -> list[Fault]:
    """The faults of ``seeded_faults.toml``."""
    faults = []
    for name, entry in tomllib.loads(LIST.read_text()).items():
        edits = entry.get("edits") or [{key: entry[key] for key in ("file", "old", "new")}]
        tests = tuple(entry["tests"])
        faults.append(Fault(name, entry["kind"], tuple(Edit(**edit) for edit in edits), tests))
    return faults


@dataclass(frozen=True)
class Outcome:
    """How a run of tests ended: what failed first (empty if nothing did), and what was printed."""

    failed: str
    output: str
    seconds: float


def run(tree: Path, tests: Iterable[str], limit: float, simulate: bool) -> Outcome:
    """Run tests in a tree, each entry by a process of its own, up to the first that fails."""
    begun, output = time.monotonic(), ""
    for test in tests:
        marks = [] if "-m" in shlex.split(test) else ["-m", "not oracle and not slow"]
        options = ["-q", "-x", "-p", "no:cacheprovider", "-n", "0", "--tb=short", "-rfE", *marks, *shlex.split(test)]
        try:
            said, status = (_warm if simulate else _cold)(tree, options, limit)
        except TimeoutError:
            return Outcome(f"{test}: no end", output, time.monotonic() - begun)
        output += said
        if status:
            return Outcome(_first_failure(said, status, test), output, time.monotonic() - begun)
    return Outcome("", output, time.monotonic() - begun)


def _cold(tree: Path, options: list[str], limit: float) -> tuple[str, int]:
    """Run pytest in a new process: what it says, and its exit status."""
    paths = [str(tree / "src"), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "pytest", *options]
    try:
        done = subprocess.run(
            command,
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError from error
    return done.stdout + done.stderr, done.returncode


def _warm(tree: Path, options: list[str], limit: float) -> tuple[str, int]:
    """Run pytest on the simulated device in a fork of this process, which has CuPy already: two seconds less for each fault."""
    _prepare(tree)
    with tempfile.TemporaryFile("w+", errors="replace") as file:
        child = os.fork()
        if not child:
            os.setsid()
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            os.chdir(tree)
            sys.path.insert(0, str(tree / "src"))
            status = 70
            try:
                status = int(importlib.import_module("pytest").main(options))
            finally:
                sys.stdout.flush()
                os._exit(status)
        end = time.monotonic() + limit
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > end:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                raise TimeoutError
            time.sleep(0.05)
        file.seek(0)
        return file.read(), os.waitstatus_to_exitcode(ended[1])


@cache
def _prepare(tree: Path) -> None:
    """Put the simulated device beneath CuPy, and import what is slow to import and holds no fault."""
    os.environ.pop("KOBAI_SIMULATE_GPU", None)  # or the tests would install a second one
    sys.path.insert(0, str(tree / "tests"))
    importlib.import_module("simulator").install()
    sys.path.pop(0)
    for module in ("cupy", "cupyx", "numba", "pytest", "_pytest.assertion.rewrite"):
        if importlib.util.find_spec(module) is not None:
            importlib.import_module(module)
    if "kobai" in sys.modules:
        raise RuntimeError("seeded faults: the simulator imports Kobai, before a fault can be put into it")


def _first_failure(said: str, status: int, test: str) -> str:
    found = re.search(r"^(?:FAILED|ERROR) (\S+?(?:\[.*\])?)(?: - .*)?$", said, re.MULTILINE)
    if found:
        return found[1].removeprefix("tests/")
    if status == 5:
        raise SystemExit(f"seeded faults: no test is called {test}")
    return f"{test}: the process ended with {status}"


def copied(to: Path) -> Path:
    """A copy of what the tests need."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        else:
            shutil.copy2(source, to / name)
    return to


def with_edits(edits: Iterable[Edit], tree: Path, action: Callable[[], Outcome]) -> Outcome:
    """``action()`` while the tree has these edits."""
    texts = changed(edits, tree)
    before = {path: (path.read_text(), path.stat()) for path in texts}
    try:
        for path, text in texts.items():
            path.write_text(text)
        return action()
    finally:
        for path, (text, known) in before.items():
            path.write_text(text)
            os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns))  # by which Python knows its bytecode again


class Workers:
    """Processes, each with a copy of the tree of its own, in which edits are made and tests run."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options

    def __enter__(self) -> Workers:
        self.folder = tempfile.TemporaryDirectory(prefix="kobai-faults-")
        fresh = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(self.options.processes, fresh, _take_tree, (self.folder.name,))
        return self

    def __exit__(self, *error: object) -> None:
        self.pool.shutdown(cancel_futures=True)
        self.folder.cleanup()

    def outcomes(self, jobs: Iterable[tuple[Sequence[Edit], Sequence[str]]]) -> Iterator[Outcome]:
        """How the tests of every job end with its edits in the tree, in order."""
        todo = [(tuple(edits), tuple(tests)) for edits, tests in jobs]
        yield from self.pool.map(partial(_work, self.options.limit, self.options.simulate), todo)


_tree: Path


def _take_tree(folder: str) -> None:
    global _tree
    _tree = copied(Path(folder) / str(os.getpid()))


def _work(limit: float, simulate: bool, job: tuple[Sequence[Edit], Sequence[str]]) -> Outcome:
    edits, tests = job
    return with_edits(edits, _tree, lambda: run(_tree, tests, limit, simulate))


ALL = ("tests/cuda", "-m gpu tests")


def together(faults: Iterable[Fault], tree: Path) -> list[list[Fault]]:
    """The faults in few groups that can be in the tree at once: those that change the same text go into different groups."""
    groups: list[list[Fault]] = []
    for fault in faults:
        for group in groups:
            try:
                texts = changed([edit for other in (*group, fault) for edit in other.edits], tree)
            except ValueError:
                continue
            if all(_compiles(text) for text in texts.values()):
                group.append(fault)
                break
        else:
            groups.append([fault])
    return groups


def _compiles(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


CPU = (
    "-n auto --dist=loadfile -m 'not gpu and not oracle and not slow and not thorough' tests --ignore=tests/cuda "
    "--ignore=tests/test_seeded_faults.py --ignore=tests/simulator --ignore=tests/test_size.py --ignore=tests/test_floors.py "
    "-k 'not strict'",
)
"""The tests of NumPy and Numba: neither kernels compiled on the host nor the backend that behaves like CuPy."""


def invisible(faults: list[Fault], options: argparse.Namespace) -> int:
    """Whether the CPU's tests pass with the mistakes in the tree; if not, a mistake is none that only a GPU shows."""
    status = 0
    with tempfile.TemporaryDirectory(prefix="kobai-faults-") as folder:
        tree = copied(Path(folder))
        for group in together(faults, tree):
            edits = [edit for fault in group for edit in fault.edits]
            outcome = with_edits(edits, tree, lambda: run(tree, options.tests or CPU, options.limit, simulate=False))
            print(f"{len(group)} faults at once: {outcome.failed or 'no test of the CPU fails'}", flush=True)
            if outcome.failed:
                print(", ".join(fault.name for fault in group), outcome.output[-4000:], sep="\n")
                status = 1
    return status


def table(rows: Iterable[tuple[Fault, Outcome]]) -> str:
    """The outcomes in Markdown."""
    lines = ["| fault | kind | file | caught by |", "|---|---|---|---|"]
    for fault, outcome in rows:
        files = ", ".join(dict.fromkeys(edit.file for edit in fault.edits))
        test = f"`{outcome.failed}`" if outcome.failed else "**not caught**"
        lines.append(f"| {fault.name} | {fault.kind} | `{files}` | {test.replace('|', '/')} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="faults whose names contain one of these")
    parser.add_argument("--all", action="store_true", help="all GPU tests, not only those that the list names")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="how many faults at a time")
    parser.add_argument("--limit", type=float, default=900, metavar="SECONDS", help="for each of a fault's tests")
    parser.add_argument("--device", action="store_true", help="on the GPU of this machine, not on the simulated one")
    parser.add_argument("--no-baseline", action="store_true", help="do not run the tests without a fault first")
    parser.add_argument("--invisible", action="store_true", help="all at once: the CPU's tests must not see them")
    parser.add_argument("--tests", nargs="+", metavar="ARGUMENTS", help="with --invisible: these of the CPU's tests")
    options = parser.parse_args()
    options.simulate = not options.device
    faults = [f for f in listed() if not options.only or any(name in f.name for name in options.only)]
    if options.invisible:
        return invisible(faults, options)
    if importlib.util.find_spec("cupy") is None:
        parser.error("needs CuPy, which scripts/test.py --simulate-gpu installs")
    rows = []
    with Workers(options) as workers:
        if not options.no_baseline and not _sound(workers, faults, options.all):
            return 1
        jobs = [(fault.edits, ALL if options.all else fault.tests) for fault in faults]
        for fault, outcome in zip(faults, workers.outcomes(jobs), strict=True):
            rows.append((fault, outcome))
            print(f"{fault.name:40} {outcome.seconds:5.0f} s  {outcome.failed or 'NOT CAUGHT'}", flush=True)
            if len(faults) == 1:
                print(outcome.output)
    found = sum(bool(outcome.failed) for _, outcome in rows)
    print(f"\n{table(rows)}\n\n{found} of {len(rows)} caught, {found / max(len(rows), 1):.1%}")
    return int(found < ENOUGH * len(rows))


def _sound(workers: Workers, faults: Iterable[Fault], everything: bool) -> bool:
    """Whether the tests pass without any fault; says which does not."""
    tests = ALL if everything else tuple(dict.fromkeys(test for fault in faults for test in fault.tests))
    sound = True
    for outcome in workers.outcomes(((), (test,)) for test in tests):
        if outcome.failed:
            print(
                outcome.output[-4000:],
                f"\nseeded faults: without any fault, {outcome.failed} fails already",
                flush=True,
            )
            sound = False
    return sound


if __name__ == "__main__":
    sys.exit(main())

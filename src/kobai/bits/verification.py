"""Seven small trainings, compared with the hashes that Kobai ships; where one differs, the first primitive that does."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from kobai import xp
from kobai.bits.ahead import Ahead
from kobai.bits.nets import NETS, STEPS, digest, training
from kobai.bits.trace import DIGITS, Event, first_difference, trace
from kobai.core.checksum import read_json
from kobai.core.files import write_atomically
from kobai.cpu import threads
from kobai.engine import dispatch, notices
from kobai.errors import install

__all__ = ["HASHES", "PROMISED", "Difference", "Report", "Verdict", "record", "verify", "versions"]

HASHES = Path(__file__).with_name("hashes.json")
"""What each net's training ends in, and the digest of everything that it computes on the way."""

PROMISED = {"numpy": ((2, 2), (2, 4)), "numba": ((0, 62), (0, 68)), "llvm": ((20,), (22,))}
"""The oldest and the newest version with which the hashes were compared, and found equal."""


@dataclass(frozen=True)
class Difference:
    """The first of a training's computations that gave other bits, from the same input."""

    step: int
    what: str
    """``ops.linear._linear forward``, ``SGD's step``, …"""
    here: str
    expected: str
    instead_of: str = ""
    """What was computed there when the hashes were made, if that is something else."""


@dataclass(frozen=True)
class Verdict:
    """What one training ended in."""

    name: str
    hash: str
    expected: str
    seconds: float
    first: Difference | None = None

    @property
    def same(self) -> bool:
        """Whether it has the bits that it should have."""
        return self.hash == self.expected


@dataclass(frozen=True)
class Report:
    """All verdicts, and where they were reached."""

    nets: list[Verdict]
    versions: dict[str, str]
    threads: int
    seconds: float
    compiling: float
    """Seconds of these, of compilers."""

    @property
    def same(self) -> bool:
        """Whether every net has the bits that it should have."""
        return all(net.same for net in self.nets)

    @property
    def unpromised(self) -> str:
        """Why no bits are promised here; empty if they are."""
        return _unpromised(self.versions)

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        promised = {name: {"from": _spelt(low), "to": _spelt(high)} for name, (low, high) in PROMISED.items()}
        nets = [{**asdict(net), "same": net.same} for net in self.nets]
        where = {"versions": self.versions, "promised": promised, "unpromised": self.unpromised}
        return {
            "same": self.same,
            **where,
            "threads": self.threads,
            "seconds": self.seconds,
            "compiling": self.compiling,
            "nets": nets,
        }


def verify(names: Iterable[str] = NETS, done: Callable[[Verdict], object] = lambda verdict: None) -> Report:
    """Train the nets, or some of them, on the host and compare; ``done`` is called with each verdict.

    >>> from kobai.bits.nets import NETS
    >>> list(NETS)
    ['mlp', 'batch norm', 'layer norm', 'attention', 'residual', 'lstm', 'cnn']
    >>> [net.name for net in verify(["mlp"]).nets]
    ['mlp']
    """
    shipped, names = read_json(HASHES), list(names)
    compiled: list[float] = []
    start, found = time.perf_counter(), []
    with Ahead(names) as ahead:

        def heard(kernel: str, seconds: float | None) -> None:
            ahead.begin()
            compiled.append(seconds or 0.0)

        with notices.listening(heard), xp.using("numpy"):
            for name in names:
                found.append(_verdict(name, shipped[name]))
                done(found[-1])
    return Report(found, versions(), threads.num_threads(), time.perf_counter() - start, sum(compiled, 0.0))


def _verdict(name: str, shipped: dict[str, Any]) -> Verdict:
    start = time.perf_counter()
    here = digest(training(NETS[name]))
    seconds = time.perf_counter() - start
    first = _first(name, shipped) if here != shipped["hash"] else None
    return Verdict(name, here, shipped["hash"], seconds, first)


def _first(name: str, shipped: dict[str, Any]) -> Difference | None:
    """Trains once more, and compares everything that is computed."""
    expected = [Event(what, digest) for what, digest in zip(shipped["events"] * STEPS, _digests(shipped), strict=False)]
    expected.insert(0, Event("the first parameters", shipped["first"]))
    found = first_difference(trace(NETS[name]), expected)
    if found is None:
        return None
    place, here, there = found
    step = 0 if place == 0 else (place - 1) // len(shipped["events"]) + 1
    return Difference(step, here.name, here.digest, there.digest, there.name if there.name != here.name else "")


def _digests(shipped: dict[str, Any]) -> list[str]:
    text = "".join(shipped["digests"])
    return [text[i : i + DIGITS] for i in range(0, len(text), DIGITS)]


def record(path: Path = HASHES) -> None:
    """Write the hashes of what this machine computes, after a change of bits (``tests/bits.py --record``)."""
    content: dict[str, Any] = {}
    with xp.using("numpy"):
        for name, net in NETS.items():
            first, *events = trace(net)
            each = len(events) // STEPS
            steps = [events[i : i + each] for i in range(0, len(events), each)]
            names = [event.name for event in steps[0]]
            if any([event.name for event in step] != names for step in steps):
                raise RuntimeError(f"record: the steps of {name!r} do not compute the same things")
            content[name] = {
                "hash": digest(training(net)),
                "first": first.digest,
                "events": names,
                "digests": ["".join(event.digest for event in step) for step in steps],
            }
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


# --- versions -------------------------------------------------------------------------------------------------------------


def versions() -> dict[str, str]:
    """Of what makes the bits: NumPy and, with the extra ``cpu``, Numba and its LLVM."""
    found = {"numpy": np.__version__}
    if dispatch.numba_installed:
        llvm = import_module("llvmlite.binding").llvm_version_info
        found |= {"numba": import_module("numba").__version__, "llvm": ".".join(map(str, llvm))}
    return found


def _unpromised(found: dict[str, str]) -> str:
    if "numba" not in found:
        return f"without Numba sums are NumPy's and its BLAS': {install('cpu')}"
    for name, (low, high) in PROMISED.items():
        here = tuple(int(part) for part in found[name].split(".")[: len(high)])
        if not low[: len(here)] <= here <= high:
            return f"{name} {found[name]} is none of the versions that were compared"
    return ""


def _spelt(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))

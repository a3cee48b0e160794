"""``kobai verify``: whether this machine computes the bits that every other does."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from kobai.bench.machine import processor
from kobai.bits import Difference, Report, Verdict, verify as compare
from kobai.bits.nets import NETS
from kobai.bits.verification import PROMISED
from kobai.cli.common import out, say
from kobai.cli.options import command
from kobai.compat.versions import VERSION
from kobai.cpu.threads import num_threads
from kobai.errors import nearest
from kobai.train.progress import duration
from kobai.train.settings import SettingsError


@command("backend")
def verify(
    *,
    nets: Annotated[
        list[str] | None, typer.Argument(metavar="[NET]…", help=f"Some of {', '.join(NETS)}.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Train seven small nets on the CPU, and compare the bits they end in with the hashes that Kobai ships.

    One line says for each net whether it has them, and if not, which primitive was the first to give other bits, from the same
    input. They do not depend on the processor or on the number of threads.

    The hashes are promised for the versions of NumPy, Numba and LLVM that are named, with the extra cpu. The bits of GPUs, and
    of runs without Numba, are not promised.

    Exit codes:
        0 all as shipped, 1 something differs

    Examples:
        kobai verify
        kobai verify lstm attention
        OMP_NUM_THREADS=3 kobai verify --json
    """
    if unknown := [name for name in nets or [] if name not in NETS]:
        raise SettingsError("nets", f"there is no {unknown[0]!r}.{nearest(unknown[0], NETS)}")
    if as_json:
        report = compare(nets or NETS)
        say_json(report)
    else:
        say(f"kobai {VERSION}, {processor()}, {num_threads()} {'thread' if num_threads() == 1 else 'threads'}")
        report = compare(nets or NETS, _line)
        _end(report)
    if not report.same:
        raise typer.Exit(1)


def say_json(report: Report) -> None:
    """The report on standard output, as it is."""
    content = {"kobai": VERSION, "processor": processor(), **report.as_dict()}
    out.print(json.dumps(content, indent=2), markup=False, soft_wrap=True, highlight=False)


def _line(verdict: Verdict) -> None:
    what = "as shipped" if verdict.same else f"differs, expected {verdict.expected}"
    out.print(f"{verdict.name:<12} {verdict.hash}  {what}", style=None if verdict.same else "bold red", markup=False)
    if verdict.first is not None:
        say(f"{'':<12} {_first(verdict.first)}")


def _first(found: Difference) -> str:
    where = f"step {found.step}, {found.what}" if found.step else found.what
    if found.instead_of:
        return f"first: {where}, where {found.instead_of} was computed"
    return f"first: {where}: {found.here}, expected {found.expected}"


def _end(report: Report) -> None:
    count = sum(net.same for net in report.nets)
    compiled = f", {duration(report.compiling)} of it compiling" if report.compiling else ""
    say(f"{count} of {len(report.nets)} as shipped, in {duration(report.seconds)}{compiled}")
    spelt = {"numpy": "NumPy", "numba": "Numba", "llvm": "LLVM"}
    ranges = (f"{spelt[name]} {_dotted(low)} to {_dotted(high)}" for name, (low, high) in PROMISED.items())
    say(f"promised for {', '.join(ranges)}, with the extra cpu; not for GPUs, nor without that extra")
    here = ", ".join(f"{spelt[name]} {version}" for name, version in report.versions.items())
    say(f"here: {here}" + (f"; not promised: {report.unpromised}" if report.unpromised else ""))


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))

"""Small commands that write files, with how each goes on and what it must come to."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from matplotlib.figure import Figure

import kobai
from kobai import bench
from kobai.cli import main
from kobai.core.checksum import read_json
from kobai.lab.sweep.compare import PLAN
from kobai.train import checkpoint, job

SMALL = ["--hidden", "4", "--batch-size", "16", "--epochs", "2", "--quiet"]


@dataclass(frozen=True)
class Command:
    """``arguments`` of a command, which may name {table}, {run} and {out}; ``again`` goes on in ``out``."""

    arguments: str
    again: Callable[[Path, int], str] | None
    outcome: Callable[[Path], Any]
    before: Callable[[Path, Path], None] = lambda given, out: None
    """Lays what the command finds in ``out``."""


def prepare(folder: Path) -> Path:
    """A table, and a run that was trained on it."""
    rng = np.random.default_rng(0)
    rows = [(*rng.normal(i % 2, 1.0, 2).round(3), "ab"[i % 2]) for i in range(60)]
    lines = ["x,y,kind", *(f"{x},{y},{kind}" for x, y, kind in rows)]
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    assert perform(COMMANDS["train"], folder, folder / "run")[0] == 0
    return folder


def perform(command: Command, given: Path, out: Path, arguments: str | None = None) -> tuple[int, str]:
    """Run a command in this process; its exit code and what it said on standard error."""
    words = (arguments or command.arguments).format(table=given / "table.csv", run=given / "run", out=out).split()
    code, told = 0, io.StringIO()
    # Pictures and measurements are no part of this, and take most of the time.
    picture = mock.patch.object(Figure, "savefig", lambda self, file, **_: file.write(b"a picture" * 200))
    timings = mock.patch.object(bench, "measure", _measured)
    with picture, timings, contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(told):
        try:
            main(words)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return code, told.getvalue()


_measure = bench.measure


@cache
def _measured(plan: Any) -> list[Any]:
    return list(_measure(plan))


# --- what commands come to --------------------------------------------------------------------------------------------


def timeless(content: Any) -> Any:
    """Without times, and arrays as bytes."""
    if isinstance(content, dict):
        return {k: timeless(v) for k, v in content.items() if k not in ("time", "seconds", "out")}
    if isinstance(content, (list, tuple)):
        return [timeless(v) for v in content]
    return content.numpy().tobytes() if isinstance(content, kobai.Tensor) else content


def trained(out: Path) -> Any:
    states = [timeless(kobai.load(out / name)) for name in (checkpoint.LAST, checkpoint.BEST)]
    lines = [timeless(json.loads(line)) for line in (out / job.HISTORY).read_text().splitlines()]
    return states, lines, (out / job.CURVE).stat().st_size > 1000, (out / job.CONFIG).read_text()


def names(out: Path) -> list[str]:
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


def compared(out: Path) -> Any:
    return timeless(read_json(out / "results.json")), names(out)


def searched(out: Path) -> Any:
    found = timeless(read_json(out / "search.json")), read_json(out / "test.json"), trained_state(out / "chosen")
    return *found, [name for name in names(out) if not name.endswith(".rename")]


def trained_state(out: Path) -> Any:
    return timeless(kobai.load(out / checkpoint.LAST)["model"])


def experiment(out: Path) -> Any:
    return timeless(read_json(out / "activations.json")), names(out)


def page(out: Path) -> Any:
    text = (out / "report.html").read_text()
    assert text.rstrip().endswith("</html>")
    return len(text) > 10_000, [name for name in names(out) if name != "report.html"]


def resumed(out: Path, number: int) -> str:
    """By the command that began it, or as one goes on with a folder; before there is anything, only the former can."""
    if number % 2 and (out / job.CONFIG).exists():
        return "train --quiet --resume {out}"
    return COMMANDS["train"].arguments + " --resume"


def resumed_comparison(out: Path, number: int) -> str:
    return (
        "compare --quiet --resume {out} --jobs 1"
        if number % 2 and (out / PLAN).exists()
        else COMMANDS["compare"].arguments
    )


def lay_run(given: Path, out: Path) -> None:
    shutil.copytree(given / "run", out)


def lay_folder(given: Path, out: Path) -> None:
    out.mkdir()


def lay_draft(given: Path, out: Path) -> None:
    out.mkdir()
    (out / ".draft.md.tmp").write_text("the user's")


_small = " ".join(SMALL)
COMMANDS = {
    "train": Command(
        f"train --data {{table}} --save-every 2 {_small} --out {{out}}", resumed, trained, before=lay_draft
    ),
    "compare": Command(
        f"compare --data {{table}} --vary lr=0.1,0.01 --jobs 1 {_small} --out {{out}}", resumed_comparison, compared
    ),
    "tune": Command(
        f"tune --data {{table}} --space lr=0.001..1:log --trials 3 --method tpe --jobs 1 --test {_small} --out {{out}}",
        None,
        searched,
    ),
    "lab": Command("lab activations --quick --quiet --out {out}", None, experiment, before=lay_draft),
    "bench": Command(
        "bench --data digits --hidden 4 --batch-sizes 8 --widths= --seconds 0.001 --backend numpy --quiet --out {out}",
        None,
        names,
        before=lay_draft,
    ),
    "report": Command("report {out}", None, page, before=lay_run),
    "predict": Command(
        "predict {run} --data {table} --out {out}/answers.csv",
        None,
        lambda out: (out / "answers.csv").read_bytes(),
        before=lay_folder,
    ),
    "warmup": Command("warmup {run} --quiet", None, lambda out: names(out.parent), before=lay_folder),
}

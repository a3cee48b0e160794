"""``kobai bench``: how long a training step takes."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.table import Table

from kobai import bench as benches, xp
from kobai.bench.drawing import duration, round_sum
from kobai.bench.shapes import shape_of
from kobai.bench.timing import SWEEPS
from kobai.cli import options
from kobai.cli.common import Bar, has, new_folder, out, say, warn
from kobai.core.files import write_atomically
from kobai.core.untrusted import real
from kobai.errors import BackendError, install, nearest
from kobai.train import job
from kobai.train.models import takes
from kobai.train.own_models import is_own, short
from kobai.train.settings import SettingsError

_option = partial(typer.Option, rich_help_panel="Measurement")
_of_clone = partial(typer.Option, rich_help_panel="Clone")


@options.command(*options.OF_RESULTS, "data_dir", "backend", quiet="Print the names of the files and nothing else.")
def bench(
    *,
    asked: options.Asked,
    backend: Annotated[
        str | None, _option(help="numpy, cupy, or both with a comma; default: those that can be used.")
    ] = None,
    batch_sizes: Annotated[str, _option(help="Batch sizes to go through; '' for none.")] = "8,32,128,512,2048",
    widths: Annotated[str, _option(help="Widths of all hidden layers to go through; '' for none.")] = "32,128,512,2048",
    seconds: Annotated[float, _option(help="How long each variant is timed at each point.")] = 0.2,
    folder: Annotated[Path | None, _option("--out", help="Folder of the files; default: runs/bench-<time>.")] = None,
    suite: Annotated[
        bool, _of_clone("--suite", help="Run the whole suite in benchmarks/ instead (in a clone).")
    ] = False,
    peers: Annotated[
        bool, _of_clone("--peers", help="Run benchmarks/peers.py instead: beside PyTorch and JAX.")
    ] = False,
    extra: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- ARGUMENTS]", help="Handed on by --suite and --peers.", show_default=False),
    ] = None,
    quiet: bool,
) -> None:
    """Time the training steps of a model, eager and captured, on every backend, over batch sizes and widths.

    Writes a table to the screen, and bench.json, bench.png and bench.svg to a folder. The model is the one that kobai train
    with the same options would train, at its own batch size and width too.

    Examples:
        kobai bench — the model that kobai train would train, on every backend that is here
        kobai bench --data mnist --hidden 100,100,100,100 --optimizer sgd
        kobai bench --hidden 512,512 --batch-norm --batch-sizes 64,256,1024 --widths ''
        kobai bench --backend numpy --seconds 1 — one backend, measured longer
        kobai bench --backend cupy --precision bf16 — products and activations in 16 bits
        kobai bench --suite --backend numpy -- --quick — in a clone: operations, layers, optimizers and steps one by one
        kobai bench --peers — in a clone: steps and their memory beside PyTorch's and JAX's, as far as these are installed
    """
    if suite or peers:
        _in_clone(asked, "suite" if suite else "peers")
    if extra:
        raise SettingsError("suite", f"only together with it, or with --peers, is there a use for {' '.join(extra)}")
    if not 0 < seconds < 3600:
        raise SettingsError("seconds", f"expected more than 0 and less than 3600, got {seconds}")
    plan = _plan(asked, _backends(backend), batch_sizes, widths, seconds)
    folder = folder or new_folder("bench")
    folder.mkdir(parents=True, exist_ok=True)
    facts = benches.facts()  # before the measurement raises the load average
    if not quiet:
        _introduce(plan, facts)
    timings = _measure(plan, quiet)
    _finish(plan, facts, timings, folder, quiet)


# --- what is asked for ------------------------------------------------------------------------------------------------


def _plan(
    asked: options.Asked, backends: tuple[str, ...], batch_sizes: str, widths: str, seconds: float
) -> benches.Plan:
    """What to time; the model's own batch size and width are included."""
    settings = asked.settings()
    sizes = _points("batch_sizes", batch_sizes, settings.batch_size)
    wide = _points("widths", widths, settings.hidden[0] if len(set(settings.hidden)) == 1 else None)
    if wide and not (settings.hidden and "hidden" in takes(settings.model)):
        if asked.has("widths"):
            raise SettingsError("widths", "there is no hidden layer to give a width to")
        wide = ()
    if not sizes and not wide:
        raise SettingsError("batch_sizes", "expected batch sizes or widths to go through, got neither")
    return benches.Plan(settings, shape_of(settings), backends, sizes, wide, seconds)


def _backends(text: str | None) -> tuple[str, ...]:
    """The backends to time: those named, which must be usable, or all usable ones."""
    known = {name: reason for name, reason in xp.available_backends().items() if name in ("numpy", "cupy")}
    if text is None:
        return tuple(name for name, reason in known.items() if not reason)
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in known:
            raise SettingsError("backend", f"{name!r}: no backend is called so.{nearest(name, known)}")
        if known[name]:
            raise BackendError(known[name])
    return names


def _points(name: str, text: str, own: int | None) -> tuple[int, ...]:
    """The sorted numbers of an option, with the model's own."""
    found = options.sizes(name, text)
    if any(number < 1 for number in found):
        raise SettingsError(name, f"expected sizes of at least 1, got {text}")
    return tuple(sorted({*found, *([own] if own and found else [])}))


# --- what is shown and written ----------------------------------------------------------------------------------------


def _introduce(plan: benches.Plan, facts: dict[str, Any]) -> None:
    say(f"model     {_model(plan)}")
    say(f"machine   {_machine(facts)}")
    for name, reason in xp.available_backends().items():
        if name == "cupy" and reason and name not in plan.backends:
            say(f"backends  {', '.join(plan.backends)}; not cupy: {reason.partition(': ')[2]}")
    load = facts["load average"]
    if load and load[0] > 0.5:
        say(f"load      {load[0]} already, by other programs: the times will be too long")


def _machine(facts: dict[str, Any]) -> str:
    return "; ".join([f"{facts['processor']}, {facts['cores']} cores", *facts["gpus"]])


def _model(plan: benches.Plan) -> str:
    s = plan.settings
    if is_own(s.model):
        return f"{short(s.model)} {_layers(plan)}, {s.optimizer}, batches of {s.batch_size}"
    extras = [", batch norm"] * s.batch_norm + [f", dropout {s.dropout:g}"] * bool(s.dropout)
    extras += [f", {s.precision}"] * (s.precision != "fp32")
    return f"{_layers(plan)}, {s.activation}{''.join(extras)}, {s.optimizer}, batches of {s.batch_size}"


def _layers(plan: benches.Plan) -> str:
    return job.layers(plan.settings, plan.shape.inputs, plan.shape.classes)


def _measure(plan: benches.Plan, quiet: bool) -> list[benches.Timing]:
    columns = (TextColumn("[bold]{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn())
    found: list[benches.Timing] = []
    with Bar(*columns, quiet=quiet) as bar:
        points = list(plan.points())
        task = bar.add_task("timing", total=len(points))
        for (sweep, value, _), timings in zip(points, benches.measure(plan), strict=True):
            found += timings
            bar.update(task, advance=1, description=f"timed {sweep} {value}")
    return found


def _finish(
    plan: benches.Plan, facts: dict[str, Any], timings: list[benches.Timing], folder: Path, quiet: bool
) -> None:
    wins = {sweep: benches.win(timings, sweep) for sweep in SWEEPS}
    timed = {sweep: found for sweep in SWEEPS if (found := [timing for timing in timings if timing.sweep == sweep])}
    if not quiet:
        for sweep, found in timed.items():
            _show(plan, found, sweep)
        for failure in dict.fromkeys(f"{t.backend}, {t.mode}: {t.failure}" for t in timings if t.failure):
            warn(failure)
        for sweep in timed if len(plan.backends) == 2 else ():
            say(_sentence(sweep, wins[sweep]))
    report = {
        "machine": facts,
        "model": _model(plan),
        "settings": plan.settings.as_dict(),
        "input_shape": list(plan.shape.inputs),
        "classes": plan.shape.classes,
        "seconds": plan.seconds,
        "gpu_wins_from": wins if len(plan.backends) == 2 else None,
        "timings": [timing.as_dict() for timing in timings],
    }
    files = [folder / "bench.json"]
    write_atomically(files[0], (json.dumps(report, indent=1) + "\n").encode())
    if not has("matplotlib"):
        if not quiet:
            say(f"no picture, because matplotlib is missing: {install('plot')}")
    elif any(timing.median is not None for timing in timings):
        fixed = {
            "batch size": f"widths {','.join(map(str, plan.settings.hidden)) or 'none'}",
            "width": f"batches of {plan.settings.batch_size}",
        }
        title = f"{_model(plan).rpartition(', batches')[0]}\n{_machine(facts)}"
        files += benches.picture(timings, title, fixed, folder / "bench")
    for line in map(str, files) if quiet else [f"files in {folder}: {', '.join(file.name for file in files)}"]:
        say(line)


def _show(plan: benches.Plan, timings: list[benches.Timing], sweep: str) -> None:
    fixed = f"batches of {plan.settings.batch_size}" if sweep == "width" else f"layers {_layers(plan)}"
    shown = Table(title=f"\none step by {sweep}, {fixed}", title_justify="left", box=None, header_style="bold")
    shown.add_column(sweep, justify="right")
    shown.add_column("backend")
    for heading in ("eager", "captured", "faster by", "memory eager", "captured"):
        shown.add_column(heading, justify="right")
    for value in sorted({timing.value for timing in timings}):
        for backend in plan.backends:
            eager, captured = (
                next(t for t in timings if (t.value, t.backend, t.mode) == (value, backend, mode))
                for mode in (benches.EAGER, benches.CAPTURED)
            )
            gain = f"{eager.median / captured.median:.2f}×" if eager.median and captured.median else "–"
            times, memory = (_time(eager), _time(captured)), (_bytes(eager), _bytes(captured))
            shown.add_row(f"{value:,}" if backend == plan.backends[0] else "", backend, *times, gain, *memory)
    out.print(shown)


def _time(timing: benches.Timing) -> str:
    return "–" if timing.median is None else duration(timing.median)


def _bytes(timing: benches.Timing) -> str:
    return "–" if timing.memory is None else f"{timing.memory / 2**20:,.1f} MiB"


def _sentence(sweep: str, at: float | None) -> str:
    if at is None:
        return f"by {sweep}: the GPU is not faster at the largest one measured"
    return f"by {sweep}: the GPU is faster {f'from about {round_sum(at)} on' if at else 'everywhere'}"


# --- what only a clone has --------------------------------------------------------------------------------------------


def _in_clone(asked: options.Asked, what: str) -> None:
    """Run the suite, or the comparison with peers, of the clone that this Kobai is installed from; ends the command."""
    allowed = (what, "extra", "folder", "debug", *["backend"] * (what == "suite"))
    for name in asked.ctx.params:
        if name not in allowed and asked.has(name):
            raise SettingsError(name, f"has no meaning together with --{what}")
    home = Path(benches.__file__).parents[3] / "benchmarks"
    if not (home / "peers.py").exists():
        raise SettingsError(
            what, f"is for a clone of Kobai's repository, installed with pip install -e; none is in {home.parent}"
        )
    folder: Path | None = asked.ctx.params["folder"]
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        folder = real(folder)
    if what == "suite":
        if not has("pytest-benchmark"):
            raise SettingsError(what, f"needs pytest-benchmark: {install('dev')}")
        names = asked.ctx.params["backend"]
        command = ["-m", "pytest", str(home)]
        command += ["--backend", names] if names else []
        command += [f"--benchmark-json={folder / 'suite.json'}"] if folder else []
    else:
        command = [str(home / "peers.py"), "--memory", *(["--out", str(folder / "peers.json")] if folder else [])]
    raise typer.Exit(subprocess.run([sys.executable, *command, *(asked.ctx.params["extra"] or [])]).returncode)

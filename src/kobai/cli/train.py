"""``kobai train``: a run on real data, with its files in a folder."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar, cast

import numpy as np
import typer

from kobai import distributed
from kobai.cli import launch, options
from kobai.cli.common import has, new_folder, out, say, silent, warn, warn_whole
from kobai.cli.use import tell_scores
from kobai.core.untrusted import real
from kobai.cpu import thread_report
from kobai.errors import CheckpointError, DataError, install
from kobai.lab import Doctor
from kobai.train import checkpoint, job
from kobai.train.progress import Progress
from kobai.train.recipes import RECIPES, for_table
from kobai.train.scores import NAMES
from kobai.train.settings import RunSettings, SettingsError, flags, read_toml
from kobai.utils.data import TensorDataset
from kobai.xp import to_host

T = TypeVar("T")


def _config(ctx: typer.Context, path: Path | None) -> Path | None:
    """Make the values of a TOML file the command's defaults: the command line overrides them, and they override ours."""
    if path is not None:
        params = ctx.command.params
        named = {
            opt.lstrip("-").replace("-", "_"): param.name for param in params for opt in param.opts if len(opt) > 2
        }
        known = {key: name for key, name in named.items() if key not in ("config", "help")}
        try:
            values = read_toml(path, known)
        except SettingsError as error:
            raise typer.BadParameter(str(error), ctx=ctx, param_hint="--config") from error
        # As text, so that they are parsed and checked like the command line.
        ctx.default_map = {**(ctx.default_map or {}), **{known[key]: str(value) for key, value in values.items()}}
    return path


_option = partial(typer.Option, rich_help_panel="Run")

Config = Annotated[Path | None, _option(help="TOML file with any of these options.", callback=_config, is_eager=True)]

DEFAULTS = ["Some data sets bring defaults of their own, for what is not given:"]
DEFAULTS += [f"{name}: {flags(values)}" for name, values in RECIPES.items()]


@options.command("save_every", quiet="Print the test accuracy, or R², and nothing else.", tell=say)
def train(
    *,
    asked: options.Asked,
    folder: Annotated[
        Path | None, _option("--out", help="Folder of the run; default: runs/<data>-<model>-<time>.")
    ] = None,
    resume: Annotated[
        str | None,
        _option(
            help="Go on with the run in this folder, or from this checkpoint. Without a value: the run in --out if there "
            "is one, or else the newest in runs/."
        ),
    ] = None,
    save_every: Annotated[int, options.option_of("save_every")] = RunSettings.save_every,
    n: Annotated[
        int | None,
        _option("-n", "--processes", help="Train in so many processes, over MPI; --shards is as many by default."),
    ] = None,
    doctor: Annotated[
        bool, _option("--doctor", help="Look at a step now and then, and warn of what hinders training.")
    ] = False,
    config: Config = None,
    quiet: bool,
) -> None:
    """Train a network on real data, with checkpoints, a history and a learning curve in a folder.

    The last line printed is the accuracy on the test split, or the R² of a regression; nothing else has looked at that split.

    Examples:
        kobai train — the embedded digits, to more than 97 %
        kobai train --data mnist --data-dir data --epochs 5 — MNIST from a folder
        kobai train --data table.csv --target species — a table, of classes or numbers
        kobai train --optimizer sgd --lr 0.1 --momentum 0.9 --schedule cosine --epochs 40
        kobai train --doctor --hidden 50,50,50,50 --init "normal(0.01)" --no-batch-norm — warned of what hinders it, with a cure
        kobai train -n 2 --shards 4 — in two processes; in one or four it ends in the same bits
        kobai train --config settings.toml --seed 1 — any option from a file; the command line wins
        kobai train --resume runs/digits-mlp-… — go on with a run that was stopped
    """
    if doctor and quiet:
        raise SettingsError("doctor", "warns of what it finds, and --quiet allows no warnings; leave one out")
    rank = launch.joined(n)
    if rank is None and n is not None and n > 1:
        _planned(asked, n, resume, folder)  # wrong settings need no processes to be told
        raise typer.Exit(launch.again(asked.ctx.obj or sys.argv[1:], n))
    for warning in () if quiet or rank else thread_report.warnings():
        warn(warning)
    count = 1 if rank is None else distributed.get_world_size()
    plan = _in_all(lambda: _prepared(asked, count, resume, folder), rank)
    splits = job.load_data(plan.settings)
    settings = replace(plan.settings, **(for_table(splits, asked.given) if plan.begins else {}))
    folder = _in_all(lambda: plan.folder or new_folder(job.name_of(settings)), rank)
    drawable, quiet = has("matplotlib"), quiet or bool(rank)
    try:
        result = job.train(
            settings,
            splits,
            folder,
            resume=plan.source,
            say=silent if quiet else say,
            callbacks=(Progress(out, quiet=quiet), *[Doctor(say=warn_whole)] * doctor),
            curve=drawable,
        )
    except KeyboardInterrupt:
        if rank:
            raise typer.Exit(130) from None
        again = f"kobai train --resume {shlex.quote(str(folder))}"
        warn(f"interrupted; {f'go on with: {again}' if job.holds_run(folder) else 'nothing is saved'}")
        raise typer.Exit(130) from None
    if rank:
        return
    if not quiet:
        _tell(result, splits.test, folder, drawable)
    main = "accuracy" if "accuracy" in result else "r2"
    say(f"test {NAMES[main]} {result[main]:.4f}")


def _in_all(plan: Callable[[], T], rank: int | None) -> T:
    """What ``plan`` gives; of several processes the first one's plan holds for all."""
    if rank is None:
        return plan()
    plans = [plan() if rank == 0 else None]
    distributed.broadcast_object_list(plans)
    return cast(T, plans[0])


def _prepared(asked: options.Asked, n: int, resume: str | None, folder: Path | None) -> _Plan:
    """The plan of a run that may write into its folder."""
    plan = _planned(asked, n, resume, folder)
    if plan.folder is not None:
        _check_free(plan.folder, plan.source)
    return plan


@dataclass(frozen=True)
class _Plan:
    """The settings of a run, the checkpoint that it resumes, its folder if it is known; ``begins``: no run has set them."""

    settings: RunSettings
    source: Path | None
    folder: Path | None
    begins: bool


def _planned(asked: options.Asked, n: int, resume: str | None, folder: Path | None) -> _Plan:
    """The plan of a run in ``n`` processes."""
    source = _resumed_from(resume, folder)
    if source is None:
        settings = asked.settings()
        if n > 1 and not asked.has("shards"):
            settings = replace(settings, shards=n)
        return _Plan(_divided(settings, n), None, folder, True)
    settings, has_checkpoint = job.begun(source, warn)
    folder = folder or (source if source.is_dir() else source.parent)
    if not has_checkpoint:
        warn(f"{source}: the run in it ended before its first checkpoint; it begins anew with its {job.CONFIG}")
    return _Plan(_divided(settings.resumed(asked.given), n), source if has_checkpoint else None, folder, False)


def _divided(settings: RunSettings, n: int) -> RunSettings:
    if settings.check().shards % n:
        raise SettingsError("shards", f"expected a number that {n} processes divide, got {settings.shards}")
    return settings


def _tell(result: dict[str, float], test: TensorDataset, folder: Path, drawable: bool) -> None:
    if not drawable:
        say(f"no learning curve, because matplotlib is missing: {install('plot')}")
    files = [checkpoint.BEST, checkpoint.LAST, job.HISTORY, *[job.CURVE] * drawable]
    say(f"files in {folder}: {', '.join(files)}")
    tell_scores(result, "test ")
    say(f"test loss {result['loss']:.4f}")
    if _guesses(result, test):
        command = f"kobai diagnose {shlex.quote(str(folder))}"
        what = (
            "tells classes apart no better than guessing"
            if "accuracy" in result
            else "predicts no better than the mean"
        )
        warn_whole(f"the net {what} does; what is wrong:\n  {command}")


def _guesses(result: dict[str, float], test: TensorDataset) -> bool:
    """Whether always saying the most frequent class, or the mean, would be as good."""
    if "accuracy" not in result:
        return result["r2"] <= 0
    _, counts = np.unique(to_host(test.tensors[-1].array), return_counts=True)
    return bool(result["accuracy"] <= counts.max() / counts.sum())


def _resumed_from(resume: str | None, folder: Path | None) -> Path | None:
    """The folder or file to resume from; None for a new run."""
    if resume is None:
        return None
    if resume == options.BARE and folder is not None:
        return folder if job.holds_run(folder) else None  # one command line both begins and resumes
    path = options.resumed(resume, "run", checkpoint.LAST, checkpoint.PREVIOUS, job.CONFIG)
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or folder to resume from")
    return path


def _check_free(folder: Path, source: Path | None) -> None:
    """Raise unless a run may write to ``folder``: it holds no run, or the one that is resumed."""
    resumed = source is not None and real(folder) in (real(source), real(source).parent)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(20, "is a file, and a run needs a folder", str(folder))
    if resumed:
        return
    if job.holds_run(folder):
        raise DataError(
            f"{folder}: holds a run already; go on with it by --resume {shlex.quote(str(folder))}, or choose another --out"
        )
    history = folder / job.HISTORY
    if history.exists() and history.stat().st_size:
        raise DataError(
            f"{folder}: holds the {job.HISTORY} of a run whose checkpoints are gone; choose another --out, or remove it"
        )

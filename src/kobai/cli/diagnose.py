"""``kobai diagnose``."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from kobai import nn
from kobai.cli import options
from kobai.cli.common import Backend, Debug, choose_backend, one_line, out, say, warn
from kobai.cli.train import Config
from kobai.data import DataSplits
from kobai.errors import CheckpointError
from kobai.lab import diagnose as examine
from kobai.lab import treat as cure
from kobai.lab.doctor.findings import Diagnosis
from kobai.lab.doctor.treatment import Treatment
from kobai.optim import Optimizer
from kobai.random import Generator, manual_seed
from kobai.train import checkpoint, job
from kobai.train.models import build
from kobai.train.settings import Settings, SettingsError
from kobai.utils.data import DataLoader
from kobai.xp import default_device

EXAMPLES = """[b]Exit codes[/b]

0 no error found, 1 an error found (with --treat: one that is left) or a failure, 2 usage

[b]Examples[/b]

kobai diagnose --hidden 50,50,50,50,50,50 --activation sigmoid — a net before it is trained, of these options alone

kobai diagnose --init "normal(0.01)" --hidden 100,100,100,100 --treat — and cured

kobai diagnose runs/digits-mlp-… — the net of a run, of its best epoch; or name a checkpoint

kobai diagnose runs/digits-mlp-… --json | jq .findings"""


@options.takes_settings("download", "validation", "schedule", "epochs", "patience", "save_every")
def diagnose(
    *,
    run: Annotated[
        Path | None,
        typer.Argument(
            help="A checkpoint, or the folder of a run (its best one). Without it: a fresh net of these options alone, "
            "without the defaults that kobai train has for a data set."
        ),
    ] = None,
    treat: Annotated[
        bool, typer.Option("--treat", help="Apply the cures to a copy, and train both for comparison.")
    ] = False,
    steps: Annotated[int, typer.Option(help="Steps of that training.")] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    asked: options.Asked,
    config: Config = None,
    backend: Backend = None,
    debug: Debug = False,
) -> None:
    """Say why a net does not train: what is wrong, where, by which numbers, and what cures it.

    A few steps are done on a copy; nothing is written.
    """
    with one_line(debug):
        if steps < 1:
            raise SettingsError("steps", f"expected >= 1, got {steps}")
        given = asked.given
        choose_backend(backend)
        if run is None:
            patient, splits, settings = _fresh(Settings(**asked.values).check())
        else:
            fixed = sorted(set(given) - {"data_dir", "batch_size"})
            if fixed:
                raise SettingsError(fixed[0], "belongs to the run, which was begun with its own")
            patient, splits, settings = _of_run(run, given)
        batch = _batch(splits, settings)
        found = examine(patient.model, batch, optimizer=patient.optimizer, clip_grad_norm=settings.clip_grad_norm)
        treatment = None
        if treat:
            order = Generator().manual_seed(settings.seed + 1)
            loader = DataLoader(splits.train, batch_size=settings.batch_size, shuffle=True, generator=order)
            treatment = cure(found, steps=steps, data=loader, seed=settings.seed)
        patient = replace(patient, batch=f"{splits.name}, train split: {len(batch[-1])} of {len(splits.train)} samples")
        _show(patient, found, treatment, steps, as_json)
        if (treatment.left if treatment is not None else found).errors:
            raise typer.Exit(1)


@dataclass(frozen=True)
class Patient:
    """What is examined: the net in full and in a line, whence it is, and on what it is examined."""

    model: nn.Module
    optimizer: Optimizer
    line: str
    file: Path | None = None
    epoch: int = 0
    rank: str = ""
    batch: str = ""


def _fresh(settings: Settings) -> tuple[Patient, DataSplits, Settings]:
    """A net of these settings and no others: what ``kobai train`` adds for a data set would hide what was asked about."""
    splits = job.load_data(settings)
    manual_seed(settings.seed)
    net = build(job.describe_model(settings, splits.input_shape, len(splits.classes))).to(default_device())
    update = job.optimizer_of(settings, net)
    return Patient(net, update, job.describe_shape(settings, splits)), splits, settings


def _of_run(path: Path, given: dict[str, object]) -> tuple[Patient, DataSplits, Settings]:
    """The net of a checkpoint, with its optimiser as it was."""
    asked = path.expanduser()
    if not asked.exists():
        raise CheckpointError(f"{path}: no such file or folder")
    order = (checkpoint.BEST, checkpoint.LAST, checkpoint.PREVIOUS)
    found, state = checkpoint.find(asked, order=order, say=warn, map_location=default_device())
    try:
        settings = Settings.from_dict({**state["config"]["settings"], **given})
        net = build(state["config"]["model"]).to(default_device())
        net.load_state_dict(state["model"])
        update = job.optimizer_of(settings, net)
        update.load_state_dict(state["optimizer"])
        epoch = int(state["epoch"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{found}: holds no run that kobai train has described ({error})") from error
    splits = job.load_data(settings)
    line = job.describe_shape(settings, splits)
    return Patient(net, update, line, found, epoch, job.rank(path, found)), splits, settings


def _batch(splits: DataSplits, settings: Settings) -> tuple[Any, ...]:
    """Samples of the training data; shares of few samples are not reliable."""
    order = Generator().manual_seed(settings.seed + 1)
    size = min(len(splits.train), max(settings.batch_size, 100))
    return tuple(next(iter(DataLoader(splits.train, batch_size=size, shuffle=True, generator=order))))


def _show(patient: Patient, found: Diagnosis, treatment: Treatment | None, steps: int, as_json: bool) -> None:
    if as_json:
        file = None if patient.file is None else str(patient.file)
        both = {
            "net": str(patient.model),
            "file": file,
            "epoch": patient.epoch,
            "data": patient.batch,
            **found.to_dict(),
        }
        both |= {} if treatment is None else {"treatment": treatment.to_dict()}
        typer.echo(json.dumps(both, indent=2))
        return
    whence = "a net not yet trained" if patient.file is None else job.which(patient.file, patient.epoch, patient.rank)
    say(f"{whence}, on {patient.batch}")
    say(f"{patient.line}; {patient.optimizer.__class__.__name__}, lr {patient.optimizer.param_groups[0]['lr']:g}")
    for line in str(patient.model).splitlines():
        say(line)
    found.show(out)
    if treatment is None:
        return
    say("")
    for line in str(treatment).splitlines():
        say(line)
    left = treatment.left
    if treatment.cured or not left.healthy:
        say("healthy now" if left.healthy else f"left: {', '.join(f.title for f in left.findings)}")

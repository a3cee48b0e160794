"""``kobai diagnose``: what is wrong with a net that has been trained, or is about to be."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from kobai import nn
from kobai.cli import options, script
from kobai.cli.common import err, out, say, warn
from kobai.cli.train import Config
from kobai.data import DataSplits
from kobai.lab import diagnose as examine, treat as cure
from kobai.lab.doctor.findings import Diagnosis
from kobai.lab.doctor.treatment import Treatment
from kobai.optim import Optimizer
from kobai.random import Generator
from kobai.train import checkpoint, job
from kobai.train.objectives import loss_of
from kobai.train.settings import RunSettings, SettingsError
from kobai.utils.data import DataLoader
from kobai.xp import default_device


@options.command("download", "validation", "schedule", "epochs", "patience", "save_every", "shards")
def diagnose(
    *,
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN | SCRIPT::NAMES]",
            help="A checkpoint, or the folder of a run (its best one); or a program and the names of what is examined, "
            "script.py::model,loader,loss_fn,optimizer. Without it: a fresh net of these options alone, "
            "without the defaults that kobai train has for a data set.",
        ),
    ] = None,
    treat: Annotated[
        bool, typer.Option("--treat", help="Apply the cures to a copy, and train both for comparison.")
    ] = False,
    steps: Annotated[int, typer.Option(help="Steps of that training.")] = 200,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out the trials: copies that are trained with and without each cure.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    asked: options.Asked,
    config: Config = None,
) -> None:
    """Say why a net does not train: what is wrong, where, by which numbers, and what cures it.

    A few steps are done on a copy, and cures are tried on further copies; nothing is written.

    Exit codes:
        0 no error found, 1 an error found (with --treat: one that is left) or a failure, 2 usage

    Examples:
        kobai diagnose --hidden 50,50,50,50,50,50 --activation sigmoid — a net before it is trained, of these options alone
        kobai diagnose --init "normal(0.01)" --hidden 100,100,100,100 --treat — and cured
        kobai diagnose runs/digits-mlp-… — the net of a run, of its best epoch; or name a checkpoint
        kobai diagnose runs/digits-mlp-… --precision fp16 — would it go on in 16 bits?
        kobai diagnose runs/digits-mlp-… --json | jq .findings
        kobai diagnose script.py::model,train_loader — the net of a program; its loss and optimizer too, by usual names
    """
    if steps < 1:
        raise SettingsError("steps", f"expected >= 1, got {steps}")
    if run is not None and script.MARK in run:
        _of_script(run, asked, treat, steps, quick, as_json)
        return
    patient = (
        _fresh(RunSettings(**asked.values).check()) if run is None else _of_run(Path(run).expanduser(), asked.given)
    )
    settings, splits = patient.settings, patient.splits
    batch = _batch(splits, settings)
    loss = loss_of(settings, splits.train, splits.outputs)
    how: dict[str, Any] = {"clip_grad_norm": settings.clip_grad_norm, "precision": settings.precision}
    with err.status("examining a few steps") as status:  # on a terminal only
        found = examine(
            patient.model, batch, loss, optimizer=patient.optimizer, quick=quick, progress=status.update, **how
        )
    treatment = None
    if treat:
        order = Generator().manual_seed(settings.seed + 1)
        loader = DataLoader(splits.train, batch_size=settings.batch_size, shuffle=True, generator=order)
        treatment = cure(found, steps=steps, data=loader, seed=settings.seed)
    data = f"{splits.name}, train split: {len(batch[-1])} of {len(splits.train)} samples"
    (_print_json if as_json else _show)(patient, data, found, treatment)
    if (treatment.left if treatment is not None else found).errors:
        raise typer.Exit(1)


def _of_script(text: str, asked: options.Asked, treat: bool, steps: int, quick: bool, as_json: bool) -> None:
    """Examine what a program has."""
    fixed = sorted(set(asked.given) - {"precision", "clip_grad_norm", "seed"})
    if fixed:
        raise SettingsError(fixed[0], "belongs to the program, which has its own")
    settings = RunSettings(**asked.values)
    program = script.load(text)
    many = program.batches if len(program.batches) > 1 else None
    how: dict[str, Any] = {"clip_grad_norm": settings.clip_grad_norm, "precision": settings.precision}
    with err.status("examining a few steps") as status:
        found = examine(
            program.model,
            program.batches[0],
            program.loss_fn,
            program.optimizer,
            data=many,
            validation=program.validation,
            quick=quick,
            progress=status.update,
            **how,
        )
    treatment = cure(found, steps=steps, data=many, seed=settings.seed) if treat else None
    n, size = len(program.batches), len(program.batches[0][-1])
    if as_json:
        both = {"net": str(program.model), "file": text, "data": f"{n} batches, the first of {size}", **found.to_dict()}
        typer.echo(json.dumps(both | ({} if treatment is None else {"treatment": treatment.to_dict()}), indent=2))
    else:
        say(f"{text.partition(script.MARK)[0]}: {program.found}")
        say(f"{n} batch{'es' * (n > 1)}, the first of {size} samples")
        say(str(program.model))
        found.show(out)
        _show_treatment(treatment)
    if (treatment.left if treatment is not None else found).errors:
        raise typer.Exit(1)


@dataclass(frozen=True)
class Patient:
    """A net with its optimiser, its settings and its data; ``restored`` from a checkpoint, or not trained yet."""

    model: nn.Module
    optimizer: Optimizer
    settings: RunSettings
    splits: DataSplits
    restored: job.Restored | None = None


def _fresh(settings: RunSettings) -> Patient:
    """A net of these settings alone: the defaults that ``kobai train`` has for a data set would hide what was asked about."""
    splits = job.load_data(settings)
    net, update = job.begin(settings, job.describe_model(settings, splits.input_shape, splits.outputs, splits.embedded))
    return Patient(net, update, settings, splits)


def _of_run(path: Path, given: dict[str, Any]) -> Patient:
    """The net of a checkpoint, with its optimiser as it was."""
    given = dict(given)
    own = given.pop("model", None)
    fixed = sorted(set(given) - {"data_dir", "batch_size", "precision"})
    if fixed:
        raise SettingsError(fixed[0], "belongs to the run, which was begun with its own")
    restored = job.restore(path, warn, own)
    settings = replace(restored.settings, **given)
    update = job.optimizer_of(settings, restored.model)
    update.load_state_dict(checkpoint.read(restored.path, default_device())["optimizer"])
    return Patient(restored.model, update, settings, job.load_data(settings), restored)


def _batch(splits: DataSplits, settings: RunSettings) -> tuple[Any, ...]:
    """At least 100 samples of the training data: shares of fewer are not reliable."""
    order = Generator().manual_seed(settings.seed + 1)
    size = min(len(splits.train), max(settings.batch_size, 100))
    return tuple(next(iter(DataLoader(splits.train, batch_size=size, shuffle=True, generator=order))))


def _print_json(patient: Patient, data: str, found: Diagnosis, treatment: Treatment | None) -> None:
    restored = patient.restored
    file, epoch = (None, 0) if restored is None else (str(restored.path), restored.epoch)
    both = {"net": str(patient.model), "file": file, "epoch": epoch, "data": data, **found.to_dict()}
    if treatment is not None:
        both["treatment"] = treatment.to_dict()
    typer.echo(json.dumps(both, indent=2))


def _show(patient: Patient, data: str, found: Diagnosis, treatment: Treatment | None) -> None:
    say(f"{'a net not yet trained' if patient.restored is None else patient.restored.which}, on {data}")
    optimizer = patient.optimizer
    shape = job.describe_shape(patient.settings, patient.splits)
    say(f"{shape}; {type(optimizer).__name__}, lr {optimizer.param_groups[0]['lr']:g}")
    say(str(patient.model))
    found.show(out)
    _show_treatment(treatment)


def _show_treatment(treatment: Treatment | None) -> None:
    if treatment is None:
        return
    say(f"\n{treatment}")
    left = treatment.left
    if treatment.cured or not left.healthy:
        say("healthy now" if left.healthy else f"left: {', '.join(f.title for f in left.findings)}")

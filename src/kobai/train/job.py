"""One run from settings to files: data, model, optimiser, trainer, checkpoints, result. ``kobai train`` only calls it."""

from __future__ import annotations

import csv
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import kobai.data
from kobai import nn
from kobai.compat.versions import VERSION
from kobai.core.files import Lock, write_atomically
from kobai.core.untrusted import from_toml, real, regular
from kobai.data import DataSplits, Preparation, Scaling
from kobai.data.tables.table import is_table
from kobai.errors import CheckpointError, DataError
from kobai.optim import Optimizer
from kobai.random import Generator, manual_seed
from kobai.train import checkpoint
from kobai.train.activations import matching_init
from kobai.train.callbacks import Callback, Checkpoint, EarlyStopping, History, LearningCurve
from kobai.train.models import build, takes
from kobai.train.objectives import loss_of
from kobai.train.optimizers import OPTIMIZERS, optimizer, schedule
from kobai.train.own_models import held, is_own, short
from kobai.train.scores import scores
from kobai.train.settings import RunSettings, SettingsError, to_toml
from kobai.train.trainer import Trainer
from kobai.utils.data import DataLoader, TensorDataset
from kobai.xp import backend, default_device, to_host

HISTORY, CURVE, CONFIG = "history.jsonl", "learning_curve.png", "config.toml"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Restored:
    """A model from a checkpoint, with what is needed to feed it and to read its answers.

    ``rank`` says which checkpoint of a folder was taken; ``label`` is the target of a table, None if it is not
    known, and ``preparation`` how its columns become inputs; ``checksums`` are those of the three splits of its data.
    """

    model: nn.Module
    path: Path
    epoch: int
    settings: RunSettings
    classes: tuple[str, ...]
    input_shape: tuple[int, ...]
    features: tuple[str, ...]
    scaling: Scaling
    rank: str = ""
    label: str | None = None
    checksums: tuple[int, ...] = ()
    preparation: Preparation | None = None

    @property
    def outputs(self) -> int:
        """A score for each class, or one value of a regression."""
        return len(self.classes) or 1

    @property
    def which(self) -> str:
        """File and epoch, in words: ``runs/a/best.safetensors, epoch 12, the best of runs/a``."""
        return f"{self.path}, epoch {self.epoch}{', ' * bool(self.rank)}{self.rank}"


def train(
    settings: RunSettings,
    data: DataSplits,
    folder: Path,
    *,
    resume: str | Path | None = None,
    say: Say,
    callbacks: tuple[Callback, ...] = (),
    curve: bool = True,
) -> dict[str, float]:
    """Train on ``data`` as ``settings`` say, with files in ``folder``; returns what was measured on the test split: loss
    and accuracy, of tables more, see :mod:`kobai.train.scores`.

    The test split is looked at once, at the end, with the parameters of the epoch whose validation accuracy was greatest;
    of tables, whose validation loss was least. Of several processes that train together, the first writes the files and
    looks at it; for the others the result is empty.

    Args:
        resume: a checkpoint, or a folder of them, to go on from.
        say: called with each line of output.
        callbacks: more callbacks, such as :class:`Progress`.
        curve: draw the learning curve (needs matplotlib).
    """
    description = describe_model(settings, data.input_shape, data.outputs, data.embedded)
    keeper = Checkpoint(
        folder, monitor="val_accuracy" if data.preparation is None else "val_loss", every=settings.save_every
    )
    drawing = [LearningCurve(folder / CURVE)] if curve else []
    trainer, loader = assemble(
        settings,
        description,
        data.train,
        callbacks=[History(folder / HISTORY), keeper, *drawing, *callbacks],
        config=describe_run(settings, data, description),
    )
    model = trainer.model
    say(f"data      {str(data)[len('DataSplits(') : -1].replace(chr(39), '')}")
    for note in data.notes:
        say(f"          {note}")
    say(f"model     {describe_shape(settings, data)}; {sum(p.numel() for p in model.parameters()):,} parameters")
    say(f"training  {describe_training(settings)}; backend {backend()}")
    say(f"run       {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    with Lock(folder) if trainer.first else nullcontext():
        if trainer.first:
            write_atomically(folder / CONFIG, to_toml(settings.as_dict()).encode())
        if resume is not None:
            found, state = checkpoint.find(resume, say=say, map_location=default_device())
            if state["config"]["data"] != trainer.config["data"]:
                raise DataError(
                    f"{settings.data}: the data are not those that the run in {found.parent} was begun with"
                )
            trainer.load_state_dict(state)
            _keep_best(keeper, trainer, found, folder, say)
            at = (
                f"epoch {trainer.epoch + 1}, batch {trainer.position + 1}"
                if trainer.position
                else f"epoch {trainer.epoch}"
            )
            say(f"resumed   {'in' if trainer.position else 'after'} {at}, from {found}")
        trainer.fit(loader, data.validation, epochs=settings.epochs)
        if not trainer.first:
            return {}
        if trainer.stop_reason:
            say(f"stopped: {trainer.stop_reason}")
        elif data.preparation is not None and _still_falls([r["val_loss"] for r in trainer.history]):
            say(f"the validation loss still falls at the end: try --epochs {2 * settings.epochs}")
        best = checkpoint.read(folder / checkpoint.BEST, default_device()) if keeper.best.epoch else None
        if best is not None:
            model.load_state_dict(best["model"])
            at = f"{keeper.best.monitor} {keeper.best.value:.4f}"
            say(f"best epoch {keeper.best.epoch}: {at}; the test is of {checkpoint.BEST}")
    return _tested(trainer, data)


def _still_falls(losses: Sequence[float]) -> bool:
    """Whether the last tenth of the epochs has brought more than a hundredth of all that has been gained.

    >>> _still_falls([1.0, 0.8, 0.6, 0.5]), _still_falls([1.0, 0.2, 0.199, 0.1985])
    (True, False)
    """
    before = losses[: min(len(losses) - 1, int(0.9 * len(losses)))]
    if not before:
        return False
    least = min(losses)
    return min(before) - least > 0.01 * (losses[0] - least)


def _tested(trainer: Trainer, data: DataSplits) -> dict[str, float]:
    """Loss and metrics on the test split, of a table its scores too."""
    found = trainer.evaluate(data.test)
    if data.preparation is not None:
        inputs, target = data.test.tensors
        found |= scores(data.preparation, trainer.predict(inputs), target)
    return found


def begin(settings: RunSettings, description: Mapping[str, Any]) -> tuple[nn.Module, Optimizer]:
    """The described model at the beginning of a run, its weights drawn from the seed, and its optimiser."""
    manual_seed(settings.seed)
    try:
        model = build(description).to(default_device())
    except ValueError as error:  # images that are too small for it, or none at all
        raise SettingsError("model", str(error)) from error
    return model, optimizer_of(settings, model)


def optimizer_of(settings: RunSettings, model: nn.Module) -> Optimizer:
    """The optimiser that ``settings`` give a model."""
    return optimizer(settings.optimizer, model.parameters(), settings.lr, settings.weight_decay, settings.momentum)


def assemble(
    settings: RunSettings,
    description: Mapping[str, Any],
    data: TensorDataset,
    *,
    callbacks: Sequence[Callback],
    **options: Any,
) -> tuple[Trainer, DataLoader[Any]]:
    """The trainer of the described model and the loader of its batches, both as ``settings`` say.

    Early stopping is part of the settings and comes before ``callbacks``; ``options`` are more arguments of the Trainer.
    """
    model, rule = begin(settings, description)
    # A separate RNG for the order of the batches: more layers, or dropout, change no batch.
    order = Generator().manual_seed(settings.seed + 1)
    loader = DataLoader(data, batch_size=settings.batch_size, shuffle=True, generator=order)
    stopping = [EarlyStopping(settings.patience)] if settings.patience else []
    trainer = Trainer(
        model,
        rule,
        scheduler=schedule(settings.schedule, rule, settings.epochs, len(loader)),
        loss_fn=loss_of(settings, data, description["classes"]),
        metrics=["r2" if data.tensors[1].is_floating_point() else "accuracy"],
        callbacks=[*stopping, *callbacks],
        clip_grad_norm=settings.clip_grad_norm,
        precision=settings.precision,
        progress=False,  # the command line's own is among the callbacks
        shards=settings.shards,
        **options,
    )
    return trainer, loader


def _keep_best(keeper: Checkpoint, trainer: Trainer, found: Path, folder: Path, say: Say) -> None:
    """Make the folder's best file that of the epoch which is the best in the resumed state."""
    epoch = keeper.best.epoch
    if not epoch:
        return
    beside = found.parent / checkpoint.BEST
    if beside.exists() and checkpoint.read(beside, "cpu")["epoch"] == epoch:
        source = beside
    elif epoch == trainer.epoch and not trainer.position:
        source = found
    else:  # another run has written its own best since
        say(
            f"the parameters of epoch {epoch}, the best so far, are in no file beside {found}; the best is looked for anew"
        )
        keeper.best.value, keeper.best.epoch = None, 0
        return
    if trainer.first and real(source) != real(folder / checkpoint.BEST):
        write_atomically(folder / checkpoint.BEST, regular(source).read_bytes())


def load_data(settings: RunSettings) -> DataSplits:
    """The three splits of the data in ``settings``, on the default device."""
    table: dict[str, Any] = {}
    if is_table(settings.data):
        lists = {name: _listed(getattr(settings, name)) for name in ("columns", "ignore")}
        table = {
            name: getattr(settings, name) for name in ("target", "task", "missing", "categories", "group", "order")
        }
        table |= {"columns": lists["columns"], "ignore": lists["ignore"] or ()}
    if settings.image_size is not None:
        table["size"] = settings.image_size
    return kobai.data.load(
        settings.data,
        settings.data_dir,
        download=settings.download,
        validation=settings.validation,
        seed=settings.seed,
        **table,
    )


def _listed(names: str | None) -> list[str] | None:
    """Names with commas between them, as CSV has them: with quotation marks around one that holds a comma."""
    if names is None:
        return None
    return [name.strip() for name in next(csv.reader([names], skipinitialspace=True)) if name.strip()]


def restore(path: str | Path, say: Say, model: str | None = None) -> Restored:
    """The model of a checkpoint, or of a folder's best (else last) one, in evaluation mode on the default device.

    ``model`` is the ``file.py:MyNet`` of a run that has a net of the reader's own: a checkpoint may not run code.
    """
    found, state = checkpoint.find(
        path, order=(checkpoint.BEST, checkpoint.LAST, checkpoint.PREVIOUS), say=say, map_location=default_device()
    )
    config = state["config"]
    ranks = {checkpoint.BEST: "best", checkpoint.LAST: "last", checkpoint.PREVIOUS: "last but one"}
    try:
        data = config["data"]
        settings = RunSettings.from_dict(config["settings"])
        prepared = data.get("preparation")
        if prepared is None and len(data["input_shape"]) == 1 and is_table(settings.data):
            raise CheckpointError(
                f"{found}: was trained on a table by an earlier version of Kobai, which kept less of how its columns were "
                f"read; train it again: kobai train --data {settings.data}"
            )
        name = held(config["model"]["name"], model, found)
        settings = replace(settings, model=name)
        net = build({**config["model"], "name": name}).to(default_device())
        net.load_state_dict(state["model"])
        return Restored(
            net.eval(),
            found,
            state["epoch"],
            settings,
            tuple(data["classes"]),
            tuple(data["input_shape"]),
            tuple(data["features"]),
            Scaling(tuple(data["shift"]), tuple(data["scale"])),
            f"the {ranks[found.name]} of {path}" if Path(path).is_dir() else "",
            config.get("label"),
            tuple(data["checksum"]),
            None if prepared is None else Preparation.from_dict(prepared),
        )
    except (CheckpointError, DataError):
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if model is not None:
            raise CheckpointError(f"{found}: its parameters do not fit {short(model)}: {error}") from error
        raise CheckpointError(f"{found}: holds no model that kobai train has described ({error})") from error


def describe_model(
    settings: RunSettings, input_shape: tuple[int, ...], outputs: int, embedded: Sequence[int] = ()
) -> dict[str, Any]:
    """The description from which :func:`kobai.train.models.build` makes the model.

    ``embedded``: categories of the last inputs, which number them; see :attr:`kobai.data.DataSplits.embedded`.
    """
    values = settings.as_dict()
    described = {"name": settings.model, "input_shape": list(input_shape), "classes": outputs}
    described |= {name: values[name] for name in takes(settings.model)}
    if embedded:
        described["categories"] = list(embedded)
    if settings.augment:
        if len(input_shape) != 3:
            raise SettingsError("augment", f"is for images (C, H, W), and the inputs are {tuple(input_shape)}")
        channels, h, w = input_shape
        # A twelfth: 2 pixels of MNIST's 28. Digits and letters must not be mirrored, photographs may.
        described["augment"] = {"shift": max(1, min(h, w) // 12), "flip": channels == 3}
    return described


def describe_run(settings: RunSettings, data: DataSplits, model: Mapping[str, Any]) -> dict[str, Any]:
    """The description of a run in its checkpoints: settings, model, data."""
    return {
        "kobai": VERSION,
        "settings": settings.as_dict(),
        "model": dict(model),
        "label": data.label or None,
        "data": {
            "name": data.name,
            "classes": list(data.classes),
            "input_shape": list(data.input_shape),
            "features": list(data.features),
            "shift": list(data.scaling.shift),
            "scale": list(data.scaling.scale),
            **({} if data.preparation is None else {"preparation": data.preparation.to_dict()}),
            "checksum": [checksum(part) for part in (data.train, data.validation, data.test)],
        },
    }


def layers(settings: RunSettings, input_shape: tuple[int, ...], outputs: int) -> str:
    """Widths from input to output; of what takes images, their shape first.

    >>> layers(RunSettings(hidden=(100, 50)), (1, 8, 8), 10), layers(RunSettings(model="lenet"), (1, 28, 28), 10)
    ('64-100-50-10', '1×28×28-10')
    """
    first = math.prod(input_shape) if settings.model == "mlp" else "×".join(map(str, input_shape))
    inside = settings.hidden if "hidden" in takes(settings.model) else ()
    return "-".join(map(str, (first, *inside, outputs)))


def describe_shape(settings: RunSettings, data: DataSplits | Restored) -> str:
    """The model in one line, for the shape of the data."""
    sizes = layers(settings, data.input_shape, data.outputs)
    if is_own(settings.model):
        return f"{short(settings.model)} {sizes}{', augmented' * settings.augment}"
    init = matching_init(settings.activation) if settings.init == "auto" else settings.init
    extras = [", batch norm"] * settings.batch_norm + [f", dropout {settings.dropout:g}"] * bool(settings.dropout)
    extras += [", augmented"] * settings.augment
    return f"{settings.model} {sizes}, {settings.activation}, init {init}{''.join(extras)}"


def describe_training(settings: RunSettings) -> str:
    """The optimiser and its schedule in one line."""
    lr = OPTIMIZERS[settings.optimizer][1] if settings.lr is None else settings.lr
    parts = [settings.optimizer, f"lr {lr:g}"]
    parts += [f"momentum {settings.momentum:g}"] * bool(settings.momentum)
    parts += [f"weight decay {settings.weight_decay:g}"] * bool(settings.weight_decay)
    parts += [f"{settings.schedule} schedule"] * (settings.schedule != "none")
    parts += [settings.precision] * (settings.precision != "fp32")
    shards = f" in {settings.shards} shards" if settings.shards > 1 else ""
    return ", ".join(
        [*parts, f"batches of {settings.batch_size}{shards}", f"{settings.epochs} epochs", f"seed {settings.seed}"]
    )


def name_of(settings: RunSettings) -> str:
    """The name of a run: its data and its model."""
    data = Path(settings.data).stem if is_table(settings.data) else Path(settings.data).name
    return f"{data}-{settings.model.rpartition(':')[2]}"


def holds_run(folder: Path) -> bool:
    """Whether a folder holds a checkpoint to resume from."""
    return any((folder / name).exists() for name in (checkpoint.LAST, checkpoint.PREVIOUS, checkpoint.BEST))


def begun(path: Path, say: Say) -> tuple[RunSettings, bool]:
    """The settings of the run in a folder or a file, and whether there is a checkpoint to resume from.

    A run that ended before its first checkpoint has at least left its settings. CheckpointError if there is nothing.
    """
    if path.is_dir() and not holds_run(path) and (path / CONFIG).exists():
        return RunSettings.from_dict(from_toml(regular(path / CONFIG).read_text(encoding="utf-8"))), False
    state = checkpoint.find(path, say=say)[1]
    return RunSettings.from_dict(state["config"]["settings"]), True


def checksum(part: TensorDataset) -> int:
    """Checksum of a split's arrays: nothing is resumed with data that have changed."""
    total = 0
    for tensor in part.tensors:
        total = zlib.crc32(np.ascontiguousarray(to_host(tensor.array)).view(np.uint8).data, total)
    return total

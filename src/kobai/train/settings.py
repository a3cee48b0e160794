"""The settings of a run of ``kobai train``: their options, their allowed values, and their form in a TOML file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from math import inf
from pathlib import Path
from typing import Any

from kobai.core.untrusted import from_toml, real, regular
from kobai.data import NAMES
from kobai.data.tables.table import CATEGORIES, is_table
from kobai.data.tables.target import TASKS
from kobai.errors import nearest
from kobai.nn import init as initialisers
from kobai.ops.create import empty
from kobai.random import Generator
from kobai.train.activations import ACTIVATIONS
from kobai.train.models import EVERY, MODELS, TAKES, takes
from kobai.train.optimizers import OPTIMIZERS, PLANNED_TO_THE_END, SCHEDULES, WITH_MOMENTUM
from kobai.train.own_models import OwnModel, is_own, short
from kobai.train.step import PRECISIONS

TABULAR = ("target", "task", "columns", "ignore", "missing", "categories", "group", "order", "class_weight", "loss")
"""Settings of tables alone."""

LOSSES = ("auto", "cross_entropy", "mse", "mae", "huber", "quantile")
"""By name; a quantile has its share with it, ``quantile(0.9)``."""


class SettingsError(ValueError):
    """A setting has a wrong value; ``option`` is its name on the command line."""

    def __init__(self, option: str, message: str) -> None:
        super().__init__(message)
        self.option = option


def _setting(
    default: Any,
    panel: str,
    text: str,
    allowed: tuple[str, Callable[[Any], bool]] | None = None,
    known: Iterable[str] = (),
    spelt: tuple[str, ...] = (),
) -> Any:
    """A field, with what the command line and :meth:`RunSettings.check` need to know about it.

    Args:
        panel, text: the panel of ``--help`` that lists the option, and its help.
        allowed: the range of its values, in words and as a test; None is always allowed.
        known: the names it may have.
        spelt: the option, if it is not the name with dashes.
    """
    return field(
        default=default, metadata={"panel": panel, "help": text, "allowed": allowed, "known": known, "spelt": spelt}
    )


_NOT_NEGATIVE = ">= 0", lambda value: value >= 0
_AT_LEAST_ONE = ">= 1", lambda value: value >= 1
_BELOW_ONE = "in [0, 1)", lambda value: 0 <= value < 1


@dataclass(frozen=True)
class RunSettings:
    """Everything that the result of a run depends on, and a few things that it does not depend on (:data:`FREE`).

    The commands make their options from these fields: name, type, default, help.
    """

    data: str = _setting(
        "digits",
        "Data",
        "digits, mnist, fashion-mnist, cifar10, a table (CSV, TSV, Parquet or Excel), or a folder of images.",
    )
    data_dir: str | None = _setting(None, "Data", "Folder with the files of the data set.")
    download: bool = _setting(False, "Data", "Fetch the files if they are not there.", spelt=("--download",))
    target: str | None = _setting(
        None,
        "Table",
        "Column to predict, by name or number; default: the last.",
        spelt=("--target", "--label"),
    )
    task: str = _setting(
        "auto",
        "Table",
        "classification or regression; auto: text and few repeated whole numbers are classes.",
        known=TASKS,
    )
    columns: str | None = _setting(
        None, "Table", "Columns to learn from, such as age,income; default: all that can serve."
    )
    ignore: str | None = _setting(None, "Table", "Columns to leave out.")
    missing: str = _setting(
        "fill",
        "Table",
        "Missing cells: fill (by the median, with an input that says so) or drop (leave the row out).",
        known=("fill", "drop"),
    )
    categories: str = _setting(
        "one-hot",
        "Table",
        "Columns of more than 10 categories: one-hot (an input for each of the 50 most frequent) or embedding (a learnt "
        "vector for each).",
        known=CATEGORIES,
    )
    group: str | None = _setting(None, "Table", "Column whose rows of one value stay together, such as a patient.")
    order: str | None = _setting(None, "Table", "Column of times; the last rows are the test, not any.")
    class_weight: str = _setting(
        "none", "Table", "balanced: rare classes count as much as frequent ones.", known=("none", "balanced")
    )
    image_size: int | None = _setting(
        None, "Data", "Height and width of one's own images; default: theirs, or 64 if they differ.", _AT_LEAST_ONE
    )
    validation: float = _setting(
        0.1,
        "Data",
        "Share of the training data held out for validation.",
        ("between 0 and 1", lambda share: 0 < share < 1),
    )
    model: str = _setting(
        "mlp",
        "Model",
        "Kind of network: mlp, or for images cnn, lenet (LeNet-5) or resnet8; or a class of your own, file.py:MyNet.",
        known=MODELS,
    )
    hidden: tuple[int, ...] = _setting(
        (100, 100),
        "Model",
        "Widths of the hidden layers; '' for none.",
        ("sizes of at least 1", lambda widths: all(width >= 1 for width in widths)),
    )
    activation: str = _setting("relu", "Model", "relu, tanh, sigmoid, gelu, selu, …", known=ACTIVATIONS)
    init: str = _setting(
        "auto",
        "Model",
        "Initial weights: he, xavier, lecun, normal(0.01), orthogonal, zeros, …; auto fits the activation.",
    )
    batch_norm: bool = _setting(False, "Model", "Normalise before each activation.")
    dropout: float = _setting(0.0, "Model", "Share of hidden outputs dropped in training.", _BELOW_ONE)
    augment: bool = _setting(
        False, "Model", "In training move each image by some pixels, and mirror it half the time if it is in colour."
    )
    optimizer: str = _setting(
        "adam", "Training", "sgd, adam, adamw, adagrad, rmsprop, adadelta, adamax, nadam or radam.", known=OPTIMIZERS
    )
    lr: float | None = _setting(
        None,
        "Training",
        "Learning rate; default: the optimizer's usual one (adam 0.001, sgd 0.1).",
        ("> 0 and finite", lambda rate: 0 < rate < inf),
    )
    momentum: float = _setting(0.0, "Training", "For sgd and rmsprop.", _BELOW_ONE)
    weight_decay: float = _setting(
        0.0, "Training", "L2 penalty (adamw: decoupled).", (">= 0 and finite", lambda decay: 0 <= decay < inf)
    )
    loss: str = _setting(
        "auto",
        "Table",
        "For a regression mse, mae, huber or quantile(0.9); auto: mse, and cross_entropy for classes.",
    )
    schedule: str = _setting(
        "none", "Training", "none, cosine, step, exponential, onecycle or plateau.", known=SCHEDULES
    )
    epochs: int = _setting(30, "Training", "Passes over the training data, in all.", _AT_LEAST_ONE)
    batch_size: int = _setting(100, "Training", "Samples in a batch.", _AT_LEAST_ONE)
    shards: int = _setting(
        1,
        "Training",
        "Parts of each batch that are summed in one order, on any number of processes that divides it.",
        ("a power of two", lambda count: count >= 1 and count & (count - 1) == 0),
    )
    clip_grad_norm: float | None = _setting(
        None, "Training", "Greatest norm of the gradient.", ("> 0", lambda norm: norm > 0)
    )
    precision: str = _setting(
        "fp32",
        "Training",
        "What a step computes in: fp32, tf32, bf16 or fp16; on the CPU the last two take longer, they are for trying.",
        known=PRECISIONS,
    )
    patience: int | None = _setting(
        None, "Training", "Stop after so many epochs without a better validation loss.", _AT_LEAST_ONE
    )
    seed: int = _setting(0, "Training", "Same seed, same result, bit for bit.", _NOT_NEGATIVE)
    save_every: int = _setting(0, "Run", "Also write a checkpoint after every so many batches.", _NOT_NEGATIVE)

    def check(self) -> RunSettings:
        """These settings, with the path of a table made absolute; SettingsError for a wrong value."""
        _known("data", self.data.lower().replace("_", "-"), NAMES, unless=_is_own(self.data))
        if self.init != "auto":
            try:  # try a small tensor: its arguments may be wrong too
                initialisers.by_name(self.init)(empty(2, 2, device="cpu"), generator=Generator())
            except ValueError as error:
                raise SettingsError("init", str(error).removeprefix("init: ")) from None
        _check_own(self.model)
        for each in fields(self):
            value, known, allowed = getattr(self, each.name), each.metadata["known"], each.metadata["allowed"]
            if known:
                _known(each.name, value, known, unless=each.name == "model" and is_own(value))
            if allowed and value is not None and not allowed[1](value):
                raise SettingsError(each.name, f"expected {allowed[0]}, got {_shown(value)}")
        for name in EVERY:
            if name not in takes(self.model) and getattr(self, name) != getattr(RunSettings, name):
                raise SettingsError(name, f"{short(self.model)} has no such part to set; {_with(name)} have")
        if self.momentum and self.optimizer not in WITH_MOMENTUM:
            raise SettingsError("momentum", f"{self.optimizer} has none to set; {' and '.join(WITH_MOMENTUM)} have")
        if quantile_of(self.loss) is None:
            _known("loss", self.loss, LOSSES[:-1])
        if not is_table(self.data):
            for name in TABULAR:
                if getattr(self, name) != getattr(RunSettings, name):
                    raise SettingsError(name, f"is of tables, such as CSV files, and the data are {self.data}")
        if not _is_own(self.data):
            if self.image_size is not None:
                raise SettingsError("image_size", f"is for images of one's own, and the data are {self.data}")
            if self.data == "digits" and (self.download or self.data_dir is not None):
                option = "download" if self.download else "data_dir"
                raise SettingsError(option, "the digits are embedded in an installed package, not read from a folder")
            return self
        path = Path(self.data).expanduser()
        return RunSettings(**{**asdict(self), "data": str(real(path)) if path.exists() else self.data})

    def as_dict(self) -> dict[str, Any]:
        """The settings as JSON and TOML hold them."""
        return {**asdict(self), "hidden": list(self.hidden)}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> RunSettings:
        """Settings from :meth:`as_dict`; unknown names, of another version, are left out."""
        known = {each.name for each in fields(RunSettings)}
        kept = {OLDER.get(name, name): value for name, value in values.items() if OLDER.get(name, name) in known}
        return RunSettings(**{**kept, "hidden": tuple(kept.get("hidden", RunSettings.hidden))})

    def resumed(self, given: Mapping[str, Any]) -> RunSettings:
        """The settings of a run that is resumed with new ones ``given``; SettingsError for one that may not change."""
        for name, value in given.items():
            before = getattr(self, name)
            if value == before or (name == "data" and _same_data(value, before)):
                continue
            if name == "model" and is_own(before) and is_own(value):  # the file may be elsewhere now
                continue
            if name == "epochs" and self.schedule in PLANNED_TO_THE_END:
                raise SettingsError(name, f"the run is planned for {before}: its {self.schedule} schedule ends there")
            if name not in FREE:
                free = ", ".join(option(n) for n in FREE)
                raise SettingsError(
                    name,
                    f"the run was begun with {_shown(before)}, not {_shown(value)}; when it is resumed, only {free} may change",
                )
        fresh = {name: value for name, value in given.items() if name in FREE or (name == "model" and is_own(value))}
        return RunSettings(**{**asdict(self), **fresh}).check()


OLDER = {"label": "target"}
"""Names of settings in the files of earlier versions."""


def quantile_of(loss: str) -> float | None:
    """The share of a quantile loss, None for other losses and for shares outside (0, 1).

    >>> quantile_of("quantile(0.9)"), quantile_of("mse")
    (0.9, None)
    """
    found = re.fullmatch(r"quantile\(\s*([0-9.]+)\s*\)", loss)
    try:
        share = float(found[1]) if found else 0.0
    except ValueError:
        return None
    return share if 0 < share < 1 else None


def flags(values: Mapping[str, Any]) -> str:
    """Settings as options of the command line.

    >>> flags({"hidden": (256, 256), "batch_norm": True, "lr": 0.003})
    '--hidden 256,256 --batch-norm --lr 0.003'
    """
    return " ".join(
        option(name) if value is True else f"{option(name)} {_shown(value)}" for name, value in values.items()
    )


FREE = ("epochs", "data_dir", "download", "save_every")
"""Settings that may change when a run is resumed, because the parameters after an epoch do not depend on them."""


def option(name: str) -> str:
    """The command-line spelling of a setting.

    >>> option("batch_size")
    '--batch-size'
    """
    return "--" + name.replace("_", "-")


def read_toml(path: Path, known: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a TOML file by name; SettingsError if it is not TOML or holds names that are not ``known``.

    Names are those of the options, with ``-`` or ``_``.
    """
    try:
        table = from_toml(regular(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError("config", f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise SettingsError("config", f"{path} is not TOML: {error}") from error
    values = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            hint = nearest(key, [n.replace("_", "-") if "-" in key else n for n in known])
            raise SettingsError("config", f"{path}: unknown name {key!r}.{hint}")
        if isinstance(value, dict):
            raise SettingsError("config", f"{path}: {key!r} is a table; settings stand in the file's top level")
        values[name] = ",".join(map(str, value)) if isinstance(value, list) else value
    return values


def to_toml(values: Mapping[str, Any]) -> str:
    """Settings as a TOML file for ``--config``; None is left out."""
    return "".join(f"{name} = {_toml(value)}\n" for name, value in values.items() if value is not None)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        escaped = "".join(f"\\{c}" if c in '"\\' else c if c.isprintable() else f"\\U{ord(c):08X}" for c in value)
        return f'"{escaped}"'
    return repr(value)


def _check_own(model: str) -> None:
    """SettingsError for the net of a file that has no such net."""
    if isinstance(model, OwnModel):
        try:
            model.maker()
        except ValueError as error:
            raise SettingsError("model", str(error)) from error


def _with(name: str) -> str:
    """The models that have a setting."""
    return " and ".join(model for model, takes in TAKES.items() if name in takes)


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _known(name: str, value: str, known: Any, unless: bool = False) -> None:
    if not unless and value not in known:
        what = "neither a known data set nor a file" if name == "data" else f"no {name} is called so"
        raise SettingsError(name, f"{value!r}: {what}.{nearest(value, known)}")


def _is_own(data: str) -> bool:
    """Whether the data are the reader's own: a table, or a folder of images."""
    return is_table(data) or (Path(data).expanduser().exists() and data not in NAMES)


def _same_data(a: str, b: str) -> bool:
    return real(Path(a).expanduser()) == real(Path(b).expanduser()) if _is_own(a) else a == b

"""The frame of every command: its options, the backend, and how failures end.

Options for settings are made from the fields of :class:`~kobai.train.settings.RunSettings`, the same for every command.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from kobai.cli.common import choose_backend, one_line, silent
from kobai.errors import DataError
from kobai.train.own_models import named
from kobai.train.recipes import recipe
from kobai.train.settings import RunSettings, SettingsError

RESUME_FREE = ("data_dir", "download", "jobs", "backend", "quiet", "debug")
"""Options that say where and how something is done, but not what."""

OF_RESULTS = ("download", "validation", "init", "lr", "schedule", "epochs", "patience", "seed", "save_every")
"""Settings that do not change how long a step takes, or what is compiled for it."""

BARE = "?"
"""The value of a ``--resume`` without a path."""

BACKEND = Annotated[
    str | None,
    typer.Option(
        help="auto, numpy or cupy, or a device such as cuda:1. [dim]Default: $KOBAI_BACKEND, else numpy.[/dim]"
    ),
]
DEBUG = Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")]

FIELDS = {field.name: field for field in fields(RunSettings)}
TYPES = get_type_hints(RunSettings)


def option_of(name: str) -> Any:
    """The option of a setting: how it is spelt, its help, and where ``--help`` lists it."""
    about = FIELDS[name].metadata
    return typer.Option(*about["spelt"], help=about["help"], rich_help_panel=about["panel"])


DataDir = Annotated[str | None, option_of("data_dir")]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.py:NAME",
        help="The net of a run that has one of your own: a checkpoint never runs code.",
        show_default=False,
    ),
]
"""Of commands that take no other settings."""


def keyword(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    """A parameter of a command, which has keyword-only ones."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def parameter_of(name: str) -> inspect.Parameter:
    """A setting as a parameter of a command; sizes are text, see :func:`sizes`."""
    kind, default = TYPES[name], FIELDS[name].default
    if isinstance(default, tuple):
        kind, default = str, ",".join(map(str, default))
    return keyword(name, Annotated[kind, option_of(name)], default)


class Asked:
    """The settings of a command line."""

    def __init__(self, ctx: typer.Context) -> None:
        self.ctx = ctx

    @cached_property
    def values(self) -> dict[str, Any]:
        """All settings that the command has options for."""
        values = {name: self.ctx.params[name] for name in FIELDS if name in self.ctx.params}
        # A file of settings, which may have come with a run, names no code to run.
        model = named(values["model"]) if self._source("model") == "COMMANDLINE" else values["model"]
        return {**values, "hidden": sizes("hidden", values["hidden"]), "model": model}

    @property
    def given(self) -> dict[str, Any]:
        """Those that came from the command line or the file; the others have our defaults."""
        return {name: value for name, value in self.values.items() if self.has(name)}

    @property
    def where(self) -> dict[str, Any]:
        """Those given that say where the data are, but not what they are."""
        return {name: value for name, value in self.given.items() if name in ("data_dir", "download")}

    def has(self, name: str) -> bool:
        """Whether an option came from the command line or the file; if not, it has our default."""
        return self._source(name) not in ("", "DEFAULT")

    def _source(self, name: str) -> str:
        source = self.ctx.get_parameter_source(name)
        return "" if source is None else source.name

    def settings(self) -> RunSettings:
        """The settings, with the data set's own defaults for those that were not given."""
        return RunSettings(**{**self.values, **recipe(self.values["data"], self.given)}).check()

    def nothing_beside_resume(self, *allowed: str) -> None:
        """SettingsError for an option beside ``--resume`` that is not ``allowed``: the folder says all the others."""
        for param in self.ctx.command.params:
            name = param.name or ""
            if name not in (*RESUME_FREE, "resume", *allowed) and self.has(name):
                option = max(param.opts, key=len).removeprefix("--")
                raise SettingsError(option, "has no place beside --resume, which takes everything from the folder")


def command(
    *left_out: str, quiet: str = "", tell: Callable[[str], None] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a command of a function that has keyword-only parameters.

    Its parameter ``asked`` becomes an option for each setting that is not ``left_out``. ``--backend`` (which may be left out
    too), ``--quiet`` (with the help ``quiet``) and ``--debug`` come last, and the function takes those it wants by name.
    What it raises ends in one line, see :func:`~kobai.cli.common.one_line`; unless it is quiet, ``tell`` is handed on there.
    """
    settings = [parameter_of(name) for name in FIELDS if name not in left_out]
    ends = [keyword("backend", BACKEND, None)] * ("backend" not in left_out)
    if quiet:
        ends.append(keyword("quiet", Annotated[bool, typer.Option("--quiet", "-q", help=quiet)], False))
    ends.append(keyword("debug", DEBUG, False))
    last = [parameter.name for parameter in ends]

    def frame(function: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(function, eval_str=True)
        parameters = [keyword("ctx", typer.Context)]
        for parameter in own.parameters.values():
            if parameter.name not in last:
                parameters += settings if parameter.name == "asked" else [parameter]
        parameters += ends

        @functools.wraps(function)
        def framed(*, ctx: typer.Context, **values: Any) -> None:
            with one_line(values["debug"], silent if values.get("quiet") else tell):
                if "backend" in last:
                    choose_backend(values["backend"])
                values["asked"] = Asked(ctx)
                function(**{name: values[name] for name in own.parameters})

        framed.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        framed.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return framed

    return frame


def sizes(name: str, text: str) -> tuple[int, ...]:
    """``"100,50"`` as (100, 50), ``""`` as (); SettingsError for anything else, naming the option.

    >>> sizes("hidden", "100, 50")
    (100, 50)
    """
    try:
        return tuple(int(size) for size in text.split(",")) if text.strip() else ()
    except ValueError:
        raise SettingsError(
            name, f"expected integers with commas between them, such as 100,100, got {text!r}"
        ) from None


def resumed(resume: str, what: str, *marks: str) -> Path:
    """The path that ``--resume`` names; without a value the newest folder in ``runs/`` that holds one of ``marks``."""
    if resume != BARE:
        return Path(resume).expanduser()
    found = [path for mark in marks for path in Path("runs").glob(f"*/{mark}")]
    if not found:
        raise DataError(f"runs: no {what} to resume in this folder")
    return max(found, key=lambda path: path.stat().st_mtime).parent

"""Options for settings: made from the fields of :class:`~kobai.train.settings.Settings`, the same for every command."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from kobai.errors import DataError
from kobai.train.settings import Settings, SettingsError, recipe

RESUME_FREE = ("data_dir", "download", "jobs", "backend", "quiet", "debug")
"""Options that say where and how something is done, and not what."""

OF_RESULTS = ("download", "validation", "init", "lr", "schedule", "epochs", "patience", "seed", "save_every")
"""Settings on which the time of a step, and what is compiled for it, do not depend."""

BARE = "?"
"""What a ``--resume`` without a path is given."""

FIELDS = {field.name: field for field in fields(Settings)}
TYPES = get_type_hints(Settings)


def option_of(name: str) -> Any:
    """The option of a setting: how it is spelt, its help, and where ``--help`` lists it."""
    about = FIELDS[name].metadata
    return typer.Option(*about["spelt"], help=about["help"], rich_help_panel=about["panel"])


DataDir = Annotated[str | None, option_of("data_dir")]
"""Of commands that take no other settings."""


def parameter_of(name: str) -> inspect.Parameter:
    """A setting as a parameter of a command; sizes are text, see :func:`sizes`."""
    kind, default = TYPES[name], FIELDS[name].default
    if isinstance(default, tuple):
        kind, default = str, ",".join(map(str, default))
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option_of(name)]
    )


class Asked:
    """The settings of a command line; of a command's parameters the one that :func:`takes_settings` looks for."""

    def __init__(self, ctx: typer.Context) -> None:
        self.ctx = ctx

    @cached_property
    def values(self) -> dict[str, Any]:
        """All settings that the command has options for."""
        values = {name: self.ctx.params[name] for name in FIELDS if name in self.ctx.params}
        return {**values, "hidden": sizes("hidden", values["hidden"])}

    @property
    def given(self) -> dict[str, Any]:
        """Those of them that came from the command line or the file, and are not our defaults."""
        return {name: value for name, value in self.values.items() if self.has(name)}

    @property
    def where(self) -> dict[str, Any]:
        """Those of the given that say where the data are, and not what they are."""
        return {name: value for name, value in self.given.items() if name in ("data_dir", "download")}

    def has(self, name: str) -> bool:
        """Whether an option came from the command line or the file, and is not our default."""
        source = self.ctx.get_parameter_source(name)
        return source is not None and source.name != "DEFAULT"

    def settings(self) -> Settings:
        """The settings, with the data set's own defaults for those that were not given."""
        return Settings(**{**self.values, **recipe(self.values["data"], self.given)}).check()

    def nothing_beside_resume(self, *allowed: str) -> None:
        """SettingsError for an option beside ``--resume`` that is not ``allowed``: the folder says all the others."""
        for param in self.ctx.command.params:
            name = param.name or ""
            if name not in (*RESUME_FREE, "resume", *allowed) and self.has(name):
                option = max(param.opts, key=len).removeprefix("--")
                raise SettingsError(option, "has no place beside --resume, which takes everything from the folder")


def takes_settings(*left_out: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each setting but those ``left_out``, in the place of its parameter ``asked``.

    All parameters of the command are keyword-only. One that is a setting of those ``left_out`` is among ``asked.values`` too.
    """
    generated = [parameter_of(name) for name in FIELDS if name not in left_out]

    def generate(function: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(function, eval_str=True)
        parameters = [inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
        for parameter in own.parameters.values():
            parameters += generated if parameter.name == "asked" else [parameter]

        @functools.wraps(function)
        def command(*, ctx: typer.Context, **values: Any) -> None:
            function(asked=Asked(ctx), **{name: value for name, value in values.items() if name in own.parameters})

        command.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return generate


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


def resumed(resume: str, mark: str, what: str) -> Path:
    """The folder that ``--resume`` means: without a value the newest in ``runs/`` that holds the file ``mark``."""
    if resume != BARE:
        return Path(resume).expanduser()
    found = list(Path("runs").glob(f"*/{mark}"))
    if not found:
        raise DataError(f"runs: no {what} to go on with in this folder")
    return max(found, key=lambda path: path.stat().st_mtime).parent

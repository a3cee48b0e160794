"""The folder of a comparison or a search: what belongs to others is never touched, nor an earlier result overwritten."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from kobai.core.files import is_ours, sweep, write_atomically
from kobai.errors import DataError
from kobai.lab import plots
from kobai.lab.reports.reporting import report
from kobai.lab.sweep.values import spelt


def holds(folder: Path, mark: str, what: str) -> bool:
    """Whether a folder holds the file ``mark`` of a comparison or search (``what``). A missing folder is made.

    DataError if it is a file, or holds files of another kind.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file, and a {what} needs a folder")
    if folder.exists():
        sweep(folder)
    if (folder / mark).exists():
        return True
    if folder.exists() and any(not _left_behind(path.name, mark) for path in folder.iterdir()):
        raise DataError(f"{folder}: holds files that are not a {what}'s; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    return False


def _left_behind(name: str, mark: str) -> bool:
    """Whether a process leaves such a file if it dies before it has written ``mark``. (The last form is of early versions.)"""
    if name.startswith(f"{mark}.lock"):  # Optuna takes it before it writes
        return True
    return is_ours(name) or (name.startswith(f".{mark}.") and name.endswith(".tmp"))


def check_same(folder: Path | str, what: str, held: Any, asked: Mapping[str, Any]) -> None:
    """DataError, naming the first difference, unless the folder holds what is asked for."""
    for name, wanted in listed(asked).items():
        there = held.get(name) if isinstance(held, dict) else None
        if there != wanted:
            raise DataError(
                f"{folder}: holds another {what}: {_difference(name, there, wanted)}; nothing is overwritten, choose "
                "another folder"
            )


def save(folder: Path, content: Mapping[str, bytes], figures: Callable[[], Mapping[str, Any]]) -> list[Path]:
    """Write the results, the figures as PNG and SVG (with matplotlib) and the report; returns all paths."""
    drawn = {}
    with suppress(ImportError):  # the command line says that there are no figures
        drawn = {f"{n}.{kind}": plots.render(f, kind) for n, f in figures().items() for kind in ("png", "svg")}
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in (*content, *drawn)]
    for path, data in zip(paths, (*content.values(), *drawn.values()), strict=True):
        write_atomically(path, data)
    return [*paths, report(paths[0])]


def listed(content: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back: with lists for tuples."""
    found: dict[str, Any] = json.loads(json.dumps(content))
    return found


def _difference(name: str, there: Any, asked: Any) -> str:
    if name == "data":
        return "its data are not those of this one"
    if not isinstance(there, dict) or not isinstance(asked, dict):
        return f"its {name} is {there}, not {asked}"
    if name in ("vary", "space"):
        verb = {"vary": "varies", "space": "searches"}[name]
        return f"it {verb} {_all(there)}, and this one {_all(asked)}"
    key = next(k for k in [*asked, *there] if there.get(k, ...) != asked.get(k, ...))
    return f"its {key} is {_spelt(there.get(key))}, not {_spelt(asked.get(key))}"


def _all(settings: Mapping[str, Any]) -> str:
    return " and ".join(
        f"{name}={values if isinstance(values, str) else '|'.join(map(_spelt, values))}"
        for name, values in settings.items()
    )


def _spelt(value: Any) -> str:
    return spelt(tuple(value) if isinstance(value, list) else value)

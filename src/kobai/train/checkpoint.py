"""Checkpoints in a folder: ``last.safetensors``, the one before it, and ``best.safetensors``.

Every file is complete as soon as it has its name: :func:`kobai.save` writes a temporary file and renames it. If one is damaged
later, it does not match its checksum, and :func:`find` takes the one before it. A kill between the two renames of
:func:`write_last` leaves no ``last``; from ``previous`` training comes to the very same parameters, an epoch later.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kobai.errors import CheckpointError
from kobai.serialization import load, save

FORMAT = 1
LAST, PREVIOUS, BEST = "last.safetensors", "previous.safetensors", "best.safetensors"
_NEXT = "next.safetensors"

State = dict[str, Any]


def write(state: State, path: Path) -> None:
    """Write a trainer's state to ``path``, atomically."""
    save({"kobai_checkpoint": FORMAT, **state}, path)


def write_last(state: State, folder: Path) -> None:
    """Make ``state`` the last checkpoint of a folder, and the former last one the previous."""
    write(state, folder / _NEXT)
    if (folder / LAST).exists():
        os.replace(folder / LAST, folder / PREVIOUS)
    os.replace(folder / _NEXT, folder / LAST)


def read(path: str | Path, map_location: Any = None) -> State:
    """The state in one file; CheckpointError if it holds none."""
    path = Path(path)
    try:
        state = load(path, map_location=map_location)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    if not isinstance(state, dict) or "kobai_checkpoint" not in state:
        raise CheckpointError(f"{path}: not a checkpoint of a Kobai run (it holds tensors, but no training state)")
    if state["kobai_checkpoint"] != FORMAT:
        raise CheckpointError(
            f"{path}: a checkpoint of format {state['kobai_checkpoint']}, and this version of Kobai reads format {FORMAT}"
        )
    return state


def find(
    path: str | Path, *, order: tuple[str, ...] = (LAST, PREVIOUS), say: Callable[[str], None], map_location: Any = None
) -> tuple[Path, State]:
    """The first file of ``order`` in a folder that can be read, with its state; or those of one given file.

    ``say`` gets one line if a damaged or missing file is passed over. CheckpointError if none can be read. If a
    ``last.safetensors`` is given by its own name and is damaged or missing, the one before it is taken.
    """
    path = Path(path)
    if path.name == LAST and path.parent.is_dir() and not path.is_dir():
        path, order = path.parent, (LAST, PREVIOUS)
    if not path.is_dir():
        return path, read(path, map_location)
    problems = []
    for name in order:
        try:
            state = read(path / name, map_location)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        if problems:
            say(f"{problems[0]}; using {path / name} instead")
        return path / name, state
    if not any((path / name).exists() for name in order):
        raise CheckpointError(f"{path}: no checkpoint in this folder (looked for {', '.join(order)})")
    raise CheckpointError("; ".join(problems))

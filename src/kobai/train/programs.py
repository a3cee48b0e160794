"""Programs of the reader's own: run as a module, but nothing below ``if __name__ == "__main__"``, for what they define."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from kobai.core.untrusted import real
from kobai.errors import DataError

__all__ = ["AT_IMPORT", "ProgramError", "foreign", "line_of", "run"]

AT_IMPORT = 'put what is not to run here below if __name__ == "__main__":'


class ProgramError(ValueError):
    """What is named is not there, or is no Python program."""


def run(path: str) -> ModuleType:
    """The module of a file, or of a package that can be imported; what it prints goes to standard error.

    ProgramError if there is none; DataError, with its line, if the program fails.
    """
    file = Path(path).expanduser()
    if path.endswith(".py") or file.exists():
        if not file.is_file():
            raise ProgramError(f"{path}: there is no such file")
        folder, spec = real(file).parent, importlib.util.spec_from_file_location(file.stem, file)
    else:
        folder, spec = Path.cwd(), None
        with contextlib.suppress(ModuleNotFoundError, ValueError), _beside(folder):
            spec = importlib.util.find_spec(path)
        if spec is None:
            raise ProgramError(f"{path}: there is no such file, and no such module")
    if spec is None or spec.loader is None:
        raise ProgramError(f"{path} is no Python program: its name should end in .py")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(spec.name)
    sys.modules[spec.name] = module  # for dataclasses and pickles in it
    try:
        with _beside(folder):
            spec.loader.exec_module(module)
    except SystemExit as error:
        raise DataError(f"{path} ends itself at import (exit code {error.code}): {AT_IMPORT}") from error
    except Exception as error:
        torch = isinstance(error, ModuleNotFoundError) and error.name == "torch"
        hint = "; in its place write import kobai as torch" if torch else ""
        line = line_of(error, Path(spec.origin or path))
        raise DataError(f"{path}, line {line}: {type(error).__name__}: {error}{hint}") from error
    finally:
        if before is not None:
            sys.modules[spec.name] = before
    return module


def line_of(error: Exception, file: Path) -> int:
    """The last line of the program itself in a traceback."""
    if isinstance(error, SyntaxError):
        return error.lineno or 0
    line, trace = 0, error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).name == file.name:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def foreign(value: Any) -> str:
    """What to do about an object, or a class, of PyTorch's; empty for others."""
    kinds = value.__mro__ if isinstance(value, type) else type(value).__mro__
    if not any(kind.__module__.partition(".")[0] == "torch" for kind in kinds):
        return ""
    return (
        f"is PyTorch's {kinds[0].__name__}: in place of import torch write import kobai as torch, and load its weights; "
        "docs/from-pytorch.md shows how"
    )


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[None]:
    """Modules beside the program can be imported, as when it is run."""
    sys.path.insert(0, str(folder))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))

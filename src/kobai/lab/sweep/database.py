"""Where several machines keep one study: a journal that all see, or a database such as PostgreSQL, by its URL."""

from __future__ import annotations

import importlib
import re
import time
from pathlib import Path
from typing import Any

from kobai.errors import DataError, install
from kobai.lab.sweep.journal import Journal
from kobai.lab.sweep.needs_optuna import calm, require


def store(storage: str) -> Any:
    """Optuna's storage at a URL, or in a journal at a path."""
    if "://" in storage:
        return database(storage)
    with calm():
        return require().storages.JournalStorage(Journal(Path(storage).expanduser()))


TRIES = 5
"""Two machines that begin at once both make the tables, and one of them is told that they exist."""


def database(url: str) -> Any:
    """Optuna's storage at a URL; DataError if nothing answers there, ImportError with the install line for PostgreSQL's client.

    ``postgresql://user:password@host/name`` speaks through psycopg 3. The password is in no message and in no file.
    """
    storages, errors = require().storages, importlib.import_module("sqlalchemy.exc")
    if url.startswith(("postgresql:", "postgres:")):
        url = "postgresql+psycopg:" + url.partition(":")[2]
    # Without a pool no connection stays open between two writes, which are seconds apart: none is there to be lost.
    options = {"poolclass": importlib.import_module("sqlalchemy.pool").NullPool}
    left = TRIES
    while True:
        try:
            return storages.RDBStorage(url, engine_kwargs=options)
        except (errors.IntegrityError, errors.ProgrammingError) as error:
            left -= 1
            if not left:
                raise _no_study(url, error) from None
            time.sleep(0.2)
        except ImportError as error:
            if "psycopg" in url:
                raise ImportError(f"tune: psycopg is not installed. Install it: {install('postgres')}") from error
            raise
        except (errors.SQLAlchemyError, ValueError) as error:
            raise _no_study(url, error) from None


def hidden(url: str) -> str:
    """A URL without its password.

    >>> hidden("postgresql://me:secret@host/lab")
    'postgresql://me:***@host/lab'
    """
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", url)


def _no_study(url: str, error: Exception) -> DataError:
    reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
    return DataError(f"{hidden(url)}: cannot keep a study there ({hidden(reason)})")

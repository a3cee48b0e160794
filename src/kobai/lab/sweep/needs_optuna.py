"""Optuna, where it is installed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

INSTALL = "tune: Optuna is not installed. Install it: pip install 'kobai[tune]'"


def require() -> Any:
    """Optuna; ImportError with the install line where it is missing."""
    try:
        import optuna
    except ImportError as error:
        raise ImportError(INSTALL) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # each trial would be two lines
    return optuna


@contextmanager
def calm() -> Iterator[None]:
    """Without warnings that parts of Optuna may change one day."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield

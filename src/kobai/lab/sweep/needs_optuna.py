"""Importing Optuna, which is optional."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kobai.errors import install


def require() -> Any:
    """Optuna; ImportError with the install line where it is missing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tqdm, in a notebook, about a bar that is not used
            import optuna
    except ImportError as error:
        raise ImportError(f"tune: Optuna is not installed. Install it: {install('tune')}") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it logs two lines for each trial
    return optuna


@contextmanager
def calm() -> Iterator[None]:
    """Silence Optuna's warnings that a feature is experimental."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield

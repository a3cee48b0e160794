"""The libraries that read tables: imported when a table is read, and named with their install line where they are missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from kobai.errors import DataError, install


@contextmanager
def needed(module: str, what: str, line: str | None = None) -> Iterator[None]:
    """A failing import as a DataError that says what needs the module and how it is installed."""
    try:
        yield
    except ImportError as error:
        raise DataError(f"{what} needs {module}. Install it: {line or install('data')}") from error


def pandas() -> Any:
    """pandas, which reads files and cells."""
    with needed("pandas", "reading tables"):
        import pandas
    return pandas


def narwhals() -> Any:
    """narwhals, to which all DataFrames are alike."""
    with needed("narwhals", "reading DataFrames"):
        import narwhals
    return narwhals


def charset_normalizer() -> Any:
    """charset_normalizer, which tells encodings."""
    with needed("charset_normalizer", "reading text that is not UTF-8"):
        import charset_normalizer
    return charset_normalizer


def sklearn_metrics() -> Any:
    """scikit-learn's metrics."""
    with needed("scikit-learn", "measuring the answers to tables"):
        import sklearn.metrics
    return sklearn.metrics


def check_engine(name: str, what: str) -> None:
    """DataError unless the package is there by which pandas reads a kind of file."""
    with needed(name, what, f"pip install {name}"):
        if find_spec(name) is None:
            raise ImportError(name)

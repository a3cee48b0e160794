"""The public surface: every name is in the documented table, has documentation, and is not said twice."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_spec = importlib.util.spec_from_file_location("api_table", ROOT / "scripts" / "api_table.py")
api_table = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(api_table)


def test_the_table_is_up_to_date():
    assert (ROOT / "docs" / "api.md").read_text() == api_table.table(), "run: python scripts/api_table.py"


@pytest.mark.parametrize("path", api_table.MODULES)
def test_everything_public_is_documented(path):
    module = importlib.import_module(path)
    assert module.__doc__
    for name in api_table.public_names(module):
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{path}.{name} has no docstring"


def test_an_unknown_name_offers_the_nearest():
    import kobai

    with pytest.raises(AttributeError, match=r"'matmull'. Did you mean 'matmul'"):
        _ = kobai.matmull

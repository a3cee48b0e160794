"""The public surface: every name is in the documented table, has documentation, and is not said twice."""

from __future__ import annotations

import ast
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


_OF_A_GPU = (
    "Event Stream current_device current_stream default_stream device get_device_capability get_device_name "
    "get_device_properties init mem_get_info set_device set_stream stream synchronize"
)
WITHOUT_EXAMPLE = {  # what cannot run everywhere
    **{f"kobai.cuda.{name}": "needs a GPU" for name in _OF_A_GPU.split()},
    "kobai.data.cifar10": "needs its files",
    "kobai.data.fashion_mnist": "needs its files",
    "kobai.data.mnist": "needs its files",
}


def _functions_and_classes(*paths):
    for path in paths:
        module = importlib.import_module(path)
        for name in api_table.public_names(module):
            value = getattr(module, name)
            if (inspect.isclass(value) or inspect.isroutine(value)) and value.__module__.startswith("kobai"):
                yield f"{path}.{name}", value


WITH_EXAMPLES = [
    "kobai",
    *(f"kobai.{name}" for name in ("linalg special random autograd autograd.functional cuda".split())),
    *(f"kobai.nn{name}" for name in ("", ".functional", ".init", ".utils", ".utils.rnn")),
    *(f"kobai.{name}" for name in ("optim optim.lr_scheduler optim.swa_utils utils.data utils.checkpoint".split())),
    *(f"kobai.{name}" for name in ("data distributions sklearn train".split())),
]


def test_everything_in_these_modules_has_an_example():
    without = {
        path for path, value in _functions_and_classes(*WITH_EXAMPLES) if ">>> " not in (inspect.getdoc(value) or "")
    }
    assert without == WITHOUT_EXAMPLE.keys()


def test_doctest_finds_the_examples():
    """It looks under the name of a function in its module; those that a factory makes could be missed there."""
    for path, value in _functions_and_classes(*WITH_EXAMPLES):
        module = importlib.import_module(value.__module__)
        inside = getattr(value, "__wrapped__", value)  # what is public is wrapped at the door
        assert any(there is value or there is inside for there in vars(module).values()), (
            f"{path} is not in {module.__name__}"
        )


def test_an_unknown_name_offers_the_nearest():
    import kobai

    with pytest.raises(AttributeError, match=r"'matmull'. Did you mean 'matmul'"):
        _ = kobai.matmull


def test_type_checkers_see_what_is_public():
    """In a typed package a name that is imported is the package's own business, unless it is imported ``as`` itself."""
    tree = ast.parse((ROOT / "src" / "kobai" / "__init__.py").read_text())
    imported = [
        n for node in tree.body if isinstance(node, ast.ImportFrom) for n in node.names if node.module != "kobai"
    ]
    hidden = [n.name for n in imported if n.name != "*" and n.name != n.asname and not (n.asname or "").startswith("_")]
    assert hidden == []

"""The commands that error messages give: for extras that there are, and such that pip can follow."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import kobai
from kobai.errors import install

ROOT = Path(__file__).parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_one_function_makes_them_and_names_extras_that_there_are():
    by_hand, named = [], set()
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text()
        named.update(re.findall(r"""\binstall\(["']([\w-]+)["']\)""", text))
        if path.name != "errors.py" and re.search(r"pip install '", text):
            by_hand.append(path)
    assert by_hand == []
    assert {"data", "plot"} <= named <= EXTRAS.keys()


def test_a_clone_that_is_not_installed_is_named_by_its_folder(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    clone = Path(kobai.__file__).parents[2]
    assert install.__wrapped__("plot") == f"pip install '{clone}[plot]'"


def test_what_is_installed_is_named_by_its_name(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: None)
    assert install.__wrapped__("plot") == "pip install 'kobai[plot]'"

"""Files and folders that the pages name are there: in the repository, in the package, or in the tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
WHERE = [ROOT, ROOT / "src" / "kobai", ROOT / "tests", ROOT / "src" / "kobai" / "lab" / "experiments"]
MADE = {"chosen/", "data/", "ranking.md", "runs/"}
"""What commands make."""

PATH = r"[\w.{},-]+(?:/[\w.{},-]+)*"
NAMED = re.compile(rf"`({PATH}\.(?:py|md|toml|txt|h)|{PATH}/)`|^ +({PATH}\.py)(?:, ({PATH}\.py))? ", re.M)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")


def named(page: Path) -> set[str]:
    """Paths in backquotes, and those at the head of a line of a drawing."""
    text = page.read_text(encoding="utf-8")
    return {name for groups in NAMED.findall(text) for name in groups if name and "NAME" not in name}


def is_there(name: str) -> bool:
    if "{" in name:
        head, choices, tail = re.fullmatch(r"(.*)\{(.*)\}(.*)", name).groups()
        return all(is_there(head + choice + tail) for choice in choices.split(","))
    if name in MADE or any((folder / name).exists() for folder in WHERE):
        return True
    return "/" not in name.rstrip("/") and any(any(folder.rglob(name.rstrip("/"))) for folder in WHERE[1:3])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_is_there(page):
    assert not (missing := {name for name in named(page) if not is_there(name)}), missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_links_to_is_there(page):
    links = set(LINK.findall(page.read_text(encoding="utf-8")))
    assert not (missing := {link for link in links if not (page.parent / link).exists()}), missing


STEP = re.compile(r"^ +([\w/]+\.py)(?:, [\w/]+\.py)? +(?:\w+\.)?(\w+)(?:\(\w*\))?  ", re.M)
"""A step of a journey: the file, and the function in it."""


def test_the_functions_of_a_journey_are_in_their_files():
    steps = STEP.findall((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    assert len(steps) >= 14
    for file, function in steps:
        text = (ROOT / "src" / "kobai" / file).read_text(encoding="utf-8")
        assert re.search(rf"\bdef {function}\(", text), f"{file} has no {function}"


def test_a_path_that_is_gone_is_noticed():
    assert named(ROOT / "docs" / "architecture.md") > {"core/tape.py", "cpu/tiles.py"}
    assert is_there("core/tape.py")
    assert is_there("tape.py")
    assert not is_there("_tape.py")
    assert not is_there("core/tapes.py")

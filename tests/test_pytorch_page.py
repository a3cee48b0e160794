"""docs/pytorch.md is up to date, and what it says of differences holds."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import kobai

ROOT = Path(__file__).parents[1]
_spec = importlib.util.spec_from_file_location("pytorch_page", ROOT / "scripts" / "pytorch_page.py")
pytorch_page = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(pytorch_page)


def test_the_page_is_up_to_date():
    text = pytorch_page.PAGE.read_text(encoding="utf-8")
    assert text == pytorch_page.page(), "run: python scripts/pytorch_page.py"


@pytest.mark.parametrize("what", pytorch_page.DIFFERENCES)
def test_what_differs_does(what):
    exec(pytorch_page.DIFFERENCES[what][1], {"kobai": kobai})

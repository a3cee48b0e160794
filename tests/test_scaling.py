"""The model of scaling: docs/scaling.md shows what scripts/scaling.py computes, and its parts are what they are said to be."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def scaling():
    spec = importlib.util.spec_from_file_location("scaling", ROOT / "scripts" / "scaling.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["scaling"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["scaling"]


def test_the_page_shows_what_the_script_computes(scaling, capsys):
    scaling.main()
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    for table in capsys.readouterr().out.strip().split("\n\n"):
        assert table in page, "run: python scripts/scaling.py, and put its tables into docs/scaling.md"


def test_buckets_wait_for_each_other_and_for_backward(scaling):
    model = scaling.Model("two layers", ((10**6, 10**6), (10**6, 10**6)), 1000, "fp32")
    once = 2 * 10**9 / scaling.FLOPS["fp32"]
    whole, half = scaling.reduction(8e6, 16), scaling.reduction(4e6, 16)
    assert scaling.step(model, 1) == pytest.approx(6 * once + model.update())
    assert scaling.step(model, 16) == pytest.approx(6 * once + whole + model.update())
    # the last layer's gradient is there after 4 of 6 parts, and travels beside the other 2
    assert scaling.step(model, 16, 1) == pytest.approx(4 * once + max(half, 2 * once) + half + model.update())
    assert scaling.step(model, 16, 1e9) == scaling.step(model, 16)


def test_bytes_are_as_few_as_can_be(scaling):
    """Of a large message the time is that of 2 (P − 1)/P n bytes, by the link that they take."""
    size = 1e15
    within = 2 * 7 / 8 * size / scaling.NVLINK
    between = 2 * 15 / 16 * size / 8 / scaling.INFINIBAND
    added = 2 * (size + size / 8) / scaling.MEMORY
    assert scaling.reduction(size, 128) == pytest.approx(within + between + added, rel=1e-6)
    assert scaling.reduction(size, 1) == 0

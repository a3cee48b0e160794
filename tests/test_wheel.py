"""What is installed: every file of the package, the page of a report among them."""

from __future__ import annotations

from pathlib import Path

import pytest

import kobai

ROOT = Path(__file__).parents[1]


def test_the_wheel_holds_every_file_of_the_package():
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="comes with the extra dev")
    builder = wheel.WheelBuilder(str(ROOT))
    held = {file.distribution_path for file in builder.recurse_included_files()}
    package = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "kobai").rglob("*")}
    files = {name for name in package if (ROOT / "src" / name).is_file() and "__pycache__" not in name}
    assert {"kobai/lab/reports/report.html.in", "kobai/py.typed", "kobai/__main__.py"} <= files
    assert files <= held
    assert builder.metadata.version == kobai.version.kobai

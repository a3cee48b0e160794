"""What is installed: every file of the package, the page of a report among them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
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


@pytest.mark.thorough
def test_a_built_wheel_is_complete_and_runs_where_it_lies(tmp_path):
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="comes with the extra dev")
    (path,) = wheel.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        about = f"kobai-{kobai.version.kobai}.dist-info"
        metadata = Parser().parsestr(archive.read(f"{about}/METADATA").decode())
        assert archive.read(f"{about}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
        assert "kobai = kobai.cli:main" in archive.read(f"{about}/entry_points.txt").decode()
        archive.extractall(tmp_path / "installed")
    assert {name.split("/")[0] for name in names} == {"kobai", about}
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert metadata["Version"] == kobai.version.kobai
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == project["requires-python"]
    assert set(metadata.get_all("Provides-Extra")) == set(project["optional-dependencies"])
    assert metadata.get_payload() == (ROOT / "README.md").read_text()
    assert Path(path).stat().st_size < 5e6
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    told = subprocess.run(
        [sys.executable, "-c", "import kobai; print(kobai.__file__); print(float(kobai.ones(2).sum()))"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert told == [str(tmp_path / "installed" / "kobai" / "__init__.py"), "2.0"]


def test_what_names_the_version_names_the_same_one(monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("release_check", ROOT / "scripts" / "release_check.py")
    check = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check)
    versions = check.named()
    assert versions["src/kobai/compat/versions.py"] == versions["CITATION.cff"] == kobai.version.kobai
    assert versions["CHANGELOG.md"] in (None, kobai.version.kobai)  # until a release, it stands under Unreleased
    monkeypatch.setattr(check, "named", lambda: dict.fromkeys(versions, "1.2.3"))
    monkeypatch.setattr(sys, "argv", ["release_check.py", "1.2.3"])
    check.main()
    assert capsys.readouterr().out == "version 1.2.3 everywhere\n"
    monkeypatch.setattr(sys, "argv", ["release_check.py", "1.2.4"])
    with pytest.raises(SystemExit, match=r"expected version 1\.2\.4 everywhere, but\n  src/kobai.*: 1\.2\.3"):
        check.main()

"""``scripts/gpu_check.py`` as far as it goes without a device: what it says there, and the report it would write."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture
def check(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return runpy.run_path(str(SCRIPTS / "gpu_check.py"))


def test_without_a_driver_it_says_so_and_touches_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "gpu_check.py")],
        capture_output=True,
        text=True,
        env={"PATH": str(tmp_path)},
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "no NVIDIA driver" in done.stderr
    assert not list(tmp_path.iterdir())


def test_it_knows_the_experiments(check):
    found = runpy.run_path(str(SCRIPTS / "gpu_experiments.py"))["EXPERIMENTS"]
    assert check["experiments"]() == list(found)
    assert all(experiment.__doc__ for experiment in found.values())


def test_the_report(check, tmp_path):
    results = tmp_path / "tests.xml"
    results.write_text(
        '<testsuites><testsuite tests="4" skipped="1" failures="1" errors="0">'
        '<testcase classname="a" name="fine"/><testcase classname="a" name="left"><skipped/></testcase>'
        '<testcase classname="a" name="wrong"><failure/></testcase><testcase classname="b" name="broken"><error/></testcase>'
        "</testsuite></testsuites>"
    )
    counted = check["counts"](results)
    assert counted == {"ran": 3, "failed": 2, "skipped": 1, "names": ["a::wrong", "b::broken"]}
    assert check["counts"](tmp_path / "missing.xml")["failed"] == 1
    report = {
        "when": "now",
        "commit": "abc",
        "machine": {"device": "a GPU", "driver": {}, "python": "3.11"},
        "tests": {"all": {**counted, "seconds": 2.0}},
        "experiments": {"host_costs": {"gemm, µs": 12.5}, "epilogues": "failed: boom"},
        "benchmarks": {"kobai": {"exit": 0, "seconds": 9, "output": "table"}},
    }
    text = check["readable"](report)
    for part in (
        "# Kobai on a GPU",
        "3 ran, 2 failed, 1 skipped",
        "failed: b::broken",
        "gemm, µs: 12.5",
        "boom",
        "table",
    ):
        assert part in text
    embedded = check["embedded"](report)
    assert json.loads(embedded[embedded.index("{") : embedded.rindex("}") + 1]) == report

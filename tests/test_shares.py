"""Every case of a test that ``few`` is on runs: some at once, each of the others in one part."""

import re
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest

CONFTEST = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import shares

def pytest_addoption(parser):
    shares.add_options(parser)

def pytest_configure(config):
    for marker in ("thorough", "gpu"):
        config.addinivalue_line("markers", marker)
    shares.configure(config)
"""

TESTS = """
import pytest

@pytest.mark.few(4)
@pytest.mark.parametrize("k", range(9))
def test_counted(k):
    pass

@pytest.mark.few(i=0)
@pytest.mark.parametrize("i", range(3))
@pytest.mark.parametrize("where", ["here", pytest.param("there", marks=pytest.mark.gpu)])
def test_first(i, where):
    pass

@pytest.mark.thorough
def test_heavy():
    pass
"""


@pytest.fixture
def run(tmp_path):
    """Run those tests with options; returns the names of those that were run."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_some.py").write_text(TESTS)

    def go(*options):
        command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-p", "no:xdist", *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode in (0, 5), done.stdout + done.stderr  # 5: none in this part
        return re.findall(r"::(\S+) PASSED", done.stdout)

    return go


@pytest.mark.thorough
def test_few_cases_are_quick_and_the_others_have_their_turn(run):
    quick = run("-m", "not gpu and not thorough")
    assert quick == ["test_counted[0]", "test_counted[4]", "test_counted[8]", "test_first[here-0]"]
    thorough = run("-m", "thorough")
    assert len(thorough) == 6 + 2 + 1
    parts = [run("-m", "thorough", "--shard", f"{k}/3") for k in range(3)]
    assert all("test_heavy" in part for part in parts), "only what few() leaves is shared out"
    assert sorted(chain(*parts)) == sorted([*thorough, "test_heavy", "test_heavy"])
    assert len(run("-m", "gpu")) == 3, "what needs a device is counted by itself"
    assert set(run("-m", "thorough", "--shard", "today")) <= set(thorough)

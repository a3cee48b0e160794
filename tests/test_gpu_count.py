"""The count of gpu tests: a run with fewer tests, or with more of them skipped, is not green."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
import gpu_count
import shares
gpu_count.FROZEN = Path(__file__).parent / "frozen.toml"

def pytest_addoption(parser):
    parser.addoption("--freeze", action="store_true")
    gpu_count.add_options(parser)
    shares.add_options(parser)

def pytest_configure(config):
    config.addinivalue_line("markers", "gpu: needs a GPU")
    shares.configure(config)
    config.pluginmanager.register(gpu_count.Count(config))
"""

TESTS = """
import pytest

@pytest.mark.gpu
@pytest.mark.parametrize("k", range(7))
def test_gpu(k):
    if k == 3:
        pytest.skip("no peer")

def test_other():
    pass
"""


@pytest.fixture
def run(tmp_path):
    """Run those tests with options, against counts; returns the exit status and what was printed."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_some.py").write_text(TESTS)

    def go(*options, frozen='collected = 7\n[skipped]\n"no peer" = 1\n'):
        if frozen:
            (tmp_path / "frozen.toml").write_text(frozen)
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "gpu", *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        return done.returncode, done.stdout

    return go


@pytest.mark.parametrize("workers", ["0", "2"])
def test_what_ran_is_said(run, workers):
    status, output = run("-n", workers)
    assert (status, "7 collected: 6 ran, 1 skipped" in output, "1 skipped: no peer" in output) == (0, True, True)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("frozen", "said"),
    [
        ("collected = 8\n[skipped]\n'no peer' = 1\n", "FAILED 7 gpu tests were collected, and there were 8"),
        ("collected = 7\n[skipped]\n", "FAILED 1 skipped, 0 known: no peer"),
    ],
)
@pytest.mark.parametrize("workers", ["0", "2"])
def test_fewer_tests_and_more_skipped_ones_fail(run, frozen, said, workers):
    status, output = run("-n", workers, frozen=frozen)
    assert status == 1
    assert said in output


@pytest.mark.parametrize("some", [["test_some.py"], ["-k", "gpu"]])
def test_who_asks_for_some_tests_gets_them(run, some):
    status, output = run(*some, frozen="collected = 8\n[skipped]\n")
    assert (status, "7 collected: 6 ran, 1 skipped" in output) == (0, True)


@pytest.mark.thorough
def test_the_shards_are_all_of_it(run):
    counts = []
    for k in range(3):
        status, output = run("--shard", f"{k}/3")
        assert status in (0, 5)  # 5: none in this part
        counts += re.findall(rf"7 collected, part {k}/3: (\d) ran, (\d) skipped", output)
    assert [sum(map(int, column)) for column in zip(*counts, strict=True)] == [6, 1]
    assert run("--shard", "today")[0] in (0, 5)
    status, _ = run("--shard", "3/3")
    assert status == 4


def test_counts_are_frozen_on_demand(run, tmp_path):
    status, _ = run("--freeze", frozen=None)
    assert status == 0
    assert (tmp_path / "frozen.toml").read_text().splitlines()[1:] == [
        "collected = 7",
        "",
        "[skipped]",
        '"no peer" = 1',
    ]

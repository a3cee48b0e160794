"""What became of the tests that need a CUDA device: how many there are, ran and were skipped, and for which reasons.

``pytest -m gpu --count-gpu`` prints it. Unless only some tests are asked for, it fails if there are fewer than
``frozen/gpu_tests.toml`` says, or if one was skipped for a reason that is not there: a suite that skips what it was written for
is green too. Of ``--shard`` see ``shares.py``.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path

import pytest

FROZEN = Path(__file__).parent / "frozen" / "gpu_tests.toml"


def add_options(parser: pytest.Parser) -> None:
    parser.addoption(
        "--count-gpu", action="store_true", help="fail if gpu tests are missing or skipped without a listed reason"
    )


class Count:
    """Plugin: counts as tests are collected (in xdist's workers) and as their reports come in (in its controller)."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.shard = config.option.shard
        self.collected = 0
        self.ran = 0
        self.skipped: Counter[str] = Counter()
        self.wrong: list[str] = []

    @pytest.hookimpl(trylast=True)  # after -m has taken out what is not meant, before a shard is
    def pytest_collection_modifyitems(self, items):
        self.collected = sum("gpu" in item.keywords for item in items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        self.collected = max(self.collected, getattr(node, "workeroutput", {}).get("gpu_collected", 0))

    def pytest_runtest_logreport(self, report):
        if "gpu" not in report.keywords:
            return
        if report.skipped:
            self.skipped[str(report.longrepr[2]).removeprefix("Skipped: ")] += 1
        elif report.when == "call":
            self.ran += 1

    @pytest.hookimpl(tryfirst=True)  # the exit status is read by those who come later
    def pytest_sessionfinish(self, session):
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput["gpu_collected"] = self.collected
            return
        if self.config.option.freeze and self.shard is None:
            self.freeze()
        if self.config.option.keyword or self.config.args_source is pytest.Config.ArgsSource.ARGS:
            return
        known = tomllib.loads(FROZEN.read_text(encoding="utf-8"))
        if self.collected < known["collected"]:
            self.wrong.append(f"{self.collected} gpu tests were collected, and there were {known['collected']}")
        for reason, count in self.skipped.items():
            if count > known["skipped"].get(reason, 0):
                self.wrong.append(f"{count} skipped, {known['skipped'].get(reason, 0)} known: {reason}")
        if self.wrong and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def freeze(self) -> None:
        """Write the counts as they are now."""
        lines = [
            "# Written by pytest -m gpu --count-gpu --freeze on the simulated device.",
            f"collected = {self.collected}",
            "",
        ]
        lines += ["[skipped]", *(f'"{reason}" = {count}' for reason, count in sorted(self.skipped.items()))]
        FROZEN.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def pytest_terminal_summary(self, terminalreporter):
        shard = "" if self.shard is None else f", part {self.shard}"
        skipped = sum(self.skipped.values())
        terminalreporter.section("tests for a GPU")
        terminalreporter.line(f"{self.collected} collected{shard}: {self.ran} ran, {skipped} skipped")
        for reason, count in self.skipped.most_common():
            terminalreporter.line(f"  {count} skipped: {reason}")
        for line in self.wrong:
            terminalreporter.line(f"FAILED {line}", red=True)

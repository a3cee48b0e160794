"""Which cases of a test run when, where there are thousands that differ little.

``@pytest.mark.few(4)`` leaves one case in four to the README's test command, ``@pytest.mark.few(i=0)`` those whose parameter
``i`` is 0. The others become ``thorough``, and ``rest``. ``--shard K/N`` runs one of N parts of what is ``rest`` or ``gpu``;
``--shard today`` another one each day, so that every case has its turn.
"""

from __future__ import annotations

import datetime
import re
from collections import Counter
from zlib import crc32

import pytest

SHARDS = 8
"""Days in which ``--shard today`` has run every test."""


def add_options(parser: pytest.Parser) -> None:
    parser.addoption(
        "--shard",
        metavar="K/N",
        help="one of N parts of the gpu tests and of what few() leaves; 'today': another each day",
    )


def configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "few(k, **parameters): one case in k, of those with these parameters, is quick")
    config.addinivalue_line(
        "markers", "rest: thorough, and left to one day in a few: by few(), or by hand where a test takes minutes"
    )
    if config.option.shard == "today":  # said to xdist's workers as it is now: midnight may come
        config.option.shard = f"{datetime.date.today().timetuple().tm_yday % SHARDS}/{SHARDS}"
    config.pluginmanager.register(Shares(config))


def part(text: str) -> tuple[int, int]:
    """K and N of ``--shard``."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None or not int(found[1]) < int(found[2]):
        raise pytest.UsageError(f"--shard: expected K/N with 0 <= K < N, or 'today', got {text!r}")
    return int(found[1]), int(found[2])


class Shares:
    """Plugin: marks what ``few`` leaves before ``-m`` chooses, and takes the other parts out after it has."""

    def __init__(self, config: pytest.Config) -> None:
        self.shard = part(config.option.shard) if config.option.shard else None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, config, items):
        seen: Counter[tuple[object, ...]] = Counter()
        for item in items:
            marks = [] if "gpu" in item.keywords else list(item.iter_markers("few"))
            test = (item.path, getattr(item, "originalname", item.name))
            quick = all(item.callspec.params[name] == value for few in marks for name, value in few.kwargs.items())
            for few in marks:
                if quick and few.args:
                    quick = seen[test] % few.args[0] == 0
                    seen[test] += 1
            if not quick:
                item.add_marker("thorough")
                item.add_marker("rest")
        yield
        if self.shard is None:
            return
        k, n = self.shard
        shared = [item for item in items if "gpu" in item.keywords or "rest" in item.keywords]
        out = {item for item in shared if crc32(item.nodeid.encode()) % n != k}
        config.hook.pytest_deselected(items=list(out))
        items[:] = [item for item in items if item not in out]

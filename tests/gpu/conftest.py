"""Tests that only mean something on a device. Without one they are skipped, with the reason."""

from pathlib import Path

import pytest

import kobai


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("gpu")


@pytest.fixture(autouse=True)
def _device():
    reason = kobai.available_backends()["cupy"]
    if reason:
        pytest.skip(reason)

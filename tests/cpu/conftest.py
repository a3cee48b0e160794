"""Random numbers, and every product by Kobai's own loops."""

import numpy as np
import pytest

from kobai.cpu import threads
from kobai.ops import _matmul


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def every(monkeypatch):
    """Every matrix product that is not empty is one of ours, and shared by three threads if it has parts for them."""
    for name in ("PART", "WORTHWHILE"):
        monkeypatch.setattr(_matmul, name, 1)
    monkeypatch.setattr(threads, "pool", threads.Pool())
    threads.set_num_threads(3)
    yield
    threads.set_num_threads(None)

"""PyTorch, for the tests that compare with it."""

import pytest


@pytest.fixture(scope="module")
def torch():
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    return torch

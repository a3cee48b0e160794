"""Fixtures of the tests of training."""

import pytest
from small_problem import Problem


@pytest.fixture
def problem():
    """A small problem that trains in milliseconds."""
    return Problem()

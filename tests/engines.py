"""Which engine host arrays go to, for tests that run one body on each; and what a call allocates once it has run before."""

from __future__ import annotations

import threading
import tracemalloc
from types import SimpleNamespace

import pytest

from kobai import xp
from kobai.engine import dispatch

ENGINES = [
    "reference",
    pytest.param("numba", marks=pytest.mark.skipif(not dispatch.numba_installed, reason="no Numba")),
]


@pytest.fixture(params=ENGINES)
def host_engine(request, monkeypatch):
    """Name of the engine that host arrays go to during the test."""
    monkeypatch.setattr(dispatch, "numba_installed", request.param == "numba")
    return request.param


def peak_bytes(function) -> int:
    """The most memory that a second call holds beyond what there was before it."""
    function()
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def launches(monkeypatch) -> list:
    """What goes through ``engine.launch`` from now on, as (kernel, arguments), in a list that grows."""
    noted: list = []

    class Noting:
        namespace = None

        def host_seed(self):
            """Seeding is no work of a kernel."""

        def launch(self, kernel, args):
            noted.append((kernel, args))
            kernel(*args)

        def numbers(self, compute, dtype):
            import numpy as np

            return np.array(compute(), dtype)

    monkeypatch.setitem(xp.sessions, threading.get_ident(), SimpleNamespace(recorder=Noting()))
    return noted

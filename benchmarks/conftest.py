"""``pytest benchmarks [--backend numpy,cupy] [--quick]``: every case on every backend named; one that lacks is skipped."""

from __future__ import annotations

import time

import numpy as np
import pytest

import kobai

QUICK_LIMIT = 0.05
"""Seconds: under --quick a case that takes longer once is timed three times and no more."""


def pytest_addoption(parser):
    parser.addoption("--backend", default="numpy,cupy", help="backends to time, separated by commas")
    parser.addoption("--quick", action="store_true", help="a look at everything but the largest sizes, in a minute")


def pytest_configure(config):
    config.addinivalue_line("markers", "large: left out under --quick")
    known = [name for name in kobai.available_backends() if name in ("numpy", "cupy")]
    for name in config.getoption("--backend").split(","):
        if name not in known:
            raise pytest.UsageError(f"--backend: expected some of {', '.join(known)}, got {name!r}")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--quick"):
        return
    left_out = [item for item in items if item.get_closest_marker("large")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def pytest_generate_tests(metafunc):
    if "backend" in metafunc.fixturenames:
        names = metafunc.config.getoption("--backend").split(",")
        metafunc.parametrize("backend", names, indirect=True)


@pytest.fixture
def backend(request):
    if reason := kobai.available_backends()[request.param]:
        pytest.skip(reason)
    with kobai.using(request.param):
        kobai.manual_seed(0)
        yield request.param


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def timed(backend, benchmark, request):  # in this order: a backend that is skipped must not start the clock
    """``timed(group, function)``: time a function, with all that it has queued on the device; a group is one table."""

    def run(group, function):
        def once():
            function()
            if backend == "cupy":
                kobai.cuda.synchronize()

        benchmark.group = group
        for _ in range(3):  # compiled, captured, warm
            once()
        if not request.config.getoption("--quick"):
            benchmark(once)
            return
        start = time.perf_counter()
        once()
        seconds = time.perf_counter() - start
        often = seconds < QUICK_LIMIT
        benchmark.pedantic(once, rounds=9 if often else 3, iterations=max(1, int(0.002 / seconds)))

    return run

"""``pytest benchmarks --backend numpy,cupy``: every case on every backend named; one that is not here is skipped, by name."""

from __future__ import annotations

import numpy as np
import pytest

import kobai


def pytest_addoption(parser):
    parser.addoption("--backend", default="numpy,cupy", help="backends to time, separated by commas")


def pytest_generate_tests(metafunc):
    if "backend" in metafunc.fixturenames:
        names = metafunc.config.getoption("--backend").split(",")
        metafunc.parametrize("backend", names, indirect=True)


@pytest.fixture
def backend(request):
    known = kobai.available_backends()
    if request.param not in known:
        raise pytest.UsageError(f"--backend: expected some of {', '.join(known)}, got {request.param!r}")
    if known[request.param]:
        pytest.skip(f"{request.param}: {known[request.param]}")
    with kobai.using(request.param):
        kobai.manual_seed(0)
        yield request.param


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def timed(backend, benchmark):  # in this order: a backend that is skipped must not start the clock
    """Time a function, waiting for the device at the end of every call; backends of one case share a group."""

    def run(group, function):
        benchmark.group = group

        def once():
            function()
            kobai.cuda.synchronize() if backend == "cupy" else None

        for _ in range(5):
            once()
        benchmark(once)

    return run

"""Fixtures that all tests share. ``xp``: one test body runs on every backend that is here."""

from __future__ import annotations

import csv
import gc
import os

import numpy as np
import pytest

if os.environ.get("KOBAI_SIMULATE_GPU") == "1":  # before anything can import CuPy
    import simulator

    machine = simulator.install()

    @pytest.fixture(autouse=True)
    def _sound():
        """What a test leaves undone on the device is done, so that what is wrong with it is said of this test."""
        yield
        machine.sound()


import gpu_count
import kobai
import shares
import strict  # noqa: F401 - registers the backend
from kobai.capture import step
from kobai.engine import dispatch


def pytest_addoption(parser):
    parser.addoption("--without-numba", action="store_true", help="run kernels by their references, as without Numba")
    parser.addoption("--freeze", action="store_true", help="write tests/frozen anew: what users see, as it is now")
    gpu_count.add_options(parser)
    shares.add_options(parser)


def pytest_configure(config):
    if config.option.without_numba:
        dispatch.numba_installed = False
    shares.configure(config)
    if config.option.count_gpu:
        config.pluginmanager.register(gpu_count.Count(config))


def pytest_collection_finish():
    """The collected tests are millions of objects, which no garbage collection has to look at again."""
    gc.collect()
    gc.freeze()


def pytest_ignore_collect(collection_path, config):
    """Files of oracle tests import PyTorch: they are not even read unless such tests are asked for. A conftest is no test."""
    if collection_path.name == "conftest.py":  # two of one name cannot both be searched for doctests
        return True
    if "oracle" in collection_path.name and "not oracle" in config.option.markexpr:
        return True
    return None


@pytest.fixture(autouse=True)
def _fresh_defaults():
    """Every test starts from one seed on NumPy in float32, whatever the test before it did."""
    kobai.use("numpy")
    kobai.manual_seed(0)
    yield
    kobai.set_default_dtype(kobai.float32)
    kobai.use("numpy")


VERIFIED = {
    *(f"test_capture{part}.py" for part in ("", "_refused", "_watch", "_effects")),
    "test_optim_captured.py",
    "test_programs.py",
}
"""Files, besides those of ``train``, in whose tests every replay of a captured step is compared with the step itself."""


@pytest.fixture(autouse=True)
def _verified(request, monkeypatch):
    if request.path.name in VERIFIED or request.path.parent.name == "train":
        monkeypatch.setattr(step, "VERIFY", 1)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder of its own to run in, in a wide terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def table(tmp_path):
    """Two features, three classes that they tell apart."""
    rng = np.random.default_rng(0)
    path = tmp_path / "points.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["x", "y", "kind"])
        for k, kind in enumerate(("ant", "bee", "cat")):
            writer.writerows([f"{a:.4f}", f"{b:.4f}", kind] for a, b in rng.normal(size=(40, 2)) * 0.4 + [k, -k])
    return path


@pytest.fixture(params=["numpy", "strict", pytest.param("cupy", marks=pytest.mark.gpu)])
def backend(request):
    """Name of a backend, in use for the whole test."""
    reason = kobai.available_backends()[request.param]
    if reason:
        pytest.skip(reason)
    with kobai.using(request.param):
        yield request.param

"""What a device's kernels found out of range reaches the host with the next result. No device is needed."""

import sys
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest

import kobai
import kobai.nn.functional as F
from kobai import xp
from kobai.engine import domains, faults
from kobai.ops.cross_entropy.device import ADD_UP, NLL_LOSSES
from strict import StrictArray


def report(place, code, value):
    if not place.host[0]:
        place.host[:] = code, np.asarray(value).view(np.uint64)


def integers(grid, block, args, shared_mem):
    x, place, low, high, spared, inside, code, n = args
    assert x.host.shape == (n,)
    for v in x.host:
        if bool(low <= v < high) == bool(inside) and v != spared:
            report(place, code, v)


def unit_interval(grid, block, args, shared_mem):
    x, place, code, _ = args
    for v in x.host.reshape(-1):
        if not 0 <= v <= 1:
            report(place, code, np.float64(v))


def nll_losses(grid, block, args, shared_mem):
    _, targets, _, _, ignored, _, columns, place, code = args
    for t in targets.host:
        if t != ignored and not 0 <= t < columns:
            report(place, code, t)


@pytest.fixture(autouse=True)
def device(monkeypatch):
    """The strict backend with the name of CuPy's, and the kernels in Python; returns how often the words were read."""
    reads = []
    cupy = SimpleNamespace(zeros=lambda n, dtype: StrictArray(np.zeros(n, dtype)))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(faults, "_words", {})
    monkeypatch.setattr(faults, "_asked", set())
    monkeypatch.setattr(xp, "after_read", None)
    owner = SimpleNamespace(
        name="cupy", index_of=lambda a: 0, to_host=lambda a: reads.append(a) or a.host, device_type="strict"
    )
    real = xp.backend_of
    monkeypatch.setattr(faults.xp, "backend_of", lambda a: owner if isinstance(a, StrictArray) else real(a))
    monkeypatch.setattr(faults.INTEGERS.of("float32"), "_compiled", {(): integers})
    for dtype in ("float32", "float64"):
        monkeypatch.setattr(faults.UNIT_INTERVAL.of(np.dtype(dtype)), "_compiled", {(): unit_interval})
    monkeypatch.setattr(NLL_LOSSES.of(np.dtype("float32")), "_compiled", {(): nll_losses})
    monkeypatch.setattr(ADD_UP.of(np.dtype("float32")), "_compiled", {(): lambda *args, **options: None})
    kobai.use("strict")
    return reads


def far(*values, dtype=None):
    return kobai.tensor(values, dtype=dtype)


CASES = {
    "embedding": (
        lambda: kobai.embedding(kobai.zeros(3, 2), far(1, 7)),
        "embedding: expected indices in [0, 2], got 7",
    ),
    "bytes": (lambda: kobai.embedding(kobai.zeros(3, 2), far(1, 7, dtype=kobai.uint8)), "[0, 2], got 7"),
    "negative": (lambda: kobai.zeros(3, 2).gather(0, far(-1)[:, None]), "gather: expected indices in [0, 2], got -1"),
    "scatter_add": (
        lambda: kobai.zeros(3).scatter_add(0, far(0, 3), kobai.ones(2)),
        "scatter_add: expected indices in [0, 2], got 3",
    ),
    "index": (lambda: kobai.zeros(3, 2)[far(-3, -4)], "index: expected indices in [-3, 2], got -4"),
    "one_hot": (lambda: F.one_hot(far(0, 4), 3), "one_hot: expected indices in [0, 2], got 4"),
    "probabilities": (
        lambda: domains.check_unit_interval("f", "probabilities", far(0.5, 1.5).array),
        "f: expected probabilities in [0, 1], got 1.5",
    ),
    "nan": (lambda: domains.check_unit_interval("f", "x", far(0.5, float("nan")).array), "in [0, 1], got nan"),
    "divisor": (lambda: far(4, 5) // far(2, 0), "floor_divide: expected integers other than 0 to divide by, got 0"),
    "classes": (
        lambda: domains.check_classes("f", far(0, -1).array, 3, -100),
        "f: expected class indices in [0, 3), got -1",
    ),
    "nll_loss": (lambda: F.nll_loss(kobai.zeros(2, 3), far(0, 9)), "nll_loss: expected class indices in [0, 3), got 9"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_was_found_is_raised_with_the_next_result(name):
    call, message = CASES[name]
    probe = kobai.zeros(1)
    for read in (probe.item, probe.tolist, lambda: xp.to_host(probe.array), lambda: float(probe)):
        with suppress(IndexError):  # NumPy, in the place of a device, looks itself
            call()
        with pytest.raises((IndexError, ValueError, RuntimeError)) as caught:
            read()
        assert message in str(caught.value)
        assert read() is not None  # once is enough


def test_the_words_are_read_only_when_something_has_looked(device):
    w = kobai.zeros(3, 2)
    w.tolist()
    assert not device
    y = kobai.embedding(w, far(0, 2))
    y.tolist()
    y.tolist()
    assert len(device) == 1
    faults.replayed(0)
    y.tolist()
    assert len(device) == 2
    faults.replayed(1)  # where nothing ever looked
    y.tolist()
    assert len(device) == 2


def test_ignored_targets_and_empty_indices_are_no_faults():
    F.nll_loss(kobai.zeros(2, 3), far(0, -100)).item()
    domains.check_classes("f", far(0, -100).array, 3, -100)
    assert kobai.embedding(kobai.zeros(3, 2), kobai.zeros(0, dtype=kobai.int64)).tolist() == []


def test_one_code_for_what_is_said_in_the_same_words():
    before = faults.code(("test", 3), RuntimeError)
    assert faults.code(("test", 3), RuntimeError) == before
    assert faults.code(("test", 4), RuntimeError) == before + 1

"""Connectionist temporal classification: against all paths, against PyTorch, the two engines, captured steps."""

import importlib
import itertools
import math
import re

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.engine import dispatch
from kobai.nn import functional as F

RNG = np.random.default_rng(0)


def scores(times, batch, classes, dtype="float64", scale=1.0):
    return kobai.tensor(
        scale * RNG.normal(size=(times, batch, classes)), dtype=getattr(kobai, dtype), requires_grad=True
    )


@pytest.mark.parametrize(
    ("target", "times"), [([1, 2], 4), ([1, 1], 4), ([2], 3), ([], 2), ([1, 1], 2), ([2, 1, 2], 5)]
)
@pytest.mark.parametrize("blank", [0, 2])
def test_the_sum_over_all_paths(target, times, blank):
    target = [c if c != blank else 0 for c in target]
    x = scores(times, 1, 3).log_softmax(-1)
    p, total = x.detach().exp().numpy()[:, 0], 0.0
    for path in itertools.product(range(3), repeat=times):
        merged = [c for c, _ in itertools.groupby(path)]
        if [c for c in merged if c != blank] == target:
            total += math.prod(p[t, c] for t, c in enumerate(path))
    targets = kobai.tensor(target, dtype=kobai.int64).reshape(1, -1)
    loss = F.ctc_loss(x, targets, [times], [len(target)], blank=blank, reduction="sum")
    assert loss.item() == pytest.approx(-math.log(total) if total else math.inf)


SITUATIONS = {
    "padded": ((7, 4, 5), [[1, 2, 2, 9], [3, 3, 3, -1], [4, 1, 0, 0], [0, 0, 0, 0]], [7, 6, 5, 4], [3, 3, 2, 0]),
    "one after the other": ((7, 3, 5), [1, 2, 2, 3, 4, 1], [7, 6, 5], [3, 1, 2]),
    "no path": ((3, 2, 4), [[1, 1, 2], [1, 2, 3]], [3, 3], [3, 3]),
    "one step": ((1, 2, 3), [[1], [2]], [1, 1], [1, 1]),
    "one sequence": ((6, 4), [1, 2, 1], [6], [3]),
    "lengths as numbers": ((6, 4), [1, 2, 1], 6, 3),
}


def clean(targets, classes):
    """PyTorch reads the padding too."""
    return np.where((np.array(targets) < 0) | (np.array(targets) >= classes), 0, targets)


@pytest.mark.oracle
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("zero_infinity", [False, True])
@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("as_tensors", [False, True])
def test_as_pytorch(situation, reduction, zero_infinity, dtype, as_tensors):
    torch = importlib.import_module("torch")
    shape, targets, steps, sizes = SITUATIONS[situation]
    raw = RNG.normal(size=shape)
    results = []
    for module, functional in ((kobai, F), (torch, torch.nn.functional)):
        x = module.tensor(raw, dtype=getattr(module, dtype), requires_grad=True)
        wanted = module.tensor(targets if module is kobai else clean(targets, shape[-1]))
        lengths = [
            module.tensor(v) if as_tensors else tuple(v) if isinstance(v, list) else module.tensor(v)
            for v in (steps, sizes)
        ]
        logged = x.log_softmax(-1)
        logged.retain_grad()
        loss = functional.ctc_loss(logged, wanted, *lengths, reduction=reduction, zero_infinity=zero_infinity)
        same = module.nn.CTCLoss(reduction=reduction, zero_infinity=zero_infinity)(logged, wanted, *lengths)
        assert repr(same.tolist()) == repr(loss.tolist())
        loss.sum().backward()
        results.append([loss.detach().numpy(), logged.grad.numpy(), x.grad.numpy()])
    tolerance = 1e-9 if dtype == "float64" else 2e-5
    for ours, theirs in zip(*results, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_reference_and_the_loops_agree(dtype, monkeypatch):
    if not dispatch.numba_installed:
        pytest.skip("there are no loops without Numba")
    targets, steps, sizes = RNG.integers(1, 9, (5, 6)), [20, 19, 13, 0, 4], [6, 3, 0, 0, 6]

    def both():
        x = kobai.tensor(raw, dtype=getattr(kobai, dtype), requires_grad=True)
        loss = F.ctc_loss(x.log_softmax(-1), kobai.tensor(targets), steps, sizes, reduction="none", zero_infinity=True)
        loss.sum().backward()
        return loss.detach().numpy(), x.grad.numpy()

    raw = 3 * RNG.normal(size=(20, 5, 9))
    compiled = both()
    monkeypatch.setattr(dispatch, "numba_installed", False)
    for a, b in zip(compiled, both(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4 if dtype == "float32" else 1e-11, atol=1e-6)


@pytest.mark.parametrize("blank", [1.5, True, "0"])
def test_the_blank_is_an_integer(blank):
    with pytest.raises(TypeError, match="ctc_loss: expected blank to be an integer, got"):
        F.ctc_loss(kobai.zeros(3, 1, 2).log_softmax(-1), kobai.tensor([[1]]), [3], [1], blank=blank)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_captured_as_eager(dtype):
    layer = nn.Linear(4, 5).to(getattr(kobai, dtype))
    criterion = nn.CTCLoss(zero_infinity=True)

    def step(x, targets, steps, sizes):
        layer.weight.grad = None
        loss = criterion(layer(x).log_softmax(-1), targets, steps, sizes)
        loss.backward()
        return loss, layer.weight.grad.clone()

    captured = kobai.capture(step)
    for i in range(4):
        x = kobai.tensor(RNG.normal(size=(8, 3, 4)), dtype=getattr(kobai, dtype))
        given = kobai.tensor(RNG.integers(1, 5, (3, 3))), kobai.tensor([8, 7, 5 - i]), kobai.tensor([3, i % 3, 1])
        assert [t.tolist() for t in captured(x, *given)] == [t.tolist() for t in step(x, *given)]


def test_empty_large_and_from_other_layouts():
    none = F.ctc_loss(kobai.zeros(3, 0, 4), kobai.zeros(0, 2, dtype=kobai.int64), [], [], reduction="none")
    assert none.shape == (0,)
    x = kobai.tensor(RNG.normal(size=(2, 6, 5)) * 300, requires_grad=True)
    loss = F.ctc_loss(x.permute(1, 0, 2).log_softmax(-1), kobai.tensor([[1, 2], [3, 4]]), [6, 6], [2, 2])
    loss.backward()
    assert math.isfinite(loss.item())
    assert kobai.isfinite(x.grad).all()
    impossible = kobai.tensor([[[0.0, -math.inf]], [[-math.inf, 0.0]]], requires_grad=True)
    loss = F.ctc_loss(impossible, kobai.tensor([[1]]), [2], [1])
    loss.backward()
    assert loss.item() == 0
    assert not impossible.grad.isnan().any()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"steps": [5, 3]}, RuntimeError, "ctc_loss: expected input_lengths in [0, 4], got [5, 3]"),
        ({"sizes": [4, 2]}, RuntimeError, "ctc_loss: expected target_lengths in [0, 3], got [4, 2]"),
        ({"steps": [4]}, RuntimeError, "ctc_loss: expected 2 input_lengths, got 1"),
        ({"steps": [4.0, 3.0]}, TypeError, "ctc_loss: expected input_lengths to be integers"),
        ({"blank": 5}, RuntimeError, "ctc_loss: expected blank in [0, 5), got 5"),
        ({"targets": kobai.ones(2, 3)}, RuntimeError, "ctc_loss: expected targets of an integer dtype, got"),
        ({"targets": kobai.tensor([[1, 2, 5], [1, 1, 1]])}, IndexError, "ctc_loss: expected indices in [0, 4], got 5"),
        (
            {"targets": kobai.tensor([1, 2, 3])},
            RuntimeError,
            "ctc_loss: expected 5 targets, the sum of target_lengths, got 3",
        ),
        ({"targets": kobai.tensor([[1, 2, 3]])}, RuntimeError, "ctc_loss: expected targets (2, S)"),
        ({"x": kobai.zeros(4)}, RuntimeError, "ctc_loss: expected float log_probs (T, N, C) or (T, C)"),
        ({"reduction": "average"}, ValueError, "ctc_loss: expected reduction"),
        ({"zero_infinity": 1}, TypeError, "ctc_loss: expected zero_infinity to be True or False"),
    ],
)
def test_nonsense(change, error, message):
    given = {
        "x": kobai.zeros(4, 2, 5),
        "targets": kobai.tensor([[1, 2, 3], [1, 1, 1]]),
        "steps": [4, 3],
        "sizes": [3, 2],
    }
    given |= change
    x, targets, steps, sizes = (given.pop(name) for name in ("x", "targets", "steps", "sizes"))
    with pytest.raises(error, match=re.escape(message)):
        F.ctc_loss(x, targets, steps, sizes, **given)

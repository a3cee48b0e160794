"""Normalisation against PyTorch, with sizes at which the compiled loops use their wide parts, their ends and several tiles."""

import numpy as np
import pytest

import kobai
import kobai.nn.functional
from kobai.engine import dispatch

pytestmark = pytest.mark.oracle
torch = pytest.importorskip("torch")

CASES = {
    "batch_norm (100, 100)": ((100, 100), lambda F, x, w, b: F.relu(F.batch_norm(x, None, None, w, b, True))),
    "batch_norm (33, 1500)": ((33, 1500), lambda F, x, w, b: F.batch_norm(x, None, None, w, b, True)),
    "batch_norm (9, 7, 13, 11)": ((9, 7, 13, 11), lambda F, x, w, b: F.relu(F.batch_norm(x, None, None, w, b, True))),
    "layer_norm (64, 513)": ((64, 513), lambda F, x, w, b: F.layer_norm(x, x.shape[1:], w, b)),
    "rms_norm (64, 513)": ((64, 513), lambda F, x, w, b: F.rms_norm(x, x.shape[1:], w)),
    "group_norm (3, 12, 9, 9)": ((3, 12, 9, 9), lambda F, x, w, b: F.group_norm(x, 4, w, b)),
    "instance_norm (3, 12, 50)": ((3, 12, 50), lambda F, x, w, b: F.instance_norm(x, None, None, w, b)),
}


@pytest.mark.parametrize("numba", [True, False], ids=["numba", "reference"])
@pytest.mark.parametrize("mean", [0.0, 100.0])
@pytest.mark.parametrize("name", CASES)
def test_agrees_with_pytorch(name, mean, numba, monkeypatch):
    if numba and not dispatch.numba_installed:
        pytest.skip("needs Numba")
    monkeypatch.setattr(dispatch, "numba_installed", numba)
    shape, call = CASES[name]
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=n) for n in (shape, shape[1], shape[1], shape)]
    parts[0] = parts[0] + mean

    def outcome(library, dtype):
        x, w, b, dy = (library.tensor(part.astype(dtype)) for part in parts)
        leaves = [t.requires_grad_() for t in (x, w, b)]
        y = call(library.nn.functional, x, w, b)
        y.backward(dy)
        return [y.detach().numpy(), *(t.grad.numpy() for t in leaves if t.grad is not None)]

    for ours, exact, theirs in zip(
        outcome(kobai, "float32"), outcome(kobai, "float64"), outcome(torch, "float64"), strict=True
    ):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(exact, theirs, rtol=1e-10, atol=1e-11 * scale)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=scale * (1e-4 if mean else 2e-6))

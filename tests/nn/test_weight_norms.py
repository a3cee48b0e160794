"""Weight and spectral normalisation: against PyTorch, and what they refuse."""

from __future__ import annotations

import importlib
import pickle

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.nn.utils import remove_spectral_norm, remove_weight_norm, spectral_norm, weight_norm

LAYERS = {
    "Linear": (lambda m: m.nn.Linear(3, 4), (5, 3)),
    "Conv1d": (lambda m: m.nn.Conv1d(3, 4, 2), (2, 3, 5)),
    "ConvTranspose2d": (lambda m: m.nn.ConvTranspose2d(3, 4, 2), (2, 3, 4, 4)),
}


def trained(m, utils, kind, layer, shape, state=None, **options):
    """Two steps of a normalised layer; returns its state and the last output."""
    module = getattr(utils, kind)(layer(m), **options)
    if state is not None:
        module.load_state_dict({k: m.tensor(v) for k, v in state.items()})
    start = {k: v.detach().numpy().copy() for k, v in module.state_dict().items()}
    optimizer = m.optim.SGD(module.parameters(), lr=0.1)
    x = m.tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    for _ in range(2):
        optimizer.zero_grad()
        (module(x) ** 2).mean().backward()
        optimizer.step()
    y = module(x).detach().numpy()
    return start, {k: v.detach().numpy() for k, v in module.state_dict().items()}, y


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("layer", "shape"), LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("weight_norm", {}),
        ("weight_norm", {"dim": None}),
        ("weight_norm", {"dim": 1}),
        ("spectral_norm", {}),
        ("spectral_norm", {"n_power_iterations": 3, "dim": 1}),
    ],
)
def test_as_pytorch(kind, options, layer, shape):
    torch = importlib.import_module("torch")
    start, expected, y = trained(torch, torch.nn.utils, kind, layer, shape, **options)
    _, found, out = trained(kobai, nn.utils, kind, layer, shape, start, **options)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-4, atol=1e-5, err_msg=key)
    np.testing.assert_allclose(out, y, rtol=1e-4, atol=1e-5)


def test_removing_leaves_an_ordinary_layer_with_the_same_weight(backend):
    x = kobai.randn(5, 3)
    for put, take in ((weight_norm, remove_weight_norm), (spectral_norm, remove_spectral_norm)):
        layer = put(nn.Linear(3, 4))
        layer.eval()
        before = layer(x)
        assert take(layer) is layer
        assert kobai.allclose(layer(x), before, atol=1e-6)
        assert sorted(layer.state_dict()) == ["bias", "weight"]
        assert not layer._forward_pre_hooks


@pytest.mark.parametrize("make", [weight_norm, spectral_norm])
def test_pickled(make):
    layer, x = make(nn.Linear(3, 4)), kobai.randn(5, 3)
    layer(x).sum().backward()
    twin = pickle.loads(pickle.dumps(layer))
    assert kobai.equal(twin.eval()(x), layer.eval()(x))


def test_spectral_norm_in_evaluation_stays_and_serves_two_calls():
    layer = spectral_norm(nn.Linear(3, 4))
    x = kobai.randn(5, 3)
    (layer(x).sum() + layer(2 * x).sum()).backward()  # as a discriminator sees real and generated data
    assert layer.weight_orig.grad is not None
    layer.eval()
    u = layer.weight_u.clone()
    layer(x)
    assert kobai.equal(layer.weight_u, u)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: weight_norm(nn.Linear(2, 2), "wieght"), ValueError, "no parameter 'wieght'"),
        (lambda: weight_norm(weight_norm(nn.Linear(2, 2)), "weight"), ValueError, "no parameter 'weight'"),
        (lambda: remove_weight_norm(nn.Linear(2, 2)), ValueError, "not normalised so"),
        (lambda: spectral_norm(nn.Linear(2, 2), n_power_iterations=0), ValueError, "n_power_iterations > 0"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()

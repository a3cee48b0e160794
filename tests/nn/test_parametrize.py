"""Parametrised tensors: the mechanism, and the weights of a kind, against PyTorch."""

import copy
import importlib

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.nn.utils import parametrizations, parametrize


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).T

    def right_inverse(self, x):
        return x.triu()


class Doubled(nn.Module):
    def forward(self, x):
        return 2 * x


KINDS = {
    "weight_norm": ("weight_norm", lambda n: n.Linear(3, 5), {}),
    "weight_norm of all": ("weight_norm", lambda n: n.Conv2d(2, 3, 2), {"dim": None}),
    "spectral_norm": ("spectral_norm", lambda n: n.Conv1d(2, 3, 2), {"n_power_iterations": 2}),
    "spectral_norm, transposed": ("spectral_norm", lambda n: n.ConvTranspose1d(2, 3, 2), {}),
    "matrix_exp": ("orthogonal", lambda n: n.Linear(4, 4), {}),
    "householder": ("orthogonal", lambda n: n.Linear(3, 5), {}),
    "householder, wide": ("orthogonal", lambda n: n.Linear(5, 3), {"orthogonal_map": "householder"}),
    "cayley": ("orthogonal", lambda n: n.Linear(3, 5), {"orthogonal_map": "cayley", "use_trivialization": False}),
    "recurrent": ("weight_norm", lambda n: n.LSTM(3, 4), {"name": "weight_hh_l0"}),
}
SHAPES = {"Linear": lambda m: (2, m.in_features), "LSTM": lambda m: (4, 2, 3)}


@pytest.mark.oracle
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [True, False])
def test_weights_of_a_kind_as_pytorch(kind, training):
    torch = importlib.import_module("torch")
    name, make, options = KINDS[kind]
    ours = getattr(parametrizations, name)(make(nn), **options).double().train(training)
    theirs = getattr(torch.nn.utils.parametrizations, name)(make(torch.nn), **options).double().train(training)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert repr(ours) == repr(theirs)
    rng = np.random.default_rng(0)
    state = {}
    for key, value in ours.state_dict().items():
        noise = rng.normal(size=value.shape) if "original" in key else np.zeros(value.shape)
        if "householder" in kind and noise.ndim == 2:  # what is on the diagonal is not trained
            noise = np.triu(noise, 1) if "wide" in kind else np.tril(noise, -1)
        state[key] = value.numpy() + 0.3 * noise
    theirs.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
    ours.load_state_dict({k: kobai.tensor(v) for k, v in state.items()})
    base = parametrize.type_before_parametrizations(ours).__name__
    x = rng.normal(size=SHAPES.get(base, lambda m: (2, 2, 5, 5)[: 2 + len(m.kernel_size)])(ours))
    for module, layer in ((kobai, ours), (torch, theirs)):
        y = layer(module.tensor(x))
        y = y[0] if isinstance(y, tuple) else y
        (y**3).sum().backward()
    tensor = options.get("name", "weight")
    np.testing.assert_allclose(
        getattr(ours, tensor).detach().numpy(), getattr(theirs, tensor).detach().numpy(), atol=1e-7
    )
    for (label, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-6, atol=1e-6, err_msg=label)


def test_register_assign_and_remove():
    layer = nn.Linear(3, 3)
    weight, before = layer.weight, layer.weight.detach().clone()
    assert not parametrize.is_parametrized(layer)
    assert parametrize.register_parametrization(layer, "weight", Symmetric()) is layer
    assert parametrize.is_parametrized(layer, "weight")
    assert not parametrize.is_parametrized(layer, "bias")
    assert isinstance(layer, nn.Linear)
    assert type(layer).__name__ == "ParametrizedLinear"
    assert parametrize.type_before_parametrizations(layer) is nn.Linear
    assert layer.parametrizations.weight.original is weight  # an optimiser that has it keeps it
    assert layer.weight.tolist() == (before.triu() + before.triu(1).T).tolist()
    layer.weight = kobai.tensor([[1.0, 2.0, 3.0], [2.0, 4.0, 5.0], [3.0, 5.0, 6.0]])
    assert layer.weight[2].tolist() == [3, 5, 6]
    assert weight[2].tolist() == [0, 0, 6]
    layer(kobai.ones(1, 3)).sum().backward()
    assert weight.grad[1, 0].item() == 0
    parametrize.register_parametrization(layer, "weight", Doubled())
    parametrize.register_parametrization(layer, "bias", Doubled())
    assert layer.weight[2].tolist() == [6, 10, 12]
    twin = copy.deepcopy(layer)
    parametrize.remove_parametrizations(twin, "bias", leave_parametrized=False)
    assert (twin.bias * 2).tolist() == layer.bias.tolist()
    parametrize.remove_parametrizations(layer, "weight")
    assert layer.weight is weight
    assert weight[2].tolist() == [6, 10, 12]
    parametrize.remove_parametrizations(layer, "bias")
    assert type(layer) is nn.Linear
    assert sorted(layer.state_dict()) == ["bias", "weight"]
    assert type(twin).__name__ == "ParametrizedLinear"


def test_buffers_and_the_cache():
    layer = nn.BatchNorm1d(2)
    parametrize.register_parametrization(layer, "running_mean", Doubled())
    assert "parametrizations.running_mean.original" in layer.state_dict()
    assert not dict(layer.named_parameters()).keys() & {"parametrizations.running_mean.original"}
    assert layer.running_mean is not layer.running_mean
    with parametrize.cached(), parametrize.cached():
        first = layer.running_mean
        assert layer.running_mean is first
    assert layer.running_mean is not first


def test_captured_as_eager():
    layer = parametrizations.spectral_norm(
        parametrizations.weight_norm(nn.Linear(3, 4), name="bias", dim=None), eps=1e-6
    )
    twin = copy.deepcopy(layer)

    def trained(layer, captured):
        optimizer = kobai.optim.SGD(layer.parameters(), lr=0.1)

        def step(x):
            optimizer.zero_grad()
            loss = (layer(x) ** 2).sum()
            loss.backward()
            optimizer.step()
            return loss

        run = kobai.capture(step) if captured else step
        rng = np.random.default_rng(0)
        return [run(kobai.tensor(rng.normal(size=(2, 3)), dtype=kobai.float32)).item() for _ in range(5)]

    assert trained(layer, True) == trained(twin, False)


@pytest.mark.parametrize("kind", ["matrix_exp", "cayley", "householder"])
def test_an_orthogonal_weight_begins_with_the_assigned_one(kind):
    layer = parametrizations.orthogonal(nn.Linear(3, 5 if kind == "householder" else 3), orthogonal_map=kind)
    q = kobai.linalg.qr(kobai.randn(*layer.weight.shape))[0]
    layer.weight = q
    assert kobai.allclose(layer.weight, q, atol=1e-5)


def test_nonsense():
    layer = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="register_parametrization: Linear has no parameter or buffer 'wight'"):
        parametrize.register_parametrization(layer, "wight", Doubled())
    with pytest.raises(ValueError, match=r"expected a tensor \(2, 3\) of .*, got \(6,\)"):
        parametrize.register_parametrization(layer, "weight", nn.Flatten(0))
    assert list(layer.state_dict()) == ["weight", "bias"]
    with pytest.raises(ValueError, match="remove_parametrizations: Linear has no parametrization of 'weight'"):
        parametrize.remove_parametrizations(layer, "weight")
    with pytest.raises(ValueError, match="orthogonal_map to be one of"):
        parametrizations.orthogonal(layer, orthogonal_map="qr")
    with pytest.raises(ValueError, match="orthogonal: expected a matrix"):
        parametrizations.orthogonal(layer, "bias")
    with pytest.raises(ValueError, match="weight_norm: Linear has no parameter or buffer 'w'"):
        parametrizations.weight_norm(layer, "w")
    fixed = parametrizations.orthogonal(nn.Linear(2, 2), use_trivialization=False)
    with pytest.raises(NotImplementedError, match="use_trivialization=True"):
        fixed.weight = kobai.eye(2)
    with pytest.raises(ValueError, match="several originals"):
        parametrize.remove_parametrizations(parametrizations.weight_norm(layer), "weight", leave_parametrized=False)

"""nn.utils.parametrize: tensors of a module that are functions of others."""

import copy

import pytest

import kobai
from kobai import nn
from kobai.nn.utils import parametrizations, parametrize


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).transpose(-1, -2)

    def right_inverse(self, a):
        return a.triu()


class Skew(nn.Module):
    def forward(self, x):
        a = x.triu(1)
        return a - a.transpose(-1, -2)


class LengthAndDirection(nn.Module):
    def forward(self, g, v):
        return g * v / v.norm(dim=1, keepdim=True)

    def right_inverse(self, w):
        return w.norm(dim=1, keepdim=True), w


def layer():
    made = nn.Linear(3, 3)
    with kobai.no_grad():
        made.weight.copy_(kobai.arange(9.0).reshape(3, 3))
    return made


def test_a_weight_is_computed_when_it_is_read():
    m = parametrize.register_parametrization(layer(), "weight", Symmetric())
    assert m.weight.tolist() == [[0, 1, 2], [1, 4, 5], [2, 5, 8]]
    assert list(m.state_dict()) == ["bias", "parametrizations.weight.original"]
    assert parametrize.is_parametrized(m)
    assert parametrize.is_parametrized(m, "weight")
    assert not parametrize.is_parametrized(m, "bias")
    assert parametrize.type_before_parametrizations(m) is nn.Linear
    assert isinstance(m, nn.Linear)
    m(kobai.ones(1, 3)).sum().backward()
    assert m.parametrizations.weight.original.grad.tolist() == [[1, 2, 2], [0, 1, 2], [0, 0, 1]]
    m.weight = 2 * kobai.eye(3)
    assert m.weight.tolist() == (2 * kobai.eye(3)).tolist()
    assert copy.deepcopy(m).weight.tolist() == m.weight.tolist()
    other = parametrize.register_parametrization(layer(), "weight", Symmetric())
    other.load_state_dict(m.state_dict())
    assert other.weight.tolist() == m.weight.tolist()
    assert type(layer()) is nn.Linear


def test_several_in_turn_and_back_to_a_parameter():
    m = parametrize.register_parametrization(layer(), "weight", Symmetric())
    parametrize.register_parametrization(m, "weight", Skew())
    assert m.weight.tolist() == [[0, 1, 2], [-1, 0, 5], [-2, -5, 0]]
    parametrize.remove_parametrizations(m, "weight")
    assert type(m) is nn.Linear
    assert isinstance(m.weight, nn.Parameter)
    assert m.weight.tolist() == [[0, 1, 2], [-1, 0, 5], [-2, -5, 0]]
    m = parametrize.register_parametrization(layer(), "weight", Skew())
    parametrize.remove_parametrizations(m, "weight", leave_parametrized=False)
    assert m.weight.tolist() == layer().weight.tolist()


def test_one_tensor_from_two_and_a_buffer():
    m = layer()
    w = m.weight.detach().clone()
    parametrize.register_parametrization(m, "weight", LengthAndDirection())
    names = ["bias", "parametrizations.weight.original0", "parametrizations.weight.original1"]
    assert list(m.state_dict()) == names
    kobai.testing.assert_close(m.weight, w)
    optimizer = kobai.optim.SGD(m.parameters(), lr=0.1)
    m(kobai.ones(1, 3)).square().sum().backward()
    optimizer.step()
    assert not kobai.allclose(m.weight, w)
    with pytest.raises(ValueError, match="single original"):
        parametrize.remove_parametrizations(m, "weight", leave_parametrized=False)
    norm = parametrize.register_parametrization(nn.BatchNorm1d(3), "running_mean", nn.Softplus())
    assert "parametrizations.running_mean.original" in dict(norm.named_buffers())
    assert norm(kobai.randn(4, 3)).shape == (4, 3)


def test_in_a_block_it_is_computed_once():
    m = parametrize.register_parametrization(layer(), "weight", Symmetric())
    with parametrize.cached():
        with parametrize.cached():
            assert m.weight is m.weight
        assert m.weight is m.weight
    assert m.weight is not m.weight


def test_what_is_refused():
    with pytest.raises(ValueError, match="has no parameter, buffer"):
        parametrize.register_parametrization(layer(), "wieght", Symmetric())
    with pytest.raises(ValueError, match=r"expected \(3, 3\) of .*float32 .*, got \(9,\)"):
        parametrize.register_parametrization(layer(), "weight", nn.Flatten(0))
    assert parametrize.register_parametrization(layer(), "weight", nn.Flatten(0), unsafe=True).weight.shape == (9,)
    with pytest.raises(ValueError, match="not parametrised"):
        parametrize.remove_parametrizations(layer(), "weight")
    with pytest.raises(ValueError, match="is None"):
        parametrize.register_parametrization(nn.Linear(2, 2, bias=False), "bias", nn.Identity())


def test_weight_norm_as_a_parametrization():
    m, w = layer(), layer().weight
    parametrizations.weight_norm(m)
    kobai.testing.assert_close(m.weight, w)
    old = nn.utils.weight_norm(layer())
    x = kobai.randn(4, 3)
    for made in (m, old):
        made.bias.data.zero_()
        made(x).square().sum().backward()
    kobai.testing.assert_close(m.parametrizations.weight.original0.grad, old.weight_g.grad)
    kobai.testing.assert_close(m.parametrizations.weight.original1.grad, old.weight_v.grad)


def test_spectral_norm_as_a_parametrization():
    kobai.manual_seed(0)
    m = parametrizations.spectral_norm(nn.ConvTranspose2d(3, 4, 3), n_power_iterations=50)
    assert kobai.linalg.matrix_norm(m.weight.transpose(0, 1).reshape(4, -1), 2).item() == pytest.approx(1, abs=1e-4)
    assert [n for n, _ in m.named_buffers()] == ["parametrizations.weight.0._u", "parametrizations.weight.0._v"]
    m(kobai.randn(1, 3, 4, 4)).sum().backward()
    assert m.parametrizations.weight.original.grad is not None
    m.eval()
    assert kobai.equal(m.weight, m.weight)
    for bad in ({"n_power_iterations": 0}, {"name": "wieght"}):
        with pytest.raises(ValueError, match="spectral_norm"):
            parametrizations.spectral_norm(nn.Linear(2, 2), **bad)


def test_older_spellings_of_initialisers():
    w = kobai.empty(4, 3)
    assert nn.init.constant(w, 2.0) is w
    assert w.sum().item() == 24
    for name in ("uniform", "normal", "eye", "orthogonal", "xavier_uniform", "xavier_normal", "kaiming_uniform"):
        assert getattr(nn.init, name) is getattr(nn.init, f"{name}_")
    assert nn.init._calculate_correct_fan(kobai.empty(4, 3, 2, 2), "fan_in") == 12
    with pytest.raises(ValueError, match="fan_avg"):
        nn.init._calculate_correct_fan(w, "fan_avg")

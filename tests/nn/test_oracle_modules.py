"""Looks, defaults, initialisers and state of layers against PyTorch's."""

import copy
import math

import numpy as np
import pytest
from oracle_inputs import close
from test_oracle_layers import LAYERS, label

import kobai
from kobai import nn

pytestmark = pytest.mark.oracle


def theirs_of(torch, case):
    return getattr(torch.nn, case[0])(*case[1], **case[2])


# PyTorch does not show that Hardswish is in place; we do.
@pytest.mark.parametrize("case", [c for c in LAYERS if c != ("Hardswish", (), {"inplace": True}, None)], ids=label)
def test_repr(torch, case):
    assert repr(getattr(nn, case[0])(*case[1], **case[2])) == repr(theirs_of(torch, case))


def test_repr_of_a_tree(torch):
    def build(nn):
        return nn.Sequential(
            nn.Linear(3, 4),
            nn.ModuleList([nn.ReLU(), nn.ReLU(), nn.Sequential(nn.Dropout())]),
            nn.ModuleDict({"a": nn.LayerNorm(3), "b": nn.Sequential()}),
        )

    assert repr(build(nn)) == repr(build(torch.nn))


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("Linear", (200, 300)),
        ("Bilinear", (20, 30, 40)),
        ("Embedding", (200, 100)),
        ("PReLU", (9,)),
        ("Conv2d", (20, 30, 3)),
        ("ConvTranspose2d", (20, 30, 3)),
    ],
)
def test_default_initialisation_has_the_same_distribution(torch, name, args):
    ours, theirs = getattr(nn, name)(*args), getattr(torch.nn, name)(*args)
    for (key, p), (_, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        p, q = p.detach().numpy().astype(np.float64), q.detach().numpy().astype(np.float64)
        error = 6 * q.std() / math.sqrt(q.size)
        assert p.shape == q.shape, key
        assert abs(p.mean() - q.mean()) <= error + 1e-12, key
        if p.size > 100:
            assert p.std() == pytest.approx(q.std(), rel=0.1), key
            assert np.quantile(np.abs(p), 0.99) == pytest.approx(np.quantile(np.abs(q), 0.99), rel=0.1), key


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("normal_", (0.5, 2.0)),
        ("uniform_", (-0.5, 2.0)),
        ("trunc_normal_", (0.5, 2.0, 0.0, 1.5)),
        ("xavier_normal_", (1.5,)),
        ("xavier_uniform_", (1.5,)),
        ("kaiming_normal_", (0.1, "fan_out", "leaky_relu")),
        ("kaiming_uniform_", (0, "fan_in", "relu")),
        ("orthogonal_", (2.0,)),
        ("sparse_", (0.4, 0.5)),
    ],
)
def test_initialiser_statistics(torch, name, args):
    def sorted_draw(module):
        torch.manual_seed(1)
        kobai.manual_seed(1)
        x = getattr(module.nn.init, name)(module.empty(300, 500), *args)
        return np.sort(np.asarray(x).astype(np.float64).ravel())

    a, b = sorted_draw(kobai), sorted_draw(torch)
    quantiles = np.linspace(0, len(a) - 1, 41).astype(int)[1:-1]
    np.testing.assert_allclose(a[quantiles], b[quantiles], atol=0.03 * b.std(), err_msg=name)
    assert a.std() == pytest.approx(b.std(), rel=0.02)


@pytest.mark.parametrize("name", ["eye_", "ones_", "zeros_"])
def test_constant_initialisers(torch, name):
    a = getattr(nn.init, name)(kobai.empty(3, 4)).numpy()
    assert np.array_equal(a, getattr(torch.nn.init, name)(torch.empty(3, 4)).numpy())


@pytest.mark.parametrize(("shape", "groups"), [((4, 2, 3, 3), 1), ((4, 2, 3), 2), ((6, 4, 1, 3, 3), 3)])
def test_dirac(torch, shape, groups):
    a = nn.init.dirac_(kobai.empty(*shape), groups).numpy()
    assert np.array_equal(a, torch.nn.init.dirac_(torch.empty(*shape), groups).numpy())


def network(nn):
    return nn.Sequential(
        nn.Embedding(10, 8),
        nn.Flatten(),
        nn.Linear(24, 6),
        nn.BatchNorm1d(6),
        nn.PReLU(),
        nn.LayerNorm(6),
        nn.Linear(6, 3, bias=False),
    )


def test_state_dicts_travel_both_ways(torch, tmp_path):
    from safetensors.torch import load_file, save_file

    ours, theirs = network(nn), network(torch.nn)
    x = np.random.default_rng(0).integers(0, 10, (5, 3))
    for _ in range(2):  # running statistics that are not the initial ones
        theirs(torch.tensor(x))
        ours(kobai.tensor(x))

    save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    twin = network(nn)
    twin.load_state_dict(kobai.load(tmp_path / "theirs.safetensors"))
    close(
        twin.eval()(kobai.tensor(x)).detach().numpy(),
        copy.deepcopy(theirs).eval()(torch.tensor(x)).detach().numpy(),
        "float32",
        "PyTorch's state in Kobai",
    )

    kobai.save(ours.state_dict(), tmp_path / "ours.safetensors")
    theirs.load_state_dict(load_file(tmp_path / "ours.safetensors"))
    close(
        ours.eval()(kobai.tensor(x)).detach().numpy(),
        theirs.eval()(torch.tensor(x)).detach().numpy(),
        "float32",
        "Kobai's state in PyTorch",
    )


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, math.inf])
def test_clip_grad_norm(torch, norm_type):
    rng = np.random.default_rng(0)
    grads = [rng.normal(size=s).astype(np.float32) for s in ((3, 4), (5,))]
    ours, theirs = [], []
    for g in grads:
        p, q = nn.Parameter(kobai.zeros(*g.shape)), torch.nn.Parameter(torch.zeros(*g.shape))
        p.grad, q.grad = kobai.tensor(g.copy()), torch.tensor(g.copy())
        ours.append(p)
        theirs.append(q)
    a = nn.utils.clip_grad_norm_(ours, 0.7, norm_type)
    b = torch.nn.utils.clip_grad_norm_(theirs, 0.7, norm_type)
    close(a.numpy(), b.numpy(), "float32", "total")
    for p, q in zip(ours, theirs, strict=True):
        close(p.grad.numpy(), q.grad.numpy(), "float32", "gradient")

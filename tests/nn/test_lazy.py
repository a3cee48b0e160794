"""Layers that learn their input's size from the first batch."""

from __future__ import annotations

import copy
import importlib

import pytest

import kobai
from kobai import nn

CASES = {
    "LazyLinear": (lambda: nn.LazyLinear(3), lambda: nn.Linear(5, 3), (2, 4, 5)),
    "LazyLinear, no bias": (lambda: nn.LazyLinear(3, bias=False), lambda: nn.Linear(5, 3, bias=False), (5,)),
    "LazyConv1d": (lambda: nn.LazyConv1d(4, 3), lambda: nn.Conv1d(2, 4, 3), (2, 2, 6)),
    "LazyConv2d": (
        lambda: nn.LazyConv2d(4, 3, padding=1, groups=2),
        lambda: nn.Conv2d(2, 4, 3, padding=1, groups=2),
        (1, 2, 4, 4),
    ),
    "LazyConv3d": (lambda: nn.LazyConv3d(4, 2), lambda: nn.Conv3d(2, 4, 2), (1, 2, 3, 3, 3)),
    "LazyConvTranspose1d": (lambda: nn.LazyConvTranspose1d(4, 3), lambda: nn.ConvTranspose1d(2, 4, 3), (2, 2, 6)),
    "LazyConvTranspose2d": (
        lambda: nn.LazyConvTranspose2d(4, 3, 2),
        lambda: nn.ConvTranspose2d(2, 4, 3, 2),
        (1, 2, 4, 4),
    ),
    "LazyConvTranspose3d": (lambda: nn.LazyConvTranspose3d(4, 2), lambda: nn.ConvTranspose3d(2, 4, 2), (1, 2, 3, 3, 3)),
    "LazyBatchNorm1d": (lambda: nn.LazyBatchNorm1d(), lambda: nn.BatchNorm1d(3), (4, 3)),
    "LazyBatchNorm2d": (
        lambda: nn.LazyBatchNorm2d(momentum=0.5),
        lambda: nn.BatchNorm2d(3, momentum=0.5),
        (4, 3, 2, 2),
    ),
    "LazyBatchNorm3d": (
        lambda: nn.LazyBatchNorm3d(affine=False),
        lambda: nn.BatchNorm3d(3, affine=False),
        (2, 3, 2, 2, 2),
    ),
    "LazyInstanceNorm1d": (lambda: nn.LazyInstanceNorm1d(), lambda: nn.InstanceNorm1d(3), (2, 3, 4)),
    "LazyInstanceNorm2d": (
        lambda: nn.LazyInstanceNorm2d(affine=True, track_running_stats=True),
        lambda: nn.InstanceNorm2d(3, affine=True, track_running_stats=True),
        (2, 3, 2, 2),
    ),
    "LazyInstanceNorm3d": (
        lambda: nn.LazyInstanceNorm3d(track_running_stats=True),
        lambda: nn.InstanceNorm3d(3, track_running_stats=True),
        (2, 3, 2, 2, 2),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_first_batch_makes_an_ordinary_layer(case, backend):
    lazy, plain, shape = case
    layer, expected = lazy(), plain()
    assert type(layer).__name__ == f"Lazy{type(expected).__name__}"
    assert repr(layer).startswith(f"Lazy{type(expected).__name__}(")
    y = layer(kobai.randn(*shape))
    assert type(layer) is type(expected)
    assert repr(layer) == repr(expected)
    assert {k: v.shape for k, v in layer.state_dict().items()} == {k: v.shape for k, v in expected.state_dict().items()}
    layer.load_state_dict(expected.state_dict())
    x = kobai.randn(*shape)
    assert kobai.equal(layer(x), expected(x))
    assert y.shape == expected(x).shape


ALONE = [(name, case) for name, case in CASES.items() if "Conv" in name or "InstanceNorm" in name]


@pytest.mark.parametrize("case", [case for _, case in ALONE], ids=[name for name, _ in ALONE])
def test_the_first_input_may_have_no_batch_dimension(case, backend):
    lazy, plain, shape = case
    layer, expected = lazy(), plain()
    layer(kobai.randn(*shape[1:]))
    assert repr(layer) == repr(expected)
    layer.load_state_dict(expected.state_dict())
    x = kobai.randn(*shape[1:])
    assert kobai.equal(layer(x), expected(x))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_an_input_of_another_rank_teaches_nothing(case):
    lazy, plain, shape = case
    layer, expected = lazy(), plain()
    kind = type(layer)
    for rank in range(7):
        if type(expected) is nn.Linear:
            fits = rank > 0
        elif "BatchNorm" in kind.__name__:
            fits = rank in ((2, 3) if type(expected) is nn.BatchNorm1d else (len(shape),))
        else:
            fits = rank in (len(shape) - 1, len(shape))
        if not fits:
            with pytest.raises(RuntimeError, match=rf"{kind.__name__}: expected input of .* dimensions.*got shape"):
                layer(kobai.zeros((4,) * rank))
    assert type(layer) is kind
    assert layer(kobai.randn(*shape)).shape == expected(kobai.randn(*shape)).shape


def test_shapes_are_asked_too_early():
    layer = nn.LazyLinear(3)
    with pytest.raises(RuntimeError, match="call the model on some data first"):
        sum(p.numel() * p.shape[0] for p in layer.parameters())
    assert repr(layer.weight) == "<UninitializedParameter>"
    with pytest.raises(RuntimeError, match="LazyConv2d: expected a batch"):
        nn.LazyConv2d(3, 1)(5)


def test_an_optimizer_made_before_the_first_batch_trains():
    model = nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(1)).double()
    optimizer = kobai.optim.SGD(model.parameters(), lr=0.1)
    twin = copy.deepcopy(model)
    x = kobai.randn(8, 3, dtype=kobai.float64)
    loss = (model(x) - 1).square().mean()
    loss.backward()
    optimizer.step()
    assert (model(x) - 1).square().mean().item() < loss.item()
    assert model[0].weight.dtype == kobai.float64
    assert type(model[0].weight) is nn.Parameter
    assert isinstance(twin[0], nn.LazyLinear)
    assert twin(x).shape == (8, 1)


@pytest.mark.parametrize(
    ("lazy", "ready"),
    [
        (lambda: nn.LazyLinear(4), lambda: nn.Linear(3, 4)),
        (lambda: nn.LazyConv2d(4, 3, groups=2), lambda: nn.Conv2d(6, 4, 3, groups=2)),
        (lambda: nn.LazyConvTranspose1d(4, 3), lambda: nn.ConvTranspose1d(6, 4, 3)),
        (lambda: nn.LazyBatchNorm2d(), lambda: nn.BatchNorm2d(5)),
        (lambda: nn.LazyBatchNorm1d(affine=False), lambda: nn.BatchNorm1d(5, affine=False)),
        (lambda: nn.LazyInstanceNorm2d(affine=True), lambda: nn.InstanceNorm2d(5, affine=True)),
        (
            lambda: nn.LazyInstanceNorm1d(track_running_stats=True),
            lambda: nn.InstanceNorm1d(5, track_running_stats=True),
        ),
    ],
)
def test_a_state_dict_decides_the_size_as_a_batch_does(lazy, ready):
    made, wanted = nn.Sequential(lazy(), nn.ReLU()), nn.Sequential(ready(), nn.ReLU())
    made.load_state_dict(wanted.state_dict())
    assert type(made[0]) is type(wanted[0])
    assert repr(made) == repr(wanted)
    for name, value in wanted.state_dict().items():
        assert kobai.equal(made.state_dict()[name], value)


def test_a_state_dict_that_does_not_fit_a_lazy_layer():
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        nn.LazyLinear(4).load_state_dict(nn.Linear(3, 5).state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):
        nn.LazyLinear(4).load_state_dict({})


def own(t):
    """A lazy module of one's own in framework ``t``, after its first batch; its class, state and output."""

    class Plain(t.nn.Module):
        def forward(self, x):
            return (x - self.mean) @ self.weight

    class Lazy(t.nn.modules.lazy.LazyModuleMixin, Plain):
        cls_to_become = Plain

        def __init__(self, out):
            super().__init__()
            self.out = out
            self.weight = t.nn.UninitializedParameter()
            self.register_buffer("mean", t.nn.UninitializedBuffer())

        def initialize_parameters(self, x):
            if self.has_uninitialized_params():
                with t.no_grad():
                    self.weight.materialize((x.shape[-1], self.out))
                    self.weight.fill_(2)
                    self.mean.materialize(x.shape[1:])
                    self.mean.copy_(x.mean(0))

    made = Lazy(4)
    weight = made.weight
    known = made.has_uninitialized_params()
    y = made(t.arange(6.0).reshape(2, 3))
    loaded = Lazy(4)
    loaded.load_state_dict(made.state_dict())
    return [
        known,
        type(made) is Plain,
        made.weight is weight,
        type(weight) is t.nn.Parameter,
        y.tolist(),
        [(key, value.tolist()) for key, value in loaded.state_dict().items()],
        len(made._forward_pre_hooks),
    ]


@pytest.mark.oracle
def test_a_lazy_module_of_ones_own_as_in_pytorch():
    assert own(kobai) == own(importlib.import_module("torch"))


def test_a_lazy_module_must_learn_all_its_shapes():
    class Forgetful(nn.modules.lazy.LazyModuleMixin, nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.UninitializedParameter(dtype=kobai.float64)

        def initialize_parameters(self, x):
            pass

    with pytest.raises(RuntimeError, match="Forgetful: initialize_parameters has left parameters without a shape"):
        Forgetful()(kobai.ones(2))
    copied = copy.deepcopy(Forgetful())
    copied.weight.materialize((2, 3))
    assert copied.weight.shape == (2, 3)
    assert copied.weight.dtype == kobai.float64
    assert nn.LazyLinear(2).has_uninitialized_params()

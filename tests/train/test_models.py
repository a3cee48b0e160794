"""Models, optimisers and schedules by name."""

import math

import pytest

import kobai
from kobai import nn
from kobai.train import activations, mlp, models, optimizers


@pytest.mark.parametrize("activation", activations.ACTIVATIONS)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_every_activation_trains(activation, batch_norm):
    net = mlp(6, [5, 4], 3, activation=activation, batch_norm=batch_norm, dropout=0.1)
    loss = nn.functional.cross_entropy(net(kobai.randn(8, 2, 3)), kobai.tensor([0, 1, 2, 0, 1, 2, 0, 1]))
    loss.backward()
    assert all(p.grad is not None for p in net.parameters())


def test_layers_in_order():
    net = mlp(6, [5], 3, activation="tanh", batch_norm=True, dropout=0.5)
    assert [type(layer).__name__ for layer in net] == ["Flatten", "Linear", "BatchNorm1d", "Tanh", "Dropout", "Linear"]
    assert net[1].bias is None
    assert len(mlp(6, [], 3)) == 2


def test_initialisation_fits_the_activation():
    kobai.manual_seed(1)
    assert mlp(1000, [500], 3)[1].weight.std().item() == pytest.approx(math.sqrt(2 / 1000), rel=0.02)
    assert mlp(1000, [500], 3, activation="tanh")[1].weight.std().item() == pytest.approx(math.sqrt(2 / 1500), rel=0.02)
    assert mlp(1000, [500], 3, activation="selu")[1].weight.std().item() == pytest.approx(math.sqrt(1 / 1000), rel=0.02)
    assert mlp(10, [5], 3, init="zeros")[-1].weight.abs().max().item() == 0


def test_generator_decides_the_weights():
    a, b = (mlp(4, [3], 2, generator=kobai.Generator().manual_seed(5)) for _ in range(2))
    assert kobai.equal(a[1].weight, b[1].weight)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation": "rleu"}, r"unknown activation 'rleu'\. Did you mean 'relu'"),
        ({"init": "hee"}, r"unknown initialiser 'hee'\. Did you mean 'he'"),
        ({"dropout": 1.0}, r"dropout in \[0, 1\), got 1.0"),
        ({"hidden": [0]}, "sizes of at least 1"),
        ({"hidden": [2.5]}, "sizes of at least 1"),
    ],
)
def test_mlp_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        mlp(**{"in_features": 4, "hidden": [3], "out_features": 2, **arguments})


def test_build_refuses_unknown_models():
    with pytest.raises(ValueError, match=r"unknown model 'mpl'\. Did you mean 'mlp'"):
        models.build({"name": "mpl", "input_shape": [1], "classes": 2, "hidden": []})


def weight():
    return kobai.ones(2, requires_grad=True)


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_every_optimizer_makes_a_parabola_smaller(name):
    w = weight()
    rule = optimizers.optimizer(name, [w], weight_decay=1e-4)
    for _ in range(5):
        rule.zero_grad()
        (w * w).sum().backward()
        rule.step()
    assert (w * w).sum().item() < 2.0


@pytest.mark.parametrize("name", optimizers.SCHEDULES)
def test_every_schedule_ends_lower_or_is_none(name):
    rule = optimizers.optimizer("sgd", [weight()], lr=1.0)
    plan = optimizers.schedule(name, rule, epochs=12, batches=2)
    if name == "none":
        assert plan is None
        return
    steps = 23 if name == "onecycle" else 12
    for _ in range(steps):
        rule._step_called = True
        plan.step(1.0) if name == "plateau" else plan.step()
    assert rule.param_groups[0]["lr"] < 0.6


def test_recipes_refuse():
    with pytest.raises(ValueError, match=r"unknown optimizer 'sdg'\. Did you mean 'sgd'"):
        optimizers.optimizer("sdg", [weight()])
    with pytest.raises(ValueError, match="adam has no momentum"):
        optimizers.optimizer("adam", [weight()], momentum=0.9)
    with pytest.raises(ValueError, match=r"unknown schedule 'cosin'\. Did you mean 'cosine'"):
        optimizers.schedule("cosin", optimizers.optimizer("sgd", [weight()]), 1, 1)

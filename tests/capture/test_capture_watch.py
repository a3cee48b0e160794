"""What a captured step reads from Python is watched: a change acts at the next call."""

from __future__ import annotations

import collections
import operator
import types

import numpy as np
import pytest
from watched_objects import data, net
from watched_places import PLACES

import kobai
from kobai import nn
from kobai.nn import functional as F
from kobai.train import Trainer


@pytest.mark.parametrize("place", PLACES)
def test_a_value_that_the_step_reads_acts_when_it_changes(place: str) -> None:
    def losses(capture: bool) -> list[float]:
        value, model = PLACES[place](), net()
        optimizer = kobai.optim.SGD(model.parameters(), lr=0.1)
        read = value.read

        def step(x, t):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), t) * read()
            loss.backward()
            optimizer.step()
            return loss

        run = kobai.capture(step) if capture else step
        found = [run(*data()).item() for _ in range(4)]
        value.change(0.2)
        found += [run(*data()).item() for _ in range(4)]
        if capture:
            assert 1 <= run.programs <= 2
        return found

    assert losses(True) == losses(False)


def test_a_value_that_is_as_it_was_in_another_object_does_not_record_again() -> None:
    thing = types.SimpleNamespace(k=1000.5)
    step = kobai.capture(lambda x: x * thing.k)
    for i in range(6):
        thing.k = 1000.0 + len("x") * 0.5  # a new float, of the same value
        step(kobai.ones(2) * i)
    assert step.programs == 1


def test_what_the_step_does_not_read_may_change() -> None:
    class Learner:
        def __init__(self):
            self.model = net()
            self.optimizer = kobai.optim.SGD(self.model.parameters(), lr=0.1)
            self.history, self.epoch, self.step = [], 0, 0
            self.run = kobai.capture(self.training_step)

        def training_step(self, x, t):
            self.optimizer.zero_grad()
            loss = F.cross_entropy(self.model(x), t)
            loss.backward()
            self.optimizer.step()
            return loss

    learner = Learner()
    for i in range(40):
        learner.history.append(learner.run(*data()).item())
        learner.epoch, learner.step = i, i
    assert learner.run.programs == 1


def test_a_rate_that_the_step_reads_and_moves_on() -> None:
    def run(capture: bool) -> list[float]:
        model = net()
        model.eval()
        optimizer = kobai.optim.SGD(model.parameters(), lr=0.1)
        schedule = kobai.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

        def step(x, t):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), t) * optimizer.param_groups[0]["lr"]
            loss.backward()
            optimizer.step()
            schedule.step()
            return loss

        run = kobai.capture(step, fallback=True) if capture else step
        return [run(*data()).item() for _ in range(6)]

    assert run(True) == run(False)


@pytest.mark.parametrize("others", [{}, {"first": 0.0}], ids=["alone", "beside another"])
def test_what_a_replayed_function_moves_on_and_the_step_reads(others) -> None:
    def run(capture: bool) -> list[float]:
        state = types.SimpleNamespace(**others, calls=0.0)
        model = net()
        optimizer = kobai.optim.SGD(model.parameters(), lr=0.1)

        def factor(epoch):
            state.calls += 1.0
            return 1.0

        schedule = kobai.optim.lr_scheduler.LambdaLR(optimizer, factor)

        def step(x, t):
            optimizer.zero_grad()
            loss = F.cross_entropy(model.eval()(x), t) * (state.calls + getattr(state, "first", 0.0))
            loss.backward()
            optimizer.step()
            schedule.step()
            return loss

        run = kobai.capture(step, fallback=True) if capture else step
        losses = [run(*data()).item() for _ in range(6)]
        if capture:
            assert "it reads SimpleNamespace.calls, which it moves on itself" in run.failure
        return losses

    assert run(True) == run(False)


# --- tensors, modules, optimizers -------------------------------------------------------------------------------------


def _double(module, args, output):
    return output * 2


CHANGES = {
    "a layer is frozen": lambda m, o: m[0].requires_grad_(False),
    "a parameter is frozen": lambda m, o: setattr(m[3].bias, "requires_grad", False),
    "a tensor's hook": lambda m, o: m[3].weight.register_hook(lambda g: g * 0.1),
    "a late hook": lambda m, o: m[3].weight.register_post_accumulate_grad_hook(lambda p: p.grad.mul_(0.1)),
    "a forward hook": lambda m, o: m[1].register_forward_hook(_double),
    "a pre-hook": lambda m, o: m[1].register_forward_pre_hook(lambda module, args: (args[0] * 2,)),
    "a backward hook": lambda m, o: m[1].register_full_backward_hook(lambda module, gi, go: (gi[0] * 2,)),
    "evaluation mode": lambda m, o: m.eval(),
    "the mode of one layer": lambda m, o: m[2].eval(),
    "dropout's rate": lambda m, o: setattr(m[2], "p", 0.7),
    "dropout's rate behind __setattr__": lambda m, o: vars(m[2]).update(p=0.7),
    "a replaced parameter": lambda m, o: setattr(m[3], "bias", nn.Parameter(kobai.ones(3))),
    "a replaced layer": lambda m, o: operator.setitem(m, 1, nn.ReLU()),
    "a layer more": lambda m, o: m.append(nn.ReLU()),
    "a layer less": lambda m, o: operator.delitem(m, 2),
    "another forward": lambda m, o: setattr(m[1], "forward", kobai.sigmoid),
    "weights loaded": lambda m, o: m.load_state_dict({k: v * 0.5 for k, v in m.state_dict().items()}),
    "weights assigned": lambda m, o: m.load_state_dict({k: v * 0.5 for k, v in m.state_dict().items()}, assign=True),
    "other memory": lambda m, o: setattr(m[0].weight, "data", m[0].weight.data * 0.5),
    "a learning rate": lambda m, o: o.param_groups[0].update(lr=0.01),
    "momentum": lambda m, o: o.param_groups[0].update(momentum=0.5),
    "weight decay": lambda m, o: o.param_groups[0].update(weight_decay=0.1),
    "a group more": lambda m, o: o.add_param_group({"params": [nn.Parameter(kobai.ones(3))], "lr": 0.5}),
    "other parameters": lambda m, o: o.param_groups[0].update(params=o.param_groups[0]["params"][:2]),
    "a parameter less": lambda m, o: o.param_groups[0]["params"].pop(),
    "a hook of the optimizer": lambda m, o: o.register_step_pre_hook(lambda *a: (m[0].weight.grad.mul_(0.1), None)[1]),
    "the optimizer's state": lambda m, o: o.load_state_dict(o.state_dict()),
}


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_model_acts(change: str, optimizer: str) -> None:
    if change == "momentum" and optimizer == "Adam":
        pytest.skip("Adam has none")

    def run(capture: bool) -> tuple:
        model = net()
        options = {"momentum": 0.9} if optimizer == "SGD" else {}
        made = getattr(kobai.optim, optimizer)(model.parameters(), lr=0.1, **options)
        trainer = Trainer(model, made, capture=capture)
        kobai.manual_seed(1)
        model.train()
        losses = [trainer.train_step(data()).item() for _ in range(4)]
        undo = CHANGES[change](model, made)
        losses += [trainer.train_step(data()).item() for _ in range(4)]
        if hasattr(undo, "remove"):
            undo.remove()
        losses += [trainer.train_step(data()).item() for _ in range(4)]
        assert trainer._captured.failure is None
        return losses, [p.detach().numpy().copy() for p in model.parameters()]

    (captured, weights), (plain, expected) = run(True), run(False)
    assert captured == plain
    for found, wanted in zip(weights, expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name", ["forward", "__call__"])
def test_a_method_that_a_class_of_layers_is_given(name: str) -> None:
    class Layer(nn.Tanh):
        pass

    layer = Layer()
    step = kobai.capture(lambda x: layer(x))
    for _ in range(3):
        step(kobai.ones(2))
    setattr(Layer, name, lambda self, x: x * 2)
    assert step(kobai.ones(2)).tolist() == [2.0, 2.0]


def test_a_method_that_one_layer_is_given_whose_members_the_step_names() -> None:
    layer = nn.Linear(2, 2)
    step = kobai.capture(lambda x: (layer(x) + layer.bias.sum() * 0).detach())
    for _ in range(3):
        step(kobai.ones(2))
    layer.forward = lambda x: x * 2
    assert step(kobai.ones(2)).tolist() == [2.0, 2.0]


def test_one_attribute_that_comes_for_another_of_the_same_value() -> None:
    thing = types.SimpleNamespace(a=2.0)
    step = kobai.capture(lambda x: x * getattr(thing, "a", 1.0) + getattr(thing, "b", 0.0))
    for _ in range(3):
        assert step(kobai.ones(1)).item() == 2.0
    del thing.a
    thing.b = 2.0
    assert step(kobai.ones(1)).item() == 3.0


def test_hooks_are_watched_where_their_table_is_replaced() -> None:
    model = net()
    model[1].register_forward_hook(_double)
    step = kobai.capture(lambda x: model(x).sum().detach())
    model.eval()
    before = [step(data()[0]).item() for _ in range(3)]
    model[1]._forward_hooks.clear()
    after = step(data()[0]).item()
    model[1]._forward_hooks = collections.OrderedDict()
    model[1].register_forward_hook(_double)
    assert [step(data()[0]).item()] == before[:1]
    assert after == model.__class__(*model)(data()[0]).sum().item() or after != before[0]

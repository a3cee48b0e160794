"""``kobai.capture``: replays equal eager steps bit for bit, and notice what changed."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from captured_steps import OPTIMIZERS, batches, both, net, training
from test_capture_refused import refused

import kobai
from kobai import nn
from kobai.engine import dispatch
from kobai.nn import functional as F
from kobai.optim import lr_scheduler

# --- replays equal eager steps bit for bit ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "batch norm", "layer norm", "tanh", "gelu", "dropout"])
def test_twelve_steps_of_a_net_equal_the_eager_ones(kind):
    both(training(kind), batches(12))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_twelve_steps_of_an_optimizer_equal_the_eager_ones(optimizer):
    _, _, captured = both(training(optimizer=optimizer), batches(12))
    assert captured.programs == 1


@pytest.mark.parametrize(
    "schedule",
    [
        lambda u: lr_scheduler.StepLR(u, 3),
        lambda u: lr_scheduler.CosineAnnealingLR(u, 10),
        lambda u: lr_scheduler.OneCycleLR(u, 0.1, 12),
        lambda u: lr_scheduler.SequentialLR(
            u, [lr_scheduler.LinearLR(u, 0.1), lr_scheduler.ExponentialLR(u, 0.9)], milestones=[4]
        ),
    ],
)
def test_a_schedule_steps_inside_the_captured_step(schedule):
    both(training(optimizer="adam", schedule=schedule), batches(12))


def test_gradient_clipping():
    both(training(optimizer="momentum", clip=0.1), batches(12))


def test_without_numba(monkeypatch):
    monkeypatch.setattr("kobai.engine.dispatch.numba_installed", False)
    for kind in ("plain", "batch norm", "layer norm", "gelu"):
        both(training(kind, "adam", clip=0.5), batches(6))


def test_short_last_batch_has_a_program_of_its_own():
    data = [*batches(3), *batches(1, rows=5), *batches(2), *batches(2, rows=5)]
    _, _, captured = both(training("batch norm", "adam"), data)
    assert captured.programs == 2


def test_gradients_may_be_reset_outside_and_accumulate_over_steps():
    def make():
        model = net()
        update = OPTIMIZERS["adam"](model.parameters())

        def backward(x, t):
            loss = F.cross_entropy(model(x), t)
            loss.backward()
            return loss

        made.append((model, update))
        return model, backward

    made: list = []
    data = batches(12)
    results = []
    for wrap in (lambda step: step, kobai.capture):
        kobai.manual_seed(3)
        model, step = make()
        step = wrap(step)
        update = made[-1][1]
        for i, batch in enumerate(data):
            step(*batch)
            if i % 3 == 2:
                update.step()
                update.zero_grad()
        results.append([np.array(p.array) for p in model.parameters()])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_convolutions_and_pooling():
    def make():
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
        )
        update = kobai.optim.Adam(model.parameters())

        def step(x, t):
            update.zero_grad()
            loss = F.cross_entropy(model(x.reshape(-1, 1, 6, 6)), t)
            loss.backward()
            update.step()
            return loss

        return model, step

    rng = np.random.default_rng(0)
    data = [
        (kobai.tensor(rng.standard_normal((8, 36)).astype("f")), kobai.tensor(rng.integers(0, 3, 8))) for _ in range(6)
    ]
    both(make, data)


def test_gradients_reset_by_the_module():
    model = net("dense")
    update = kobai.optim.SGD(model.parameters(), lr=0.1)

    @kobai.capture
    def step(x, t):
        model.zero_grad()
        F.cross_entropy(model(x), t).backward()
        update.step()

    for x, t in batches(24):  # more than the times that a step is recorded anew
        step(x, t)
    assert step.programs == 1


def test_recurrent_net_with_an_initial_state_made_inside():
    def make():
        cell, head = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 3)
        update = kobai.optim.SGD([*cell.parameters(), *head.parameters()], lr=0.1)

        def step(x, t):
            update.zero_grad()
            output, _ = cell(x.reshape(8, 1, 6).repeat(1, 4, 1))
            loss = F.cross_entropy(head(output[:, -1]), t)
            loss.backward()
            update.step()
            return loss

        return cell, step

    both(make, batches(6))


def test_a_step_without_gradients():
    model = net("batch norm").eval()

    @kobai.capture
    @kobai.no_grad()
    def predict(x):
        return {"scores": model(x), "classes": [model(x).argmax(1)]}

    for x, _ in batches(4):
        found = predict(x)
        with kobai.no_grad():
            assert kobai.equal(found["scores"], model(x))
            assert kobai.equal(found["classes"][0], model(x).argmax(1))


def test_results_are_copies():
    double = kobai.capture(lambda x: x * 2)
    results = [double(kobai.full((3,), float(i))) for i in range(5)]
    assert [r[0].item() for r in results] == [0, 2, 4, 6, 8]


@pytest.mark.skipif(not dispatch.numba_installed, reason="the loss's reference indexes, for which NumPy has no out=")
def test_no_array_is_allocated_after_warm_up():
    _, step = training("batch norm", "adam", clip=1.0)()
    captured = kobai.capture(step)
    x, t = batches(1, rows=64)[0]
    for _ in range(4):
        captured(x, t)
    (replay,) = next(iter(captured._programs.values()))
    tracemalloc.start()
    try:
        replay([x, t])
        before = tracemalloc.take_snapshot()
        for _ in range(5):
            replay([x, t])
        after = tracemalloc.take_snapshot()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        base, _ = tracemalloc.get_traced_memory()
        replay([x, t])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    grown = sum(max(entry.size_diff, 0) for entry in after.compare_to(before, "filename") if "kobai" in str(entry))
    assert grown < 2000
    assert peak - base < 4096, "a replay allocates"  # a 64 × 16 array has 4,096 bytes
    assert replay.run.__self__.allocating == []


def test_gradients_outlive_calls_of_a_program_that_was_recorded_before():
    """Programs share memory; what the later one leaves in ``.grad`` must not lie where the earlier one writes."""

    def run(wrap):
        kobai.manual_seed(0)
        model = net()
        optimizer = kobai.optim.SGD(model.parameters(), lr=0.1)

        def step(x, t, training):
            loss = F.cross_entropy(model(x), t)
            if training:
                loss.backward()
            return loss.detach()

        call, data = wrap(step), batches(12)
        for i, (x, t) in enumerate(data):
            call(x, t, i > 3)
            for other in data[:3]:
                call(*other, False)
            optimizer.step()
            optimizer.zero_grad()
        return [p.tolist() for p in model.parameters()]

    assert run(kobai.capture) == run(lambda step: step)


# --- what a program rests on ------------------------------------------------------------------------------------------


def test_training_and_evaluation_mode_are_told_apart():
    model = net("dropout")
    apply = kobai.capture(lambda x: model(x))
    x = kobai.ones(4, 6)
    with kobai.no_grad():
        for _ in range(3):
            assert not kobai.equal(apply(x), apply(x))
        model.eval()
        for _ in range(3):
            assert kobai.equal(apply(x), model(x))


def test_loading_another_state_is_noticed():
    kobai.manual_seed(0)
    model, step = training("batch norm", "adam")()
    captured = kobai.capture(step)
    data = batches(3)
    for batch in data:
        captured(*batch)
    model.load_state_dict({k: v.clone() for k, v in net("batch norm").state_dict().items()})
    before = [p.clone() for p in model.parameters()]
    captured(*data[0])
    assert not any(kobai.equal(p, q) for p, q in zip(model.parameters(), before, strict=True) if p.ndim == 2)


def test_a_parameter_with_other_memory_is_noticed():
    layer = nn.Linear(2, 1, bias=False)
    apply = kobai.capture(lambda x: layer(x).detach())
    x = kobai.ones(1, 2)
    for _ in range(3):
        apply(x)
    layer.weight.data = kobai.tensor([[3.0, 4.0]])
    assert apply(x).item() == 7
    layer.weight = nn.Parameter(kobai.tensor([[5.0, 6.0]]))
    assert apply(x).item() == 11


def test_an_attribute_of_a_module_that_changes_is_noticed():
    drop = nn.Dropout(0.5)
    apply = kobai.capture(lambda x: drop(x))
    x = kobai.ones(1000)
    for _ in range(3):
        apply(x)
    drop.p = 0.9
    assert apply(x).max().item() == pytest.approx(10)


def test_settings_of_the_optimizer_may_change_between_steps():
    def make():
        model = net()
        update = kobai.optim.Adam(model.parameters(), lr=0.01)

        def step(x, t):
            update.zero_grad()
            loss = F.cross_entropy(model(x), t)
            loss.backward()
            update.step()
            return loss

        made.append(update)
        return model, step

    made: list = []
    results = []
    for wrap in (lambda step: step, kobai.capture):
        kobai.manual_seed(3)
        model, step = make()
        step = wrap(step)
        for i, batch in enumerate(batches(12)):
            group = made[-1].param_groups[0]
            if i == 4:
                group["lr"] = 0.1
            if i == 6:
                group["betas"] = (0.5, 0.9)
            if i == 8:
                group["weight_decay"] = 0.1
            step(*batch)
        results.append([np.array(p.array) for p in model.parameters()])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_optimizers_loaded_state_is_the_one_that_is_updated():
    results = []
    for wrap in (lambda step: step, kobai.capture):
        kobai.manual_seed(3)
        model = net()
        update = kobai.optim.Adam(model.parameters(), lr=0.01)

        def step(x, t, model=model, update=update):
            update.zero_grad()
            loss = F.cross_entropy(model(x), t)
            loss.backward()
            update.step()
            return loss

        step = wrap(step)
        data = batches(8)
        for batch in data[:4]:
            step(*batch)
        update.load_state_dict(update.state_dict())
        for batch in data[4:]:
            step(*batch)
        results.append([np.array(p.array) for p in model.parameters()] + [update.state_dict()["state"][0]["step"]])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_seeding_anew_gives_the_same_masks_again():
    drop = kobai.capture(lambda x: F.dropout(x, 0.5))
    x = kobai.ones(100)
    for _ in range(3):
        drop(x)
    kobai.manual_seed(5)
    first = drop(x)
    kobai.manual_seed(5)
    assert kobai.equal(drop(x), first)
    kobai.manual_seed(6)
    assert not kobai.equal(drop(x), first)


# --- on a device ------------------------------------------------------------------------------------------------------


def test_the_rules_hold_on_strict_too():
    with kobai.using("strict"):
        x = kobai.ones(3)
        refused(lambda x: x * x.sum().item(), "item.. reads a value of shape", x)
        refused(lambda x: kobai.tensor(x.cpu().tolist()) * 1, "copy to the host reads a value", x)
        refused(lambda x: x + kobai.randn(3), "drawn on the host", x)


@pytest.mark.parametrize("kind", ["plain", "batch norm", "layer norm", "gelu", "dropout"])
def test_a_training_step_keeps_the_rules(kind):
    with kobai.using("strict"):
        both_hosts = []
        for wrap in (lambda step: step, kobai.capture):
            kobai.manual_seed(3)
            _, step = training(kind, "adam", clip=1.0)()
            step = wrap(step)
            losses = [step(x.to("strict"), t.to("strict")).item() for x, t in batches(5)]
            both_hosts.append(losses)
    assert both_hosts[0] == both_hosts[1]

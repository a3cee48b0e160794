"""``kobai.capture``: replays equal eager steps, notice what changed, and refuse what they could not repeat."""

from __future__ import annotations

import logging
import threading
import tracemalloc

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.engine import dispatch
from kobai.errors import CaptureError
from kobai.nn import functional as F
from kobai.optim import lr_scheduler

OPTIMIZERS = {
    "sgd": lambda p: kobai.optim.SGD(p, lr=0.05),
    "momentum": lambda p: kobai.optim.SGD(p, lr=0.05, momentum=0.9, dampening=0.1, weight_decay=1e-3),
    "nesterov": lambda p: kobai.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, maximize=False),
    "adagrad": lambda p: kobai.optim.Adagrad(p, lr=0.05),
    "rmsprop": lambda p: kobai.optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "adadelta": lambda p: kobai.optim.Adadelta(p),
    "adam": lambda p: kobai.optim.Adam(p, lr=0.01, weight_decay=1e-3),
    "amsgrad": lambda p: kobai.optim.Adam(p, lr=0.01, amsgrad=True),
    "adamw": lambda p: kobai.optim.AdamW(p, lr=0.01),
    "adamax": lambda p: kobai.optim.Adamax(p, lr=0.01),
    "nadam": lambda p: kobai.optim.NAdam(p, lr=0.01),
    "radam": lambda p: kobai.optim.RAdam(p, lr=0.01),
    "rprop": lambda p: kobai.optim.Rprop(p, lr=0.01),
    "asgd": lambda p: kobai.optim.ASGD(p, lr=0.01),
}


def net(kind: str = "plain", width: int = 16) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in in (6, width):
        layers.append(nn.Linear(fan_in, width))
        layers += (
            [nn.BatchNorm1d(width)] if kind == "batch norm" else [nn.LayerNorm(width)] if kind == "layer norm" else []
        )
        layers.append({"tanh": nn.Tanh(), "gelu": nn.GELU()}.get(kind, nn.ReLU()))
        layers += [nn.Dropout(0.3)] if kind == "dropout" else []
    return nn.Sequential(*layers, nn.Linear(width, 3))


def batches(n: int, rows: int = 8) -> list:
    rng = np.random.default_rng(1)
    return [
        (kobai.tensor(rng.standard_normal((rows, 6)).astype("f")), kobai.tensor(rng.integers(0, 3, rows)))
        for _ in range(n)
    ]


def both(make, data) -> tuple[list, list, object]:
    """(losses, model state) of the same steps without and with capture, and the captured step."""
    found = []
    captured = None
    for wrap in (lambda step: step, kobai.capture):
        kobai.manual_seed(3)
        model, step = make()
        step = captured = wrap(step)
        losses = [step(*batch).item() for batch in data]
        found.append((losses, {k: np.array(v.array) for k, v in model.state_dict().items()}))
    (losses, state), (again, state_again) = found
    assert losses == again
    for name in state:
        np.testing.assert_array_equal(state[name], state_again[name], err_msg=name)
    return losses, again, captured


def training(kind="plain", optimizer="sgd", clip=None, schedule=None):
    def make():
        model = net(kind)
        update = OPTIMIZERS[optimizer](model.parameters())
        scheduler = schedule(update) if schedule else None

        def step(x, t):
            update.zero_grad()
            loss = F.cross_entropy(model(x), t)
            loss.backward()
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            update.step()
            if scheduler:
                scheduler.step()
            return loss

        return model, step

    return make


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


# --- what cannot be captured ------------------------------------------------------------------------------------------


def refused(step, message, *args):
    captured = kobai.capture(step)
    args = args or (kobai.ones(3),)
    captured(*args)
    with pytest.raises(CaptureError, match=message) as error:
        captured(*args)
    return str(error.value)


def test_host_reads_are_refused_with_the_place():
    message = refused(lambda x: x * x.sum().item(), "item.. reads a value of shape")
    assert "test_capture.py:" in message
    refused(lambda x: x if x.sum() > 0 else -x, "reads a value")
    refused(lambda x: kobai.tensor(float(x.sum())), "reads a value")
    refused(lambda x: x.tolist() and x, "tolist")
    refused(lambda x: kobai.from_numpy(np.exp(x.numpy())), "copy to the host|numpy")


def test_sizes_that_depend_on_values_are_refused():
    refused(lambda x: x[x > 0], "boolean mask")
    refused(lambda x: x.nonzero(), "depends on values")
    refused(lambda x: x.unique(), "depends on values|reads a value")


def test_arrays_from_elsewhere_and_random_numbers_of_the_host_are_refused():
    refused(lambda x: x + kobai.tensor([1.0, 2.0, 3.0]), "made on the host")
    refused(lambda x: x + kobai.from_numpy(np.ones(3, "f")), "made on the host")
    refused(lambda x: x + kobai.randn(3), "drawn on the host")


def test_a_state_that_is_bound_anew_is_refused():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", kobai.zeros(3))

        def forward(self, x):
            self.seen = self.seen + x
            return self.seen * 1

    refused(Counter(), "seen was bound to a new tensor")


def test_data_of_a_tensor_from_outside_may_not_be_replaced():
    w = kobai.ones(3)

    def step(x):
        w.data = x * 2
        return w * 1

    refused(step, "other memory")


def test_arguments_that_require_gradients_and_results_that_wait_for_backward_are_refused():
    w = kobai.ones(3, requires_grad=True)
    with pytest.raises(CaptureError, match="argument requires a gradient"):
        kobai.capture(lambda x: x.detach() * 2)(w)
    with pytest.raises(CaptureError, match="waits for backward"):
        kobai.capture(lambda x: (x * w).exp())(kobai.ones(3))


def test_numpy_arguments_are_refused():
    with pytest.raises(TypeError, match="from_numpy"):
        kobai.capture(lambda x: x)(np.ones(3))


def test_an_argument_that_changes_at_every_call_is_named():
    scale = kobai.capture(lambda x, factor: x * factor)
    for i in range(33):
        scale(kobai.ones(2), float(i))
    with pytest.raises(CaptureError, match="more than 32 signatures"):
        scale(kobai.ones(2), 33.0)


def test_fallback_finishes_the_step_and_warns_once(caplog):
    def step(x):
        total.add_(x.sum())
        return x * (2 if x.sum().item() > 0 else 3)

    total = kobai.zeros(())
    captured = kobai.capture(step, fallback=True)
    with caplog.at_level(logging.WARNING, logger="kobai"):
        results = [captured(kobai.ones(2)) for _ in range(5)]
    assert all(r.tolist() == [2, 2] for r in results)
    assert total.item() == 10
    assert len(caplog.records) == 1
    assert "item()" in caplog.text
    assert "test_capture.py" in caplog.text
    assert captured.failure is not None


def test_an_error_inside_the_step_leaves_everything_usable():
    layer = nn.Linear(3, 3)

    def step(x, fail):
        y = layer(x)
        if fail:
            raise ValueError("no")
        return y.detach()

    captured = kobai.capture(step)
    captured(kobai.ones(1, 3), False)
    with pytest.raises(ValueError, match="no"):
        captured(kobai.ones(1, 3), True)
    assert type(layer.weight.array) is np.ndarray
    assert kobai.equal(captured(kobai.ones(1, 3), False), layer(kobai.ones(1, 3)).detach())


def test_an_index_out_of_range_raises_in_replays_too():
    layer = nn.Linear(3, 3)

    @kobai.capture
    def step(x, t):
        return F.cross_entropy(layer(x), t).detach()

    good, bad = kobai.tensor([0, 1]), kobai.tensor([0, 7])
    for _ in range(3):
        step(kobai.ones(2, 3), good)
    with pytest.raises(IndexError):
        step(kobai.ones(2, 3), bad)


@pytest.mark.parametrize(
    "moment", ["before backward", "after backward", "of the rate", "on the host", "after zero_grad"]
)
def test_a_replay_that_fails_leaves_the_gradients_of_the_step_so_far(moment):
    def run(wrap):
        kobai.manual_seed(0)
        layer = nn.Linear(3, 3)
        optimizer = kobai.optim.SGD(layer.parameters(), lr=0.1)
        schedule = lr_scheduler.LambdaLR(optimizer, lambda epoch: None if epoch == 5 and moment == "on the host" else 1)
        good, bad = kobai.tensor([0, 1]), kobai.tensor([0, 7])

        def step(x, first, second):
            loss = F.cross_entropy(layer(x), first)
            loss.backward()
            if moment == "after zero_grad":
                optimizer.zero_grad()
            other = F.cross_entropy(x, second)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            return other

        call = wrap(step)
        for _ in range(3):
            call(kobai.ones(2, 3), good, good)
        layer.weight.grad = kobai.ones(3, 3)
        call(kobai.ones(2, 3), good, good)
        if moment == "of the rate":
            optimizer.param_groups[0]["lr"] = None
        with pytest.raises((IndexError, TypeError, ValueError)):
            call(
                kobai.ones(2, 3),
                bad if moment == "before backward" else good,
                bad if moment in ("after backward", "after zero_grad") else good,
            )
        return [None if p.grad is None else p.grad.tolist() for p in layer.parameters()]

    assert run(kobai.capture) == run(lambda step: step)


def test_other_threads_go_on_undisturbed_while_a_step_is_recorded():
    layer = nn.Linear(64, 64)
    stop = threading.Event()
    errors: list = []

    def other():
        x = kobai.ones(8, 64)
        while not stop.is_set():
            try:
                (x * 2).sum().item()
            except Exception as error:
                errors.append(error)
                return

    thread = threading.Thread(target=other)
    thread.start()
    try:
        for _ in range(30):
            captured = kobai.capture(lambda x: layer(x).detach())
            for _ in range(3):
                captured(kobai.ones(8, 64))
    finally:
        stop.set()
        thread.join()
    assert not errors


def test_steps_within_steps_are_part_of_the_outer_one():
    inner = kobai.capture(lambda x: x + 1)
    outer = kobai.capture(lambda x: inner(x) * 2)
    assert [outer(kobai.full((1,), float(i))).item() for i in range(5)] == [2, 4, 6, 8, 10]


def test_repr_and_attributes():
    step = kobai.capture(lambda x: x * 2)
    step(kobai.ones(4))
    assert step.programs == 0
    step(kobai.ones(4))
    assert step.programs == 1
    assert step.bytes > 0
    assert "1 programs" in repr(step)
    with pytest.raises(TypeError, match="expected a function"):
        kobai.capture(3)


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

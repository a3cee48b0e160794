"""``kobai.capture``: what cannot be captured, and what is left where a step fails."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.errors import CaptureError
from kobai.nn import functional as F
from kobai.optim import lr_scheduler

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
    assert "test_capture_refused.py:" in message
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
    assert "test_capture_refused.py" in caplog.text
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

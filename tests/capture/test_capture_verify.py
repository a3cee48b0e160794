"""``capture(verify=n)``: what guards would miss is found, named, and leaves everything as it was."""

from __future__ import annotations

import random
import time
import types

import numpy as np
import pytest

import capture_fuzz
import kobai
import step_sequences
from kobai import nn
from kobai.capture import guards, session, step as capture_step
from kobai.errors import CaptureError
from kobai.nn import functional as F
from kobai.optim import lr_scheduler
from kobai.train import Trainer

X = np.random.default_rng(0).standard_normal((8, 6)).astype("f")
T = np.array([0, 1, 2, 0, 1, 2, 0, 1])


@pytest.fixture
def unguarded(monkeypatch):
    """Programs hold whatever changes, as if nothing were watched."""
    monkeypatch.setattr(session.Replay, "holds", lambda self: True)


class Program:
    """A step that rests on many things, captured."""

    def __init__(self, verify=1, optimizer="Adam"):
        kobai.manual_seed(2)
        self.model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.25), nn.Linear(5, 3))
        self.optimizer = getattr(kobai.optim, optimizer)(self.model.parameters(), lr=0.02)
        self.schedule = lr_scheduler.StepLR(self.optimizer, 2)
        self.config = types.SimpleNamespace(weight=1.0)
        self.counts = {"steps": 0}
        self.counting = False
        self.raises = False
        self.call = kobai.capture(self.step, verify=verify)
        self.batch = kobai.from_numpy(X), kobai.from_numpy(T)

    def step(self, x, t):
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(x), t) * self.config.weight
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        if self.counting:
            self.counts["steps"] += 1
        if self.raises:
            raise ValueError("as asked for")
        return {"loss": loss.detach()}

    def steps(self, n):
        return [self.call(*self.batch)["loss"].item() for _ in range(n)]

    def state(self):
        """All that a step changes, as bytes."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        tensors += [p.grad for p in self.model.parameters()]
        found = [None if t is None else t.array.tobytes() for t in tensors]
        for values in self.optimizer.state.values():
            found += [v.array.tobytes() if isinstance(v, kobai.Tensor) else v for v in values.values()]
        rates = [group["lr"] for group in self.optimizer.param_groups]
        return (
            found,
            rates,
            self.schedule.last_epoch,
            repr(kobai.get_rng_state()),
            self.counts["steps"],
            random.getstate(),
        )


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_a_verified_step_is_the_step(optimizer):
    verified = Program(1, optimizer)
    losses, state = verified.steps(8), verified.state()
    plain = Program(0, optimizer)
    assert plain.steps(8) == losses
    assert plain.state() == state


def test_only_every_nth_replay_is_verified(monkeypatch):
    audits = []
    real = capture_step.audited
    monkeypatch.setattr(capture_step, "audited", lambda *args: audits.append(1) or real(*args))
    Program(3).steps(12)  # the first three calls make the state, settle and record
    assert 2 <= len(audits) <= 3


def freeze(p):
    p.model[0].weight.requires_grad_(False)


def hook(p):
    p.model[3].bias.register_hook(lambda g: g * 2)


def weight(p):
    p.config.weight = 0.5


def evaluation(p):
    p.model.eval()


def forward_hook(p):
    p.model[3].register_forward_hook(lambda m, i, o: o * 2)


def other_parameter(p):
    p.model[3].bias = nn.Parameter(kobai.ones(3))


def rate_of_dropout(p):
    p.model[2].p = 0.75


def betas(p):
    p.optimizer.param_groups[0]["weight_decay"] = 0.5


def counter(p):
    p.counting = True


def momentum(p):
    p.model[1].momentum = 0.9


@pytest.mark.parametrize(
    ("change", "tensor", "cause"),
    [
        (freeze, "'0.weight' of Sequential", "requires_grad has changed"),
        (hook, "'3.bias' of Sequential|gradient of", "hook"),
        (weight, "result 0: ", "weight has changed"),
        (evaluation, "result 0: ", "training has changed"),
        (forward_hook, "result 0: ", "hook|Linear"),
        (other_parameter, "result 0: ", "has changed"),
        (rate_of_dropout, "result 0: ", "Dropout.p has changed"),
        (betas, "parameter '0.weight' of Sequential", "Python has changed|weight_decay"),
        (counter, "steps: 0, and 1", "counting has changed"),
        (momentum, "buffer '1.running_mean' of Sequential", "BatchNorm1d.momentum has changed"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_staleness_is_found_and_named(unguarded, change, tensor, cause):
    program = Program()
    program.steps(6)
    change(program)
    before = program.state()
    with pytest.raises(CaptureError, match=tensor) as error:
        program.steps(1)
    assert "differs from the step itself" in str(error.value)
    assert "The likeliest cause" in str(error.value)
    with pytest.raises(CaptureError, match=cause):
        program.steps(1)
    assert program.state() == before


def test_a_step_that_comes_to_something_else_each_time_is_told_apart(unguarded, monkeypatch):
    monkeypatch.setattr(guards.Guards, "all_entries", lambda self: [])  # as if it were read where nothing looks
    clock, drawn = [], []

    def step(x):
        return x * (time.perf_counter_ns() % 999_983 if clock else 0.5) * (random.random() if drawn else 1.0)

    call = kobai.capture(step, verify=1)
    x = kobai.ones(3)
    for _ in range(4):
        call(x)
    clock.append(1)
    with pytest.raises(CaptureError, match=r"result 0: .*something else each time it is run"):
        call(x)
    clock.clear()
    drawn.append(1)
    with pytest.raises(CaptureError, match=r"has changed since it was recorded .*test_capture_verify.py:"):
        call(x)


def test_an_error_of_the_step_leaves_everything_as_it_was(unguarded):
    program = Program()
    program.steps(6)
    program.raises = True
    before = program.state()
    with pytest.raises(CaptureError, match="itself raises ValueError: as asked for, where its replay goes on"):
        program.steps(1)
    assert program.state() == before
    program.raises = False
    goes_on = program.steps(3)
    assert goes_on == Program(0).steps(9)[6:]


def test_an_error_that_the_replay_raises_too_is_the_error():
    layer = nn.Linear(3, 3)
    step = kobai.capture(lambda x, t: F.cross_entropy(layer(x), t).detach(), verify=1)
    for _ in range(4):
        step(kobai.ones(2, 3), kobai.tensor([0, 1]))
    with pytest.raises(IndexError):
        step(kobai.ones(2, 3), kobai.tensor([0, 7]))


def test_writing_into_an_argument_is_found():
    def step(x):
        x.mul_(2)
        return x + 1

    call = kobai.capture(step, verify=1)
    call(kobai.ones(3))
    call(kobai.ones(3))
    with pytest.raises(CaptureError, match="argument 0: 1, and 2"):
        call(kobai.ones(3))


def test_trainer_passes_it_on(unguarded):
    kobai.manual_seed(0)
    model = nn.Linear(6, 3)
    trainer = Trainer(model, kobai.optim.SGD(model.parameters(), lr=0.1), verify_capture=1)
    batch = kobai.from_numpy(X), kobai.from_numpy(T)
    trainer.fit([batch] * 5, epochs=1)
    model.bias.requires_grad_(False)
    with pytest.raises(CaptureError, match="'bias' of Linear"):
        trainer.fit([batch] * 5, epochs=2)


def test_what_verify_may_be():
    for wrong in (-1, 1.5, True, "1"):
        with pytest.raises(ValueError, match="expected verify as an integer >= 0 or None"):
            kobai.capture(lambda x: x, verify=wrong)
    assert kobai.capture(lambda x: x, verify=0).verify == 0


@pytest.mark.thorough
def test_verifying_changes_nothing_in_random_sequences():
    for seed in range(10_000, 10_030):
        sequence = step_sequences.draw(seed)
        plain, verified = capture_fuzz.Run(sequence, True), capture_fuzz.Run(sequence, True, verify=1)
        found = capture_fuzz.compare(plain, verified)
        assert found is None, capture_fuzz.described(sequence, found)

"""Warm-up runs all that training runs, and leaves nothing changed but what is compiled."""

import pytest

import kobai
from kobai import nn
from kobai.engine import notices
from kobai.train.warmup import warmup


def problem(**options):
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    optimizer = kobai.optim.Adam(model.parameters(), **options)
    return model, optimizer, (kobai.randn(16, 4), kobai.zeros(16, dtype=kobai.int64))


def test_model_optimizer_and_random_numbers_stay_as_they_are():
    model, optimizer, batch = problem()
    model[0].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = kobai.get_rng_state()
    modes = [module.training for module in model.modules()]
    warmup(model, optimizer, [batch], metrics=["accuracy"], clip_grad_norm=1.0)
    assert all(kobai.equal(value, before[name]) for name, value in model.state_dict().items())
    assert kobai.get_rng_state() == random
    assert [module.training for module in model.modules()] == modes
    assert not optimizer.state
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("capture", [True, False])
def test_all_of_a_training_is_run(capture):
    model, optimizer, batch = problem()
    seen = []
    model[0].register_forward_hook(lambda module, args, output: seen.append((module.training, len(output))))
    losses = []

    def loss_fn(output, target):
        losses.append(output.requires_grad)
        return nn.functional.cross_entropy(output, target)

    warmup(model, optimizer, [batch, [t[:5] for t in batch]], loss_fn, capture=capture)
    assert {(True, 16), (True, 5), (False, 16), (False, 5)} <= set(seen)
    assert {True, False} == set(losses)


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", kobai.bfloat16), ("fp16", kobai.float16)])
def test_in_the_precision_of_the_training(precision, dtype):
    model, optimizer, batch = problem()
    seen = []
    model[0].register_forward_hook(lambda module, args, output: seen.append((module.training, output.dtype)))
    warmup(model, optimizer, [batch], precision=precision)
    assert set(seen) == {(True, dtype), (False, kobai.float32)}


def test_callbacks_see_the_steps_of_the_copies():
    model, optimizer, batch = problem()
    seen = []

    class Watch(kobai.train.Callback):
        def on_batch_end(self, trainer):
            seen.append((trainer.model is model, len(trainer.batch[0])))

    warmup(model, optimizer, [batch], callbacks=[Watch()])
    assert seen == [(False, 16)] * 3


def test_kernels_are_told_to_the_listener_and_in_the_result():
    model, optimizer, batch = problem()

    def loss_fn(output, target):
        with notices.compiling("a kernel"):
            return nn.functional.cross_entropy(output, target)

    heard = []
    done = warmup(model, optimizer, [batch], loss_fn, capture=False, listener=lambda *what: heard.append(what))
    assert done.kernels["a kernel"] > 0
    assert done.seconds >= done.kernels["a kernel"]
    assert ("a kernel", None) in heard
    assert notices.listeners == []


def test_errors_leave_the_random_numbers_alone():
    model, optimizer, (x, t) = problem()
    random = kobai.get_rng_state()
    with pytest.raises(RuntimeError, match="linear"):
        warmup(model, optimizer, [(x[:, :3], t)])
    assert kobai.get_rng_state() == random

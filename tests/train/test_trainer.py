"""The training loop, evaluation and prediction."""

import numpy as np
import pytest
from small_problem import Problem, timeless

import kobai
from kobai import nn
from kobai.errors import CheckpointError, DataError
from kobai.optim import lr_scheduler
from kobai.train import Accuracy, Callback, Trainer
from kobai.utils.data import DataLoader, TensorDataset


def test_fit_learns_and_keeps_a_history(problem):
    history = problem.trainer().fit(problem.train, problem.held, epochs=30)
    assert [record["epoch"] for record in history] == list(range(1, 31))
    assert list(history[0]) == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "lr", "time"]
    assert history[-1]["val_accuracy"] > 0.85
    assert not problem.model.training


def test_equal_seeds_give_equal_runs():
    runs = []
    for _ in range(2):
        problem = Problem()
        history = problem.trainer().fit(problem.train, problem.held, epochs=4)
        runs.append((timeless(history), {k: v.tobytes() for k, v in problem.parameters.items()}))
    assert runs[0] == runs[1]


def test_a_loop_by_hand_gives_the_same():
    problem, by_hand = Problem(), Problem()
    kobai.manual_seed(3)
    problem.trainer().fit(problem.train, epochs=2)
    kobai.manual_seed(3)
    by_hand.model.train()
    for _ in range(2):
        for x, t in by_hand.train:
            by_hand.optimizer.zero_grad()
            nn.functional.cross_entropy(by_hand.model(x), t).backward()
            by_hand.optimizer.step()
    assert all((by_hand.parameters[k] == v).all() for k, v in problem.parameters.items())


def test_evaluate_and_predict_change_nothing(problem):
    problem.model.train()
    problem.model[1].eval()
    before = problem.parameters
    trainer = problem.trainer()
    found = trainer.evaluate(problem.data)
    outputs = trainer.predict(problem.held)
    assert not outputs.requires_grad
    right = (outputs.numpy().argmax(1) == problem.data.tensors[1].numpy()).mean()
    assert found["accuracy"] == pytest.approx(right)
    assert found["loss"] == pytest.approx(
        nn.functional.cross_entropy(outputs, problem.data.tensors[1]).item(), rel=1e-5
    )
    np.testing.assert_array_equal(outputs.numpy(), trainer.predict(problem.data.tensors[0]).numpy())
    assert all((problem.parameters[k] == v).all() for k, v in before.items())
    assert problem.model.training
    assert not problem.model[1].training


def test_evaluation_in_the_midst_of_an_epoch_leaves_its_metrics_alone():
    class Nosy(Callback):
        def on_batch_end(self, trainer):
            trainer.evaluate(problem.data)

    plain = Problem()
    expected = plain.trainer().fit(plain.train, epochs=2)
    problem = Problem()
    assert timeless(problem.trainer(Nosy()).fit(problem.train, epochs=2)) == timeless(expected)


def test_several_inputs_and_another_loss():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 1)

        def forward(self, a, b):
            return self.linear(a + b)

    a, b = kobai.randn(40, 2), kobai.randn(40, 2)
    data = TensorDataset(a, b, (a + b).sum(1, keepdim=True))
    model = Sum()
    trainer = Trainer(model, kobai.optim.SGD(model.parameters(), lr=0.1), nn.MSELoss(), metrics=["mse", "mae"])
    history = trainer.fit(DataLoader(data, batch_size=10), data, epochs=30)
    assert history[-1]["val_mse"] < 1e-3
    assert history[-1]["loss"] == pytest.approx(history[-1]["mse"], rel=1e-5)
    assert trainer.predict(data).shape == (40, 1)


def test_schedule_steps_by_epoch_or_batch_or_plateau(problem):
    scheduler = lr_scheduler.StepLR(problem.optimizer, step_size=1, gamma=0.5)
    history = problem.trainer(scheduler=scheduler).fit(problem.train, epochs=3)
    assert [record["lr"] for record in history] == [0.02, 0.01, 0.005]

    other = Problem()
    scheduler = lr_scheduler.OneCycleLR(other.optimizer, max_lr=0.1, total_steps=12)
    trainer = other.trainer(scheduler=scheduler)
    assert trainer.scheduler_interval == "batch"
    trainer.fit(other.train, epochs=2)
    assert scheduler.last_epoch == 12

    flat = Problem()
    scheduler = lr_scheduler.ReduceLROnPlateau(flat.optimizer, factor=0.1, patience=0, mode="max", threshold=10)
    history = flat.trainer(scheduler=scheduler, monitor="val_accuracy").fit(flat.train, flat.held, epochs=3)
    assert [record["lr"] for record in history] == pytest.approx([0.02, 0.02, 0.002])


def test_clipping_limits_the_step(problem):
    model = nn.Linear(2, 2)
    trainer = Trainer(model, kobai.optim.SGD(model.parameters(), lr=1.0), clip_grad_norm=1e-3)
    before = model.weight.detach().clone()
    trainer.fit(DataLoader(problem.data, batch_size=48), epochs=1)
    assert 0 < (model.weight - before).norm().item() <= 1e-3 * 1.01


def test_fit_again_goes_on(problem):
    trainer = problem.trainer()
    trainer.fit(problem.train, epochs=2)
    trainer.fit(problem.train, epochs=5)
    whole = Problem()
    expected = whole.trainer().fit(whole.train, epochs=5)
    assert timeless(trainer.history) == timeless(expected)
    assert len(trainer.fit(problem.train, epochs=3)) == 5


@pytest.mark.parametrize("where", ["numpy", "strict"])
def test_trains_where_the_backend_refuses_implicit_reads(where):
    with kobai.using(where):
        problem = Problem()
        history = problem.trainer(clip_grad_norm=1.0).fit(problem.train, problem.held, epochs=2)
    host = Problem()
    expected = host.trainer(clip_grad_norm=1.0).fit(host.train, host.held, epochs=2)
    assert history[-1]["loss"] == pytest.approx(expected[-1]["loss"], rel=1e-4)
    # The gradient of a bias before batch normalisation is rounding noise, which Adam scales up; only running means see it.
    assert history[-1]["val_loss"] == pytest.approx(expected[-1]["val_loss"], rel=1e-2)


def test_bad_input(problem):
    trainer = problem.trainer()
    with pytest.raises(DataError, match="gave no batch"):
        trainer.fit(DataLoader(TensorDataset(kobai.zeros(0, 2), kobai.zeros(0))), epochs=1)
    with pytest.raises(DataError, match="validation data gave no batch"):
        trainer.fit(problem.train, TensorDataset(kobai.zeros(0, 2), kobai.zeros(0)), epochs=1)
    with pytest.raises(DataError, match="gave no batch"):
        trainer.predict(kobai.zeros(0, 2))
    with pytest.raises(TypeError, match="expected a loader of batches, got a TensorDataset"):
        trainer.fit(problem.data, epochs=1)
    with pytest.raises(TypeError, match=r"batches \(input, ..., target\), got Tensor"):
        problem.trainer().fit([kobai.zeros(2, 2)], epochs=1)
    with pytest.raises(TypeError, match="got 1 of them"):
        problem.trainer().fit([[kobai.zeros(2, 2)]], epochs=1)
    for epochs in (-1, 2.0, True):
        with pytest.raises(ValueError, match="epochs as an integer >= 0"):
            trainer.fit(problem.train, epochs=epochs)
    trainer.fit(problem.train, epochs=1)
    with pytest.raises(ValueError, match="no value 'val_loss' in an epoch's record"):
        trainer.monitored("val_loss")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"model": lambda x: x}, "kobai.nn.Module as model, got function"),
        ({"optimizer": "adam"}, "kobai.optim.Optimizer, got str"),
        ({"scheduler": "cosine"}, "expected a schedule"),
        ({"scheduler_interval": "step"}, "'epoch' or 'batch', got 'step'"),
        ({"clip_grad_norm": 0.0}, "clip_grad_norm > 0"),
        ({"callbacks": [print]}, "Callback objects"),
        ({"metrics": [Accuracy(), "accuracy"]}, "a name of its own"),
    ],
)
def test_constructor_refuses(problem, options, error):
    arguments = {"model": problem.model, "optimizer": problem.optimizer, **options}
    with pytest.raises((TypeError, ValueError), match=error):
        Trainer(**arguments)


def test_plateau_cannot_step_by_batch(problem):
    scheduler = lr_scheduler.ReduceLROnPlateau(problem.optimizer)
    with pytest.raises(ValueError, match="whole epochs"):
        problem.trainer(scheduler=scheduler, scheduler_interval="batch")


def test_state_of_another_shape_is_refused(problem):
    state = problem.trainer().state_dict()
    model = nn.Linear(2, 2)
    other = Trainer(model, kobai.optim.Adam(model.parameters()))
    with pytest.raises(CheckpointError, match="does not fit"):
        other.load_state_dict(state)
    scheduled = Trainer(model, other.optimizer, scheduler=lr_scheduler.StepLR(other.optimizer, 1))
    with pytest.raises(CheckpointError, match="has no learning-rate schedule"):
        scheduled.load_state_dict(state)


# --- precision --------------------------------------------------------------------------------------------------------


def _trained(precision, **options):
    kobai.manual_seed(0)
    x = kobai.randn(64, 4)
    data = TensorDataset(x, (x[:, 0] > x[:, 1]).long())
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    trainer = Trainer(model, kobai.optim.Adam(model.parameters(), lr=0.02), precision=precision, **options)
    seen = []
    handle = model.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    trainer.train_step(data[:16])
    handle.remove()
    trainer.fit(DataLoader(data, batch_size=16), epochs=6)
    return trainer, seen[0]


@pytest.mark.parametrize("capture", [False, True])
def test_precisions_train_and_parameters_stay_float32(capture):
    plain, _ = _trained("fp32", capture=capture)
    for precision, dtype in (("tf32", kobai.float32), ("bf16", kobai.bfloat16), ("fp16", kobai.float16)):
        trainer, seen = _trained(precision, capture=capture, clip_grad_norm=5.0)
        assert seen == dtype
        assert all(p.dtype == kobai.float32 for p in trainer.model.parameters())
        assert trainer.history[-1]["loss"] == pytest.approx(plain.history[-1]["loss"], rel=0.1)
        assert kobai.get_float32_matmul_precision() == "highest"
    with pytest.raises(ValueError, match=r"Trainer: expected precision fp32, tf32, bf16, fp16, got 'bf61'"):
        _trained("bf61")

"""``diagnose``, ``treat``, ``Doctor`` and ``kobai diagnose``: that they touch nothing, say enough, and refuse clearly."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from small_nets import Called, batch, net

import kobai
from kobai import nn
from kobai.lab import Doctor, diagnose, treat
from kobai.lab.doctor.cures import Patient, normalise
from kobai.lab.doctor.diseases import DISEASES
from kobai.nn import functional as F
from kobai.train import Trainer
from kobai.utils.data import DataLoader, TensorDataset


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Doctor has the time for all its looks, however short the training and slow the machine."""
    monkeypatch.setattr(Doctor, "_clock", staticmethod(float))


class Several(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, x: Any) -> Any:
        return self.net(x), x


class Sequence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(5, 16, 2, batch_first=True, dropout=0.2), nn.Linear(16, 4)

    def forward(self, x: Any) -> Any:
        return self.head(self.rnn(x.reshape(x.shape[0], 4, 5))[0][:, -1])


def weight_normed() -> nn.Module:
    model = net()
    nn.utils.weight_norm(model[1])
    model(batch()[0])  # keeps a weight with a tape
    return model


@pytest.mark.parametrize(
    "make",
    [
        lambda: net("normal(0.01)", dropout=0.5, batch_norm=True),
        Sequence,
        lambda: Called(F.relu, -10.0),
        weight_normed,
        lambda: net("constant(nan)"),
    ],
    ids=["dense", "recurrent", "functions", "weight norm", "NaN"],
)
def test_everything_of_the_user_stays_as_it_is(make: Any) -> None:
    model = make()
    model.modules_called = []
    next(model.children()).register_forward_hook(lambda *_: None)
    next(iter(model.parameters())).requires_grad_(False)
    optimizer = kobai.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    F.cross_entropy(model(batch()[0]), batch()[1]).backward()
    optimizer.step()
    model.eval()
    next(model.children()).train()

    def state() -> list[Any]:
        hooks = [
            [list(value) for name, value in vars(m).items() if "hooks" in name and isinstance(value, dict)]
            for m in model.modules()
        ]
        arrays = [*model.state_dict().values(), *[p.grad for p in model.parameters() if p.grad is not None]]
        arrays += [v for p in optimizer.state for v in optimizer.state[p].values() if isinstance(v, kobai.Tensor)]
        return [
            [(id(a), a.numpy().tobytes()) for a in (v.detach() for v in arrays)][len(model.state_dict()) :],
            [v.detach().numpy().tobytes() for v in model.state_dict().values()],
            [(id(p), p.requires_grad, id(p.grad), list(p._hooks or ())) for p in model.parameters()],
            [m.training for m in model.modules()],
            hooks,
            [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups],
            kobai.random.default_generator.get_state(),
            np.random.get_state()[1].tobytes(),
        ]

    before = state()
    found = diagnose(model, batch(), optimizer=optimizer)
    treat(found, steps=3)
    after = state()
    assert [v for _, v in after[0]] == [v for _, v in before[0]]
    assert after[1:] == before[1:]


def test_random_state_of_diagnose() -> None:
    data, model = batch(), net(dropout=0.5)
    random = kobai.random.default_generator.get_state()
    diagnose(model, data)
    assert kobai.random.default_generator.get_state() == random


def test_report_and_json() -> None:
    pytest.importorskip("rich")
    from rich.console import Console

    found = diagnose(net("normal(0.01)"), batch())
    text = str(found)
    for part in (
        "error: collapsed activations",
        "where",
        "evidence",
        "cause",
        "cure",
        "nn.init.by_name",
        "should be at least",
    ):
        assert part in text
    assert "follows from: collapsed" in text
    console = Console(record=True, width=100, force_terminal=False)
    found.show(console)
    assert "collapsed activations" in console.export_text()
    read = json.loads(found.to_json())
    assert read["findings"][0]["disease"] == "collapsed"
    assert "healthy" in str(diagnose(net(), batch()))


@pytest.mark.thorough
def test_the_cure_is_code_that_works() -> None:
    model = net("normal(0.01)")
    found = diagnose(model, batch())
    exec(found.findings[0].cure.code, {"nn": nn, "model": model})
    assert diagnose(model, batch()).healthy
    model = net("xavier", "sigmoid", depth=8)
    exec(diagnose(model, batch()).findings[0].cure.code, {"nn": nn, "model": model})
    assert isinstance(model[4], nn.ReLU)
    assert diagnose(model, batch()).healthy


@pytest.mark.thorough
def test_a_second_disease_behind_the_first() -> None:
    found = diagnose(net("normal(0.01)", "sigmoid", depth=7), batch())
    result = treat(found, steps=100)
    assert [finding.disease for finding in result.cured] == ["collapsed", "vanishing-gradient"]
    assert result.helped
    assert result.left.healthy
    assert "after 100 steps" in str(result)


def test_normalisation_is_inserted_where_weights_are_no_cause() -> None:
    model = net()
    patient = Patient(model, kobai.optim.Adam(model.parameters()))
    cure = normalise([("1", "BatchNorm1d", 30), ("3", "LayerNorm", 30)])
    namespace = {"nn": nn, "model": net(), "optimizer": kobai.optim.Adam(net().parameters())}
    exec(cure.code, namespace)
    cure.apply(patient)
    assert str(patient.model) == str(namespace["model"])
    assert isinstance(patient.model[1][1], nn.BatchNorm1d)
    assert len(patient.optimizer.param_groups[0]["params"]) == len(list(model.parameters()))
    assert len(namespace["optimizer"].param_groups[0]["params"]) == len(list(model.parameters()))
    F.cross_entropy(patient.model(batch()[0]), batch()[1]).backward()
    patient.optimizer.step()


def test_doctor_tells_once_and_training_is_the_same() -> None:
    results = []
    for doctored in (False, True):
        model, said = net("normal(0.01)"), []
        optimizer = kobai.optim.SGD(model.parameters(), lr=0.1)
        callbacks = [Doctor(every=3, say=said.append)] if doctored else []
        trainer = Trainer(model, optimizer, callbacks=callbacks)
        trainer.fit([batch()] * 10, epochs=3)
        assert trainer._captured.failure is None
        results.append([p.detach().numpy() for p in model.parameters()])
        if doctored:
            assert len(said) == 1
            assert "epoch 1, batch 1: collapsed activations in" in said[0]
            assert "nn.init" in said[0]
            assert callbacks[0].visits[0].finding.disease == "collapsed"
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def trained(doctor: Doctor, data: Any, model: nn.Module | None = None, **options: Any) -> list[Any]:
    model = model if model is not None else net()
    optimizer = kobai.optim.SGD(model.parameters(), lr=0.1)
    trainer = Trainer(model, optimizer, callbacks=[doctor], terminate_on_non_finite=False, **options)
    trainer.fit(data, epochs=1)
    return [visit.finding.disease for visit in doctor.visits]


def changed(how: str) -> Any:
    x, t = batch()
    if how == "NaN":
        x[3, 2] = float("nan")
    elif how == "constant":
        x = kobai.ones_like(x)
    elif how == "0 to 255":
        x = (x - x.min()) / (x.max() - x.min()) * 255
    elif how == "one class":
        t = kobai.zeros_like(t)
    elif how == "in order":
        t = kobai.arange(64) // 22
    elif how == "large targets":
        t = 100 * F.one_hot(t, 4).float()
    return x, t


@pytest.mark.parametrize(
    ("how", "disease"),
    [
        ("NaN", "non-finite"),
        ("constant", "no-signal"),
        ("one class", "no-signal"),
        ("in order", "unshuffled"),
        ("0 to 255", "input-scale"),
        ("large targets", "target-scale"),
    ],
)
def test_diagnose_and_doctor_look_at_the_data_alike(how: str, disease: str) -> None:
    data = changed(how)
    loss_fn = F.mse_loss if how == "large targets" else F.cross_entropy
    assert diagnose(net(), data, loss_fn).findings[0].disease == disease
    for capture in (True, False):
        said: list[str] = []
        assert trained(Doctor(say=said.append), [data], capture=capture, loss_fn=loss_fn)[0] == disease
        assert DISEASES[disease].title in said[0]


@pytest.mark.thorough
@pytest.mark.few(backend="numpy")
def test_on_every_backend(backend: str) -> None:
    """On strict, as on a GPU, nothing reads the device unasked."""
    x, t = batch()
    for model, target, loss_fn, disease in (
        (net("normal(0.01)"), t, F.cross_entropy, "collapsed"),
        (Called(F.relu, -10.0), t, F.cross_entropy, "dying-relu"),
        (net("constant(0.1)", "tanh"), kobai.arange(64) // 22, F.cross_entropy, "unshuffled"),
        (net(), 100 * kobai.randn(64, 4), F.mse_loss, "target-scale"),
    ):
        slow = backend != "numpy"  # without compiled loops a trial takes seconds; test_doctor_honesty makes one there
        found = diagnose(model, (x, target), loss_fn, kobai.optim.Adam(model.parameters()), quick=slow)
        assert disease in [finding.disease for finding in found.findings]
        assert len(treat(found, steps=3).after) == 3
        if not slow or disease == "collapsed":
            assert trained(Doctor(every=2, say=str), [(x, target)] * 3, model, loss_fn=loss_fn)[0] == disease


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
def test_what_is_healthy_is_so_in_every_precision(precision: str) -> None:
    model = net()
    seen: list[Any] = []
    model[1].register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    optimizer = kobai.optim.SGD(model.parameters(), lr=0.1)
    found = diagnose(model, batch(), optimizer=optimizer, precision=precision)
    assert found.healthy, str(found)
    halves = {"bf16": kobai.bfloat16, "fp16": kobai.float16}
    # Steps; experiments without a step are made in float32.
    assert seen[0] == halves.get(precision, kobai.float32)
    assert set(seen) <= {halves.get(precision, kobai.float32), kobai.float32}
    assert kobai.get_float32_matmul_precision() == "highest"
    assert len(treat(found, steps=3).after) == 3


@pytest.mark.thorough
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(("factor", "diseases"), [(1, set()), (200, {"exploding-gradient", "rate-too-large"})])
def test_gradients_are_judged_as_they_are_without_a_scale(precision: str, factor: float, diseases: Any) -> None:
    """fp16 multiplies the loss by 65536, leaves out steps in which that is too much, and halves it."""

    def steep(output: Any, target: Any) -> Any:
        return factor * F.cross_entropy(output, target)

    def optimizer(model: nn.Module) -> Any:
        return kobai.optim.SGD(model.parameters(), lr=0.05)

    model = net()
    found = diagnose(model, batch(), steep, optimizer(model), precision=precision)
    roots = {
        finding.disease for finding in found.findings if finding.disease != "no-better-than-guessing"
    }  # which follows
    assert roots == diseases
    doctor = Doctor(every=1, say=str)
    how: Any = {"precision": precision, "callbacks": [doctor], "terminate_on_non_finite": False}
    Trainer(model, optimizer(model), steep, **how).fit([batch()] * 12, epochs=1)
    assert {visit.finding.disease for visit in doctor.visits} >= diseases
    assert bool(doctor.visits) == bool(diseases)


def test_what_only_16_bits_cannot_hold() -> None:
    """Outputs beyond 65504 are infinite in float16 alone."""
    model = nn.Sequential(nn.Linear(20, 30, init="constant(300)"), nn.ReLU(), nn.Linear(30, 4, init="constant(300)"))
    x, t = batch()
    diseases = {p: {f.disease for f in diagnose(model, (x, t), precision=p).findings} for p in ("fp32", "fp16")}
    assert "non-finite" in diseases["fp16"] - diseases["fp32"]


def test_doctor_sees_units_that_are_alike_and_data_that_go_wrong_later() -> None:
    assert "symmetric" in trained(Doctor(say=str), [batch()] * 3, net("constant(0.1)", "tanh"))
    said: list[str] = []
    doctor = Doctor(every=4, say=said.append)
    assert trained(doctor, [*[batch()] * 4, changed("one class")])[0] == "no-signal"
    assert len(said) == 1
    assert "epoch 1, batch 5: no signal" in said[0]


def test_nothing_to_differentiate_is_treated_without_a_crash() -> None:
    model = net()
    found = diagnose(model, batch(), lambda y, t: F.cross_entropy(y.detach(), t))
    assert [finding.disease for finding in found.findings] == ["no-signal"]
    assert len(treat(found, steps=3).before) == 3


def test_doctor_is_silent_with_healthy_nets_and_resumes() -> None:
    model, said = net(), []
    doctor = Doctor(every=2, say=said.append)
    trainer = Trainer(model, kobai.optim.SGD(model.parameters(), lr=0.1), callbacks=[doctor])
    x = kobai.randn(64, 20)
    held = x, (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()
    trainer.fit([batch()] * 5, epochs=2, validation=[held])
    assert said == []
    other = Doctor()
    other.load_state_dict(doctor.state_dict())
    assert other.state_dict() == doctor.state_dict()
    with pytest.raises(ValueError, match="every"):
        Doctor(every=0)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (lambda: (nn.Sequential(nn.ReLU()), batch()), ValueError, "no parameters"),
        (lambda: (3, batch()), TypeError, "nn.Module"),
        (lambda: (net(), batch()[0]), TypeError, "batch"),
        (lambda: (net(), (batch()[0],)), TypeError, "at least two"),
        (lambda: (net(), DataLoader(TensorDataset(*batch()))), TypeError, r"next\(iter\(loader\)\)"),
        (lambda: (nn.Linear, batch()), TypeError, "the class Linear"),
        (lambda: (net(), (batch()[0], batch()[1].float())), ValueError, "integer dtype"),
        (lambda: (net(), (kobai.zeros(0, 20), kobai.zeros(0).long())), ValueError, "at least 1"),
        (lambda: (net().half(), batch()), ValueError, "one dtype"),
        (lambda: (net(), batch(), nn.CrossEntropyLoss), TypeError, r"CrossEntropyLoss\(\)"),
        (lambda: (net(), batch(), kobai.optim.SGD(net().parameters())), TypeError, "optimizer="),
        (lambda: (net(), batch(), F.cross_entropy, kobai.optim.Adam), TypeError, r"Adam\(model.parameters"),
        (lambda: (net(), batch(), lambda y, t: y), ValueError, r"a tensor of shape \(64, 4\)"),
        (lambda: (Several(), batch()), ValueError, "outputs that are a tuple"),
        (lambda: (net(), (np.zeros((4, 20)), np.zeros(4))), TypeError, "ndarray"),
        (lambda: (net(), batch(features=7)), ValueError, r"\(64, 7\)"),
        (lambda: (net(), (batch()[0], batch(32)[1])), ValueError, r"\(64, 20\), \(32,\)"),
        (lambda: (net(), (batch()[0], batch()[0])), ValueError, "targets"),
        (lambda: (net(), batch(), 3), TypeError, "loss_fn"),
        (lambda: (net(), batch(), F.cross_entropy, 3), TypeError, "Optimizer"),
        (lambda: (net(), batch(), F.cross_entropy, None, 0), ValueError, "steps"),
    ],
)
def test_wrong_arguments(arguments: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        diagnose(*arguments())


def test_a_precision_that_is_none() -> None:
    with pytest.raises(ValueError, match=r"diagnose: expected precision fp32, tf32, bf16, fp16, got 'bf61'.*bf16"):
        diagnose(net(), batch(), precision="bf61")


def test_wrong_arguments_of_treat() -> None:
    with pytest.raises(TypeError, match="needs a batch"):
        treat(net())
    with pytest.raises(TypeError, match="Diagnosis"):
        treat(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="steps"):
        treat(net(), batch(), steps=0)


def command(*arguments: str) -> Any:
    testing = pytest.importorskip("typer.testing")
    pytest.importorskip("sklearn")
    from kobai.cli import app

    return testing.CliRunner().invoke(app, ["diagnose", *arguments])


def test_command_line() -> None:
    deep = ("--hidden", "30,30,30,30,30", "--no-batch-norm", "--dropout", "0", "--batch-size", "100")
    sick = command(*deep, "--init", "normal(0.01)", "--json")
    assert sick.exit_code == 1, sick.output
    assert json.loads(sick.stdout)["findings"][0]["disease"] == "collapsed"
    cured = command(*deep, "--init", "normal(0.01)", "--treat", "--steps", "60")
    assert cured.exit_code == 0, cured.output
    assert "collapsed activations" in cured.stdout
    assert "healthy now" in cured.stdout
    assert command(*deep).exit_code == 0
    assert command(*deep, "--precision", "bf16").exit_code == 0
    assert command("--precision", "b16").exit_code == 2
    assert command("--activation", "relo").exit_code == 2
    assert command("/no/such/run").exit_code == 1


def test_command_line_on_a_run(tmp_path: Any) -> None:
    testing = pytest.importorskip("typer.testing")
    pytest.importorskip("sklearn")
    from kobai.cli import app

    run = tmp_path / "run"
    made = testing.CliRunner().invoke(app, ["train", "--hidden", "20", "--epochs", "1", "--out", str(run), "-q"])
    assert made.exit_code == 0, made.output
    files = {p.name: p.read_bytes() for p in run.iterdir()}
    found = command(str(run))
    assert found.exit_code == 0, found.output
    assert {p.name: p.read_bytes() for p in run.iterdir()} == files
    assert command(str(run), "--hidden", "30").exit_code == 2
    assert command(str(run), "--precision", "fp16").exit_code == 0

"""``diagnose``, ``treat``, ``Doctor`` and ``kobai diagnose``: that they touch nothing, say enough, and refuse clearly."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.lab import Doctor, diagnose, treat
from kobai.lab.diseases import DISEASES
from kobai.nn import functional as F
from kobai.train import Trainer, mlp


def batch(n: int = 64, features: int = 20) -> tuple[Any, Any]:
    kobai.manual_seed(1)
    x = kobai.randn(n, features)
    return x, (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()


def net(init: str = "auto", activation: str = "relu", depth: int = 5, **options: Any) -> nn.Sequential:
    kobai.manual_seed(0)
    return mlp(20, [30] * depth, 4, init=init, activation=activation, **options)


def test_everything_of_the_user_stays_as_it_is() -> None:
    model = net("normal(0.01)", dropout=0.5, batch_norm=True)
    optimizer = kobai.optim.Adam(model.parameters(), lr=0.01)
    F.cross_entropy(model(batch()[0]), batch()[1]).backward()
    optimizer.step()
    model.eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    grads = [p.grad.clone() for p in model.parameters()]
    steps = [optimizer.state[p]["step"] for p in model.parameters()]
    random = kobai.random.default_generator.get_state()
    found = diagnose(model, batch(), optimizer=optimizer)
    kobai.random.default_generator.set_state(random)
    treat(found, steps=3)
    assert kobai.random.default_generator.get_state() == random
    assert not model.training
    assert all(kobai.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(kobai.equal(p.grad, g) for p, g in zip(model.parameters(), grads, strict=True))
    assert [optimizer.state[p]["step"] for p in model.parameters()] == steps
    assert not any(m._forward_hooks for m in model.modules())


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
    for part in ("error: collapsed activations", "where", "evidence", "cause", "cure", "nn.init.by_name", "below"):
        assert part in text
    assert "follows from: collapsed" in text
    console = Console(record=True, width=100, force_terminal=False)
    found.show(console)
    assert "collapsed activations" in console.export_text()
    read = json.loads(found.to_json())
    assert read["findings"][0]["disease"] == "collapsed"
    assert "healthy" in str(diagnose(net(), batch()))


def test_the_cure_is_code_that_works() -> None:
    model = net("normal(0.01)")
    found = diagnose(model, batch())
    exec(found.findings[0].cure.code, {"nn": nn, "model": model})
    assert diagnose(model, batch()).healthy
    model = net("xavier", "sigmoid", depth=8)
    exec(diagnose(model, batch()).findings[0].cure.code, {"nn": nn, "model": model})
    assert isinstance(model[4], nn.ReLU)
    assert diagnose(model, batch()).healthy


def test_a_second_disease_behind_the_first() -> None:
    found = diagnose(net("normal(0.01)", "sigmoid", depth=7), batch())
    result = treat(found, steps=100)
    assert [finding.disease for finding in result.cured] == ["collapsed", "vanishing-gradient"]
    assert result.helped
    assert result.left.healthy
    assert "after 100 steps" in str(result)


def test_batch_normalisation_is_inserted_where_weights_are_no_cause() -> None:
    from kobai.lab.cures import InsertBatchNorm, Patient

    model = net()
    patient = Patient(model, kobai.optim.Adam(model.parameters()))
    InsertBatchNorm((("1", 30, 2), ("3", 30, 2))).apply(patient)
    assert isinstance(patient.model[1][1], nn.BatchNorm1d)
    assert len(patient.optimizer.param_groups[0]["params"]) == len(list(model.parameters()))
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


def test_doctor_is_silent_with_healthy_nets_and_resumes() -> None:
    model, said = net(), []
    doctor = Doctor(every=2, say=said.append)
    trainer = Trainer(model, kobai.optim.SGD(model.parameters(), lr=0.1), callbacks=[doctor])
    trainer.fit([batch()] * 5, epochs=2, validation=[batch()])
    assert said == []
    other = Doctor()
    other.load_state_dict(doctor.state_dict())
    assert other.state_dict() == doctor.state_dict()
    with pytest.raises(ValueError, match="every"):
        Doctor(every=0)


def test_catalogue_is_complete() -> None:
    for name, disease in DISEASES.items():
        assert disease.name == name
        assert all((disease.title, disease.rule, disease.reason, disease.source))
        assert all(cause in DISEASES for cause in disease.follows)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (lambda: (nn.Sequential(nn.ReLU()), batch()), ValueError, "no parameters"),
        (lambda: (3, batch()), TypeError, "nn.Module"),
        (lambda: (net(), batch()[0]), TypeError, "batch"),
        (lambda: (net(), (np.zeros((4, 20)), np.zeros(4))), TypeError, "ndarray"),
        (lambda: (net(), batch(features=7)), ValueError, r"\(64, 7\)"),
        (lambda: (net(), (batch()[0], batch(32)[1])), ValueError, r"\(64, 20\), \(32,\)"),
        (lambda: (net(), (batch()[0][:1], batch()[1][:1])), ValueError, "at least 2"),
        (lambda: (net(), (batch()[0], batch()[0])), ValueError, "targets"),
        (lambda: (net(), batch(), 3), TypeError, "loss_fn"),
        (lambda: (net(), batch(), F.cross_entropy, 3), TypeError, "Optimizer"),
        (lambda: (net(), batch(), F.cross_entropy, kobai.optim.SGD(net().parameters())), ValueError, "none of"),
        (lambda: (net(), batch(), F.cross_entropy, None, 0), ValueError, "steps"),
    ],
)
def test_wrong_arguments(arguments: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        diagnose(*arguments())


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

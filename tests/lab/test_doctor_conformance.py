"""The examination that every rule, every disease and every cure of the doctor must pass, whoever adds it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from data_examples import CURES as OF_DATA, EXAMPLES as ON_DATA, TARGETS
from rule_examples import CURES as OF_NETS, EXAMPLES as ON_NETS
from rule_examples_modes import EXAMPLES as ON_MODES
from rule_examples_told import EXAMPLES as ON_TOLD
from small_nets import batch

import kobai
from kobai import nn
from kobai.lab.doctor import cures
from kobai.lab.doctor.cures import Patient
from kobai.lab.doctor.diseases import DISEASES, RULES, Rule
from kobai.lab.doctor.judging import judge
from kobai.nn import functional as F
from kobai.train import mlp

CURES, EXAMPLES = OF_NETS | OF_DATA, ON_NETS | ON_DATA | ON_MODES | ON_TOLD


def name_of(rule: Rule) -> str:
    return f"{rule.__module__.rpartition('.')[2]}.{rule.__name__}"


def test_every_rule_and_every_cure_is_examined() -> None:
    assert {name_of(rule) for rule in RULES} == EXAMPLES.keys(), "a rule needs its line in tests/lab/*_examples.py"
    assert cures.CURES.keys() == CURES.keys(), "a cure needs its line in tests/lab/*_examples.py"


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_a_rule_finds_its_disease_and_says_all_about_it(rule: Rule) -> None:
    assert rule.__doc__
    view = EXAMPLES[name_of(rule)].ill()
    found = rule(view)
    assert found is not None
    assert found.disease in [finding.disease for finding in judge(view)]
    disease = DISEASES[found.disease]
    assert all((disease.title, disease.rule, disease.reason, disease.source))
    assert found.title == disease.title
    assert found.evidence
    assert all(evidence.passed for evidence in found.evidence), "evidence is what is past its threshold"
    assert found.cause.endswith(".")
    compile(found.cure.code, "cure", "exec")
    known = {name for name, _ in view.model.named_modules()}
    assert all(name in known or " → " in name for name in found.where)


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_a_rule_does_not_find_its_disease_in_a_healthy_net(rule: Rule) -> None:
    assert rule(EXAMPLES[name_of(rule)].well()) is None


def test_every_disease_is_found_by_a_rule() -> None:
    found = {finding.disease for rule in RULES if (finding := rule(EXAMPLES[name_of(rule)].ill())) is not None}
    assert found == DISEASES.keys()


def squared(y: Any, t: Any) -> Any:
    return ((y - t) ** 2).mean()


def smoothed(y: Any, t: Any) -> Any:
    return F.cross_entropy(y, t, label_smoothing=0.5)


def state(model: nn.Module, optimizer: Any, x: Any, loss_fn: Any, t: Any) -> dict[str, Any]:
    """What a cure may change: outputs for x, running averages, parameters that are trained, options, the loss."""
    kobai.manual_seed(2)
    group, y = optimizer.param_groups[0], model(x)
    y = y[0] if isinstance(y, tuple) else y
    return {
        "outputs": y.detach().numpy().round(4).tolist(),
        "loss": round(float(loss_fn(y, t).item()), 4),
        "averages": [b.numpy().round(4).tolist() for name, b in model.named_buffers() if "running_" in name],
        "trained": [p.requires_grad for p in model.parameters()],
        "held": sum(len(group["params"]) for group in optimizer.param_groups),
        "options": {key: value for key, value in group.items() if isinstance(value, (int, float))},
    }


@pytest.mark.parametrize("name", CURES)
def test_the_code_of_a_cure_does_what_its_action_does(name: str) -> None:
    kobai.manual_seed(0)
    norm = [nn.BatchNorm1d(4, momentum=1e-4)] if name in ("group_norm", "average_anew", "train_again") else []
    model = nn.Sequential(*mlp(20, [30, 30], 4, activation="tanh"), *norm, nn.RNN(4, 5)).requires_grad_(
        name not in ("unfreeze", "thaw")
    )
    model.extra, model[0] = kobai.ones(3), nn.Sequential(nn.Flatten(), nn.Dropout(0.0))
    model.train(name != "train_again")
    held = list(model.parameters())[name in ("hold", "thaw") :]
    optimizer, x = kobai.optim.SGD(held, lr=0.5, maximize=name == "descend"), 3 * batch()[0] + 1
    if name == "append_end":  # to a tensor
        model = model[:-1]
    if name == "channels_first":  # which are flattened then
        x = x.reshape(len(x), 2, 2, 5)
    t = kobai.rand(len(x), 1, 5) if name == "same_shape" else kobai.rand(len(x), 4 if name == "append_end" else 5)
    t = TARGETS.get(name, t)
    own = squared if t.is_floating_point() else smoothed
    patient = Patient(*copy.deepcopy((model, optimizer)))
    cure, before = cures.CURES[name](*CURES[name](x)), state(model, optimizer, x, own, t)
    assert cure.name == name
    if name == "clip_gradients":
        (1000 * model(x)[0].sum()).backward()
    names: dict[str, Any] = {"kobai": kobai, "nn": nn, "F": F, "model": model, "optimizer": optimizer, "x": x, "t": t}
    names["loss_fn"] = own
    kobai.manual_seed(1)
    exec(cure.code, names)
    kobai.manual_seed(1)
    cure.apply(patient)
    after = state(names["model"], names["optimizer"], names["x"], names["loss_fn"], names["t"])
    assert after == state(patient.model, patient.optimizer, x, patient.loss_fn or own, t)
    if name == "clip_gradients":
        norm = sum(float((p.grad**2).sum().item()) for p in model.parameters() if p.grad is not None) ** 0.5
        assert norm == pytest.approx(1.0, rel=1e-3)
        assert patient.clip_grad_norm == 1.0
    else:
        assert after != before

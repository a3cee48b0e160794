"""The same faults in other clothes: who is trained, what a net can express, and whether samples are mixed, by experiment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from small_nets import batch

import kobai
from kobai import nn
from kobai.lab import diagnose
from kobai.nn import functional as F

pytestmark = pytest.mark.thorough

X, T = batch()
WORDS = (kobai.arange(64 * 6) * 7 % 30).reshape(64, 6)


class Net(nn.Module):
    """Parts by name, and what forward() does with them."""

    def __init__(self, forward: Callable[[Any, Any], Any], parts: Callable[[], dict[str, Any]]) -> None:
        super().__init__()
        kobai.manual_seed(0)
        for name, part in parts().items():
            setattr(self, name, part)
        self.does = forward

    def forward(self, x: Any) -> Any:
        return self.does(self, x)


def two(**more: Any) -> dict[str, Any]:
    return {"a": nn.Linear(20, 32), "b": nn.Linear(32, 4), **more}


def without_tape(net: Any, x: Any) -> Any:
    with kobai.no_grad():
        h = F.relu(net.a(x))
    return net.b(h)


def weight() -> Any:
    return (0.2 * kobai.randn(20, 32)).requires_grad_()


def doubled(net: Any) -> Any:
    """Twice a registered weight, kept from the last pass."""
    net.kept = 2 * net.a.weight.t()
    return net.kept


def still(tensor: Any) -> Any:
    return nn.Parameter(tensor, requires_grad=False)


CASES = {
    "a dictionary of layers": ("not-registered", lambda n, x: n.b(F.relu(n.d["a"](x))), lambda: two(d=two())),
    "lists in lists": (
        "not-registered",
        lambda n, x: n.b(F.relu(n.h[0][0](x))),
        lambda: {"h": [[nn.Linear(20, 32)]], "b": nn.Linear(32, 4)},
    ),
    "a plain tensor": ("not-registered", lambda n, x: n.b(F.relu(x @ n.w)), lambda: two(w=weight())),
    "a scale of a product": (
        "not-registered",
        lambda n, x: n.b(F.relu(n.a(x)) * n.s),
        lambda: two(s=nn.Parameter(kobai.ones(32)) * 0.5),
    ),
    "a product of parameters that is kept": (None, lambda n, x: n.b(F.relu(x @ doubled(n) + n.a.bias)), two),
    "a frozen correction that begins at zero": (
        "frozen",
        lambda n, x: n.b(F.relu(n.a(x) + x @ n.down @ n.up)),
        lambda: two(down=still(kobai.randn(20, 3)), up=still(kobai.zeros(3, 32))),
    ),
    "frozen zeros that the loss does not see": (
        None,
        lambda n, x: n.b(F.relu(n.a(x) + (x @ n.up).detach())),
        lambda: two(up=still(kobai.zeros(20, 32))),
    ),
    "a frozen random correction": (
        None,
        lambda n, x: n.b(F.relu(n.a(x) + x @ n.down)),
        lambda: two(down=still(0.1 * kobai.randn(20, 32))),
    ),
    "a layer made in forward": ("not-registered", lambda n, x: n.b(nn.Linear(32, 32)(F.relu(n.a(x)))), two),
    "no_grad": ("cut-off", without_tape, two),
    "argmax": (
        "cut-off",
        lambda n, x: n.b(F.one_hot(n.a(x).argmax(1), 32).float()),
        two,
    ),
    "a layer never called": ("cut-off", lambda n, x: n.b(F.relu(n.a(x))), lambda: two(c=nn.Linear(3, 3))),
    "one of several heads": (
        None,
        lambda n, x: n.heads[1](F.relu(n.a(x))),
        lambda: {"a": nn.Linear(20, 32), "heads": nn.ModuleList([nn.Linear(32, 4) for _ in range(3)])},
    ),
    "linear layers in forward": ("no-activation", lambda n, x: n.b(n.a(x)), two),
    "an activation in forward": (None, lambda n, x: n.b(kobai.tanh(n.a(x))), two),
    "dropout as a function": (
        "dropout",
        lambda n, x: n.b(F.dropout(F.relu(n.a(x)), 0.95, n.training)),
        two,
    ),
    "a mean over the units": (
        "bottleneck",
        lambda n, x: n.b(F.relu(n.c(F.relu(n.a(x)).mean(1, keepdim=True).expand(len(x), 32)))),
        lambda: two(c=nn.Linear(32, 32)),
    ),
    "softmax over the batch": ("mixed-samples", lambda n, x: n.b(F.softmax(n.a(x), dim=0)), two),
    "a norm over the batch": ("mixed-samples", lambda n, x: n.b(F.relu(n.a(x) - n.a(x).mean(0))), two),
    "a view of a sequence": (
        "mixed-samples",
        lambda n, x: n.b(F.relu(n.a(x).t().reshape(len(x), 32))),
        two,
    ),
    "a norm over the units": (None, lambda n, x: n.b(F.relu(n.a(x) - n.a(x).mean(1, keepdim=True))), two),
    "similarities of samples": (
        None,
        lambda n, x: F.relu(n.a(x)) @ F.relu(n.a(x)).t(),
        lambda: {"a": nn.Linear(20, 32)},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_fault_is_found_whatever_it_looks_like(name: str) -> None:
    disease, forward, parts = CASES[name]
    model = Net(forward, parts)
    target = kobai.arange(64) if name == "similarities of samples" else T
    optimizer = kobai.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    assert [f.disease for f in diagnose(model, (X, target), optimizer=optimizer, quick=True).findings][:1] == (
        [] if disease is None else [disease]
    )


@pytest.mark.parametrize("mixing", [False, True])
def test_indices_are_mixed_too(mixing: bool) -> None:
    """By attention along the batch, which does not see in which order the samples come."""

    def forward(net: Any, x: Any) -> Any:
        h = net.embed(x)
        return net.head((h + net.attention(h, h, h)[0]).mean(1))

    model = Net(
        forward,
        lambda: {
            "embed": nn.Embedding(30, 16),
            "attention": nn.MultiheadAttention(16, 2, batch_first=not mixing),
            "head": nn.Linear(16, 4),
        },
    )
    found = diagnose(model, (WORDS, T), optimizer=kobai.optim.Adam(model.parameters()), quick=True)
    mixed = [f for f in found.findings if f.disease == "mixed-samples"]
    assert bool(mixed) == mixing
    if mixing:
        assert mixed[0].cure.code == "model.attention.batch_first = True"


def test_a_batch_along_the_second_axis_is_no_mixture() -> None:
    x = kobai.randn(12, 16, 20)
    model = Net(lambda n, x: n.b(n.r(x)[0]), lambda: {"r": nn.GRU(20, 32), "b": nn.Linear(32, 4)})

    def loss_fn(y: Any, t: Any) -> Any:
        return F.cross_entropy(y.reshape(-1, 4), t.reshape(-1))

    optimizer = kobai.optim.Adam(model.parameters())
    found = diagnose(model, (x, (x[..., 0] > 0).long()), loss_fn, optimizer, quick=True)
    assert "mixed-samples" not in [finding.disease for finding in found.findings]


def test_a_net_of_related_samples_is_tried_whole() -> None:
    near = (kobai.rand(64, 64) < 0.1).float()
    model = Net(lambda n, x: n.b(F.relu(n.near @ n.a(x))), two)
    model.register_buffer("near", near / near.sum(1, keepdim=True).clamp(min=1))
    found = diagnose(model, (X, T), optimizer=kobai.optim.Adam(model.parameters(), lr=1e-2))
    assert not found.errors


def test_of_one_sample_is_said_what_can_be_told_and_what_not() -> None:
    model, one = (
        Net(lambda n, x: n.b(F.relu(n.h[0](x))), lambda: {"h": [nn.Linear(20, 32)], "b": nn.Linear(32, 4)}),
        X[:1],
    )
    found = diagnose(model, (one, T[:1]), optimizer=kobai.optim.SGD(model.parameters(), lr=0.1))
    assert [finding.disease for finding in found.findings] == ["not-registered"]
    assert "no sample is mixed with another" in found.notes[0]
    well = Net(lambda n, x: n.b(F.relu(n.a(x))), two)
    found = diagnose(well, (one, T[:1]), optimizer=kobai.optim.SGD(well.parameters(), lr=0.1))
    assert found.healthy, str(found)
    assert "steps go downhill" in found.examined


@pytest.mark.parametrize("quick", [True, False])
def test_a_head_that_is_trained_alone_on_purpose(quick: bool) -> None:
    model = Net(lambda n, x: n.b(F.relu(n.a(x))), two)
    everything = kobai.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(100):
        everything.zero_grad()
        F.cross_entropy(model(X), T).backward()
        everything.step()
    model.b = nn.Linear(32, 4)
    head = kobai.optim.Adam(model.b.parameters(), lr=0.01)
    found = diagnose(model, (X, T), optimizer=head, quick=quick)
    assert "not-held" not in [f.disease for f in found.findings if f.severity != "note"], str(found)


@pytest.mark.parametrize("rule", [kobai.optim.SGD, kobai.optim.Adam])
@pytest.mark.parametrize("how", ["maximize", "a rate below 0"])
def test_steps_that_go_uphill(rule: Any, how: str) -> None:
    model = Net(lambda n, x: n.b(F.relu(n.a(x))), two)
    optimizer = rule(model.parameters(), lr=0.01, maximize=how == "maximize")
    if how != "maximize":
        optimizer.param_groups[0]["lr"] = -0.01
    found = diagnose(model, (X, T), optimizer=optimizer)
    assert found.findings[0].disease == "steps-uphill"
    assert found.findings[0].tried is not None
    assert found.findings[0].tried.helped


@pytest.mark.parametrize("quick", [True, False])
def test_a_schedule_that_has_ended_before_it_is_shown(quick: bool) -> None:
    """Stepped for each batch, or left over: what it has done is seen in the groups of the optimizer."""
    model = Net(lambda n, x: n.b(F.relu(n.a(x))), two)
    optimizer = kobai.optim.SGD(model.parameters(), lr=0.1)
    schedule = kobai.optim.lr_scheduler.StepLR(optimizer, 10, gamma=0.1)
    assert diagnose(model, (X, T), optimizer=optimizer, quick=quick).healthy
    for _ in range(60):
        optimizer.step()
        schedule.step()
    found = diagnose(model, (X, T), optimizer=optimizer, quick=quick)
    assert found.findings[0].disease == "schedule-ended", str(found)


def test_decay_that_costs_a_regression_most_of_what_it_could_tell() -> None:
    """It takes less than half of what is learnt, and leaves many times the error."""
    x = kobai.randn(256, 20)
    t = (x[:, :3].sum(1, keepdim=True)) / 3**0.5
    found = {}
    for decay in (0.4, 1e-4):
        model = Net(lambda n, x: n.b(F.relu(n.a(x))), lambda: {"a": nn.Linear(20, 32), "b": nn.Linear(32, 1)})
        optimizer = kobai.optim.SGD(model.parameters(), lr=0.1, weight_decay=decay)
        found[decay] = [
            f.disease for f in diagnose(model, (x, t), F.mse_loss, optimizer).findings if f.severity != "note"
        ]
    assert found == {0.4: ["weight-decay-too-large"], 1e-4: []}


def test_frozen_adapters_are_thawed_and_what_they_adapt_is_not() -> None:
    """A low-rank correction of a frozen layer, of which the doctor's cure is tried."""
    model = Net(
        lambda n, x: n.b(F.relu(n.inner(x))),
        lambda: {
            "inner": Net(
                lambda n, x: n.base(x) + x @ n.down @ n.up,
                lambda: {
                    "base": nn.Linear(20, 8),
                    "down": still(0.2 * kobai.randn(20, 4)),
                    "up": still(kobai.zeros(4, 8)),
                },
            ),
            "b": nn.Linear(8, 4),
        },
    )
    model.inner.base.requires_grad_(False)
    optimizer = kobai.optim.Adam(model.b.parameters(), lr=1e-2)
    finding = diagnose(model, batch(1024), optimizer=optimizer).findings[0]
    assert (finding.disease, finding.where) == ("frozen", ("inner",))
    assert finding.tried is not None
    assert finding.tried.helped
    exec(finding.cure.code, {"model": model, "optimizer": optimizer})
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == [
        "inner.base.weight",
        "inner.base.bias",
    ]
    assert len(optimizer.param_groups[1]["params"]) == 2

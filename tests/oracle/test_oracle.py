"""Every operation, module and optimiser that both have, on the samples of PyTorch's own tests."""

import tomllib

import pytest

from kobai.compat import absent
from oracle import known, modules, operations, optimizers

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]
TABLE = known.read()


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def hold(findings, name):
    """No difference but those in the table, and all of those."""
    expected = known.expected(TABLE, name)
    new = [f"{kind}\n    {message}" for kind, message in findings.items() if kind not in expected]
    assert not new, f"{name} differs from PyTorch:\n  " + "\n  ".join(new)
    stale = sorted(expected - findings.keys())
    assert not stale, f"{name} no longer differs in {stale}: take it out of known.toml (known.py --write does)"


@pytest.mark.parametrize("name", operations.OPERATIONS)
def test_operation(name):
    hold(operations.examine(name), name)


@pytest.mark.parametrize("name", modules.MODULES)
def test_module(name):
    hold(modules.examine(name), name)


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_optimizer(name):
    hold(optimizers.examine(name), name)


def test_the_table_names_what_there_is_and_has_reasons():
    there = {*operations.OPERATIONS, *modules.MODULES, *optimizers.OPTIMIZERS}
    named = {name for entries in TABLE.values() for name in entries}
    assert named <= there, f"known.toml names what is not compared: {sorted(named - there)}"
    assert known.NEW not in TABLE, "known.toml has entries without a reason"


def test_the_table_is_renewed_by_what_is_found():
    table = {"why": {"a": ["function: value", "method: shape"], "b": ["out=: dtype"]}}
    found = {"a": ["function: value"], "c": ["in place: unchanged"]}
    assert known.renewed(table, found) == {
        "why": {"a": ["function: value"]},
        known.NEW: {"c": ["in place: unchanged"]},
    }
    assert known.renewed(table, {}) == {}
    table = {'PyTorch\'s "own" way, [a]': {"nn.functional.a": ["function: no argument b", "out=: dtype"]}}
    assert tomllib.loads(known.written(table)) == table


def test_the_comparison_sees_what_it_is_for(monkeypatch):
    """Faults planted in Kobai are found, each as its kind."""
    import kobai

    plain = {name: getattr(kobai, name) for name in ("tanh", "atan", "expm1", "hypot", "fmax")}
    planted = {
        "tanh": (lambda x: plain["tanh"](x) * (1 + 1e-3), "function: value"),
        "atan": (lambda x: plain["atan"](x).detach(), "function: no gradient"),
        "expm1": (lambda x: plain["expm1"](x).float(), "function: dtype"),
        "sinh": (lambda x: 1 / 0, "function: obscure error"),
        "square": (lambda x: x, "function: shares memory"),
        "flip": (lambda x, dims: x.unsqueeze(0), "function: shape"),
        "hypot": (lambda a, b: plain["hypot"](a, b).floor(), "dtype pairs: value"),
        "fmax": (lambda a, b: plain["fmax"](a, b).to(a.dtype), "dtype pairs: dtype"),
    }
    for name, (fault, kind) in planted.items():
        monkeypatch.setattr(kobai, name, fault)
        assert kind in operations.examine(name), name


@pytest.mark.parametrize("name", operations.LACKING)
def test_what_is_lacking_has_a_reason(name):
    """In the tables that the errors and docs/pytorch.md are made of; what begins with an underscore is PyTorch's inside."""
    plain = operations.LACKING_PATHS[name]
    if not plain.startswith(("_", "torch.")):
        assert absent.sentence(plain) or plain in absent.ABSENT_METHODS or plain.partition(".")[0] in absent.ABSENT

"""``kobai verify``: the bits of seven small trainings, and what is said where they differ."""

import json

import numpy as np
import pytest

import kobai
from cli_commands import kobai_command
from kobai.bits import ahead, verification
from kobai.bits.nets import NETS, training
from kobai.bits.trace import trace
from kobai.engine import dispatch
from kobai.ops import _formulas

pytestmark = pytest.mark.skipif(not dispatch.numba_installed, reason="no bits are promised without the extra cpu")


def test_every_net_ends_in_the_bits_that_are_shipped(capsys):
    code, out, err = kobai_command(capsys, "verify")
    assert (code, err) == (0, ""), out
    lines = out.splitlines()
    assert [line[:12].rstrip() for line in lines[1:8]] == list(NETS)
    assert all(line.endswith("as shipped") for line in lines[1:8])
    assert "promised for NumPy 2.2 to" in out
    assert "not for GPUs" in out


def one_bit_more(function):
    def other(*args):
        y, *rest = found if isinstance(found := function(*args), tuple) else (found,)
        return (np.nextafter(y, np.float32(np.inf)), *rest) if rest else np.nextafter(y, np.float32(np.inf))

    return other


@pytest.mark.parametrize(
    ("where", "first"),
    [("gelu", "ops.activation._gelu forward"), ("gelu_backward", "ops.activation._gelu backward, gradient 0")],
)
def test_the_first_primitive_with_other_bits_is_named(capsys, monkeypatch, where, first):
    monkeypatch.setattr(_formulas, where, one_bit_more(getattr(_formulas, where)))
    code, out, _ = kobai_command(capsys, "verify", "mlp", "residual")
    assert code == 1
    mlp, residual, about = out.splitlines()[1:4]
    assert mlp.endswith("as shipped")
    assert "differs, expected" in residual
    assert f"first: step 1, {first}: " in about
    code, out, _ = kobai_command(capsys, "verify", "--json", "residual")
    (net,) = json.loads(out)["nets"]
    assert (code, net["same"], net["first"]["step"], net["first"]["what"]) == (1, False, 1, first)
    assert net["first"]["here"] != net["first"]["expected"]


def test_where_no_second_process_can_be_started_one_compiles_all(monkeypatch):
    monkeypatch.setattr(ahead.sys, "executable", "/nowhere/python")
    with ahead.Ahead(["mlp", "cnn"]) as other:
        other.useful = True
        other.begin()
        other.begin()
        assert other.process is None


def test_what_is_no_primitive_is_named_too(monkeypatch):
    step = kobai.optim.SGD.step

    def other(self, closure=None):
        step(self, closure)
        self.param_groups[0]["params"][0].detach().numpy()[0, 0] += 1e-3

    monkeypatch.setattr(kobai.optim.SGD, "step", other)
    (mlp,) = verification.verify(["mlp"]).nets
    assert (mlp.first.step, mlp.first.what) == (1, "SGD's step")
    monkeypatch.undo()
    seed = kobai.random.manual_seed
    monkeypatch.setattr(kobai.random, "manual_seed", lambda number: seed(number + 1))
    (mlp,) = verification.verify(["mlp"]).nets
    assert (mlp.first.step, mlp.first.what) == (0, "the first parameters")


def test_another_computation_is_told_from_other_bits(monkeypatch):
    """Where the shipped events are those of another net, as of another version."""
    monkeypatch.setitem(NETS, "mlp", NETS["layer norm"])
    (mlp,) = verification.verify(["mlp"]).nets
    assert (mlp.first.step, mlp.first.what, mlp.first.instead_of) == (0, "the first parameters", "")
    same = list(trace(NETS["residual"]))
    place, here, there = verification.first_difference(same[:7], same)
    assert (place, here.name, there) == (7, "nothing", same[7])


def test_hashes_can_be_recorded_again(tmp_path):
    verification.record(tmp_path / "hashes.json")
    assert (tmp_path / "hashes.json").read_text() == verification.HASHES.read_text()


def test_noting_what_is_computed_changes_nothing():
    net = NETS["attention"]
    (last,) = trace(net)[-1:]
    assert last.digest == verification.digest(training(net))[: len(last.digest)]


def test_versions_that_were_not_compared_are_said(capsys, monkeypatch):
    monkeypatch.setattr(verification, "versions", lambda: {"numpy": "2.4.1", "numba": "0.99.0", "llvm": "20.1.8"})
    _, out, _ = kobai_command(capsys, "verify", "mlp")
    assert "not promised: numba 0.99.0 is none of the versions that were compared" in out
    monkeypatch.setattr(verification, "versions", lambda: {"numpy": "2.4.1"})
    _, out, _ = kobai_command(capsys, "verify", "mlp")
    assert "not promised: without Numba sums are NumPy's and its BLAS': pip install 'kobai[cpu]'" in out
    monkeypatch.setattr(verification, "versions", lambda: {"numpy": "2.4.1", "numba": "0.62.0rc1", "llvm": "20.1.8"})
    assert not verification.verify(["mlp"]).unpromised


def test_a_net_that_does_not_exist(capsys):
    code, _, err = kobai_command(capsys, "verify", "lstn")
    assert code == 2
    assert "Did you mean 'lstm'?" in err

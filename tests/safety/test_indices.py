"""Nothing that takes indices reads or writes beyond an array, whatever the indices are and whenever they become it.

The table is in ``rows.py``. It is run in two other processes, with Numba and without, so that one that dies is a failure here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import kobai
import kobai.nn.functional as F
from kobai.core.primitive import REGISTRY
from kobai.engine import dispatch, domains
from safety import rows

NO_INDICES = {
    **dict.fromkeys("_and _or _xor _shift_left _shift_right _invert".split(), "integers are its values"),
    **dict.fromkeys("_ldexp _zeta _incomplete_gamma".split(), "integers are its values"),
    **dict.fromkeys("_rnn _lstm _gru".split(), "lengths are compared with steps"),
    "_moved": "random bits, of which places are computed",
}
"""Primitives whose samples hold integers that are no indices, and what they are."""

MODES = ["numba", "without-numba"] if dispatch.numba_installed else ["without-numba"]


@cache
def results(mode: str) -> tuple[dict, str]:
    """What the process found, by row and case, and its last words if it did not come to the end."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ran = subprocess.run(
        [sys.executable, Path(rows.__file__), mode], capture_output=True, text=True, timeout=600, env=environment
    )
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    found = {(line.pop("row"), line.pop("case")): line for line in lines}
    whole = ran.returncode == 0 and ("", "end") in found
    return found, "" if whole else f"exit status {ran.returncode} after {list(found)[-1:]}: {ran.stderr[-2000:]}"


@pytest.fixture(params=MODES)
def found(request):
    table, failure = results(request.param)
    assert not failure, failure
    return table


named = pytest.mark.parametrize("name", rows.TABLE)


@pytest.mark.few(6)
@named
def test_indices_of_every_dtype_and_layout_give_the_same(found, name):
    for dtype in rows.DTYPES:
        for step in (1, 2, -1):
            result = found[name, f"{dtype}/{step}"]
            assert result["ok"]
            assert result["same"] or (dtype == "uint8" and "got a tensor of uint8" in result["text"])


def names_it(name: str, bad: int, result: dict) -> bool:
    row = rows.TABLE[name]
    low = -rows.N if row.negative else 0
    expected = f"{row.who}: expected "
    inside = "" if name in rows.UNBOUNDED else f"[{low}, {rows.N - 1}]"
    classes = f"class indices in [0, {rows.N})"
    return (
        result["error"] in ("IndexError", "PositionError")
        and result["text"].startswith(expected)
        and (inside in result["text"] or classes in result["text"])
        and f"got {bad}" in result["text"]
    )


@pytest.mark.few(2)
@named
def test_an_index_out_of_range_is_named(found, name):
    for bad in rows.bad_indices(name):
        result = found[name, f"eager/{bad}"]
        assert names_it(name, bad, result), (bad, result)
        assert result["ok"]


@named
def test_indices_that_change_before_backward_are_named_or_were_copied(found, name):
    for bad in rows.bad_indices(name):
        result = found[name, f"changed/{bad}"]
        assert result["same"] or names_it(name, bad, result), (bad, result)
        assert result["ok"]


@named
@pytest.mark.parametrize("kind", ["argument", "outside"])
def test_a_replay_names_what_the_tape_names_and_goes_on_after_it(found, name, kind):
    for bad in rows.bad_indices(name):
        if name in rows.NOT_CAPTURED:
            continue
        result = found[name, f"replay_{kind}/{bad}"]
        eager = found[name, f"eager/{bad}"]
        assert (result["error"], result["text"]) == (eager["error"], eager["text"])
        assert result["ok"]
        assert result["same"]


def test_every_primitive_that_takes_integers_is_in_the_table(found):
    taking = set()
    for primitive in REGISTRY.values():
        for draw in primitive.samples:
            if any(isinstance(arg, np.ndarray) and arg.dtype.kind in "iu" for arg in draw(np.random.default_rng(0))):
                taking.add(primitive.name)
    met = {name for row in rows.TABLE for name in found[row, "primitives"]["found"]}
    assert taking - met - set(NO_INDICES) == set()
    assert set(NO_INDICES) <= taking


# --- one look ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", "int8 int16 int32 int64 uint8 uint16 uint32 uint64".split())
@pytest.mark.parametrize("size", [0, 1, 5, 127, 128, 129, 255, 256, 1000])
def test_a_look_sees_what_comparing_sees(dtype, size):
    info = np.iinfo(dtype)
    for value in {
        0,
        1,
        4,
        126,
        127,
        128,
        254,
        255,
        256,
        999,
        1000,
        -1,
        -128,
        info.min,
        info.max,
        size - 1,
        size,
        -size,
    }:
        if not info.min <= value <= info.max:
            continue
        for index in (np.array(value, dtype), np.array([[0, value]], dtype)[:, ::-1]):
            right = bool(((index >= 0) & (index < size)).all())
            assert not domains.inside(index, size) or right
            if right:
                domains.look_range("f", index, size)
            else:
                with pytest.raises(IndexError, match="f: expected indices in"):
                    domains.look_range("f", index, size)


def test_a_look_at_nothing_is_content():
    domains.look_range("f", np.zeros((0, 3), np.int64), 0)
    domains.look_classes("f", np.zeros(0, np.int64), 0, -100)
    domains.look_unit_interval("f", "x", np.zeros((2, 0)))
    domains.look_divisor("f", np.zeros(0, np.int64))


@pytest.mark.parametrize("dtype", ["bfloat16", np.float16, np.float32, np.float64])
def test_a_look_at_probabilities_sees_signs_and_nan(dtype):
    for legal in (0.0, -0.0, 1.0, 0.5, 5e-8):
        domains.look_unit_interval("f", "x", np.array([legal, 0.5], dtype)[::-1])
    for wrong in (-1e-7, 1.01, np.inf, -np.inf, np.nan, -np.nan):
        with pytest.raises(ValueError, match=r"f: expected x in \[0, 1\], got values from"):
            domains.look_unit_interval("f", "x", np.array([0.5, wrong], dtype))


# --- values with a domain ---------------------------------------------------------------------------------------------


def whole(*values):
    return kobai.tensor(values)


VALUES = {
    "bce_input": (
        lambda x: F.binary_cross_entropy(x, kobai.ones(2)),
        [0.2, 0.9],
        [0.2, 1.5],
        "probabilities in [0, 1]",
    ),
    "bce_nan": (
        lambda x: F.binary_cross_entropy(x, kobai.ones(2)),
        [0.2, 0.9],
        [0.2, np.nan],
        "probabilities in [0, 1]",
    ),
    "bce_target": (lambda t: F.binary_cross_entropy(t * 0 + 0.5, t), [0.0, 1.0], [0.0, -2.0], "targets in [0, 1]"),
    "bernoulli": (
        lambda p: kobai.distributions.Bernoulli(p).log_prob(kobai.ones(2)),
        [0.5, 1.0],
        [0.5, 1.5],
        "Bernoulli: expected probs in [0, 1]",
    ),
    "normal": (
        lambda s: kobai.distributions.Normal(kobai.zeros(2), s).log_prob(kobai.ones(2)),
        [0.5, 1.0],
        [0.5, -1.0],
        "Normal: expected scale > 0",
    ),
    "categorical": (
        lambda p: kobai.distributions.Categorical(p).log_prob(kobai.zeros(2, dtype=kobai.int64).sum()),
        [0.5, 0.5],
        [0.5, -0.5],
        "Categorical: expected probs",
    ),
    "floor_divide": (
        lambda d: kobai.full((2,), 7) // d,
        [2, 3],
        [2, 0],
        "floor_divide: expected integers other than 0",
    ),
    "remainder": (lambda d: kobai.full((2,), 7) % d, [2, 3], [0, 3], "remainder: expected integers other than 0"),
    "fmod": (lambda d: kobai.fmod(kobai.full((2,), 7), d), [2, 3], [0, 3], "fmod: expected integers other than 0"),
    "div_trunc": (
        lambda d: kobai.div(kobai.full((2,), 7), d, rounding_mode="trunc"),
        [2, 3],
        [2, 0],
        "div: expected integers other than 0 to divide by, got 0 at position 1",
    ),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_outside_a_domain_are_named_by_the_tape_and_by_replays(name):
    function, legal, wrong, message = VALUES[name]
    with pytest.raises((ValueError, RuntimeError)) as eager:
        function(kobai.tensor(wrong))
    assert message in str(eager.value)
    step = kobai.capture(lambda x: function(x) * 1)
    for _ in range(3):
        step(kobai.tensor(legal))
    with pytest.raises(type(eager.value)) as replayed:
        step(kobai.tensor(wrong))
    assert str(replayed.value) == str(eager.value)
    np.testing.assert_array_equal(step(kobai.tensor(legal)).numpy(), function(kobai.tensor(legal)).numpy())
    assert step.programs == 1


def test_numbers_as_divisors_and_floats():
    for divide in (kobai.floor_divide, kobai.remainder, kobai.fmod):
        with pytest.raises(
            RuntimeError, match=f"{divide.__name__}: expected integers other than 0 to divide by, got 0"
        ):
            divide(whole(1, 2), 0)
        assert not kobai.isfinite(divide(kobai.tensor([1.0]), 0.0)).item()
        assert not kobai.isfinite(divide(whole(1, 2), 0.0)).any().item()


def test_draws_want_probabilities():
    for wrong in (1.5, -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"bernoulli: expected probabilities in \[0, 1\]"):
            kobai.bernoulli(kobai.tensor([0.5, wrong]))
    with pytest.raises(RuntimeError, match=r"bernoulli_: expected p in \[0, 1\], got 2"):
        kobai.zeros(2).bernoulli_(2)
    with pytest.raises(RuntimeError, match="multinomial: expected a weight > 0 in every row, got a row of zeros"):
        kobai.multinomial(kobai.tensor([[1.0, 0.0], [0.0, 0.0]]), 1)


def test_a_replay_that_raises_has_changed_no_parameter():
    w = kobai.randn(4, 3, requires_grad=True)
    optimizer = kobai.optim.SGD([w], lr=0.5)

    @kobai.capture
    def step(i):
        optimizer.zero_grad()
        loss = (kobai.embedding(w, i) ** 2).sum()
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(3):
        step(whole(0, 1))
    before = w.detach().clone()
    with pytest.raises(IndexError, match=r"embedding: expected indices in \[0, 3\], got 4"):
        step(whole(0, 4))
    assert kobai.equal(before, w.detach())
    assert step(whole(2, 3)).item() == pytest.approx((before[2:] ** 2).sum().item())
    assert step.programs == 1


def test_steps_that_raise_leave_adam_as_without_capture():
    def trained(wrap):
        kobai.manual_seed(1)
        w = kobai.randn(4, 3, requires_grad=True)
        optimizer = kobai.optim.Adam([w], lr=0.1)

        def step(i):
            optimizer.zero_grad()
            loss = (kobai.embedding(w, i) ** 2).sum()
            loss.backward()
            optimizer.step()
            return loss

        run = wrap(step)
        for indices in ([0, 1], [1, 2], [2, 3], [3, 0], [0, 9], [0, 1], [-1, 1], [2, 2]):
            if {-1, 9} & set(indices):
                with pytest.raises(IndexError, match="embedding: expected indices"):
                    run(kobai.tensor(indices))
            else:
                run(kobai.tensor(indices))
        return w.detach().numpy().copy()

    np.testing.assert_array_equal(trained(kobai.capture), trained(lambda step: step))


def test_an_index_table_of_bytes_reaches_far_positions():
    wide = kobai.zeros(3, 300, requires_grad=True)
    kobai.embedding(wide, kobai.tensor([2, 1, 2], dtype=kobai.uint8)).sum().backward()
    np.testing.assert_array_equal(wide.grad.numpy()[:, 0], [0, 1, 2])
    np.testing.assert_array_equal(wide.grad.numpy()[:, 299], [0, 1, 2])


@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
def test_places_that_are_no_numbers_are_outside_an_image(padding_mode):
    image = kobai.ones(1, 1, 2, 2)
    grid = kobai.tensor([[[[float("nan"), 0.0], [float("inf"), 0.0], [0.0, 0.0]]]])
    seen = F.grid_sample(image, grid, padding_mode=padding_mode, align_corners=True).numpy().ravel()
    assert seen[2] == 1


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([0, 3], r"offsets: expected indices in \[0, 2\], got 3"),
        ([1, 2], r"first of the offsets: .* in \[0, 0\], got 1"),
    ],
)
def test_bags_begin_at_the_first_index_and_end_with_the_last(offsets, message):
    bags = kobai.capture(lambda i, begins: F.embedding_bag(i, kobai.eye(3), begins, mode="sum"))
    for _ in range(3):
        assert bags(whole(0, 2), whole(0, 2)).tolist() == [[1, 0, 1], [0, 0, 0]]
    for call in (bags, bags.step):
        with pytest.raises(IndexError, match=message):
            call(whole(0, 2), kobai.tensor(offsets))


def test_the_padding_row_is_one_of_the_table():
    with pytest.raises(IndexError, match=r"embedding: expected padding_idx in \[-3, 2\], got 3"):
        kobai.embedding(kobai.zeros(3, 2), whole(0), padding_idx=3)

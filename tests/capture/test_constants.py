"""Constants that a recorded step makes, and functions of NumPy that no list names."""

from __future__ import annotations

import numpy as np
import pytest

import kobai
from kobai.capture.memory import Workspace
from kobai.capture.session import HostSession
from kobai.xp import xp_of


def test_a_constant_that_the_step_writes_into_is_restored_before_each_replay():
    def step(x):
        factor = kobai.tensor(2.0)
        first = x + factor
        factor += 1
        second = first * factor
        factor *= x.sum()
        return second, factor.clone()

    captured = kobai.capture(step)
    for k in range(5):
        x = kobai.full((3,), float(k))
        for ours, theirs in zip(captured(x), step(x), strict=True):
            assert ours.tolist() == theirs.tolist()
    assert captured.programs == 1


def test_a_failed_replay_sets_gradients_in_order_although_constants_come_first():
    weight, indices = kobai.ones(3, requires_grad=True), kobai.tensor([0, 2])

    def step(x, i):
        weight.grad = None
        factor = kobai.tensor(2.0)
        factor += x.sum()
        (weight * factor).sum().backward()
        return x[i]

    captured = kobai.capture(step, verify=0)
    for _ in range(3):
        captured(kobai.ones(3), indices)
    assert captured.programs == 1
    weight.grad = None
    with pytest.raises(IndexError):
        captured(kobai.zeros(3), kobai.tensor([0, 7]))
    assert weight.grad.tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    "call",
    [
        lambda xp, a: xp.copy(a),
        lambda xp, a: xp.reshape(a, (3, 2)),
        lambda xp, a: xp.reshape(a.T, (2, 3)),
        lambda xp, a: xp.ravel(a),
        lambda xp, a: xp.ravel(a, order="F"),
        lambda xp, a: a.reshape(3, 2, order="F"),
        lambda xp, a: a.reshape(-1, order="F") + a.flatten("F"),
        lambda xp, a: a.T.reshape(6) + a.T.flatten(),
        lambda xp, a: xp.roll(a, 1),
        lambda xp, a: xp.where(a, 2 * a, a - 1),
        lambda xp, a: xp.concatenate(xp.split(a, 3, 1)),
        lambda xp, a: xp.modf(a)[1],
    ],
)
def test_a_replay_does_what_the_function_does(call):
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 2, 3)).astype("f")
    session = HostSession(Workspace(), False, [kobai.from_numpy(first)])

    def step(x):
        return kobai.Tensor._wrap(call(xp_of(x._array), x._array)) * 2

    result = session.run(step, (kobai.from_numpy(first),), {})
    np.testing.assert_array_equal(result.numpy(), call(np, first) * 2)
    session.inputs[0]._array[...] = second
    session.recorder.finished().replay()
    np.testing.assert_array_equal(result.numpy(), call(np, second) * 2)

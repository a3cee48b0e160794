"""In-place changes: what backward needs is watched, and views and bases stay in the graph."""

from __future__ import annotations

import numpy as np
import pytest

import kobai
from graphs import leaf


def test_leaves_and_their_views_change_only_outside_the_tape():
    x = leaf(1.0, 2.0)
    for change in (lambda: x.add_(1), lambda: x[:1].mul_(2), lambda: x.__setitem__(0, 5.0), lambda: x.zero_()):
        with pytest.raises(RuntimeError, match="leaf that requires a gradient cannot be changed in place"):
            change()
    with kobai.no_grad():
        x.add_(1)
        x[0] = 7
    assert x.tolist() == [7, 3]
    assert x.is_leaf
    x.data[1] = 0
    x.detach().mul_(2)
    assert x.tolist() == [14, 0]


@pytest.mark.parametrize(
    "change",
    [lambda y: y.add_(1), lambda y: y.__setitem__(0, 0.0), lambda y: y.detach().add_(1), lambda y: y[:1].zero_()],
    ids=["op", "setitem", "detached", "view"],
)
def test_a_change_of_what_backward_needs_is_found(change):
    x = leaf(1.0, 2.0)
    y = x * 2
    z = y.exp() * y  # keeps y
    change(y)
    with pytest.raises(
        RuntimeError, match=r"changed in place after it was used \(it is at version \d+, expected \d+\)"
    ):
        z.sum().backward()


def test_a_change_under_no_grad_is_found_too():
    x, w = leaf(1.0), leaf(2.0)
    y = (x * w).sum()
    with kobai.no_grad():
        w.mul_(2)
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


def test_a_change_of_the_output_is_found_where_the_output_is_needed():
    x = leaf(1.0)
    y = x.exp()
    z = y.sum()
    y.add_(1)
    with pytest.raises(RuntimeError, match="a tensor that ExpBackward needs was changed in place"):
        z.backward()


def test_a_change_of_what_backward_does_not_need_is_allowed():
    x = leaf(1.0, 2.0)
    y = x * 2
    z = y + 1  # needs no values
    y.mul_(5)
    (z.sum() + y.sum()).backward()
    assert x.grad.tolist() == [12, 12]


def test_data_is_unseen():
    x, w = leaf(1.0), leaf(2.0)
    y = (x * w).sum()
    w.data.mul_(10)
    y.backward()
    assert x.grad.tolist() == [20], "PyTorch too computes with what is there"


def test_in_place_chain():
    x = leaf(1.0, 2.0)
    y = x * 1
    y += 1
    y *= 3
    y -= x
    y /= 2
    y **= 2
    y.sum().backward()
    value = (3 * (x.array + 1) - x.array) / 2
    np.testing.assert_allclose(x.grad.array, 2 * value, rtol=1e-14)


def test_in_place_on_a_view_reaches_base_and_siblings():
    x = leaf(1.0, 2.0, 3.0, 4.0)
    base = x * 1
    left, right, whole = base[:2], base[2:], base.reshape(2, 2)
    left.mul_(10)
    assert base.tolist() == [10, 20, 3, 4]
    (base.sum() + right.sum() + whole[0].sum() + left.sum()).backward()
    assert x.grad.tolist() == [30, 30, 2, 2]


def test_in_place_on_the_base_reaches_views_made_before():
    x = leaf(1.0, 2.0)
    base = x * 1
    view = base[1:]
    base.mul_(x)
    assert view.requires_grad
    (view * 3).sum().backward()
    assert x.grad.tolist() == [0, 12]


def test_in_place_on_a_view_of_a_view():
    x = leaf(1.0, 2.0, 3.0, 4.0)
    base = x * 1
    inner = base.reshape(2, 2).t()[0]
    inner.mul_(5)
    inner.add_(1)
    assert base.tolist() == [6, 2, 16, 4]
    (base * base).sum().backward()
    assert x.grad.tolist() == [60, 4, 160, 8]


def test_a_constant_becomes_part_of_the_graph_by_a_change():
    x = leaf(2.0)
    buffer = kobai.zeros(3, dtype=kobai.float64)
    view = buffer[1:]
    buffer[0] = x[0] * 3
    view.add_(x)
    assert buffer.requires_grad
    assert not buffer.is_leaf
    (buffer * kobai.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert x.grad.tolist() == [113]


def test_in_place_overwriting_cuts_the_past():
    x = leaf(1.0, 2.0)
    y = x * 2
    y[0] = 7
    y.sum().backward()
    assert x.grad.tolist() == [0, 2]
    z = leaf(1.0) * 2
    z.zero_()
    assert z.tolist() == [0]


def test_in_place_on_detached_memory_is_seen_by_both():
    x = leaf(1.0, 2.0)
    y = x * 2
    y.detach()[0] = 100
    assert y.tolist() == [100, 4]
    y.sum().backward()
    assert x.grad.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: kobai.ones(2).add_(kobai.ones(3, 2)), r"result has shape \(3, 2\), the tensor \(2,\)"),
        (lambda: kobai.arange(3).add_(0.5), "result of kobai.float32 cannot be kept in a tensor of kobai.int64"),
        (lambda: kobai.arange(3).div_(2), "result of kobai.float32 cannot be kept in a tensor of kobai.int64"),
        (lambda: kobai.ones(1).expand(3).add_(1), "share memory"),
    ],
)
def test_results_that_do_not_fit(change, message):
    with pytest.raises(RuntimeError, match=message):
        change()


def test_in_place_keeps_the_dtype():
    x = kobai.ones(2)
    x += kobai.ones(2, dtype=kobai.float64)
    assert x.dtype == kobai.float32
    n = kobai.arange(3)
    n //= 2
    assert (n.tolist(), n.dtype) == ([0, 0, 1], kobai.int64)


def test_in_place_with_itself():
    x = kobai.tensor([[1.0, 2.0], [3.0, 4.0]])
    x.add_(x.t())
    assert x.tolist() == [[2, 5], [5, 8]]
    y = kobai.arange(5.0)
    y[1:] += y[:-1]
    assert y.tolist() == [0, 1, 3, 5, 7]

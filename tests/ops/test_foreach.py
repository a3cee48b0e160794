"""Operations on lists of tensors: each is the method of its name, element by element."""

import numpy as np
import pytest

import kobai
from kobai.ops import foreach

ONE = sorted(name for name in foreach.NAMES if name.removeprefix("_foreach_").rstrip("_") in foreach._ONE.split())
TWO = ["add", "clamp_max", "clamp_min", "div", "maximum", "minimum", "mul", "pow", "sub"]


def lists(module, n=2):
    rng = np.random.default_rng(0)
    return [[module.tensor(rng.uniform(0.1, 0.9, shape)) for shape in ((3,), (2, 2), ())] for _ in range(n)]


def values(result):
    return [np.asarray(t.numpy()) for t in result]


def alike(call):
    """What ``call`` returns, and leaves in the first list, in both libraries."""
    torch = pytest.importorskip("torch")
    found = []
    for module in (kobai, torch):
        given = lists(module, 3)
        result = call(module, *given)
        assert (result is given[0]) == isinstance(result, list)
        found.append([*values(result), *values(given[0])])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
        assert ours.dtype == theirs.dtype


@pytest.mark.oracle
@pytest.mark.parametrize("name", ONE)
def test_of_one_list(name):
    alike(lambda module, a, b, c: getattr(module, name)(a))


@pytest.mark.oracle
@pytest.mark.parametrize("name", [f"_foreach_{name}{form}" for name in TWO for form in ("", "_")])
@pytest.mark.parametrize("other", ["list", "number", "numbers"])
def test_of_two_lists(name, other):
    second = {"list": lambda b: b, "number": lambda b: 0.5, "numbers": lambda b: [0.5, 2.0, 1.0]}[other]
    alike(lambda module, a, b, c: getattr(module, name)(a, second(b)))


@pytest.mark.oracle
@pytest.mark.parametrize(
    "call",
    [
        lambda module, a, b, c: module._foreach_add(a, b, alpha=3),
        lambda module, a, b, c: module._foreach_sub_(a, b, alpha=3),
        lambda module, a, b, c: module._foreach_mul(a, module.tensor(2.0)),
        lambda module, a, b, c: module._foreach_addcmul_(a, b, c, value=2),
        lambda module, a, b, c: module._foreach_addcmul(a, b, c, [1, 2, 3]),
        lambda module, a, b, c: module._foreach_addcdiv(a, b, c, module.tensor([1.0, 2.0, 3.0])),
        lambda module, a, b, c: module._foreach_addcdiv_(a, b, c, value=-0.5),
        lambda module, a, b, c: module._foreach_lerp_(a, b, 0.3),
        lambda module, a, b, c: module._foreach_lerp(a, b, c),
        lambda module, a, b, c: module._foreach_norm(a),
        lambda module, a, b, c: module._foreach_norm(a, ord=1),
        lambda module, a, b, c: module._foreach_norm(a, float("inf")),
        lambda module, a, b, c: module._foreach_pow(2.0, b),
        lambda module, a, b, c: module._foreach_max(a),
        lambda module, a, b, c: module._foreach_clone(a),
        lambda module, a, b, c: module._foreach_copy_(a, b),
        lambda module, a, b, c: module._foreach_zero_(a),
    ],
)
def test_of_more(call):
    alike(call)


def test_what_is_no_list_of_that_length_is_refused():
    a, b = lists(kobai)
    for call in (
        lambda: kobai._foreach_add(a, b[:2]),
        lambda: kobai._foreach_add([], 1),
        lambda: kobai._foreach_neg(3),
    ):
        with pytest.raises(RuntimeError, match="expected lists of one length"):
            call()
    assert not hasattr(kobai, "_foreach_nonsense")


def test_gradients_go_through():
    a = [kobai.tensor([2.0], requires_grad=True), kobai.tensor([3.0], requires_grad=True)]
    sum(t.sum() for t in kobai._foreach_mul(a, a)).backward()
    assert [t.grad.item() for t in a] == [4, 6]
    with kobai.no_grad():
        kobai._foreach_add_(a, [t.grad for t in a], alpha=-0.5)
    assert [t.item() for t in a] == [0, 0]

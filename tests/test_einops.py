"""einops takes Kobai's tensors, and makes Kobai's modules."""

import subprocess
import sys

import numpy as np
import pytest
from einops import einsum, pack, rearrange, reduce, repeat, unpack

import kobai
from kobai import nn
from kobai.gradcheck import gradcheck


def numbers(*shape: int) -> kobai.Tensor:
    return kobai.randn(*shape, dtype=kobai.float64)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: rearrange(x, "b c (h p) (w q) -> b (h w) (p q c)", p=2, q=3),
        lambda x: repeat(x, "b c h w -> b (c n) h w m", n=2, m=3),
        *(lambda x, how=how: reduce(x, "b c h w -> b c", how) for how in ("mean", "sum", "max", "min", "prod")),
        lambda x: reduce(x, "b c h w -> b 1 h w", "mean"),
        lambda x: einsum(x, x, "b c h w, b d h w -> b c d"),
        lambda x: rearrange([x[0], x[1]], "b c h w -> c b h w"),
    ],
)
def test_values_are_those_of_numpy_and_gradients_flow(call):
    x = numbers(2, 3, 4, 6)
    np.testing.assert_allclose(call(x).numpy(), call(x.numpy()), rtol=1e-12)
    assert gradcheck(call, (x.requires_grad_(),))


def test_packed_and_unpacked():
    a, b = numbers(2, 3, 4), numbers(2, 5)
    packed, shapes = pack([a, b], "n *")
    assert packed.shape == (2, 17)
    assert all((x == y).all() for x, y in zip((a, b), unpack(packed, shapes, "n *"), strict=True))


def test_a_captured_step_has_the_bits_of_an_eager_one():
    weight = kobai.randn(4, 3, requires_grad=True)

    def step(x):
        weight.grad = None
        (rearrange(x, "n (a b) -> (n a) b", b=3) @ weight.t()).square().mean().backward()
        return weight.grad.clone()

    captured = kobai.capture(step)
    for _ in range(4):
        x = kobai.randn(5, 6)
        assert (captured(x) == step(x)).all()


def test_layers_are_kobais_modules():
    from einops.layers.kobai import Rearrange, Reduce

    net = nn.Sequential(nn.Linear(4, 6), Rearrange("n (a b) -> n a b", a=2), Reduce("n a b -> n b", "max"))
    assert net(kobai.randn(5, 4)).shape == (5, 3)
    assert "Rearrange('n (a b) -> n a b', a=2)" in repr(net)
    assert list(net.state_dict()) == ["0.weight", "0.bias"]


@pytest.mark.parametrize("first", ["einops", "kobai"])
def test_either_may_be_imported_first(first):
    second = {"einops": "kobai", "kobai": "einops"}[first]
    program = f"""
import {first}, {second}
assert einops.rearrange(kobai.zeros(2, 3), "a b -> b a").shape == (3, 2)
"""
    subprocess.run([sys.executable, "-c", program], check=True)

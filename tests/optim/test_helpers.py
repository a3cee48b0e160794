"""What optimisers of programs import from ``optim.optimizer`` beside Optimizer."""

import importlib

import numpy as np
import pytest

import kobai
from kobai.optim.optimizer import _default_to_fused_or_foreach, _get_scalar_dtype, _to_scalar


def trained(t):
    """Three steps of an optimiser that is written as PyTorch's own ones are."""
    o = importlib.import_module(f"{t.__name__}.optim.optimizer")

    class Momentum(o.Optimizer):
        def __init__(self, params: "o.ParamsT", lr=0.1, differentiable=False):
            super().__init__(params, {"lr": lr, "differentiable": differentiable})

        @o._use_grad_for_differentiable
        def step(self, closure=None):
            assert not t.is_grad_enabled()
            for group in self.param_groups:
                assert o._default_to_fused_or_foreach(group["params"], True, False) == (False, False)
                for p in group["params"]:
                    state = self.state[p]
                    if not state:
                        state["step"] = t.tensor(0.0)
                        state["m"] = t.zeros_like(p)
                    state["step"] += 1
                    state["m"].mul_(0.9).add_(p.grad)
                    correction = (1 - 0.9 ** o._get_value(state["step"])) ** 0.5
                    p.addcdiv_(state["m"], t.full_like(p, correction), value=-group["lr"])

    p = t.tensor([1.0, -2.0], requires_grad=True)
    optimizer = Momentum([p])
    for _ in range(3):
        optimizer.zero_grad()
        (p**3).sum().backward()
        optimizer.step()
    return p.detach().numpy()


@pytest.mark.oracle
def test_an_optimiser_of_pytorchs_parts_as_in_pytorch():
    np.testing.assert_allclose(trained(kobai), trained(importlib.import_module("torch")), rtol=1e-5)


def test_parts():
    assert trained(kobai).shape == (2,)
    assert _default_to_fused_or_foreach([], False) == (False, False)
    assert _get_scalar_dtype() == kobai.float32
    assert _to_scalar(kobai.ones(1)).dim() == 0
    assert _to_scalar(0.1) == 0.1

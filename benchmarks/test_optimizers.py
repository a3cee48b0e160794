"""One update of every optimiser, and clipping, on the parameters of the nets S, M and L."""

from __future__ import annotations

from itertools import pairwise

import pytest

import kobai
from cases import CPU
from kobai.nn.utils import clip_grad_norm_, clip_grad_value_

NETS = ["S", "M", pytest.param("L", marks=pytest.mark.large)]
OPTIMIZERS = {
    "SGD": {},
    "SGD, momentum": {"momentum": 0.9},
    **{name: {} for name in ("Adagrad", "RMSprop", "Adadelta", "Adam", "AdamW", "Adamax", "NAdam", "RAdam")},
}


def parameters(net, rng):
    """Parameters with gradients, and how many numbers they are."""
    sizes = [shape for m, n in pairwise(CPU[net].sizes) for shape in ((n, m), (n,))]
    params = [kobai.tensor(rng.standard_normal(size).astype("float32"), requires_grad=True) for size in sizes]
    for p in params:
        p.grad = kobai.tensor(rng.standard_normal(p.shape).astype("float32"))
    return params, f"{sum(p.numel() for p in params):,} parameters"


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_update(name, net, timed, rng):
    params, size = parameters(net, rng)
    update = getattr(kobai.optim, name.partition(",")[0])(params, lr=1e-3, **OPTIMIZERS[name])
    timed(f"{name}: {size}", update.step)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("function", [clip_grad_norm_, clip_grad_value_], ids=lambda f: f.__name__)
def test_clip(function, net, timed, rng):
    params, size = parameters(net, rng)
    timed(f"{function.__name__}: {size}", lambda: function(params, 1.0))

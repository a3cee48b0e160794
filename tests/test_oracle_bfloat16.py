"""PyTorch as the truth for bfloat16: every operation of its test database that both have, on the CPU.

A result lies within one unit in the last place of PyTorch's, or of PyTorch's float32 result rounded: there PyTorch itself
rounds in between, and Kobai does not.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest

import kobai

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]

from torch.testing._internal.common_methods_invocations import op_db  # noqa: E402

from oracle import bridge  # noqa: E402

BFLOAT16 = kobai.bfloat16.dtype
SAMPLES = 12

DRAWN = """bernoulli empty empty_like empty_strided nn.functional.multi_head_attention_forward multinomial
nn.functional.alpha_dropout nn.functional.dropout nn.functional.dropout2d nn.functional.dropout3d
nn.functional.feature_alpha_dropout nn.functional.rrelu normal new_empty rand_like randint randint_like
randn randn_like""".split()
"""Numbers are drawn, or not set: dtypes and shapes are compared."""

CHAOTIC = ["matrix_exp", "special.ndtr"]
"""The first squares again and again what was rounded; PyTorch's own results are nan. PyTorch's normal tail is 0 early."""

COMPOSED = """gradient addbmm addcdiv addcmul addmm addmv addr baddbmm corrcoef cov dist lerp linspace nn.functional.bilinear
nn.functional.cosine_similarity nn.functional.embedding_bag nn.functional.grid_sample nn.functional.hinge_embedding_loss
nn.functional.scaled_dot_product_attention renorm""".split()
"""Several operations in Kobai, each of which rounds: within some steps of the largest number of the result."""

TIES = "argsort mode msort sort topk".split()
"""Of equal elements – in bfloat16 there are many – PyTorch takes another; the values are compared."""


def single(part: Any) -> Any:
    return part.float() if isinstance(part, torch.Tensor) and part.dtype == torch.bfloat16 else part


def ours_of(part: Any) -> Any:
    brain = isinstance(part, torch.Tensor) and part.dtype == torch.bfloat16
    return bridge.put(part.float()).bfloat16() if brain else bridge.put(part)


def near(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    step = np.spacing(np.abs(wanted).clip(1.2e-38, 3e38).astype(BFLOAT16)).astype(np.float64)
    return (np.abs(found - wanted) <= 1.01 * step) | (found == wanted) | (np.isnan(found) & np.isnan(wanted))


def numbers(t: Any) -> np.ndarray:
    return t.detach().float().numpy().astype(np.float64)


INFOS = [info for info in op_db if torch.bfloat16 in info.dtypes and bridge.has(info.name) and info.name not in CHAOTIC]


@pytest.mark.parametrize("info", INFOS, ids=lambda info: info.full_name)
def test_bfloat16_as_in_pytorch(info):
    compared = 0
    try:
        function = bridge.put(info.op)  # which may turn the arguments round
    except bridge.LackingError:
        function = bridge.lookup(info.name)
    for sample in islice(info.sample_inputs("cpu", torch.bfloat16, requires_grad=False), SAMPLES):
        given = (sample.input, sample.args, sample.kwargs)
        try:
            theirs = info.op(bridge.own(given[0]), *bridge.own(given[1]), **bridge.own(given[2]))
            input, args, kwargs = bridge.rebuild(bridge.own(given), single)
            exact = info.op(input, *args, **kwargs)
            input, args, kwargs = bridge.rebuild(bridge.own(given), ours_of)
        except (RuntimeError, NotImplementedError, bridge.ForeignError, bridge.LackingError):
            continue
        try:
            ours = function(input, *args, **kwargs)
        except (RuntimeError, NotImplementedError, TypeError, ValueError):
            input, args, kwargs = bridge.put(bridge.rebuild(bridge.own(given), single))
            with pytest.raises((RuntimeError, NotImplementedError, TypeError, ValueError)):
                function(input, *args, **kwargs)
            continue  # Kobai has not that form of it, in any dtype
        for right, found, precise in zip(*map(bridge.tensors, (theirs, ours, exact)), strict=True):
            assert str(found.dtype) == str(right.dtype).replace("torch", "kobai")
            assert found.shape == tuple(right.shape)
            compared += 1
            if info.name in DRAWN or kwargs.get("dropout_p") or (info.name in TIES and not found.is_floating_point()):
                continue
            a, b, c = numbers(found), numbers(right), numbers(precise.bfloat16())
            fine = near(a, b) | near(a, c)
            if info.name in COMPOSED and not fine.all():
                sizes = [np.abs(n[np.isfinite(n)]).max(initial=0) for n in (c, *map(numbers, bridge.tensors(given)))]
                fine |= np.abs(a - c) <= 2**-4 * max(sizes)
            assert fine.all(), (a[~fine][:3], b[~fine][:3], c[~fine][:3])
    if not compared:
        pytest.skip("no sample that both take")

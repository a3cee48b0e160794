"""PyTorch as the truth for autocast: the dtype of every result on the CPU, and both of PyTorch's lists."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest

import kobai
import strict  # noqa: F401 - a backend

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]

from torch.testing._internal.common_methods_invocations import op_db  # noqa: E402

from oracle import bridge  # noqa: E402

SAMPLES = 6
INFOS = [info for info in op_db if torch.bfloat16 in info.dtypes and bridge.has(info.name)]
OTHERWISE = {
    "einsum": "without products to sum PyTorch computes as given",
    "inner": "of vectors PyTorch calls dot, which is not on the list",
    "tensordot": "over all dimensions PyTorch calls dot or sum",
    "nn.functional.max_pool3d": "with indices PyTorch calls another function, which is not on the list",
}
"""Where the dtype is another one on the CPU, for some arguments."""

REFUSED = (
    RuntimeError,
    NotImplementedError,
    TypeError,
    ValueError,
    IndexError,
    bridge.ForeignError,
    bridge.LackingError,
)


def put(part: Any) -> Any:
    brain = isinstance(part, torch.Tensor) and part.dtype == torch.bfloat16
    return bridge.put(part.float()).bfloat16() if brain else bridge.put(part)


def narrowed(part: Any) -> Any:
    return part.bfloat16() if isinstance(part, torch.Tensor) and part.dtype == torch.float32 else part


@pytest.mark.parametrize("info", INFOS, ids=lambda info: info.full_name)
def test_the_dtype_of_every_result_on_the_cpu(info):
    compared = 0
    try:
        function = bridge.put(info.op)
    except bridge.LackingError:
        function = bridge.lookup(info.name)
    for sample in islice(info.sample_inputs("cpu", torch.float32, requires_grad=False), SAMPLES):
        plain = (sample.input, sample.args, sample.kwargs)
        for given in (plain, bridge.rebuild(plain, narrowed)):
            try:
                with torch.autocast("cpu"):
                    input, args, kwargs = bridge.own(given)
                    theirs = info.op(input, *args, **kwargs)
                input, args, kwargs = bridge.rebuild(bridge.own(given), put)
                with kobai.autocast("cpu"):
                    ours = function(input, *args, **kwargs)
            except REFUSED:
                continue
            for right, found in zip(*map(bridge.tensors, (theirs, ours)), strict=True):
                compared += 1
                if info.name in OTHERWISE and found.dtype in (kobai.bfloat16, kobai.float32):
                    continue
                assert str(found.dtype) == str(right.dtype).replace("torch", "kobai"), [
                    (tuple(t.shape), t.dtype) for t in bridge.tensors(given)
                ]
    if not compared:
        pytest.skip("no sample that both take")


# --- the list for CUDA ------------------------------------------------------------------------------------------------


def _cuda_cases() -> list[tuple[str, Any, dict[str, Any], str]]:
    """PyTorch's own cases for its list: name, arguments, options, dtype of the result under float16."""
    from torch.testing._internal.autocast_test_lists import AutocastTestLists

    lists = AutocastTestLists("cpu")
    kinds = {
        "float16": ("torch_fp16", "nn_fp16", "methods_fp16", "linalg_fp16"),
        "float32": ("torch_fp32", "nn_fp32", "methods_fp32", "torch_need_autocast_promote"),
    }
    cases = []
    for dtype, names in kinds.items():
        for case in (case for name in names for case in getattr(lists, name)):
            name, args, *rest = case
            cases.append((name, args, rest[0] if rest and isinstance(rest[0], dict) else {}, dtype))
    return cases


ELSEWHERE = {"linalg_vecdot": "linalg.vecdot", "linalg_multi_dot": "linalg.multi_dot"}
ARGUMENTS = {
    "poisson_nll_loss": lambda args: args[:2],
    "linear": lambda args: args[:2],
    "margin_ranking_loss": lambda args: (*args[:2], args[0].sign()),
}
"""PyTorch's inner function has other arguments than the public one."""


def _places(name: str) -> Any:
    if name.startswith("__"):
        return getattr(kobai.Tensor, name)
    for prefix in ("", "nn.functional."):
        if bridge.has(prefix + ELSEWHERE.get(name, name)):
            return bridge.lookup(prefix + ELSEWHERE.get(name, name))
    return None


CUDA_CASES = [case for case in _cuda_cases() if _places(case[0]) is not None and case[0] != "einsum"]


@pytest.mark.parametrize("n", range(len(CUDA_CASES)), ids=lambda n: f"{CUDA_CASES[n][0]}-{n}")
def test_the_list_for_cuda(n):
    name, args, options, dtype = CUDA_CASES[n]
    function = _places(name)
    args = ARGUMENTS.get(name, lambda args: args)(args)

    def there(part: Any) -> Any:
        return bridge.put(part).to("strict") if isinstance(part, torch.Tensor) else part

    with kobai.autocast("strict", dtype=kobai.float16):
        result = function(*bridge.rebuild(args, there), **options)
    assert result.dtype == dtype

"""Tensors without dimensions stay tensors that hold an array: NumPy would make scalars of them."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest

import kobai
from kobai.nn import functional as F

STATEFUL = ("_", "manual_seed", "seed", "set_", "use")  # beginnings of names of what changes what other tests find
FUNCTIONS = {
    **{n: f for n, f in vars(kobai).items() if inspect.isfunction(f) and not n.startswith(STATEFUL)},
    **{f"functional.{n}": f for n, f in vars(F).items() if inspect.isfunction(f)},
    **{f"Tensor.{n}": f for n, f in vars(kobai.Tensor).items() if inspect.isfunction(f) and n != "__init__"},
}


@pytest.mark.few(3)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_results_hold_arrays(name):
    function = FUNCTIONS[name]
    for value in (0.5, 3, True):
        x = kobai.tensor(value)
        for args in ((x,), (x, x.clone()), (x, 2), (x, 0), (x > 0, x, x), (x, 0, kobai.tensor(0))):
            try:
                result = function(*args)
            except RecursionError:
                raise
            except Exception:
                continue  # this function does not take such arguments
            for part in result if isinstance(result, tuple) else (result,):
                if isinstance(part, kobai.Tensor):
                    assert type(part._array) is np.ndarray, args


def test_questions_about_a_loss_combine():
    loss = kobai.tensor(1.0) / 0
    assert bool(loss.isnan() | loss.isinf())
    assert not bool(~loss.isinf() & loss.isfinite())
    assert kobai.isclose(loss, loss).all()


OTHERS = [(), (2,), (kobai.tensor(0.5),), (kobai.tensor(0),), (kobai.tensor(0), kobai.tensor(0.5))]
WITH_DIM = {
    name: function
    for name, function in {**FUNCTIONS, **{f"linalg.{n}": f for n, f in vars(kobai.linalg).items()}}.items()
    if inspect.isfunction(function) and {"dim", "axis"} & set(inspect.signature(function).parameters)
}


@pytest.mark.few(3)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dim", [0, -1])
@pytest.mark.parametrize("name", WITH_DIM)
def test_the_missing_dimension_is_one_or_is_refused_by_name(name, dim):
    """What a function of a dimension makes of a number is what it makes of a vector of one; or its own error says no."""
    function = WITH_DIM[name]
    keyword = "dim" if "dim" in inspect.signature(function).parameters else "axis"
    for others in OTHERS:
        found = []
        for shape in ((), (1,)):
            args = [kobai.tensor(0.5), *(o.clone() if isinstance(o, kobai.Tensor) else o for o in others)]
            args = [a.reshape(shape) if isinstance(a, kobai.Tensor) else a for a in args]
            try:
                found.append(function(*args, **{keyword: dim}))
            except Exception as error:
                named = isinstance(error, TypeError) or re.match(r"[\w. -]+: ", str(error))
                if not named or isinstance(error, np.exceptions.AxisError):
                    raise
                found.append(None)
        parts = [r if isinstance(r, tuple) else (r,) for r in found]
        if None in found:
            continue
        for number, vector in zip(*parts, strict=True):
            if isinstance(number, kobai.Tensor) and not name.endswith(("topk", "squeeze", "stack", "split", "chunk")):
                assert number.numel() == vector.numel()
                assert number.dtype == vector.dtype
                np.testing.assert_array_equal(number.numpy().reshape(-1), vector.numpy().reshape(-1), str(others))

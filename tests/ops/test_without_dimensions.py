"""Tensors without dimensions stay tensors that hold an array: NumPy would make scalars of them."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import kobai
from kobai.nn import functional as F

STATEFUL = {
    "manual_seed",
    "seed",
    "set_printoptions",
    "use_deterministic_algorithms",
    "set_default_dtype",
    "set_default_device",
    "set_rng_state",
    "use",
    "set_num_threads",
}
FUNCTIONS = {
    **{n: f for n, f in vars(kobai).items() if inspect.isfunction(f) and not n.startswith("_") and n not in STATEFUL},
    **{f"functional.{n}": getattr(F, n) for n in F.__all__},
    **{f"Tensor.{n}": f for n, f in vars(kobai.Tensor).items() if inspect.isfunction(f) and n != "__init__"},
}


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

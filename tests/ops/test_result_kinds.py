"""Dtypes and shapes that are easily got wrong: of integers and truth values, of one row, of no dimensions."""

from __future__ import annotations

import numpy as np
import pytest

import kobai
from kobai.nn import functional as F

I = kobai.tensor([-3, 0, 2, 9])  # noqa: E741
U = kobai.tensor([200, 3], dtype=kobai.uint8)
ROW = kobai.tensor([[1.0, 2.0, 4.0]])

TABLE = {
    # name: (call, dtype, value)
    "threshold": (lambda: F.threshold(I, 1, -7), "int64", [-7, -7, 2, 9]),
    "threshold of uint8": (lambda: F.threshold(U, 5, 9), "uint8", [200, 9]),
    "hardtanh": (lambda: F.hardtanh(I, -2, 4), "int64", [-2, 0, 2, 4]),
    "hardtanh between": (lambda: F.hardtanh(I, -1.5, 2.5), "int64", [-1, 0, 2, 2]),
    "relu6": (lambda: F.relu6(U), "uint8", [6, 3]),
    "relu6 in place": (lambda: F.relu6(I.clone(), inplace=True), "int64", [0, 0, 2, 6]),
    "square of bool": (lambda: kobai.square(kobai.tensor([True, False])), "int64", [1, 0]),
    "einsum of uint8": (lambda: kobai.einsum("i->", U), "int64", 203),
    "einsum, one axis": (lambda: kobai.einsum("ij->i", U.reshape(1, 2)), "int64", [203]),
    "einsum, no sum": (lambda: kobai.einsum("i,j->ij", U, U[1:]), "uint8", [[88], [9]]),
    "vander": (lambda: kobai.vander(U), "int64", [[200, 1], [3, 1]]),
    "vander, no powers": (lambda: kobai.vander(kobai.tensor([2.0, 3.0]), 0), "float32", np.zeros((2, 0))),
    "logit of uint8": (lambda: kobai.logit(kobai.tensor([2], dtype=kobai.uint8), 1e-6), "float32", [13.8023]),
    "cov of one row": (lambda: kobai.cov(ROW), "float32", 7 / 3),
    "cov of integers": (lambda: kobai.cov(kobai.tensor([[1, 2], [3, 5]])), "float32", [[0.5, 1], [1, 2]]),
    "corrcoef of one row": (lambda: kobai.corrcoef(ROW), "float32", 1),
    "squeeze of no dimension": (lambda: kobai.squeeze(kobai.ones(1, 2, 1), ()), "float32", [[[1], [1]]]),
    "matrix_power 0": (lambda: kobai.linalg.matrix_power(kobai.ones(2, 2, 2), 0), "float32", [np.eye(2)] * 2),
    "prelu of a scalar": (lambda: F.prelu(kobai.tensor(-2.0), kobai.tensor([0.5])), "float32", -1),
    "sum_to_size": (lambda: kobai.tensor(True).sum_to_size(()), "int64", 1),
    "nanmean of float16": (lambda: kobai.nanmean(kobai.full((100,), 1000.0, dtype=kobai.float16)), "float16", 1000),
    "quantile of a scalar": (lambda: kobai.quantile(kobai.tensor(2.0), kobai.tensor([0.3, 0.4]), 0), "float32", [2, 2]),
    "quantile kept": (lambda: kobai.quantile(ROW, kobai.tensor([0.0, 1.0]), 1, True), "float32", [[[1]], [[4]]]),
    "quantile, lower": (lambda: kobai.quantile(ROW, 0.3, interpolation="lower"), "float32", 1),
    "quantile, higher": (lambda: kobai.quantile(ROW, 0.3, interpolation="higher"), "float32", 2),
    "quantile, nearest": (lambda: kobai.quantile(ROW, 0.3, interpolation="nearest"), "float32", 2),
    "quantile, midpoint": (lambda: kobai.quantile(ROW, 0.3, interpolation="midpoint"), "float32", 1.5),
}


@pytest.mark.parametrize("name", TABLE)
def test_value_dtype_and_shape(name):
    call, dtype, value = TABLE[name]
    found = call()
    assert found.dtype == dtype
    assert found.shape == np.shape(value)
    np.testing.assert_allclose(found.numpy(), value, rtol=1e-5)


def test_places_of_any_integers():
    for dtype in (kobai.uint8, kobai.int32, kobai.int64):
        rows, columns = kobai.unravel_index(kobai.tensor([0, 200], dtype=dtype), (2, 300))
        assert rows.dtype == columns.dtype == kobai.int64
        assert (rows.tolist(), columns.tolist()) == ([0, 0], [0, 200])


@pytest.mark.parametrize("name", "leaky_relu elu celu selu silu mish hardsigmoid hardswish dropout".split())
def test_integers_cannot_become_floats_in_place(name):
    x = I.clone()
    with pytest.raises(RuntimeError, match=r"a result of kobai\.float32 cannot be kept in a tensor of kobai\.int64"):
        getattr(F, name)(x, inplace=True)
    assert x.tolist() == I.tolist()


def test_quantile_refuses():
    for arguments, message in (
        ((I, 0.5), "expected floats, got kobai.int64"),
        ((ROW, 1.5), r"expected q in \[0, 1\]"),
        ((ROW, kobai.ones(1, 1)), "a number or a vector"),
        ((kobai.zeros(0), 0.5), "at least one element"),
    ):
        with pytest.raises(RuntimeError, match=message):
            kobai.quantile(*arguments)

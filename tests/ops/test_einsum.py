"""einsum against NumPy's, forward and backward, and its errors."""

from __future__ import annotations

import numpy as np
import pytest

import kobai

CASES = {
    "ij,jk->ik": [(2, 3), (3, 4)],
    "ij,jk": [(2, 3), (3, 4)],
    "ij->ji": [(2, 3)],
    "ij->": [(2, 3)],
    "ij": [(2, 3)],
    "ba": [(2, 3)],
    "ii": [(3, 3)],
    "ii->i": [(3, 3)],
    "iij->j": [(3, 3, 2)],
    "i,i": [(3,), (3,)],
    "i,j->ij": [(2,), (3,)],
    "bij,bjk->bik": [(2, 3, 4), (2, 4, 5)],
    "bhqd,bhkd->bhqk": [(2, 2, 3, 4), (2, 2, 5, 4)],
    "...ij,...jk->...ik": [(2, 5, 3, 4), (2, 5, 4, 2)],
    "...ij->...ji": [(2, 3, 4)],
    "ij,kj,lj->ikl": [(2, 3), (4, 3), (5, 3)],
    "bn,anm,bm->ba": [(2, 3), (4, 3, 5), (2, 5)],
    "ij,ij->ij": [(2, 3), (2, 3)],
    "ij,j->i": [(2, 3), (3,)],
    "ij,kl->": [(2, 3), (4, 5)],
    "a,a,a->a": [(3,), (3,), (3,)],
    "ij,jk->ki": [(0, 3), (3, 2)],
    "i,->i": [(3,), ()],
    " i j , j k -> i k ": [(2, 3), (3, 4)],
}


@pytest.mark.parametrize("equation", CASES)
def test_values_and_gradients(equation, backend):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=s) for s in CASES[equation]]
    operands = [kobai.tensor(a).requires_grad_() for a in arrays]
    y = kobai.einsum(equation, *operands)
    reference = np.einsum(equation, *arrays)
    assert y.shape == reference.shape
    np.testing.assert_allclose(np.reshape(y.tolist(), y.shape), reference, rtol=1e-12, atol=1e-14)
    assert kobai.autograd.gradcheck(lambda *xs: kobai.einsum(equation, *xs), operands, atol=1e-8, rtol=1e-6)


def test_operands_as_a_list():
    a, b = kobai.ones(2, 3), kobai.ones(3, 4)
    assert kobai.equal(kobai.einsum("ij,jk", [a, b]), a @ b)


def test_the_result_is_never_a_view():
    x = kobai.ones(2, 2)
    for equation in ("ij->ij", "ij->ji", "ii->i"):
        kobai.einsum(equation, x).zero_()
    assert x.tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("equation", "shapes", "message"),
    [
        ("ij,jk", [(2, 3)], "einsum: 'ij,jk' names 2 operands, got 1"),
        ("ij", [(2,)], r"einsum: 'ij' of 'ij' does not fit an operand of shape \(2,\)"),
        ("i", [(2, 3)], "does not fit an operand"),
        ("ij,jk", [(2, 3), (4, 5)], "einsum: index 'j' of 'ij,jk' has sizes 3 and 4"),
        ("ij->ik", [(2, 3)], "must name letters of the operands, each once"),
        ("ij->ii", [(2, 3)], "each once"),
        ("i1", [(2, 3)], "does not fit"),
    ],
)
def test_errors(equation, shapes, message):
    with pytest.raises(RuntimeError, match=message):
        kobai.einsum(equation, *(kobai.ones(s) for s in shapes))


def test_wrong_types():
    with pytest.raises(TypeError, match="einsum: expected a Tensor, got ndarray"):
        kobai.einsum("i", np.ones(2))

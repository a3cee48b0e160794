"""Factors in every layout, and products of them."""

import numpy as np
import pytest

from kobai.cpu import product, team

DTYPES = ["float32", "float64"]
both = pytest.mark.parametrize("dtype", DTYPES)
LAYOUTS = {
    "rows": lambda x: np.array(x, order="C"),
    "columns": lambda x: np.array(x, order="F"),
    "rows of a wider one": lambda x: np.pad(x, ((1, 2), (3, 4)), constant_values=np.nan)[1:-2, 3:-4],
    "columns of a wider one": lambda x: np.pad(x.T, ((1, 2), (3, 4)), constant_values=np.nan)[1:-2, 3:-4].T,
    "every second": lambda x: np.kron(x, np.array([[1, 0], [0, 0]], x.dtype))[::2, ::2],
    "backwards": lambda x: np.array(x[::-1, ::-1], order="C")[::-1, ::-1],
    "columns backwards": lambda x: np.array(x[:, ::-1], order="F")[:, ::-1],
}


def numbers(rng, *shape, dtype="float32"):
    return rng.standard_normal(shape).astype(dtype)


def multiply(a, b, grid=(1, 1), out=None):
    """The product in these parts, by this thread; it leaves what is beside it as it was."""
    n = b.shape[1]
    wide = np.full((len(a) + 1, n + 32), 7, a.dtype) if out is None else None
    out = wide[:-1, :n] if out is None else out
    job = product.Product()
    assert job.describe(a, b, out, grid)
    team.alone(job.address, team.scratch())
    assert wide is None or ((wide[:-1, n:] == 7).all() and (wide[-1] == 7).all())
    return out


def assert_close(y, a, b):
    """No further from the product than its sums may be by rounding."""
    bound = (a.shape[1] + 2) * np.finfo(y.dtype).eps * (np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64))
    wrong = np.abs(y - a.astype(np.float64) @ b.astype(np.float64))
    assert y.shape == wrong.shape
    assert (wrong <= bound).all()


def grids(m, n):
    """All that a product is parted in for up to eight threads."""
    found = {product.grid_of(m, n, count, turned) for count in range(1, 9) for turned in (False, True)}
    return sorted(found | {(1, 2), (2, 1), (3, 2)})

"""``kobai.linalg``: inverses, systems, decompositions and norms, all differentiable. Products are in ``ops/linear``."""

from kobai.errors import LinAlgError
from kobai.linalg.decompositions import (
    EighResult,
    LstsqResult,
    QRResult,
    SVDResult,
    eigh,
    eigvalsh,
    lstsq,
    matrix_rank,
    pinv,
    qr,
    svd,
    svdvals,
)
from kobai.linalg.elimination import (
    cholesky_ex,
    inv_ex,
    lu,
    lu_factor,
    lu_factor_ex,
    lu_solve,
    solve_ex,
)
from kobai.linalg.norms import cond, matrix_norm, norm, vector_norm
from kobai.linalg.products import cross, diagonal, matrix_exp, matrix_power, multi_dot, vander, vecdot
from kobai.linalg.reflections import householder_product, tensorinv, tensorsolve
from kobai.linalg.systems import SlogdetResult, cholesky, det, inv, slogdet, solve, solve_triangular
from kobai.ops.linear import matmul

__all__ = [
    "LinAlgError",
    "cholesky",
    "cholesky_ex",
    "cond",
    "cross",
    "det",
    "diagonal",
    "eigh",
    "eigvalsh",
    "householder_product",
    "inv",
    "inv_ex",
    "lstsq",
    "lu",
    "lu_factor",
    "lu_factor_ex",
    "lu_solve",
    "matmul",
    "matrix_exp",
    "matrix_norm",
    "matrix_power",
    "matrix_rank",
    "multi_dot",
    "norm",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "solve_ex",
    "solve_triangular",
    "svd",
    "svdvals",
    "tensorinv",
    "tensorsolve",
    "vander",
    "vecdot",
    "vector_norm",
]

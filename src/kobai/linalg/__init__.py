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
from kobai.linalg.norms import cond, matrix_norm, norm, vector_norm
from kobai.linalg.products import cross, diagonal, matrix_exp, matrix_power, multi_dot, vander, vecdot
from kobai.linalg.systems import SlogdetResult, cholesky, det, inv, slogdet, solve, solve_triangular
from kobai.refusals import guard as _guard

__all__ = [
    "LinAlgError",
    "cholesky",
    "cond",
    "cross",
    "det",
    "diagonal",
    "eigh",
    "eigvalsh",
    "inv",
    "lstsq",
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
    "solve_triangular",
    "svd",
    "svdvals",
    "vander",
    "vecdot",
    "vector_norm",
]

_guard(globals())

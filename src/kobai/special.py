"""``kobai.special``: special functions under the names of ``torch.special``."""

from kobai.ops.extreme import logsumexp
from kobai.ops.pointwise import erf, erfc, exp2, expm1, log1p, logit
from kobai.ops.pointwise import sigmoid as expit
from kobai.ops.softmax import log_softmax, softmax
from kobai.ops.special import digamma, erfinv, sinc, xlogy
from kobai.ops.special import digamma as psi
from kobai.ops.special import lgamma as gammaln

__all__ = [
    "digamma",
    "erf",
    "erfc",
    "erfinv",
    "exp2",
    "expit",
    "expm1",
    "gammaln",
    "log1p",
    "log_softmax",
    "logit",
    "logsumexp",
    "psi",
    "sinc",
    "softmax",
    "xlogy",
]

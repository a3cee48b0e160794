"""``kobai.special``: special functions under the names of ``torch.special``."""

from kobai.compat.paths import connect as _connect
from kobai.ops._out import offered as _with_out
from kobai.ops.extreme import logsumexp
from kobai.ops.pointwise import erf, erfc, exp2, expm1, log1p, logit, sigmoid as expit
from kobai.ops.softmax import log_softmax, softmax
from kobai.ops.special import digamma, digamma as psi, erfinv, lgamma as gammaln, sinc, xlogy
from kobai.refusals import guard as _guard

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

globals().update(_with_out(globals()))

_guard(globals())
_connect(__name__)

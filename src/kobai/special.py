"""``kobai.special``: special functions under the names of ``torch.special``."""

from kobai.compat.paths import connect as _connect
from kobai.ops._out import offer_out as _offer_out
from kobai.ops.extreme import logsumexp
from kobai.ops.pointwise import erf, erfc, exp2, expm1, log1p, logit, sigmoid as expit
from kobai.ops.rare_special import (
    entr,
    erfcx,
    i0,
    i0e,
    i1,
    i1e,
    igamma as gammainc,
    igammac as gammaincc,
    log_ndtr,
    mvlgamma as multigammaln,
    ndtr,
    ndtri,
    polygamma,
    xlog1py,
    zeta,
)
from kobai.ops.rounding import round
from kobai.ops.softmax import log_softmax, softmax
from kobai.ops.special import digamma, digamma as psi, erfinv, lgamma as gammaln, sinc, xlogy
from kobai.refusals import guard as _guard

__all__ = [
    "digamma",
    "entr",
    "erf",
    "erfc",
    "erfcx",
    "erfinv",
    "exp2",
    "expit",
    "expm1",
    "gammainc",
    "gammaincc",
    "gammaln",
    "i0",
    "i0e",
    "i1",
    "i1e",
    "log1p",
    "log_ndtr",
    "log_softmax",
    "logit",
    "logsumexp",
    "multigammaln",
    "ndtr",
    "ndtri",
    "polygamma",
    "psi",
    "round",
    "sinc",
    "softmax",
    "xlog1py",
    "xlogy",
    "zeta",
]

_offer_out(globals())
_guard(globals())
_connect(__name__)

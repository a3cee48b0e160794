"""The error function and its complement, which NumPy lacks.

erf(x) = 2/√π ∫₀ˣ e^(−t²) dt,  erfc(x) = 1 − erf(x).

All coefficients are our own fits in 40-digit arithmetic: Chebyshev interpolation for float64, turned into powers of a
variable in [−1, 1]; for float32 a rational function by iteratively reweighted least squares on the relative error.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from kobai.engine.dispatch import inlined
from kobai.engine.exponential import exp
from kobai.engine.fused import fma, horner
from kobai.xp import Array, xp_of

F = TypeVar("F", bound=Callable[..., Any])

# erf(x) / x as a polynomial in 2x² − 1, for |x| ≤ 1. Relative error < 1e-17.
_NEAR = (
    0.9654687386698673,
    -0.1405360890227171,
    0.019852496688983708,
    -0.0022854855611441132,
    0.00021751715604159932,
    -1.7537169441124866e-05,
    1.223382738359897e-06,
    -7.511569286591727e-08,
    4.115800583208149e-09,
    -2.035228405815769e-10,
    9.167619596865806e-12,
    -3.8078824063194953e-13,
    1.4543887079465116e-14,
)

# (1 + 2x) e^(x²) erfc(x) as a polynomial in (x − 5) / (x + 3), for 1 ≤ x < ∞. Relative error < 1e-17. The function is so
# nearly constant that one polynomial serves the whole half-line (idea: Shepherd and Laframboise, "Chebyshev approximation
# of (1+2x)exp(x²)erfc x in 0 ≤ x < ∞", Mathematics of Computation 36, 1981).
_FAR = (
    1.217751015063755,
    -0.10601129557561728,
    0.008036606418313823,
    0.019435097941324093,
    -0.01720384051822676,
    0.008834602508995426,
    -0.0030422185758690544,
    0.0006022571917870702,
    1.4613632033877155e-05,
    -4.873084708077806e-05,
    9.950054865337315e-06,
    2.3581750049965716e-06,
    -1.3083033294486578e-06,
    -6.772872557721139e-08,
    1.4471739356248912e-07,
    -3.0742226628195957e-09,
    -1.638150730545557e-08,
    7.993090453855972e-10,
    1.8126422217791725e-09,
    -8.041611981126636e-11,
    -1.3860436540708324e-10,
    3.6875617734863664e-12,
)

# erf(x) / x as a ratio of polynomials in x², for |x| ≤ 3.92, beyond which erf is ±1 in float32. Relative error < 2e-8.
_TOP = (
    1.1283791461323838,
    0.1904066974222284,
    0.05274875888501214,
    0.003765628702296862,
    0.00028488331297367084,
    2.050089476263767e-06,
)
_BOTTOM = (
    1.0,
    0.5020762828162755,
    0.11410921205645817,
    0.01496923926388328,
    0.0011625389967628472,
    3.809176907100283e-05,
)


def on_tape(name: str, *first: Any) -> Callable[[F], F]:
    """Decorator: of arrays on the tape, the function is the operation ``kobai.special.<name>``, whose derivative is known.

    An algorithm's steps have derivatives too, but not its function's: where a branch is not taken they may be infinite, and
    where it is found by iteration they are those of the last step. ``first`` are arguments that the operation has besides.
    """

    def decorate(function: F) -> F:
        @wraps(function)
        def either(*args: Any) -> Any:
            operations = getattr(xp_of(args[-1]), "special", None)
            return function(*args) if operations is None else getattr(operations, name)(*first, *args)

        return either  # type: ignore[return-value]

    return decorate


def erf(x: Array) -> Array:
    """erf(x) elementwise: within 4e-7 (relative) in float32, 1e-15 in float64."""
    if type(x) is not np.ndarray:
        special = _library(x)
        if special is not None:
            return special.erf(x)
    if x.dtype.itemsize > 4:
        return _erf64(x)
    return _erf32(x).astype(x.dtype, copy=False)


def erfc(x: Array) -> Array:
    """1 − erf(x) elementwise, accurate relative to erfc(x) also where it is tiny."""
    if type(x) is not np.ndarray:
        special = _library(x)
        if special is not None:
            return special.erfc(x)
    return _erfc64(x.astype(np.float64, copy=False)).astype(x.dtype, copy=False)


@on_tape("erfcx")
def erfcx(x: Array) -> Array:
    """e^(x²) erfc(x) elementwise, which does not underflow for large x."""
    xp = xp_of(x)
    z = x.astype(np.float64, copy=False)
    shape, big = z.shape, xp.atleast_1d(xp.clip(z, 1, None))
    far = (_horner(_FAR, (big - 5) / (big + 3)) / (1 + 2 * big)).reshape(shape)
    far = xp.where(z == xp.inf, 0.0, far)
    near = xp.clip(z, None, 1)
    return xp.where(z > 1, far, xp.exp(near * near) * erfc(near)).astype(x.dtype, copy=False)


def _library(x: Array) -> Any:
    """CuPy brings its own, in one kernel; arrays on the tape have operations."""
    xp = xp_of(x)
    return importlib.import_module("cupyx.scipy.special") if xp.__name__ == "cupy" else getattr(xp, "special", None)


def _horner(coefficients: tuple[float, ...], z: Array) -> Array:
    """Σ cₖ zᵏ in one new array."""
    total = z * coefficients[-1]
    for c in coefficients[-2:0:-1]:
        total += c
        total *= z
    total += coefficients[0]
    return total


def _erf32(x: Array) -> Array:
    xp = xp_of(x)
    inside = xp.clip(xp.atleast_1d(x).astype(np.float32, copy=False), -3.92, 3.92)
    z = inside * inside
    y = _horner(_TOP, z)
    y /= _horner(_BOTTOM, z)
    y *= inside
    return xp.clip(y, -1, 1, out=y).reshape(x.shape)


def _erf64(x: Array) -> Array:
    xp = xp_of(x)
    near = xp.abs(x) <= 1
    return xp.where(near, _erf_near(xp, x, near), xp.sign(x) * (1 - _erfc_far(xp, xp.abs(x))))


def _erfc64(x: Array) -> Array:
    xp = xp_of(x)
    near = xp.abs(x) <= 1
    far = _erfc_far(xp, xp.abs(x))
    return xp.where(near, 1 - _erf_near(xp, x, near), xp.where(x < 0, 2 - far, far))


def _erf_near(xp: Any, x: Array, near: Array) -> Array:
    x = xp.atleast_1d(xp.where(near, x, 0))
    return (x * _horner(_NEAR, 2 * x * x - 1)).reshape(near.shape)


def _erfc_far(xp: Any, x: Array) -> Array:
    """erfc(x) for x ≥ 1 (any value elsewhere); 0 from 28 on, where it is less than the smallest float64."""
    shape = x.shape
    x = xp.atleast_1d(xp.clip(x, 1, 28))
    scaled = _horner(_FAR, (x - 5) / (x + 3)) / (1 + 2 * x)
    # e^(−x²) with x² = h² + (x − h)(x + h) and h² exact: the rounding error of x² would be multiplied by x² itself
    h = xp.floor(16 * x) / 16
    return (xp.exp(-h * h) * xp.exp((h - x) * (x + h)) * scaled).reshape(shape)


# --- inside compiled loops -----------------------------------------------------------------------------------------------

_TOP32, _BOTTOM32 = (tuple(map(np.float32, coefficients)) for coefficients in (_TOP, _BOTTOM))


def _erf_single(x: Any) -> Any:
    x = _MOST32 if x > _MOST32 else x  # written so that NaN stays
    x = -_MOST32 if x < -_MOST32 else x
    z = x * x
    y = x * (horner(z, _TOP32) / horner(z, _BOTTOM32))
    y = _ONE32 if y > _ONE32 else y
    return -_ONE32 if y < -_ONE32 else y


_MOST32, _ONE32 = np.float32(3.92), np.float32(1)


def _near(x: Any) -> Any:
    """erf(x) for |x| ≤ 1"""
    return x * horner(fma(2.0 * x, x, -1.0), _NEAR)


def _far(x: Any) -> Any:
    """erfc(x) for x ≥ 1"""
    x = 1.0 if x < 1.0 else x
    x = 28.0 if x > 28.0 else x
    u = (x - 5.0) / (x + 3.0)
    h = np.floor(16.0 * x) * 0.0625
    return exp(-h * h) * exp((h - x) * (x + h)) * (horner(u, _FAR) / fma(2.0, x, 1.0))


def _far_single(x: Any) -> Any:
    x = _HALF32 if x < _HALF32 else x
    x = _LAST32 if x > _LAST32 else x
    u = (x - _FIVE32) / (x + _THREE32)
    h = np.floor(_SIXTEEN32 * x) * _SIXTEENTH32
    return exp(-h * h) * exp((h - x) * (x + h)) * (horner(u, _FAR32) / fma(_TWO32, x, _ONE32))


_LAST32, _HALF32, _TWO32, _THREE32, _FIVE32 = map(np.float32, (10.2, 0.5, 2, 3, 5))
_SIXTEEN32, _SIXTEENTH32 = np.float32(16), np.float32(0.0625)
# As _FAR, but for ½ ≤ x ≤ 10.2, beyond which erfc is 0 in float32. Relative error < 4e-9
_FAR32 = tuple(
    map(
        np.float32,
        (
            1.2177510261535645,
            -0.10601131618022919,
            0.008036916144192219,
            0.019436024129390717,
            -0.017207685858011246,
            0.008822228759527206,
            -0.003036780748516321,
            0.0006499908631667495,
            6.445278268074617e-05,
            -3.973628918174654e-05,
        ),
    )
)


def _erf_double(x: Any) -> Any:
    close, far = near(x), 1.0 - tail(abs(x))  # both always: a branch would keep the loop from being vectorised
    far = -far if x < 0.0 else far
    return close if abs(x) <= 1.0 else (far if x == x else x)


def _erfc_double(x: Any) -> Any:
    close, far = 1.0 - near(x), tail(abs(x))
    far = 2.0 - far if x < 0.0 else far
    return close if abs(x) <= 1.0 else (far if x == x else x)


def _erfc_single(x: Any) -> Any:
    close, far = _ONE32 - compiled_erf(x), tail(abs(x))
    far = _TWO32 - far if x < 0 else far
    return close if abs(x) <= _HALF32 else (far if x == x else x)


near, tail = inlined(_near, _near), inlined(_far_single, _far)
compiled_erf = inlined(_erf_single, _erf_double)
compiled_erfc = inlined(_erfc_single, _erfc_double)

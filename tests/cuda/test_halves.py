"""Kernels for floats of 16 bits: what they give is what the same kernel gives for float32, rounded."""

from concurrent.futures import ThreadPoolExecutor

import host
import numpy as np
import pytest

from kernel_checks import CASES, converted, each, launch_of
from kobai.dtypes import FLOATING, HALVES, finfo
from kobai.engine.cuda_kernel import KERNELS

pytestmark = [pytest.mark.thorough, pytest.mark.skipif(host.COMPILER is None, reason="needs a C++ compiler (g++)")]

TYPES = sorted(dtype.name for dtype in HALVES)


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernels")
    with ThreadPoolExecutor(2) as pool:
        return dict(
            zip(("float32", *TYPES), pool.map(lambda d: host.compiled(d, folder), ("float32", *TYPES)), strict=True)
        )


def arrays(args):
    """All arrays among arguments, in order."""
    found = []
    for arg in args:
        each(arg, found.append) if not isinstance(arg, dict) else [
            found.append(a) for value in arg.values() if isinstance(value, list) for row in value for a in row
        ]
    return [a for a in found if a is not None and a.dtype.kind in FLOATING]


@pytest.mark.few(3)
@pytest.mark.parametrize(("name", "i", "dtype"), [case for case in CASES if case[2] in TYPES])
def test_as_float32_rounded(libraries, name, i, dtype):
    narrow, wide = launch_of(name, i, dtype), launch_of(name, i, "float32")
    typed = KERNELS[name].of("float32").dtypes
    wide.args = [  # the same numbers: those that 16 bits hold
        converted(arg, wanted, "float32") if isinstance(arg, (np.ndarray, list, dict)) else arg
        for arg, wanted in zip(narrow.args, typed, strict=True)
    ]
    got, expected = (
        arrays(host.run(libraries[d], name, d, launch, False)) for d, launch in ((dtype, narrow), ("float32", wide))
    )
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        if a.dtype == b.dtype:
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b[np.isfinite(b)]).max(initial=1e-30))
            continue
        a, b = a.astype(np.float64), b.astype(a.dtype).astype(np.float64)
        # The order of a sum may be another one, for 16 bytes hold more elements: then the last bit may differ.
        np.testing.assert_allclose(
            a, b, rtol=float(finfo(dtype).eps), atol=1e-6 * np.abs(b[np.isfinite(b)]).max(initial=0.0)
        )

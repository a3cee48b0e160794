"""Every CUDA kernel is run on the host, on its check data, and must give what NumPy gives."""

from concurrent.futures import ThreadPoolExecutor

import host
import numpy as np
import pytest

from kernel_checks import CASES, DTYPES, assert_expected, launch_of
from kernel_data import CHECKS
from kobai.engine.cuda_kernel import KERNELS

BY_ROWS = (
    "softmax",
    "log_softmax",
    "softmax_backward",
    "log_softmax_backward",
    "cross_entropy",
    "cross_entropy_backward",
)
"""Kernels of which a block computes a row."""
pytestmark = pytest.mark.skipif(host.COMPILER is None, reason="needs a C++ compiler (g++)")


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernels")
    used = [d for d in DTYPES if any(d in k.dtypes for k in KERNELS.values())]
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(used, pool.map(lambda d: host.compiled(d, folder), used), strict=True))


@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize(("name", "i", "dtype"), CASES)
def test_kernel(libraries, name, i, dtype, backwards):
    launch = launch_of(name, i, dtype)
    assert_expected(launch, name, host.run(libraries[dtype], name, dtype, launch, backwards), dtype)


ROWS = [(name, i, dtype) for name, i, dtype in CASES if name in BY_ROWS]


@pytest.mark.parametrize(("name", "i", "dtype"), ROWS)
def test_rows_far_along(libraries, name, i, dtype):
    """Elements are counted in 64 bits: the same rows, behind so many others that there are 2³³ elements before them."""
    launch = launch_of(name, i, dtype)
    rows = (1 << 33) // launch.args[0].shape[1]
    assert_expected(launch, name, host.run(libraries[dtype], name, dtype, launch, False, rows), dtype)


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_every_kernel_has_a_check(name):
    assert CHECKS.get(name)


def test_every_check_is_of_a_kernel():
    assert CHECKS.keys() <= KERNELS.keys()


def test_both_forms_of_numbers_are_run():
    """Whether numbers come by value or on the device is decided by the argument: each such kernel has a check of both."""
    for name, kernel in KERNELS.items():
        for k, p in enumerate(kernel.parameters):
            if p.count:
                forms = {
                    isinstance(launch_of(name, i, kernel.dtypes[0]).args[k], np.ndarray)
                    for i in range(len(CHECKS[name]))
                }
                assert forms == {False, True}, (
                    f"{name}: {p.name} is never checked as {'a tuple' if True in forms else 'an array'}"
                )

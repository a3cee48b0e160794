"""The counter stream."""

import numpy as np

from kobai.ops.dropout.philox import _numpy_words, on_host


def check_start(on_device):
    """Where the checks of kernels that draw begin: as numbers by value, or in an array on the device."""
    start = 2**40 + 1, 0x0123456789ABCDEF, 0xFEDCBA9876543210
    return np.array(start, np.uint64) if on_device else start


def _check(on_device):
    def check(rng):
        words = np.zeros(4 * 300, np.uint64)
        _numpy_words(on_host(check_start(on_device)), 0, words)
        return 2, (check_start(on_device), np.zeros_like(words), 300), {"words": words}

    return check


CHECKS = {
    "philox": [_check(False), _check(True)],
}

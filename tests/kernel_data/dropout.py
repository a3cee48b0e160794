"""Dropout: its masks, and their use."""

import numpy as np

from kernel_data.philox import check_start
from kobai.ops.dropout.kernel import _threshold
from kobai.ops.dropout.philox import philox_bits


def _check_dropout(on_device):
    def check(rng):
        x, start = rng.normal(size=3000), check_start(on_device)
        bits = philox_bits(3000, tuple(int(word) for word in start), np.zeros(1))
        keep = bits >= _threshold(0.3)
        args = x, start, _threshold(0.3), 1 / 0.7, np.zeros(3000, bool), np.zeros(3000), 3000
        return 2, args, {"keep": keep, "y": x * keep / 0.7}

    return check


def _check_mask(rng):
    x, keep = rng.normal(size=777), rng.random(777) > 0.3
    return 2, (x, keep, 2.5, np.zeros(777), 777), {"y": x * keep * 2.5}


CHECKS = {
    "dropout": [_check_dropout(False), _check_dropout(True)],
    "dropout_mask": [_check_mask],
}

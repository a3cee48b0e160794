"""Checks of values."""

import numpy as np


def _check_integers(inside):
    def check(rng):
        x = rng.integers(0, 5, 300)
        x[[7, 9]] = 5, -100
        if inside:  # zeros among divisors
            x = np.where(x == 0, 1, x)
            x[8] = 0
        limits = (0, 1, 1, 1) if inside else (0, 5, -100, 0)
        words = np.array([3, 0 if inside else 5], np.uint64)
        return 2, (x, np.zeros(2, np.uint64), *limits, 3, 300), {"fault": words}

    return check


def _check_found_before(rng):
    words = np.array([2, 77], np.uint64)
    return 1, (rng.integers(5, 9, 40), words.copy(), 0, 5, 0, 0, 3, 40), {"fault": words}


def _check_unit_interval(wrong):
    def check(rng):
        x = rng.uniform(0, 1, 300)
        x[:3] = 0, 1, -0.0
        words = np.zeros(2, np.uint64)
        if wrong != 0:
            x[100] = wrong
            words[:] = 3, np.float64(wrong).view(np.uint64)
        return 2, (x, np.zeros(2, np.uint64), 3, 300), {"fault": words}

    return check


CHECKS = {
    "look_at_integers": [_check_integers(False), _check_integers(True), _check_found_before],
    "look_at_unit_interval": [_check_unit_interval(0), _check_unit_interval(1.5), _check_unit_interval(-0.25)],
}

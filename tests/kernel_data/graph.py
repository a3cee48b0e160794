"""The host's numbers on their way."""

import numpy as np

from kobai.capture.graph import WORDS


def _check_feed(rng):
    words = tuple(int(w) for w in rng.integers(0, 2**64, WORDS, np.uint64))
    return 1, (words, np.zeros(WORDS, np.uint64)), {"place": np.array(words, np.uint64)}


def _check_feed_from_device(rng):
    grid, (words, place), expected = _check_feed(rng)
    return grid, (np.array(words, np.uint64), place), expected


CHECKS = {
    "feed": [_check_feed, _check_feed_from_device],
}

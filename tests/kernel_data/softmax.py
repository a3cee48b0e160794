"""Softmax and its logarithm, by their references."""

import numpy as np

from kobai.ops.softmax.kernel import (
    _log_softmax_backward_reference,
    _log_softmax_reference,
    _softmax_backward_reference,
    _softmax_reference,
)


def _check(function, operands):
    def check(rng):
        args = [rng.normal(size=(5, 300)) * 3 for _ in range(operands)]
        if operands == 2:  # the result of a forward pass
            args[1] = (_softmax_reference if function is _softmax_backward_reference else _log_softmax_reference)(
                args[1], 1
            )
        return 5, (*args, np.zeros((5, 300)), 300), {"out": function(*args, 1)}

    return check


CHECKS = {
    "softmax": [_check(_softmax_reference, 1)],
    "log_softmax": [_check(_log_softmax_reference, 1)],
    "softmax_backward": [_check(_softmax_backward_reference, 2)],
    "log_softmax_backward": [_check(_log_softmax_backward_reference, 2)],
}

"""Bias and activation; sums of columns."""

import numpy as np

from kobai.ops.linear.columns import NUMBERS


def _check_bias_activation(activation):
    def check(rng):
        y, bias = rng.normal(size=(30, 17)), rng.normal(size=17)
        z = y + bias
        wanted = {None: z, "relu": np.maximum(z, 0), "sigmoid": 1 / (1 + np.exp(-z)), "tanh": np.tanh(z)}[activation]
        return 2, (y, bias, NUMBERS.get(activation, 0), y.size, 17), {"y": wanted}

    return check


def _check_column_sums(slabs):
    def check(rng):
        x = rng.normal(size=(100, 50))
        height = -(-100 // slabs)
        wanted = np.stack([x[i * height : (i + 1) * height].sum(axis=0) for i in range(slabs)])
        return (2, slabs), (x, np.zeros((slabs, 50)), 100, 50), {"sums": wanted}

    return check


CHECKS = {
    "bias_activation": [_check_bias_activation(activation) for activation in (None, *NUMBERS)],
    "column_sums": [_check_column_sums(1), _check_column_sums(4)],
}

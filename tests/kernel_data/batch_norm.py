"""Batch normalisation, by its definition."""

import math

import numpy as np

from kobai.ops.batch_norm.device import _blocks


def _example(rng, shape, relu, affine):
    """One pass there and back, by the definitions."""
    others, channels, n = (0, *range(2, len(shape))), (shape[1], *(1,) * (len(shape) - 2)), math.prod(shape) // shape[1]
    x, dy, vectors = 3 + rng.normal(size=shape), rng.normal(size=shape), rng.normal(size=(4, shape[1]))
    weight, bias = (vectors[0], vectors[1]) if affine else (None, None)
    running_mean, running_var = (vectors[2], vectors[3] ** 2) if affine else (None, None)
    origin, mean, var = x.reshape(shape[0], shape[1], -1)[0, :, 0], x.mean(axis=others), x.var(axis=others)
    invstd = 1 / np.sqrt(var + 1e-5)
    scale = invstd if weight is None else invstd * weight
    shift = (0 if bias is None else bias) - (mean - origin) * scale
    y = (x - origin.reshape(channels)) * scale.reshape(channels) + shift.reshape(channels)
    y = y * (y > 0) if relu else y
    dz = dy * (y > 0) if relu else dy
    xhat = (x - mean.reshape(channels)) * invstd.reshape(channels)
    dweight, dbias = (dz * xhat).sum(axis=others), dz.sum(axis=others)
    dx = scale.reshape(channels) * (dz - dbias.reshape(channels) / n - xhat * dweight.reshape(channels) / n)
    moved = {}
    if running_mean is not None and running_var is not None:
        moved["running_mean"] = 0.75 * running_mean + 0.25 * mean
        moved["running_var"] = 0.75 * running_var + 0.25 * var * n / (n - 1)
    return {
        "inputs": (x, weight, bias, running_mean, running_var),
        "dy": dy,
        "kept": np.stack([origin, mean - origin, invstd, scale, shift, mean, var, 0 * mean]),
        "forward": {"y": y, **moved},
        "backward": {"dx": dx, "dweight": dweight, "dbias": dbias},
    }


_EXAMPLES = [((37, 11), True, True), ((300, 40), False, True), ((3, 5, 50), True, True), ((2, 3, 2, 2), False, False)]


def _train_check(shape, relu, affine):
    def check(rng):
        e = _example(rng, shape, relu, affine)
        sizes, grid, threads, shared = _blocks(e["dy"])
        args = (*e["inputs"], np.zeros(shape), np.zeros((8, shape[1])), 0.25, 1e-5, int(relu), *sizes)
        return grid, args, {**e["forward"], "kept": e["kept"]}, threads, shared

    return check


def _backward_check(shape, relu, affine):
    def check(rng):
        e = _example(rng, shape, relu, affine)
        sizes, grid, threads, shared = _blocks(e["dy"])
        y = e["forward"]["y"] if relu else None
        args = (e["dy"], e["inputs"][0], y, e["kept"], *(np.zeros_like(g) for g in e["backward"].values()), *sizes)
        return grid, args, e["backward"], threads, shared

    return check


def _affine_check(shape, relu):
    def check(rng):
        x, (mean, scale, bias) = rng.normal(size=shape), rng.normal(size=(3, shape[1]))
        channels = (-1, *(1,) * (x.ndim - 2))
        y = (x - mean.reshape(channels)) * scale.reshape(channels) + bias.reshape(channels)
        args = (x, mean, scale, bias, np.zeros(shape), int(relu), x.size, shape[1], math.prod(shape[2:]))
        return 3, args, {"y": y * (y > 0) if relu else y}

    return check


CHECKS = {
    "batch_norm_train": [_train_check(*example) for example in _EXAMPLES],
    "batch_norm_backward": [_backward_check(*example) for example in _EXAMPLES],
    "batch_norm_affine": [_affine_check((60, 11), True), _affine_check((4, 5, 50), False)],
}

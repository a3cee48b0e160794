"""Group normalisation, by its definition."""

import numpy as np


def _example(rng, shape, groups):
    """One pass there and back, by the definitions."""
    n, channels = shape[:2]
    x, dy, (w, b) = 3 + rng.normal(size=shape), rng.normal(size=shape), rng.normal(size=(2, channels))
    rows = x.reshape(n * groups, -1)
    mean, invstd = rows.mean(1, keepdims=True), 1 / np.sqrt(rows.var(1, keepdims=True) + 1e-5)
    xhat, g = (rows - mean) * invstd, (w[:, None] * dy).reshape(rows.shape)
    dx = invstd * (g - g.mean(1, keepdims=True) - xhat * (g * xhat).mean(1, keepdims=True))
    xhat = xhat.reshape(shape)
    return {
        "x": x,
        "dy": dy,
        "w": w,
        "b": b,
        "kept": np.concatenate([mean - rows[:, :1], invstd], axis=1).T.copy(),
        "y": w[:, None] * xhat + b[:, None],
        "dx": dx.reshape(shape),
        "parameters": {"dweight": (dy * xhat).sum((0, 2)), "dbias": dy.sum((0, 2))},
    }


def check_of(which, shape, groups):
    def check(rng):
        e = _example(rng, shape, groups)
        (n, channels, size), rows = shape, shape[0] * groups
        inside = (channels // groups, size)
        if which == "forward":
            args = (e["x"], e["w"], e["b"], np.zeros(shape), np.zeros((2, rows)), 1, 1e-5, groups, *inside)
            return rows, args, {"y": e["y"], "kept": e["kept"]}, 128
        if which == "backward":
            args = (e["dy"], e["x"], e["w"], e["kept"], np.zeros(shape), 1, groups, *inside)
            return rows, args, {"dx": e["dx"]}, 128
        args = (e["dy"], e["x"], e["kept"], np.zeros(channels), np.zeros(channels), n, groups, *inside)
        return channels, args, e["parameters"], 128

    return check


SHAPES = [((2, 6, 50), 3), ((3, 4, 9), 1), ((2, 5, 200), 5)]


CHECKS = {"group_norm_parameters": [check_of("parameters", *shape) for shape in SHAPES]}

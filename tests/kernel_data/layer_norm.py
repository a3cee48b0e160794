"""Layer and RMS normalisation, by their definitions."""

import numpy as np

from kernel_data.group_norm import SHAPES, check_of
from kobai.ops.norm.layer_kernel import threads_of


def _example(rng, shape, centre):
    """One pass there and back, by the definitions."""
    x, dy, (w, b) = 3 + rng.normal(size=shape), rng.normal(size=shape), rng.normal(size=(2, shape[1]))
    origin, mean = (x[:, :1], x.mean(1, keepdims=True)) if centre else (0 * x[:, :1], 0 * x[:, :1])
    invstd = 1 / np.sqrt(((x - mean) ** 2).mean(1, keepdims=True) + 1e-5)
    xhat, g = (x - mean) * invstd, w * dy
    dx = invstd * (g - centre * g.mean(1, keepdims=True) - xhat * (g * xhat).mean(1, keepdims=True))
    kept = np.concatenate([mean - origin, invstd], axis=1).T.copy()
    both = np.stack([dy * xhat, dy])
    return {"x": x, "dy": dy, "w": w, "b": b, "kept": kept, "y": w * xhat + b, "dx": dx, "both": both}


def _forward_check(shape, centre):
    def check(rng):
        e = _example(rng, shape, centre)
        args = (e["x"], e["w"], e["b"], np.zeros(shape), np.zeros_like(e["kept"]), int(centre), 1e-5, 1, shape[1], 1)
        return shape[0], args, {"y": e["y"], "kept": e["kept"]}, threads_of(shape[1])

    return check


def _backward_check(shape, centre):
    def check(rng):
        e = _example(rng, shape, centre)
        args = (e["dy"], e["x"], e["w"], e["kept"], np.zeros(shape), int(centre), 1, shape[1], 1)
        return shape[0], args, {"dx": e["dx"]}, threads_of(shape[1])

    return check


def _columns_check(shape, centre):
    def check(rng):
        e, slabs = _example(rng, shape, centre), 3
        parts = np.stack([part.sum(1) for part in np.array_split(e["both"], slabs, axis=1)])
        args = (e["dy"], e["x"], e["kept"], np.zeros_like(parts), int(centre), *shape)
        return (-(-shape[1] // 32), slabs), args, {"parts": parts}

    return check


def _together_check(rng):
    parts = rng.normal(size=(7, 2, 100))
    return (
        1,
        (parts, np.zeros(100), np.zeros(100), 7, 100),
        {"dweight": parts[:, 0].sum(0), "dbias": parts[:, 1].sum(0)},
    )


CHECKS = {
    "layer_norm": [
        *(_forward_check((5, 100), True), _forward_check((3, 1500), False), _forward_check((2, 1), True)),
        *(check_of("forward", *shape) for shape in SHAPES),  # groups of channels
    ],
    "layer_norm_backward": [
        *(_backward_check((5, 100), True), _backward_check((3, 1500), False)),
        *(check_of("backward", *shape) for shape in SHAPES),
    ],
    "layer_norm_columns": [_columns_check((50, 70), True), _columns_check((2, 33), False)],
    "layer_norm_together": [_together_check],
}

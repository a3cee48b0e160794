"""Inputs of layers and losses as functions of (rng, dtype), and how near two results must be."""

import numpy as np

TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
LESS_EXACT = {"Hardsigmoid": 1e6}  # PyTorch's derivative 1/6 is a float32 number, also for float64


def close(ours, theirs, dtype, what, factor=1.0):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, f"{what}: shape {ours.shape}, PyTorch {theirs.shape}"
    scale = np.abs(theirs[np.isfinite(theirs)]).max(initial=1e-3)
    tolerance = factor * TOLERANCE[dtype]
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * scale, err_msg=what)


# --- inputs: functions of (rng, dtype) ----------------------------------------------------------------------------


def n(*shape, scale=2.0):
    return lambda rng, dtype: (scale * rng.normal(size=shape)).astype(dtype)


def u(*shape, low=0.05, high=0.95):
    return lambda rng, dtype: rng.uniform(low, high, size=shape).astype(dtype)


def ints(*shape, high, special=None):
    def draw(rng, dtype):
        x = rng.integers(0, high, size=shape)
        if special is not None:
            x.reshape(-1)[::3] = special
        return x

    return draw


def signs(*shape, as_int=False):
    return lambda rng, dtype: rng.choice([-1, 1], size=shape).astype(np.int64 if as_int else dtype)


def simplex(*shape, axis=1):
    def draw(rng, dtype):
        x = rng.uniform(0.1, 1.0, size=shape)
        return (x / x.sum(axis=axis, keepdims=True)).astype(dtype)

    return draw


def log_simplex(*shape, axis=1):
    return lambda rng, dtype: np.log(simplex(*shape, axis=axis)(rng, np.float64)).astype(dtype)


def tensors(values, module):
    """Arguments of a constructor with arrays as tensors of ``module`` (torch or kobai)."""
    return {k: module.tensor(v) if isinstance(v, np.ndarray) else v for k, v in values.items()}

"""JAX: the whole step as one ``jax.jit`` function, its state donated. The optimisers are written out: no further package."""

from __future__ import annotations

from typing import Any

import numpy as np

from cases import LEARNING_RATE, Case
from problems import Problem
from sides import Absent, Run


def versions(variant: str) -> dict[str, str]:
    """Import JAX, and say which version runs."""
    try:
        import jax
        import jaxlib
    except ImportError as error:
        raise Absent(f"{error}: pip install jax (on a GPU: 'jax[cuda12]' or 'jax[cuda13]')") from error
    return {"jax": jax.__version__, "jaxlib": jaxlib.__version__}


def make(case: Case, problem: Problem, variant: str, device: str, precision: str) -> Run:
    """The step. Images lie channels last (NHWC), weights (in, out), as is usual in JAX."""
    import jax
    import jax.numpy as jnp

    try:
        where = jax.devices(device)[0]
    except RuntimeError as error:
        raise Absent(f"this JAX sees no {device} device") from error
    jax.config.update("jax_default_device", where)
    if device == "cuda":
        jax.config.update("jax_default_matmul_precision", "tensorfloat32" if precision == "tf32" else "highest")

    x = jnp.asarray(problem.x if not problem.kernels else problem.x.transpose(0, 2, 3, 1))
    t = jnp.asarray(problem.t)
    params = {
        "kernels": [jnp.asarray(kernel.transpose(2, 3, 1, 0)) for kernel in problem.kernels],
        "kernel_biases": [jnp.zeros(len(kernel)) for kernel in problem.kernels],
        "weights": [jnp.asarray(weight.T) for weight in _channels_last(problem)],
        "biases": [jnp.zeros(len(weight)) for weight in problem.weights],
        "scales": [jnp.ones(n) for n in case.sizes[1:-1] if case.batch_norm],
        "shifts": [jnp.zeros(n) for n in case.sizes[1:-1] if case.batch_norm],
    }
    running = [(jnp.zeros(n), jnp.ones(n)) for n in case.sizes[1:-1] if case.batch_norm]
    moments = [jax.tree.map(jnp.zeros_like, params) for _ in range(2 * (case.optimizer == "Adam"))]
    state = (params, running, moments, jnp.zeros((), jnp.int32), jax.random.key(0))
    rate = LEARNING_RATE[case.optimizer]

    def loss_of(params: Any, running: Any, key: Any, x: Any, t: Any) -> Any:
        for kernel, bias in zip(params["kernels"], params["kernel_biases"], strict=True):
            x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            x = jax.nn.relu(x + bias)
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        x = x.reshape(len(x), -1)
        fresh = []
        for i, (weight, bias) in enumerate(zip(params["weights"], params["biases"], strict=True)):
            x = x @ weight + bias
            if i == len(params["weights"]) - 1:
                break
            if case.batch_norm:
                mean, variance = x.mean(0), x.var(0)
                x = params["scales"][i] * (x - mean) * jax.lax.rsqrt(variance + 1e-5) + params["shifts"][i]
                unbiased = variance * (len(x) / (len(x) - 1))
                fresh.append((0.9 * running[i][0] + 0.1 * mean, 0.9 * running[i][1] + 0.1 * unbiased))
            x = jax.nn.relu(x)
            if case.dropout:
                key, here = jax.random.split(key)
                kept = jax.random.bernoulli(here, 1 - case.dropout, x.shape)
                x = jnp.where(kept, x / (1 - case.dropout), 0)
        logp = jax.nn.log_softmax(x)
        return -jnp.take_along_axis(logp, t[:, None], axis=1).mean(), (fresh, key)

    def step(state: Any, x: Any, t: Any) -> Any:
        params, running, moments, count, key = state
        (loss, (running, key)), grads = jax.value_and_grad(loss_of, has_aux=True)(params, running, key, x, t)
        count = count + 1
        if case.optimizer == "SGD":
            params = jax.tree.map(lambda p, g: p - rate * g, params, grads)
        else:
            m, v = moments
            m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
            v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, grads)
            size = rate / (1 - 0.9**count)
            root = jnp.sqrt(1 - 0.999**count)
            params = jax.tree.map(lambda p, m, v: p - size * m / (jnp.sqrt(v) / root + 1e-8), params, m, v)
            moments = [m, v]
        return (params, running, moments, count, key), loss

    compiled = jax.jit(step, donate_argnums=0)

    def whole() -> Any:
        nonlocal state
        state, loss = compiled(state, x, t)
        return loss

    def memory() -> int:
        needs = compiled.lower(state, x, t).compile().memory_analysis()
        inputs, outputs = needs.argument_size_in_bytes, needs.output_size_in_bytes - needs.alias_size_in_bytes
        return int(inputs + outputs + needs.temp_size_in_bytes)

    return Run(whole, wait=lambda: jax.block_until_ready(state), memory=memory)


def _channels_last(problem: Problem) -> list[np.ndarray]:
    """The weights, those of the first linear layer reordered to images that are flattened as (H, W, C)."""
    first, *others = problem.weights
    if problem.kernels:
        c = len(problem.kernels[-1])
        side = round((first.shape[1] / c) ** 0.5)
        first = first.reshape(-1, c, side, side).transpose(0, 2, 3, 1).reshape(len(first), -1)
    return [first, *others]

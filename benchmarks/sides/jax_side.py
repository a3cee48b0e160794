"""JAX: the whole step as one ``jax.jit`` function, its state donated. The optimisers are written out: no further package."""

from __future__ import annotations

from typing import Any

import numpy as np

from cases import LEARNING_RATE, Case
from problems import Problem
from sides import Absent, Run

LIKE_PRODUCTS = ("kernels", "kernel_biases", "weights", "biases")
"""Parameters that meet the products' precision."""


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
        "block": {name: jnp.asarray(array.T) for name, array in problem.block.items()},
    }
    running = [(jnp.zeros(n), jnp.ones(n)) for n in case.sizes[1:-1] if case.batch_norm]
    inside = jnp.bfloat16 if precision == "bf16" else jnp.float32
    moments = [jax.tree.map(jnp.zeros_like, params) for _ in range(2 * (case.optimizer == "Adam"))]
    state = (params, running, moments, jnp.zeros((), jnp.int32), jax.random.key(0))
    rate = LEARNING_RATE[case.optimizer]

    def loss_of(params: Any, running: Any, key: Any, x: Any, t: Any) -> Any:
        # 16 bits as PyTorch's autocast has them: parameters, normalisation and loss in float32, all else cast
        params = {**params, **jax.tree.map(lambda p: p.astype(inside), {k: params[k] for k in LIKE_PRODUCTS})}
        x = x.astype(inside)
        if case.block:
            parts = {k: v if k.startswith("norm") else v.astype(inside) for k, v in params["block"].items()}
            x = (_transformer if case.block == "transformer" else _lstm)(case, parts, x)
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
                x = x.astype(jnp.float32)
                mean, variance = x.mean(0), x.var(0)
                x = params["scales"][i] * (x - mean) * jax.lax.rsqrt(variance + 1e-5) + params["shifts"][i]
                unbiased = variance * (len(x) / (len(x) - 1))
                fresh.append((0.9 * running[i][0] + 0.1 * mean, 0.9 * running[i][1] + 0.1 * unbiased))
            x = jax.nn.relu(x).astype(inside)
            if case.dropout:
                key, here = jax.random.split(key)
                kept = jax.random.bernoulli(here, 1 - case.dropout, x.shape)
                x = jnp.where(kept, x / (1 - case.dropout), 0)
        logp = jax.nn.log_softmax(x.astype(jnp.float32))
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


def _normalised(x: Any, scale: Any, shift: Any) -> Any:
    """Layer normalisation, in float32."""
    import jax.numpy as jnp

    y = x.astype(jnp.float32)
    y = (y - y.mean(-1, keepdims=True)) / jnp.sqrt(y.var(-1, keepdims=True) + 1e-5)
    return (y * scale + shift).astype(x.dtype)


def _transformer(case: Case, p: dict[str, Any], x: Any) -> Any:
    """An encoder block that normalises after each part, averaged over the tokens; p holds transposed weights."""
    import jax

    n, tokens, width = x.shape
    q, k, v = jax.numpy.split(x @ p["self_attn.in_proj_weight"] + p["self_attn.in_proj_bias"], 3, axis=-1)
    heads = [a.reshape(n, tokens, case.heads, width // case.heads) for a in (q, k, v)]
    y = jax.nn.dot_product_attention(*heads).reshape(n, tokens, width)
    y = y @ p["self_attn.out_proj.weight"] + p["self_attn.out_proj.bias"]
    x = _normalised(x + y, p["norm1.weight"], p["norm1.bias"])
    y = jax.nn.gelu(x @ p["linear1.weight"] + p["linear1.bias"], approximate=False)
    y = y @ p["linear2.weight"] + p["linear2.bias"]
    return _normalised(x + y, p["norm2.weight"], p["norm2.bias"]).mean(1)


def _lstm(case: Case, p: dict[str, Any], x: Any) -> Any:
    """The last output of an LSTM layer; p holds transposed weights."""
    import jax
    import jax.numpy as jnp

    inputs = (x @ p["weight_ih_l0"] + p["bias_ih_l0"] + p["bias_hh_l0"]).transpose(1, 0, 2)

    def cell(state: Any, given: Any) -> Any:
        h, c = state
        i, f, g, o = jnp.split(given + h @ p["weight_hh_l0"], 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

    zero = jnp.zeros((len(x), case.sizes[1]), x.dtype)
    (h, _), _ = jax.lax.scan(cell, (zero, zero), inputs)
    return h


def _channels_last(problem: Problem) -> list[np.ndarray]:
    """The weights, those of the first linear layer reordered to images that are flattened as (H, W, C)."""
    first, *others = problem.weights
    if problem.kernels:
        c = len(problem.kernels[-1])
        side = round((first.shape[1] / c) ** 0.5)
        first = first.reshape(-1, c, side, side).transpose(0, 2, 3, 1).reshape(len(first), -1)
    return [first, *others]

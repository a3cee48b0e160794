"""``vmap``, the function; what it computes with is imported when it is first used, and is in ``batching/``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kobai.refusals import guard as _guard

__all__ = ["vmap"]


def vmap(
    func: Callable[..., Any],
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """``func`` of one sample as a function of many: yᵦ = func(xᵦ), for all b at once.

    Inside, tensors look like those of one sample; every operation is done for all samples together, where it can be. May be
    nested, and combined with ``func.grad``: ``vmap(grad(loss), in_dims=(None, 0))`` gives one gradient per sample.

    Args:
        in_dims: the dimension that counts the samples, for all arguments, or in a structure like that of the arguments one
            for each; None for what all samples share. Keyword arguments are taken along dimension 0.
        out_dims: where the samples go in the results; None for a result that is the same for all.
        randomness: what random functions do: ``"error"``, ``"different"`` numbers for every sample, or the ``"same"``.
        chunk_size: how many samples at a time, to save memory; None: all.

    Errors: ValueError for dimensions that do not fit the arguments or have different sizes. RuntimeError where Python asks for
    the value of a tensor that differs between samples (``item()``, ``if x > 0:``), where a tensor that all samples share
    would be changed in place by what differs, and for a random function under ``"error"``.

    >>> import kobai
    >>> dot = lambda a, b: (a * b).sum()
    >>> kobai.vmap(dot)(kobai.ones(2, 3), kobai.tensor([[1., 2., 3.], [4., 5., 6.]]))
    tensor([ 6., 15.])
    """
    from kobai.autograd.batching.vectorize import vectorized

    return vectorized(func, in_dims, out_dims, randomness, chunk_size)


_guard(globals())

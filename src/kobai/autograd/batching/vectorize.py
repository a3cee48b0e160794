"""``vmap``: a function of one sample as a function of many, by arrays of samples."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from kobai.autograd.batching import randomness as _  # noqa: F401  (what random functions do)
from kobai.autograd.batching.border import Level, enter, leave, levels
from kobai.core.tensor import Tensor
from kobai.ops.joining import cat
from kobai.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

RANDOMNESS = ("error", "different", "same")


def vectorized(
    func: Callable[..., Any], in_dims: Any, out_dims: Any, randomness: str, chunk_size: int | None
) -> Callable[..., Any]:
    """See :func:`kobai.func.vmap`."""
    if randomness not in RANDOMNESS:
        raise RuntimeError(f"vmap: expected randomness to be one of {', '.join(RANDOMNESS)}, got {randomness!r}")
    if chunk_size is not None and (not isinstance(chunk_size, int) or chunk_size < 1):
        raise ValueError(f"vmap: expected chunk_size to be None or an integer > 0, got {chunk_size!r}")

    @wraps(func)
    def over_samples(*args: Any, **kwargs: Any) -> Any:
        dims, leaves, spec = _dims_of(in_dims, args)
        extra, extra_spec = tree_flatten(kwargs)  # keyword arguments: along dimension 0, as in PyTorch
        dims += [0 if isinstance(value, Tensor) else None for value in extra]
        leaves += extra
        count = _samples(dims, leaves)

        def run(samples: int, parts: list[Any]) -> tuple[list[Tensor], TreeSpec]:
            levels.stack.append(Level(samples, randomness))
            try:
                inside = [x if d is None else enter(x, d) for x, d in zip(parts, dims, strict=True)]
                n = len(inside) - len(extra)
                result = func(*tree_unflatten(inside[:n], spec), **tree_unflatten(inside[n:], extra_spec))
                return _leaving(result, out_dims)
            finally:
                levels.stack.pop()

        if chunk_size is None or chunk_size >= count:
            made, made_spec = run(count, leaves)
            return tree_unflatten(made, made_spec)
        return _in_chunks(run, dims, leaves, out_dims, count, chunk_size)

    return over_samples


def _in_chunks(run: Any, dims: list[Any], leaves: list[Any], out_dims: Any, count: int, chunk_size: int) -> Any:
    """So many samples at a time, which bounds the memory."""
    chunks: list[list[Tensor]] = []
    spec: Any = None
    for start in range(0, count, chunk_size):
        n = min(chunk_size, count - start)
        chunk, spec = run(n, [x if d is None else x.narrow(d, start, n) for x, d in zip(leaves, dims, strict=True)])
        chunks.append(chunk)
    places = _places(out_dims, tree_unflatten(chunks[0], spec))
    joined = [cat(parts, dim=d) for parts, d in zip(zip(*chunks, strict=True), places, strict=True)]
    return tree_unflatten(joined, spec)


def _broadcast(dims: Any, tree: Any, who: str) -> list[Any]:
    """One entry of ``dims`` for each leaf: an integer or None stands for all leaves below."""
    if dims is None or isinstance(dims, int):
        return [dims] * len(tree_flatten(tree)[0])
    alike = isinstance(dims, (list, tuple)) and isinstance(tree, (list, tuple)) and len(dims) == len(tree)
    if not alike and not (isinstance(dims, dict) and isinstance(tree, dict) and dims.keys() == tree.keys()):
        raise ValueError(f"vmap: expected {who} of the structure of what they are for, got {dims!r} for {_shown(tree)}")
    pairs = [(dims[key], tree[key]) for key in tree] if isinstance(dims, dict) else zip(dims, tree, strict=True)
    return [d for entry, part in pairs for d in _broadcast(entry, part, who)]


def _shown(tree: Any) -> str:
    if isinstance(tree, (list, tuple)):
        return f"{type(tree).__name__} of {len(tree)}"
    return f"dict of {sorted(map(str, tree))}" if isinstance(tree, dict) else type(tree).__name__


def _dims_of(in_dims: Any, args: tuple[Any, ...]) -> tuple[list[int | None], list[Any], TreeSpec]:
    """The dimension of the samples for each leaf of the arguments, counted from the front; the leaves; their structure."""
    if not isinstance(in_dims, (int, tuple, list)):
        raise ValueError(
            f"vmap: expected in_dims to be an integer or a tuple as long as the arguments, got {in_dims!r}"
        )
    if not args:
        raise ValueError("vmap: expected at least one positional argument")
    leaves, spec = tree_flatten(args)
    dims = _broadcast(list(in_dims) if isinstance(in_dims, tuple) else in_dims, list(args), "in_dims")
    for i, (x, d) in enumerate(zip(leaves, dims, strict=True)):
        if d is None:
            continue
        if not isinstance(d, int):
            raise ValueError(f"vmap: expected integers and None in in_dims, got {d!r}")
        if not isinstance(x, Tensor):
            raise ValueError(
                f"vmap: in_dims names dimension {d} of a value of type {type(x).__name__}; expected a Tensor"
            )
        if not -x.ndim <= d < x.ndim:
            raise ValueError(f"vmap: in_dims names dimension {d} of a tensor of shape {tuple(x.shape)}")
        dims[i] = d % x.ndim
    return dims, leaves, spec


def _samples(dims: list[int | None], leaves: list[Any]) -> int:
    sizes = [x.shape[d] for x, d in zip(leaves, dims, strict=True) if d is not None]
    if not sizes:
        raise ValueError("vmap: expected in_dims to name a dimension of at least one tensor, got None for all")
    if len(set(sizes)) > 1:
        raise ValueError(f"vmap: expected dimensions of one size, got {', '.join(map(str, sizes))}")
    return int(sizes[0])


def _places(out_dims: Any, result: Any) -> list[Any]:
    """Where the samples go in each of the results."""
    alone = isinstance(result, Tensor) and isinstance(out_dims, tuple) and len(out_dims) == 1
    return _broadcast(out_dims[0] if alone else out_dims, result, "out_dims")


def _leaving(result: Any, out_dims: Any) -> tuple[list[Tensor], TreeSpec]:
    values, spec = tree_flatten(result)
    dims = _places(out_dims, result)
    outside = []
    for value, dim in zip(values, dims, strict=True):
        if not isinstance(value, Tensor):
            raise ValueError(f"vmap: expected the function to return tensors only, got a {type(value).__name__}")
        if dim is not None and not -value.ndim - 1 <= dim <= value.ndim:
            raise IndexError(f"vmap: out_dims names dimension {dim} of a result with {value.ndim + 1} dimensions")
        outside.append(leave(value, None if dim is None else dim % (value.ndim + 1)))
    return outside, spec

"""Second derivatives on the samples of OpInfo: of g = ∂(y · v)/∂x, its own derivatives in x and in v."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import kobai
from oracle import bridge, verdict
from oracle.bridge import ForeignError, LackingError, own, put, tensors
from oracle.verdict import host, leaves

FORM = "second derivatives"


def seconds(autograd: Any, ends: Any, inputs: Any, weights: Any, tensor: Any) -> list[Any]:
    """∂(g · u)/∂(x, v), where g = ∂(y · v)/∂x; None where g does not depend on x or v.

    ``ends`` are y, ``weights`` numbers for u and v: one array for each of ``inputs``, then one for each of ``ends``.
    """
    us, vs = weights[: len(inputs)], weights[len(inputs) :]
    vs = [tensor(v, dtype=y.dtype, requires_grad=True) for v, y in zip(vs, ends, strict=True)]
    first = autograd.grad(ends, inputs, vs, create_graph=True, allow_unused=True)
    pairs = [(g, u) for g, u in zip(first, us, strict=True) if g is not None and g.requires_grad]
    if not pairs:
        return [None] * (len(inputs) + len(ends))
    us = [tensor(u, dtype=g.dtype) for g, u in pairs]
    return list(autograd.grad([g for g, _ in pairs], [*inputs, *vs], us, allow_unused=True))


def difference(info: Any, ours: Any, sample: Any, tolerance: float) -> tuple[str, str] | None:
    """The kind of a difference in one sample and what it is; two empty strings if there is none; None if PyTorch has no second
    derivatives of it, or Kobai not the sample's values."""
    args, kwargs = own(((sample.input, *sample.args), dict(sample.kwargs)))
    made: dict[int, Any] = {}
    try:
        our_args, our_kwargs = put(args, made), put(kwargs, made)
        wrapper, process = put(info.gradcheck_wrapper), put(sample.output_process_fn_grad)
    except (ForeignError, LackingError):
        return None
    our_kwargs = {k: v for k, v in our_kwargs.items() if k not in bridge.ONE_LAYOUT}
    inputs = list({id(t): t for t in tensors([args, kwargs]) if t.requires_grad}.values())
    try:
        results = leaves(sample.output_process_fn_grad(info.gradcheck_wrapper(info.op, *args, **kwargs)))
        wanted = [isinstance(y, torch.Tensor) and y.requires_grad for y in results]
        if not inputs or not any(wanted):
            return None
        ends = [y for y, w in zip(results, wanted, strict=True) if w]
        rng = np.random.default_rng(0)
        weights = [rng.normal(size=tuple(t.shape)) for t in (*inputs, *ends)]
        expected = seconds(torch.autograd, ends, inputs, weights, torch.tensor)
    except (RuntimeError, NotImplementedError):  # PyTorch has none
        return None
    try:
        results = leaves(process(wrapper(ours, *our_args, **our_kwargs)))
        ends = [y for y, w in zip(results, wanted, strict=True) if w]
        found = seconds(kobai.autograd, ends, [made[id(t)] for t in inputs], weights, kobai.tensor)
    except (ForeignError, LackingError):
        return None
    except Exception as error:
        return verdict.refusal(error), verdict.said(error)
    right = [np.zeros(w.shape) if t is None else host(t) for t, w in zip(expected, weights, strict=True)]
    got = [np.zeros(r.shape) if k is None else host(k) for r, k in zip(right, found, strict=True)]
    if [r.shape for r in right] != [k.shape for k in got]:
        return "shape", f"PyTorch {[r.shape for r in right]}, Kobai {[k.shape for k in got]}"
    whole, all_of_it = (np.concatenate([part.reshape(-1) for part in parts]) for parts in (right, got))
    what = verdict.difference(
        whole, all_of_it, tolerance
    )  # all together: what cancels out is measured by what does not
    return ("value", what) if what else ("", "")

"""Rules of the two modes: what goes on in evaluation and belongs to training, and what is trained in evaluation mode."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

import numpy as np

from kobai import nn, ops
from kobai.autograd import grad
from kobai.core.grad_mode import enable_grad, no_grad
from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Cure
from kobai.lab.doctor.cures_of_batches import train_again
from kobai.lab.doctor.findings import Disease, Evidence, Finding
from kobai.lab.doctor.ledger import tensors
from kobai.lab.doctor.rules.view import View
from kobai.lab.doctor.trials import copied, copy_of
from kobai.random import manual_seed
from kobai.train.batches import device_of
from kobai.train.step import computing

NOISE, KEPT = 1e-2, 1e-3
"""Change of an output from one pass to the next, over what differs between samples."""
DRAWS, SCALE = 6, 0.125
"""Passes with other random numbers; and the cosine of a parameter's gradients in two of them, on average, below which it
scales the noise."""
SHIFTED, WIDENED = 1.0, 4.0
"""Of the median channel: distance of mean and running mean in running standard deviations; ratio of the variances."""

RANDOM_IN_EVALUATION = Disease(
    "random-in-evaluation",
    "random numbers in evaluation",
    f"in evaluation mode, two passes over the same batch with other random numbers whose outputs differ by more than {NOISE:g} "
    "of what differs between samples (root mean square), while the same random numbers give the same; not found where a weight "
    f"scales the noise, by the gradients of a random sum of the random outputs in {DRAWS} such passes: if those of one "
    "weight have a "
    f"mean cosine below {SCALE:g} with each other, the noise is learnt, as in a variational autoencoder; a note where the "
    "outputs are several tensors",
    "Noise in training keeps units from relying on each other; in evaluation it is an error that is added to each answer. "
    "Dropout keeps the mean of what it passes on, so that nothing has to be made up for when it ends.",
    "Srivastava et al., Dropout, JMLR 2014, section 4; Bishop, Training with noise, Neural Computation 1995; wanted: Gal and "
    "Ghahramani, arXiv:1506.02142; Kingma and Welling, arXiv:1312.6114",
    ("non-finite", "wrong-labels"),
    fact=True,
)
STATE_KEPT = Disease(
    "state-kept",
    "a state that is kept from batch to batch",
    f"in evaluation mode, two passes over the same batch with the same random numbers whose outputs differ by more than "
    f"{KEPT:g} of what differs between samples (root mean square)",
    "What a net keeps of one batch, such as the state of a recurrent layer, is part of its input for the next. That is right "
    "where row i of each batch goes on where row i of the last one ended. Shuffled samples are given the state of others.",
    "Sutskever, Training recurrent neural networks, 2013; Hochreiter and Schmidhuber 1997; definition of a function",
    ("non-finite", "wrong-labels"),
    fact=True,
)
LEFT_IN_EVALUATION = Disease(
    "left-in-evaluation",
    "norms that are left in evaluation mode while the net is trained",
    "after model.train(), or as given if the model is in training mode, norms that divide by running averages in a training "
    f"pass, where those are not of their inputs: in the median channel the mean is off by {SHIFTED:g} standard deviations, or "
    f"the variance {WIDENED:g} times as large or small",
    "In evaluation mode batch norm takes (x − avg)/√var of averages that no longer follow the weights: what it passes on has "
    "neither mean 0 nor variance 1, and with depth the signal vanishes or explodes as if there were no norm.",
    "Ioffe and Szegedy, arXiv:1502.03167, section 3.1; Kobai's and PyTorch's documentation of Module.train and eval",
    ("non-finite", "wrong-labels"),
    certain=True,
)


def kept(view: View) -> Finding | None:
    """Change of the outputs from one pass in evaluation mode to the next, with the same random numbers."""
    found = _twice(view, (0, 0))
    if found is None or not found[0] > KEPT:
        return None
    change, _, names = found
    return STATE_KEPT.found(
        Evidence("change of an output when the same batch is given again, of what differs between samples", change, KEPT, True,
                 severity="warning"),
        cause="The same batch, in evaluation mode and with the same random numbers, gives other outputs the second time: the "
        f"net keeps a state{_of(names)} from one batch to the next. Are the samples of a batch the continuation of those "
        "before them? If they are shuffled, each is given the state of another.",
        cure=Cure(
            "# begin forward() with a new state, h = kobai.zeros(len(x), units) or self.rnn(x) without a state, or reset it\n"
            "# between sequences; if the state is to go on: DataLoader(data, batch_size=64, shuffle=False, drop_last=True)"
        ),
        where=names,
    )  # fmt: skip


def noisy(view: View) -> Finding | None:
    """Change of the outputs from one pass in evaluation mode to the next, with other random numbers."""
    same, other = _twice(view, (0, 0)), _twice(view, (0, 1))
    if same is None or other is None or same[0] > KEPT or not other[0] > NOISE or _scaled(view):
        return None
    change, single, names = other
    assert view.ledger is not None
    left = [name for name, module in view.ledger.fresh.eval().named_modules() if module.training]
    why = (
        "random numbers are drawn in forward() whatever the mode is, as by F.dropout without training=self.training, whose "
        "default is True"
    )
    if left:
        why = f"model.eval() leaves {', '.join(map(repr, left[:3]))} in training mode"
    return RANDOM_IN_EVALUATION.found(
        Evidence("change of an output when the same batch is evaluated again, of what differs between samples", change, NOISE,
                 True, severity="warning" if single else "note"),
        cause=f"Two evaluations of the same batch give different outputs{_of(names)}: {why}. If the noise is wanted, as for "
        "Monte-Carlo samples of an answer, let it be.",
        cure=Cure(
            "# in forward(): F.dropout(h, p, training=self.training), or an nn.Dropout as a part of the module;\n"
            "# noise of your own: if self.training: h = h + 0.1 * kobai.randn_like(h)\n"
            "model.eval()\n"
            "with kobai.no_grad():\n"
            "    print((model(x) - model(x)).abs().max())  # 0 when no noise is left"
        ),
        where=names,
    )  # fmt: skip


def _of(names: Sequence[str]) -> str:
    return f" (first in {names[0] or 'the model'!r})" if names else ""


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Kobai's, NumPy's and Python's random streams from a seed; the latter two go on as before."""
    there, own = np.random.get_state(), random.getstate()
    manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(there)
        random.setstate(own)


def _twice(view: View, seeds: tuple[int, int]) -> tuple[float, bool, list[str]] | None:
    """Change of the outputs of a copy from one evaluation to the next, whether there is one output, and where it begins."""
    assert view.ledger is not None
    model, _ = copy_of(view.ledger.case.model)
    inputs, each = view.ledger.few, []
    with no_grad(), computing(view.precision, device_of(model).type):
        for seed in seeds:
            seen: list[tuple[str, list[Tensor]]] = []
            handles = [m.register_forward_hook(_keeping(name, seen)) for name, m in model.eval().named_modules()]
            with _seeded(seed):
                model(*inputs)
            for handle in handles:
                handle.remove()
            each.append(seen)
    changes = {name: _change(a, b) for (name, a), (_, b) in zip(*each, strict=False)}
    ends = each[0][-1][1] if each[0] else []
    change = list(changes.values())[-1] if changes else 0.0
    first = [name for name, value in changes.items() if value > KEPT][:1]
    return (change, len(ends) == 1, first) if math.isfinite(change) else None


def _keeping(name: str, seen: list[tuple[str, list[Tensor]]]) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        seen.append((name, [y.detach().clone() for y in tensors(output) if y.is_floating_point()]))

    return hook


def _change(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """The largest root mean square of the change of a tensor, over what differs in it between samples."""
    changes = [0.0]
    for a, b in zip(first, second, strict=False):
        if a.shape != b.shape or not a.numel() or not a.ndim:
            continue
        y, z = a.double(), b.double()
        off = float(((y - z) ** 2).mean().item()) ** 0.5
        spread = float(((y - y.mean(0)) ** 2).mean().item()) ** 0.5
        changes.append(off / spread if spread > 0 else 0.0)
    return max(changes)


def _scaled(view: View) -> bool:
    """Whether a weight scales the noise: then its gradients point anywhere, and have no mean.

    Of y = f(μ + σ ε) with a random ε the derivative by what makes σ is f′ ε, whose mean is 0 to first order; all other weights
    have derivatives that agree in most of their parts.
    """
    assert view.ledger is not None
    model, _ = copy_of(view.ledger.case.model)
    named = [(name, p) for name, p in model.eval().named_parameters() if p.requires_grad and p.ndim > 1]
    slopes: list[list[Tensor | None]] = []
    weights: list[Tensor] = []
    first: list[Tensor] = []
    for seed in range(DRAWS + 1):
        with enable_grad(), computing(view.precision, device_of(model).type):
            with _seeded(seed):
                outputs = [y for y in tensors(model(*view.ledger.few)) if y.is_floating_point() and y.requires_grad]
            if seed == 0:
                first = outputs
                continue
            outputs = [
                y for y, was in zip(outputs, first, strict=True) if bool((y != was).any().item())
            ]  # the random ones
            if not outputs or not named:
                return False
            weights = weights or [ops.randn_like(y.detach()) for y in outputs]
            total = sum((y * w).sum() for y, w in zip(outputs, weights, strict=True))
            slopes.append(list(grad(total, [p for _, p in named], allow_unused=True)))
    return any(_agreement([each[i] for each in slopes]) < SCALE for i in range(len(named)))


def _agreement(slopes: Sequence[Tensor | None]) -> float:
    """Mean cosine of each two gradients; 1 where there is none."""
    flat = [slope.double().reshape(-1) for slope in slopes if slope is not None]
    sizes = [float((slope**2).sum().item()) ** 0.5 for slope in flat]
    if len(flat) < 2 or not min(sizes) > 0:
        return 1.0
    unit = [slope / size for slope, size in zip(flat, sizes, strict=True)]
    pairs = [float((a * b).sum().item()) for i, a in enumerate(unit) for b in unit[:i]]
    return sum(pairs) / len(pairs)


def left_in_evaluation(view: View) -> Finding | None:
    """Moments of what norms in evaluation mode are given in a training pass, beside the averages that they divide by."""
    assert view.ledger is not None
    model, _ = copied(view.ledger.case)
    found: dict[str, tuple[float, float]] = {}
    handles = [
        module.register_forward_pre_hook(_measuring(name, found))
        for name, module in model.named_modules()
        if isinstance(getattr(module, "running_mean", None), Tensor)
    ]
    with no_grad(), computing(view.precision, device_of(model).type):
        model(*view.inputs)
    for handle in handles:
        handle.remove()
    wrong = [name for name, (shift, ratio) in found.items() if shift > SHIFTED or ratio > WIDENED]
    if not wrong:
        return None
    name, (shift, ratio) = max(((name, found[name]) for name in wrong), key=lambda each: max(each[1]))
    moments = [
        Evidence(
            f"variance of the inputs of {name!r} and its running average, larger over smaller",
            ratio,
            WIDENED,
            True,
        ),
        Evidence(
            f"mean of the inputs of {name!r} off its running average, in standard deviations", shift, SHIFTED, True
        ),
    ]
    model.train()
    overridden = any(not model.get_submodule(path).training for path in wrong)
    return LEFT_IN_EVALUATION.found(
        *[each for each in moments if each.passed],
        cause=f"{len(wrong)} norm{'s' * (len(wrong) > 1)} compute{'s' * (len(wrong) == 1)} as in evaluation mode while the net "
        "is trained: running averages that no longer follow are taken for mean and variance of the batch"
        f"{', and model.train() leaves them so' if overridden else ', left in eval() as after a validation'}.",
        cure=train_again(overridden),
        where=wrong,
    )


def _measuring(name: str, found: dict[str, tuple[float, float]]) -> Callable[..., None]:
    def hook(module: Any, args: tuple[Any, ...]) -> None:
        if module.training or not args or not isinstance(args[0], Tensor) or args[0].ndim < 2 or name in found:
            return
        x = args[0].detach().double()
        rows = x.transpose(0, 1).reshape(x.shape[1], -1)
        mean, variance = rows.mean(1), rows.var(1, correction=0) + module.eps
        kept = module.running_var.double() + module.eps
        shift = ((mean - module.running_mean.double()).abs() / kept.sqrt()).tolist()
        ratio = (variance / kept).log().abs().exp().tolist()
        found[name] = median(shift), median(ratio)

    return hook

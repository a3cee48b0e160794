"""What the end of a model can say: the output of its last layer is replaced by free numbers, and what the loss makes of them
is compared with what it makes of outputs without bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kobai import nn, ops
from kobai.autograd import grad
from kobai.core.grad_mode import enable_grad, no_grad
from kobai.core.tensor import Tensor
from kobai.func import functional_call
from kobai.lab.doctor.ledger import tensors
from kobai.nn import functional as F
from kobai.random import default_generator, manual_seed
from kobai.train.batches import device_of
from kobai.train.step import computing

SAMPLES, NUMBERS = 48, 100_000
"""At most so many samples of the batch, and numbers of the last layer's output, are looked at."""

STEPS, RATE = 60, 0.3
ANSWERED = 1e-2
"""One output for all samples that costs less than this part of what zeros cost answers all of them, and is no guess."""
ROUNDING = 1e-4
"""Differences that are smaller, beside the largest output, are no answer to other inputs."""
FAR = (2.0, 5.0, 50.0)
"""Scores that are sure of the truth: one as good as infinite, and smaller ones, which suit smoothed labels."""


def parts(output: Any) -> list[Tensor]:
    """The tensors of numbers in an output, which may be a tuple, a list or a dict of them."""
    return [part for part in tensors(output) if part.is_floating_point()]


def rebuilt(output: Any, others: Iterator[Tensor]) -> Any:
    """The same output with other tensors in place of its :func:`parts`."""
    if isinstance(output, Tensor):
        return next(others) if output.is_floating_point() else output
    if isinstance(output, dict):
        return type(output)({key: rebuilt(each, others) for key, each in output.items()})
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*[rebuilt(each, others) for each in output])
    if isinstance(output, (tuple, list)):
        return type(output)([rebuilt(each, others) for each in output])
    return output


def truths(like: Tensor, target: Any) -> Tensor | None:
    """The targets as outputs of the shape of ``like``: labels as 0 and 1 for each class; None if they do not fit."""
    if not isinstance(target, Tensor):
        return None
    if target.is_floating_point():
        return (
            target.detach().reshape(like.shape).to(like.device, like.dtype) if target.numel() == like.numel() else None
        )
    if like.ndim < 2 or target.shape != (like.shape[0], *like.shape[2:]) or target.dtype.name == "bool":
        return target.reshape(like.shape).to(like.device, like.dtype) if target.numel() == like.numel() else None
    sure: Tensor = F.one_hot(target.clamp(0, like.shape[1] - 1), like.shape[1])
    sure = sure.permute(0, -1, *range(1, target.ndim)).to(like.device, like.dtype)
    return sure


def guesses_of(truth: Tensor) -> Iterator[Tensor]:
    """Outputs and scores that are near to the truth: itself, and scores that are sure of it, if it is 0 and 1."""
    yield truth
    if bool(((truth >= 0) & (truth <= 1)).all().item()):
        inside = truth.clamp(1e-3, 1 - 1e-3)
        yield (inside / (1 - inside)).log()
        yield from (far * (2 * truth - 1) for far in FAR)


def descend(
    loss: Callable[[list[Tensor]], Any], starts: Sequence[list[Tensor]], steps: int, repeats: int = 1
) -> tuple[float, list[Tensor]]:
    """The least loss over some numbers, and these: the best of the starts, improved by steps of Adam.

    Noise on the numbers, which fades, leads them out of where the slope is 0. ``repeats``: losses to take the mean of.
    """

    def value(numbers: list[Tensor]) -> float:
        with no_grad():
            try:
                each = [float(loss(numbers).item()) for _ in range(repeats)]
            except Exception:  # a loss refuses what lies outside its bounds
                return math.inf
        mean = sum(each) / len(each)
        return mean if not math.isnan(mean) else math.inf

    valued = [(value(start), start) for start in starts]
    best, at = min(valued, key=lambda pair: pair[0])
    if not steps or not math.isfinite(best):
        return best, at
    now = [part.detach().clone() for part in at]
    scale = [max(1.0, float((part**2).mean().item()) ** 0.5) for part in now]
    first, second = [0.0 * part for part in now], [0.0 * part for part in now]
    for step in range(1, steps + 1):
        left = 1 - (step - 1) / steps
        with enable_grad():
            noisy = [
                (part + RATE * left**2 * size * ops.randn_like(part)).detach().requires_grad_(True)
                for part, size in zip(now, scale, strict=True)
            ]
            try:
                cost = loss(noisy)
                slopes = grad(cost, noisy, allow_unused=True)
            except Exception:
                break
        with no_grad():
            for i, (part, slope) in enumerate(zip(now, slopes, strict=True)):
                if slope is None:
                    continue
                slope = slope.nan_to_num(0.0, 0.0, 0.0)
                first[i] = 0.8 * first[i] + 0.2 * slope
                second[i] = 0.95 * second[i] + 0.05 * slope**2
                ahead, size = first[i] / (1 - 0.8**step), (second[i] / (1 - 0.95**step)).sqrt() + 1e-12
                now[i] = part - RATE * left * scale[i] * ahead / size
    after = value(now)
    return (after, now) if after < best else (best, at)


@dataclass
class Reach:
    """Losses of some samples of the batch: what the model's end can reach, what free outputs do, and what guessing does.

    Where one output is right for all samples, ``guess`` is the loss of outputs that are all 0.
    """

    end: float
    free: float
    guess: float
    moves: bool
    """Whether any output depends on what the last layer gives."""
    all: bool
    """Whether each does."""
    low: float
    high: float
    """Bounds of the outputs, over all that was tried."""


class End:
    """The end of a model, from the output of ``layer``, its last one with weights, to the model's output.

    ``model`` runs on a few samples of the batch; its buffers and the random stream are left as they were. Without ``steps``
    only a few outputs are tried. ``after``: parameters among which those are looked for that reach the output past the last
    layer, such as the scale of a normalisation, a temperature, or the other factors of a product with it.
    """

    def __init__(
        self,
        model: nn.Module,
        layer: str,
        after: Sequence[str],
        inputs: Sequence[Any],
        target: Any,
        loss_fn: Any,
        steps: int = STEPS,
        precision: str = "fp32",
        samples: int | None = None,
    ) -> None:
        self.model, self.module, self.steps = model, model.get_submodule(layer), steps
        self.loss_fn = _within(precision, model, loss_fn)
        self.called = _within(precision, model, lambda own, inputs: functional_call(model, own, inputs))
        self.after: dict[str, Tensor] = {}
        count = len(inputs[0])
        each = len(target) // count
        keep = min(count, samples or SAMPLES)
        rows = [i * count // keep for i in range(keep)] if each == 1 else list(range(keep))
        self.inputs = [x[rows] for x in inputs]
        self.target = target[rows] if each == 1 else target[: keep * each]
        self.fused = getattr(self.module, "activation", None)
        self.seed = self.random = 0
        self.given: list[Tensor] = []
        with no_grad():
            self.output = self.run(None)
        self.parts = [part.detach() for part in parts(self.output)]
        if self.given:
            self.after = self._past({name: model.get_parameter(name).detach() for name in after})

    @property
    def usable(self) -> bool:
        """Whether the model's output, and the last layer's, if that is a tensor, are numbers, and not too many."""
        return bool(self.parts) and sum(part.numel() for part in [*self.given, *self.parts]) <= 2 * NUMBERS

    def run(self, given: list[Tensor] | None) -> Any:
        """The model's output, where its last layer gives these tensors, one for each call; None: what it gives itself.

        They may be followed by other numbers for the parameters after that layer.
        """
        calls, own = iter(given or ()), dict(self.after)
        if given is not None and len(given) > len(self.given):
            own = dict(zip(self.after, given[len(self.given) :], strict=True))
        record = given is None

        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            if not isinstance(output, Tensor):
                return output
            if record:
                self.given.append(output.detach().clone())
                return self._acted(output)
            return self._acted(next(calls))

        handle = self.module.register_forward_hook(hook)
        if isinstance(self.fused, str):
            self.module.activation = None
        manual_seed(self.seed)
        try:
            return self.called(own, tuple(self.inputs))
        finally:
            handle.remove()
            if isinstance(self.fused, str):
                self.module.activation = self.fused

    def _past(self, own: dict[str, Tensor]) -> dict[str, Tensor]:
        """Those of these parameters on which the output depends though the last layer gives the same."""
        self.after = {name: tensor.clone().requires_grad_(True) for name, tensor in own.items()}
        with enable_grad():
            cost = sum((part.sum() for part in parts(self.run(self.given))), ops.zeros(()))
        wanted = list(self.after.values())
        slopes = grad(cost, wanted, allow_unused=True) if wanted and cost.requires_grad else [None] * len(wanted)
        return {name: own[name] for name, slope in zip(own, slopes, strict=True) if slope is not None}

    def _acted(self, output: Tensor) -> Tensor:
        acted: Tensor = getattr(ops, self.fused)(output) if isinstance(self.fused, str) else output
        return acted

    def loss_of(self, given: list[Tensor]) -> Any:
        """The loss where the last layer gives these tensors."""
        self.seed += self.random
        return self.loss_fn(self.run(given), self.target)

    def cost(self, numbers: Sequence[Tensor], target: Any = None) -> Any:
        """The loss of an output with these tensors, for its own target or another one."""
        return self.loss_fn(rebuilt(self.output, iter(numbers)), self.target if target is None else target)

    def asked(self, numbers: Sequence[Tensor], target: Any = None) -> float:
        """That loss as a number; NaN if it is refused, as it may be for what the user would not give it."""
        try:
            return float(self.cost(numbers, target).item())
        except Exception:
            return math.nan

    def reach(self) -> Reach:
        """See :class:`Reach`."""
        with no_grad():
            tried, moved = self._tried()
            outputs = [part for each in tried for part in each]
            low, high = min(float(p.min().item()) for p in outputs), max(float(p.max().item()) for p in outputs)
        some = any(bool(mask.any().item()) for mask in moved)
        whole = all(bool(mask.all().item()) for mask in moved)
        masks = moved if some else [mask | True for mask in moved]

        def freed(numbers: list[Tensor]) -> list[Tensor]:
            return [
                ops.where(mask, number.expand(part.shape), part)
                for mask, number, part in zip(masks, numbers, self.parts, strict=True)
            ]

        zs, ys = self._starts(self.given), self._starts(self.parts)
        if [z.shape for z in self.given] == [y.shape for y in self.parts]:
            ys += zs
        end, _ = descend(
            self.loss_of, [[*z, *self.after.values()] for z in zs], self.steps if some else 0, 4 if self.random else 1
        )
        free, _ = descend(lambda numbers: self.cost(freed(numbers)), ys, self.steps)
        means = [[part.mean(0, keepdim=True) for part in start] for start in self._starts(self.parts)]
        guess, _ = descend(lambda numbers: self.cost(freed(numbers)), [*means, *self._logarithms(means)], self.steps)
        with no_grad():
            equal = float(self.cost(freed([0 * part for part in self.parts])).item())
        if 0 <= guess < ANSWERED * equal < math.inf:  # as where the first of some scores is to be the highest, always
            guess = equal
        return Reach(end, free, guess, some, whole, low, high)

    def _logarithms(self, means: list[list[Tensor]]) -> list[list[Tensor]]:
        """The logarithms and logits of shares."""
        found = []
        for mean in means:
            if all(bool(((part >= 0) & (part <= 1)).all().item()) for part in mean):
                inside = [part.clamp(1e-3, 1 - 1e-3) for part in mean]
                found += [[part.log() for part in inside], [(part / (1 - part)).log() for part in inside]]
        return found

    def _starts(self, like: list[Tensor]) -> list[list[Tensor]]:
        """What is tried first: as it is, 0, and what is sure of the truth, as far as targets fit."""
        found = [like, [0 * part for part in like]]
        for i, part in enumerate(like):
            truth = truths(part, self.target)
            if truth is not None:
                found += [[*like[:i], guess, *like[i + 1 :]] for guess in guesses_of(truth)]
        return found

    def _tried(self) -> tuple[list[list[Tensor]], list[Tensor]]:
        """Outputs for some disturbed outputs of the last layer, and which of their numbers have changed."""
        tried, moved = [self.parts], [part != part for part in self.parts]
        for self.seed, size in enumerate((1.0, 10.0, -10.0, 1000.0, -1000.0), 1):
            noise = [ops.randn_like(z) for z in self.given]
            further = [
                z + size * (n if size in (1.0, 10.0) else n.abs()) for z, n in zip(self.given, noise, strict=True)
            ]
            here, there = ([part.detach() for part in parts(self.run(given))] for given in (self.given, further))
            for i, part in enumerate(self.parts):
                same = (here[i] == part) | (here[i].isnan() & part.isnan())
                self.random |= int(not bool(same.all().item()))
                moved[i] = moved[i] | (there[i] != here[i])
            tried.append(there)
        return tried, moved

    def bypassed(self) -> bool:
        """Whether what a sample's output says depends on numbers of its inputs that do not go through the last layer.

        The samples' inputs change places, and the last layer gives what it gave. What it can say is then no bound of what
        the model can, as where there is a second output.
        """
        inputs, seed, moved = self.inputs, self.seed, False
        self.seed = 0  # that of the output to compare with
        try:
            self.inputs = [x.roll(1, 0) if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs]
            with no_grad():
                for here, part in zip(parts(self.run(self.given)), self.parts, strict=True):
                    off = (here - part).abs().nan_to_num(0.0, 0.0, 0.0)
                    moved |= float(off.max().item()) > ROUNDING * (1e-30 + float(part.abs().max().item()))
        finally:
            self.inputs, self.seed = inputs, seed
        return moved

    def passes(self) -> bool:
        """Whether the end passes on a gradient, as a straight-through estimator does where its outputs stay the same."""
        with enable_grad():
            leaves = [z.detach().requires_grad_(True) for z in self.given]
            cost = self.loss_of(leaves)
            slopes = grad(cost, leaves, allow_unused=True) if cost.requires_grad else ()
        return any(slope is not None and bool((slope != 0).any().item()) for slope in slopes)


def _within(precision: str, model: nn.Module, function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The function, computed in the precision of the training."""

    def call(first: Any, second: Any) -> Any:
        with computing(precision, device_of(model).type):
            return function(first, second)

    return call


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Leave buffers, such as running means, and the random stream as they are; no parameter is on a tape meanwhile."""
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    state = default_generator.get_state()
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        default_generator.set_state(state)
        with no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)

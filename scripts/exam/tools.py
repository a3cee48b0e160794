"""What the checks of other tools say of a situation: told again by rules, from what their documentation says they look at.

None of these tools is run. Each function gets what could be observed in a short training (:class:`Seen`) and returns the
messages that the tool, with all its checks switched on, would give. Where a tool cannot even get into the situation, because
it reshapes or refuses, that counts as naming it. Sources stand in the docstrings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

import kobai
from exam.question import Situation
from kobai import nn
from kobai.lab.doctor.trials import copy_of

EPOCHS, PATIENCE, FLAT, FAR = 6, 3, 1e-8, 1000
"""What is trained, what counts as a plateau, as a gradient of 0, and as a rate that a reader would not keep."""


@dataclass
class Seen:
    """What can be observed from outside: shapes, losses, gradients, and whether samples are mixed."""

    output_shape: tuple[int, ...] = ()
    target_shape: tuple[int, ...] = ()
    float_targets: bool = False
    losses: list[float] = field(default_factory=list)
    training: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    refused: str = ""
    without_gradient: list[str] = field(default_factory=list)
    zero_gradient: list[str] = field(default_factory=list)
    greatest_gradient: float = 0.0
    frozen: int = 0
    trained: int = 0
    untaped: bool = False
    mixed: bool = False
    one_unit_softmax: bool = False
    nll: bool = False
    norms: bool = False
    overfits: bool = True
    rate: float = 0.0
    suggested: float | None = None

    @property
    def finite(self) -> bool:
        return all(map(math.isfinite, self.losses))


def watched(case: Situation, seed: int) -> Seen:
    """Train a situation for some epochs and write down what can be seen."""
    seen = Seen()
    kobai.manual_seed(seed)
    try:
        _look(case, seen)
    except (ValueError, RuntimeError, IndexError) as error:  # a loss that refuses its targets says so under any tool
        seen.refused = str(error)
        return seen
    seen.mixed = not seen.norms and _mixes(case)
    seen.overfits = _overfits(case)
    seen.suggested = _sweep(case)
    _train(case, seen, seed)
    still = {name for name, p in case.model.named_parameters() if p.grad is None or float(p.grad.abs().max()) < FLAT}
    seen.zero_gradient = [name for name in seen.zero_gradient if name in still and "bias" not in name]
    return seen


def _look(case: Situation, seen: Seen) -> None:
    *inputs, target = case.example()
    output = case.model.train()(*inputs)
    seen.output_shape, seen.target_shape = tuple(getattr(output, "shape", ())), tuple(target.shape)
    seen.float_targets = bool(target.is_floating_point())
    loss = case.loss_fn(output, target)
    named = list(case.model.named_parameters())
    seen.frozen = sum(p.numel() for _, p in named if not p.requires_grad)
    seen.trained = sum(p.numel() for _, p in named if p.requires_grad)
    seen.untaped = not loss.requires_grad
    seen.norms = any("BatchNorm" in type(module).__name__ for module in case.model.modules())
    seen.nll = isinstance(case.loss_fn, nn.NLLLoss)
    seen.one_unit_softmax = seen.output_shape[-1:] == (1,) and any(
        isinstance(module, nn.Softmax) for module in case.model.modules()
    )
    seen.rate = float(case.optimizer.param_groups[0]["lr"])
    case.optimizer.zero_grad()
    if not seen.untaped:
        loss.backward()
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        if parameter.grad is None:
            seen.without_gradient.append(name)
            continue
        greatest = float(parameter.grad.abs().max().item()) if parameter.grad.numel() else 0.0
        seen.greatest_gradient = max(seen.greatest_gradient, greatest)
        if greatest < FLAT:
            seen.zero_gradient.append(name)
    case.optimizer.zero_grad()


def _mixes(case: Situation) -> bool:
    """Whether the gradient of one sample's output by another sample's input is not 0."""
    *inputs, _ = case.example()
    x = inputs[0][:16]
    if not x.is_floating_point():
        return False
    x = x.detach().clone().requires_grad_()
    output = copy_of(case.model)[0].eval()(x, *(part[:16] for part in inputs[1:]))
    if not isinstance(output, kobai.Tensor) or not output.requires_grad or len(output) != len(x):
        return False
    row = len(x) // 2
    output[row].sum().backward()
    if x.grad is None:
        return False
    others = [i for i in range(len(x)) if i != row]
    return bool((x.grad[others].abs().max() > 0).item())


def _steps(case: Situation, steps: int, size: int, rates: Callable[[int], float] | None = None) -> list[float]:
    model, optimizer = copy_of(case.model, case.optimizer)
    *inputs, target = (part[:size] for part in case.example())
    losses = []
    for step in range(steps):
        if rates is not None:
            for group in optimizer.param_groups:
                group["lr"] = rates(step)
        optimizer.zero_grad()
        loss = case.loss_fn(model(*inputs), target)
        losses.append(float(loss.item()))
        if not (loss.requires_grad and math.isfinite(losses[-1])):
            break
        loss.backward()
        optimizer.step()
    return losses


def _overfits(case: Situation) -> bool:
    """Whether one batch can be fitted: its loss falls by a fourth in 200 steps."""
    losses = _steps(case, 200, 64)
    return losses[0] - losses[-1] > 0.25 * abs(losses[0])


def _sweep(case: Situation) -> float | None:
    """The rate at which the loss falls fastest while it grows from 1e-6 to 1 (Smith, arXiv:1506.01186)."""
    steps = 60
    losses = np.array(_steps(case, steps, 64, lambda step: 10 ** (-6 + 6 * step / (steps - 1))))
    smooth = np.convolve(losses, np.ones(5) / 5, "valid")
    if len(smooth) < 10 or not np.isfinite(smooth).all():
        return None
    fastest = int(np.gradient(smooth).argmin()) + 2
    return float(10 ** (-6 + 6 * fastest / (steps - 1)))


def _train(case: Situation, seen: Seen, seed: int) -> None:
    rng, count = np.random.default_rng(seed), len(case.train[-1])
    size, epochs = min(case.batch, count), case.epochs or EPOCHS
    most = 16 if not case.epochs else count  # batches of an epoch
    for _ in range(min(epochs, 12)):
        order = rng.permutation(count) if case.shuffle else np.arange(count)
        sums: list[float] = []
        for start in range(0, count - size + 1, size)[:most]:
            rows = order[start : start + size]
            *inputs, target = (part[rows] for part in case.train)
            case.optimizer.zero_grad()
            loss = case.loss_fn(case.model.train()(*inputs), target)
            sums.append(float(loss.item()))
            if loss.requires_grad and math.isfinite(sums[-1]):
                loss.backward()
                case.optimizer.step()
        seen.losses += sums
        seen.training.append(sum(sums) / len(sums))
        *inputs, target = case.validation or case.held
        with kobai.no_grad():
            seen.validation.append(float(case.loss_fn(case.model.eval()(*inputs), target).item()))
        if not seen.finite:
            return


# --- the tools ----------------------------------------------------------------------------------------------------------


def _stops(seen: Seen) -> bool:
    """Early stopping: the validation loss has not been below its best for three epochs."""
    return len(seen.validation) - 1 - int(np.argmin(seen.validation or [0])) >= PATIENCE


def keras(seen: Seen) -> list[str]:
    """Keras 3 with TerminateOnNaN and EarlyStopping.

    https://keras.io/api/callbacks/terminate_on_nan, …/early_stopping. The optimiser warns of variables without a gradient
    (keras/src/optimizers/base_optimizer.py), softmax of an axis of size 1 (keras/src/activations/activations.py); losses
    squeeze a column (keras/src/losses/loss.py, squeeze_or_expand_to_same_rank).
    """
    said = [seen.refused] * bool(seen.refused)
    if not seen.finite:
        said.append("invalid loss, terminating training: the loss is NaN or infinite")
    elif _stops(seen):
        said.append("early stopping: the validation loss stopped improving")
    if seen.without_gradient or seen.untaped:
        said.append(
            "gradients do not exist for variables: they get no gradient (is a stop_gradient or detach on the way?)"
        )
    if seen.one_unit_softmax:
        said.append("softmax over an axis of size 1 always returns 1; did you mean sigmoid")
    if _broadcasts(seen):
        said.append("the loss squeezes the column: shapes cannot broadcast")
    return said


def lightning(seen: Seen) -> list[str]:
    """Lightning with detect_anomaly, EarlyStopping(check_finite), ModelSummary, overfit_batches, lr_find, batch-gradient check.

    https://lightning.ai/docs/pytorch/stable/debug/debugging_basic.html and …_intermediate.html,
    …/api/lightning.pytorch.tuner.tuning.Tuner.html; BatchGradientVerification:
    https://github.com/Lightning-Universe/lightning-bolts/pull/465, of no use beside batch norm (issue 1077 there).
    PyTorch itself warns of broadcasting in mse_loss and refuses a loss without a tape.
    """
    said = [seen.refused] * bool(seen.refused)
    if not seen.finite:
        said.append("detect_anomaly: the loss or a gradient is NaN or infinite (not finite)")
    elif _stops(seen):
        said.append("early stopping: the monitored validation loss did not improve")
    if seen.untaped:
        said.append("element 0 of tensors does not require grad: nothing on the way gets a gradient (detach, no_grad?)")
    if seen.frozen:
        said.append(f"model summary: {seen.frozen} parameters are not trainable (frozen), {seen.trained} are")
    if seen.mixed:
        said.append("your model mixes data across the batch dimension")
    if not seen.overfits:
        said.append("overfit_batches: one batch cannot be fitted")
    if seen.suggested is not None and seen.rate > 0 and not 1 / FAR < seen.suggested / seen.rate < FAR:
        said.append(f"lr_find suggests a learning rate of {seen.suggested:.2g}")
    if _broadcasts(seen):
        said.append("torch: using a target size that differs from the input size; broadcasting gives incorrect results")
    return said


def skorch(seen: Seen) -> list[str]:
    """skorch with EarlyStopping and the printed log.

    https://skorch.readthedocs.io/en/stable/callbacks.html; NeuralNetRegressor.check_data refuses targets of one dimension,
    NeuralNetClassifier takes the logarithm for NLLLoss itself (https://skorch.readthedocs.io/en/stable/classifier.html).
    """
    said = [seen.refused] * bool(seen.refused)
    if not seen.finite:
        said.append("the log shows a loss of nan (not finite)")
    elif _stops(seen):
        said.append("early stopping: valid_loss has not improved")
    if seen.untaped:
        said.append("element 0 of tensors does not require grad: nothing on the way gets a gradient (detach, no_grad?)")
    if _broadcasts(seen):
        said.append("the target shouldn't be 1-dimensional but (n, 1): else the loss broadcasts")
    if seen.nll and seen.output_shape[-1:] != (1,) and seen.training and seen.training[0] < 0:
        said.append(
            "skorch takes the logarithm for NLLLoss itself: log_softmax is not wanted, a negative loss cannot come"
        )
    return said


def wandb(seen: Seen) -> list[str]:
    """Weights & Biases: watch(log="gradients"), charts of both losses, and an alert on a loss that is not finite.

    https://docs.wandb.ai/ref/python/watch, https://docs.wandb.ai/guides/runs/alert. What a reader sees in a histogram
    counts as said.
    """
    said = [seen.refused] * bool(seen.refused)
    if not seen.finite:
        said.append("alert: the loss is NaN or infinite (not finite)")
    elif len(seen.validation) > PATIENCE and seen.validation[-1] > 1.3 * min(seen.validation) > 0:
        said.append("chart: the validation loss rises while the training loss falls (overfitting)")
    if seen.zero_gradient:
        said.append(f"gradient histogram: no gradient reaches {', '.join(seen.zero_gradient[:3])} (all 0)")
    if seen.without_gradient or seen.untaped:
        names = ", ".join(seen.without_gradient[:3])
        said.append(f"gradient histogram: none for {names}, which gets no gradient")
    if seen.greatest_gradient > 1e3:
        said.append("gradient histogram: exploding gradient")
    return said


def _broadcasts(seen: Seen) -> bool:
    """A column against a row of as many samples, where the targets are no labels."""
    shapes = sorted([seen.output_shape, seen.target_shape], key=len)
    return seen.float_targets and len(shapes[0]) == 1 and shapes[1] == (*shapes[0], 1)


TOOLS: dict[str, Callable[[Seen], list[str]]] = {"Keras": keras, "Lightning": lightning, "skorch": skorch, "W&B": wandb}

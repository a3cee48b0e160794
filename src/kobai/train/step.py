"""One training step in the precision asked for, and whether its loss is a mean over the batch or a sum."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kobai.amp import GradScaler, autocast
from kobai.core.tensor import Tensor
from kobai.dtypes import bfloat16, float16
from kobai.errors import nearest
from kobai.nn import Module
from kobai.nn.utils import clip_grad_norm_
from kobai.optim import Optimizer
from kobai.runtime import get_float32_matmul_precision, set_float32_matmul_precision

if TYPE_CHECKING:
    from kobai.train.shards import Shards

PRECISIONS = {"fp32": None, "tf32": None, "bf16": bfloat16, "fp16": float16}
"""What a step computes in, and the dtype of its ``autocast``. tf32: products on a GPU round float32 factors to 11 bits."""


def scaler_for(precision: str, device_type: str) -> GradScaler | None:
    """The scaler of losses that a precision needs; ValueError for one that is not known."""
    if precision not in PRECISIONS:
        hint = nearest(str(precision), PRECISIONS)
        raise ValueError(f"Trainer: expected precision {', '.join(PRECISIONS)}, got {precision!r}.{hint}")
    return GradScaler(device_type) if precision == "fp16" else None


def scale_of(scaler: GradScaler | None) -> float:
    """What the loss is multiplied by before backward."""
    return 1.0 if scaler is None else scaler.get_scale()


def left_out(before: float, after: float) -> bool:
    """Whether a step was left out because of the scale before it: gradients that fit at no scale are no such case."""
    return after < before and before > 1


@contextmanager
def computing(precision: str, device_type: str) -> Iterator[None]:
    """Block of a forward pass – tf32: of a whole step – in one of :data:`PRECISIONS`."""
    if PRECISIONS[precision] is not None:
        with autocast(device_type, PRECISIONS[precision]):
            yield
        return
    before = get_float32_matmul_precision()
    if precision == "tf32":
        set_float32_matmul_precision("high")
    try:
        yield
    finally:
        if precision == "tf32":
            set_float32_matmul_precision(before)


def step(
    model: Module,
    optimizer: Optimizer,
    inputs: list[Any],
    target: Any,
    loss_fn: Any,
    clip_grad_norm: float | None,
    precision: str = "fp32",
    scaler: GradScaler | None = None,
    shards: Shards | None = None,
    sizes: tuple[int, ...] = (),
) -> tuple[Any, Tensor]:
    """Forward, loss, backward, clipping, update; returns output and loss.

    With a ``scaler`` backward is of the scaled loss, and a step whose gradients overflow is left out. With ``shards``, inputs
    and target are those of this process's own, which with the others' have ``sizes``; returned is a list of their outputs.
    """
    if shards is None:
        output, loss = forward(model, inputs, target, loss_fn, precision)
        update(model, optimizer, loss, clip_grad_norm, precision, scaler)
        return output, loss
    outputs, loss = shards.gradients(
        optimizer,
        (sizes, inputs, target),
        lambda inputs, target: forward(model, inputs, target, loss_fn, precision),
        lambda loss: backward(loss, precision, scaler),
        reduction_of(loss_fn) == "sum",
        (lambda inputs: model(*inputs), loss_fn) if precision == "fp32" else None,
    )
    apply(model, optimizer, clip_grad_norm, scaler)
    return outputs, loss


def forward(model: Module, inputs: list[Any], target: Any, loss_fn: Any, precision: str) -> tuple[Any, Tensor]:
    """Output and loss."""
    if precision == "fp32":
        output = model(*inputs)
        return output, loss_fn(output, target)
    with computing(precision, inputs[0].device.type):
        output = model(*inputs)
        return output, loss_fn(output, target)


def update(
    model: Module,
    optimizer: Optimizer,
    loss: Tensor,
    clip_grad_norm: float | None,
    precision: str = "fp32",
    scaler: GradScaler | None = None,
) -> None:
    """The second half of :func:`step`: backward, clipping, update."""
    optimizer.zero_grad()
    backward(loss, precision, scaler)
    apply(model, optimizer, clip_grad_norm, scaler)


def backward(loss: Tensor, precision: str, scaler: GradScaler | None) -> None:
    """Backward from the loss, scaled if there is a scaler."""
    if scaler is not None:
        scaler.scale(loss).backward()
    elif precision == "tf32":
        with computing(precision, loss.device.type):
            loss.backward()
    else:
        loss.backward()


def apply(model: Module, optimizer: Optimizer, clip_grad_norm: float | None, scaler: GradScaler | None) -> None:
    """Clipping and update, by the gradients that are there."""
    if clip_grad_norm is not None:
        if scaler is not None:
            scaler.unscale_(optimizer)
        clip_grad_norm_(model.parameters(), clip_grad_norm)
    if scaler is not None:
        scaler.step(optimizer)
        scaler.update()
    else:
        optimizer.step()


def reduction_of(loss_fn: Any) -> str:
    """The ``reduction`` of a loss: an attribute of a module, a keyword of a partial function, or else the mean."""
    keywords = getattr(loss_fn, "keywords", None) or {}
    return str(keywords.get("reduction") or getattr(loss_fn, "reduction", "mean"))

"""For each rule of the data, and of what a loss counts, a view in which it finds its disease, and one that comes near."""

from __future__ import annotations

from typing import Any

import numpy as np
from rule_examples import Example, seen, sgd
from small_nets import batch

import kobai
from kobai import nn
from kobai.nn import functional as F

X, T = batch(300)
RNG = np.random.default_rng(0)


def tensor(array: Any) -> Any:
    return kobai.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def of(x: Any, t: Any = T, classes: int = 4, **options: Any) -> Any:
    """What is seen of a linear classifier of a table."""
    kobai.manual_seed(0)
    return seen(nn.Linear(x.shape[1], classes), (x, t), **options)


def changed(rows: Any, column: int, value: Any) -> Any:
    """The table with one column of these rows replaced, or multiplied by a function's result."""
    x = X.clone()
    x[rows, column] = value(x[rows, column]) if callable(value) else value
    return x


# --- sequences of numbers, some steps of which are padding

LENGTHS = kobai.from_numpy(RNG.integers(2, 7, (120, 1)))
THERE = kobai.arange(20).reshape(1, -1) < LENGTHS
STEPS = kobai.randn(120, 20, 3)
TAGS = 1 + (STEPS[..., 0] > 0).long() + 2 * (STEPS[..., 1] > 0).long()


def tagged(ignored: int) -> Any:
    """A net that tags steps, with 0 where there are none."""
    kobai.manual_seed(0)
    x, t = STEPS * THERE.float().unsqueeze(2), TAGS * THERE.long()

    def loss_fn(y: Any, t: Any) -> Any:
        return F.cross_entropy(y.reshape(-1, 5), t.reshape(-1), ignore_index=ignored)

    return seen(nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 5)), (x, t), loss_fn)


# --- images with masks

ROWS, COLUMNS = np.mgrid[:16, :16]


def discs(count: int, radius: float, noise: float = 1.0) -> tuple[Any, Any]:
    """Noisy images that are dark in a disc, and masks of it."""
    rng = np.random.default_rng(1)
    centres = rng.uniform(3, 12, (count, 2))
    t = (ROWS - centres[:, :1, None]) ** 2 + (COLUMNS - centres[:, 1:, None]) ** 2 < radius**2
    return noise * rng.normal(size=(count, 1, 16, 16)) - 1.5 * t[:, None], t


def segmented(turn: bool) -> Any:
    x, t = discs(60, 3.0)
    flipped = np.array([mask[:, ::-1] if i % 2 and turn else mask for i, mask in enumerate(t)])
    return seen(
        nn.Conv2d(1, 1, 3, padding=1), (tensor(x), tensor(flipped)[:, None]), F.binary_cross_entropy_with_logits
    )


def spotted(radius: float, noise: float) -> Any:
    """A filter that finds a spot, which is hard to tell, or a disc that is not."""
    kobai.manual_seed(0)
    x, t = discs(64, radius, noise)
    return seen(
        nn.Conv2d(1, 1, 3, padding=1), (tensor(x), tensor(t)[:, None]), F.binary_cross_entropy_with_logits, sgd(0.1),
        trials=True,
    )  # fmt: skip


def waves() -> Any:
    """Smooth images of three colours, (N, H, W, 3)."""
    rng = np.random.default_rng(2)
    phase, slope = rng.uniform(0, 6, (64, 1, 1, 3)), rng.uniform(0.2, 0.5, (64, 1, 1, 2))
    return np.sin(ROWS[None, ..., None] * slope[..., :1] + COLUMNS[None, ..., None] * slope[..., 1:] + phase)


def coloured(x: Any) -> Any:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))
    return seen(model, (tensor(x), T[:64]))


# --- windows of a series, and near copies

SERIES = np.cumsum(np.random.default_rng(3).normal(size=900)) / 10
WINDOWS = np.lib.stride_tricks.sliding_window_view(SERIES, 13)


def windows(rows: Any) -> Any:
    parts = [(tensor(WINDOWS[r][:, :12]), tensor(WINDOWS[r][:, 12:])) for r in (rows[:300], rows[320:380])]
    return seen(nn.Linear(12, 1), parts[0], F.mse_loss, validation=[parts[1]])


def held(x: Any) -> Any:
    return of(X[:240], T[:240], validation=[(x, T[240:])])


RARE = (kobai.arange(300) % 10 == 0).long()


def weighed(*weights: float) -> Any:
    weight = kobai.tensor(weights)
    return of(X, RARE, 2, loss_fn=lambda y, t: F.cross_entropy(y, t, weight=weight))


def smoothed(amount: float) -> Any:
    return of(X, loss_fn=lambda y, t: F.cross_entropy(y, t, label_smoothing=amount))


EXAMPLES = {
    "columns.missing_as_number": Example(
        lambda: of(changed(slice(None, None, 17), 3, -9.0)), lambda: of((X > 1.8).float() * X)
    ),
    "columns.other_units": Example(
        lambda: of(changed(slice(None, None, 15), 3, lambda part: 1000 * (1 + part.abs()))), lambda: of((1.5 * X).exp())
    ),
    "columns.two_scales": Example(
        lambda: of(X * (1 + 254 * (kobai.arange(300) % 5 == 0).float()).reshape(-1, 1)),
        lambda: of(X * (1 + 4 * (kobai.arange(300) % 5 == 0).float()).reshape(-1, 1)),
    ),
    "columns.axes_in_another_order": Example(
        lambda: coloured(waves().reshape(64, 3, 16, 16)), lambda: coloured(waves().transpose(0, 3, 1, 2))
    ),
    "columns.labels_from_one": Example(lambda: of(X, T + 1, 5), lambda: of(X, T.clamp(max=2), 4)),
    "columns.idle_columns": Example(lambda: of(changed(slice(None), 3, 0.0)), lambda: of((X > 0).float())),
    "pairs.masks_turned": Example(lambda: segmented(True), lambda: segmented(False)),
    "pairs.out_of_step": Example(lambda: of(X[1:], T[:-1]), lambda: of(X, T[kobai.randperm(300)])),
    "leaks.target_in_inputs": Example(
        lambda: of(kobai.cat([X, (T == 2).float().reshape(-1, 1)], 1)),
        lambda: of(kobai.cat([X, (T == 2).float().reshape(-1, 1) + kobai.randn(300, 1)], 1)),
    ),
    "leaks.windows_overlap": Example(
        lambda: windows(np.random.default_rng(4).permutation(500)), lambda: windows(np.arange(500))
    ),
    "leaks.near_duplicates": Example(lambda: held(X[:60] + 0.05 * kobai.randn(60, 20)), lambda: held(X[240:])),
    "counted.padding_counted": Example(lambda: tagged(-100), lambda: tagged(0)),
    "counted.one_answer": Example(lambda: spotted(1.3, 1.5), lambda: spotted(3.0, 0.2)),
    "counted.weights_inverted": Example(lambda: weighed(5.0, 1.0), lambda: weighed(1.0, 5.0)),
    "counted.aims_low": Example(lambda: smoothed(0.8), lambda: smoothed(0.1)),
}
"""By file and name of the rule."""

LABELS = (kobai.arange(64) % 9).clamp(max=4)
ONES = (kobai.arange(320) % 7 == 0).float().reshape(64, 5)

TARGETS = {
    "weigh_classes": LABELS,
    "leave_out": LABELS,
    "smooth_not": LABELS,
    "weigh_ones": ONES,
    "leave_out_zeros": ONES,
}
"""Of the cures of a loss that take targets of their own kind."""

CURES = {
    "weigh_classes": lambda x: (LABELS, 5),
    "weigh_ones": lambda x: (ONES,),
    "leave_out": lambda x: (2, 5, True),
    "leave_out_zeros": lambda x: (lambda y, t: ((y - t) ** 2).mean(),),
    "smooth_not": lambda x: (5,),
    "fill_in": lambda x: (3, float(x[0, 3]), 0.5),
    "convert": lambda x: (3, 1.0, 10.0),
    "one_scale": lambda x: (2.5, 10.0),
    "channels_first": lambda x: (2,),
}
"""For each cure its arguments, as in rule_examples."""

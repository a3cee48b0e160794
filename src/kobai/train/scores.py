"""How good a model's answers to the rows of a table are: scikit-learn's scores, without the seconds that its import takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.data import Preparation
from kobai.nn import functional as F
from kobai.xp import to_host

Host = np.ndarray[Any, Any]

NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1",
    "roc_auc": "ROC AUC",
    "log_loss": "log loss",
    "r2": "R²",
    "rmse": "RMSE",
    "mae": "MAE",
}
"""The scores, as they are shown."""


def scores(preparation: Preparation, output: Tensor, target: Tensor) -> dict[str, float]:
    """Scores of a model's outputs for the rows of a table, NaN where one is not defined; scikit-learn's numbers.

    Classes: accuracy; its mean over the classes (``balanced_accuracy``); ``f1``, the mean over the classes too, or of the
    second of two; the area under the ROC curve, one class against the others; ``log_loss``. Values, in the target's own unit:
    R² = 1 − Σ(t − y)² / Σ(t − t̄)², the root of the mean squared error, the mean absolute error.
    """
    with no_grad():
        answered = output if preparation.task == "regression" else F.softmax(output.float(), dim=1)
    y, t = to_host(answered.array).astype(np.float64), to_host(target.array)
    if preparation.task == "regression":
        return _of_values(values(preparation, y), values(preparation, t))
    said, k = y.argmax(axis=1), len(preparation.classes)
    y /= y.sum(axis=1, keepdims=True)
    true, taken, right = (np.bincount(which, minlength=k) for which in (t, said, t[said == t]))
    either = true + taken
    f1 = 2 * right / np.maximum(either, 1)
    of = y[np.arange(len(t)), t].clip(np.finfo(np.float64).eps, 1.0)
    return {
        "accuracy": float((said == t).mean()),
        "balanced_accuracy": float((right[true > 0] / true[true > 0]).mean()),
        "f1": float(f1[1] if k == 2 else f1[either > 0].mean()),
        "roc_auc": _auc(t, y),
        "log_loss": float(-np.log(of).mean()),
    }


def _of_values(y: Host, t: Host) -> dict[str, float]:
    error, spread = y - t, ((t - t.mean()) ** 2).sum()
    r2 = float("nan") if len(t) < 2 else 1 - (error**2).sum() / spread if spread else float(not error.any())
    return {"r2": float(r2), "rmse": float(np.sqrt((error**2).mean())), "mae": float(abs(error).mean())}


def _auc(t: Host, y: Host) -> float:
    """Mean over the classes that have rows in and outside them: the share of pairs, one row of each side, in the right order.

    By the sum of ranks (Mann and Whitney, 1947); equal probabilities share theirs.
    """
    there = [k for k in range(y.shape[1]) if 0 < (t == k).sum() < len(t)]
    found = []
    for k in there[-1:] if y.shape[1] == 2 else there:
        _, place, count = np.unique(y[:, k], return_inverse=True, return_counts=True)
        rank, inside = (np.cumsum(count) - (count - 1) / 2)[place], t == k
        n = inside.sum()
        found.append((rank[inside].sum() - n * (n + 1) / 2) / (n * (len(t) - n)))
    return float(np.mean(found)) if found else float("nan")


def values(preparation: Preparation, standardised: Host) -> Host:
    """Values (N,) of a regression in the target's own unit."""
    found: Host = standardised.astype(np.float64).reshape(-1) * preparation.scale + preparation.shift
    return found

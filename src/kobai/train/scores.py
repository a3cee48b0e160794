"""How good a model's answers to the rows of a table are, by scikit-learn."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.data import Preparation
from kobai.data.tables.needs import sklearn_metrics
from kobai.nn import functional as F
from kobai.xp import to_host

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
    """Scores of a model's outputs for the rows of a table, NaN where one is not defined.

    Classes: accuracy; its mean over the classes (``balanced_accuracy``); ``f1``, the mean over the classes too, or of the
    second of two; the area under the ROC curve, one class against the others; ``log_loss``. Values, in the target's own unit:
    R² = 1 − Σ(t − y)² / Σ(t − t̄)², the root of the mean squared error, the mean absolute error.
    """
    metrics = sklearn_metrics()
    with no_grad():
        answered = output if preparation.task == "regression" else F.softmax(output.float(), dim=1)
    y, t = to_host(answered.array).astype(np.float64), to_host(target.array)
    if preparation.task == "regression":
        y, t = values(preparation, y), values(preparation, t)
        error = y - t
        r2 = float(metrics.r2_score(t, y)) if len(t) > 1 else float("nan")
        return {"r2": r2, "rmse": float(np.sqrt((error**2).mean())), "mae": float(abs(error).mean())}
    said, k = y.argmax(axis=1), len(preparation.classes)
    y /= y.sum(axis=1, keepdims=True)
    labels = list(range(k))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class without a row is no fault of the model
        return {
            "accuracy": float((said == t).mean()),
            "balanced_accuracy": float(metrics.balanced_accuracy_score(t, said)),
            "f1": float(metrics.f1_score(t, said, average="binary" if k == 2 else "macro", zero_division=0.0)),
            "roc_auc": _auc(metrics, t, y),
            "log_loss": float(metrics.log_loss(t, y, labels=labels)),
        }


def _auc(metrics: Any, t: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> float:
    """Mean over the classes that have rows in and outside them."""
    there = [k for k in range(y.shape[1]) if 0 < (t == k).sum() < len(t)]
    if y.shape[1] == 2:
        there = there[-1:]
    found = [metrics.roc_auc_score(t == k, y[:, k]) for k in there]
    return float(np.mean(found)) if found else float("nan")


def values(preparation: Preparation, standardised: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Values (N,) of a regression in the target's own unit."""
    found: np.ndarray[Any, Any] = standardised.astype(np.float64).reshape(-1) * preparation.scale + preparation.shift
    return found

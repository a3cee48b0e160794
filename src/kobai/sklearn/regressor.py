"""``KobaiRegressor``: a network that estimates numbers, as a scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import RegressorMixin

from kobai.core.tensor import Tensor
from kobai.errors import nearest
from kobai.nn import functional as F
from kobai.sklearn.base import PARAMETERS, Estimator, Host
from kobai.sklearn.files import Saved
from kobai.xp import to_host

LOSSES = {"mse": F.mse_loss, "mae": F.l1_loss, "huber": F.huber_loss}


class KobaiRegressor(RegressorMixin, Saved, Estimator):  # type: ignore[misc]
    __doc__ = f"""A network that estimates numbers, one or several a sample; a scikit-learn estimator.

    It is trained on targets of mean 0 and standard deviation 1, so that their unit does not matter; its answers are in that
    of ``y``.

    Args:
        {PARAMETERS}
    Attributes:
        module_: the trained network; its outputs are scaled targets (n, k).
        target_mean_, target_scale_: what brings them back.
        history_: a dict for each epoch, as of :class:`kobai.train.Trainer`.
        n_iter_: epochs that the last fit took.
        callbacks_: the copies of ``callbacks`` that were called.
        n_features_in_, feature_names_in_: number of features, and their names if ``X`` had such.

    >>> import numpy as np
    >>> from kobai.sklearn import KobaiRegressor
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> y = 1000 + 50 * X[:, 0] * X[:, 1]
    >>> net = KobaiRegressor(hidden=(32,), lr=0.01, random_state=0).fit(X, y)
    >>> bool(net.score(X, y) > 0.9)
    True
    """

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train for one epoch on these samples, from where it is; the first call's targets fix their scale."""
        return self._partial_fit(X, y, sample_weight, None)

    def predict(self, X: Any) -> Host:
        """The estimates, of the shape that ``y`` had: (n,) or (n, k)."""
        scaled = to_host(self._outputs(X).array)
        return (scaled * self.target_scale_ + self.target_mean_).astype(self._dtype).reshape(-1, *self._target_shape)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _checked(self, X: Any, y: Any, first: bool) -> tuple[Host, Host]:
        X, y = self._validated(X, y, first, multi_output=True, y_numeric=True)
        if not first and y.shape[1:] != self._target_shape:
            got = f"expected y of shape (n, {', '.join(map(str, self._target_shape))}), got {y.shape}"
            raise ValueError(f"KobaiRegressor: {got}")
        return X, y

    def _learn_targets(self, y: Host, weight: Host | None, classes: Any) -> None:
        self._target_shape = y.shape[1:]
        columns = y.reshape(len(y), -1).astype(np.float64)
        self.target_mean_ = np.average(columns, axis=0, weights=weight)
        spread = np.sqrt(np.average((columns - self.target_mean_) ** 2, axis=0, weights=weight))
        self.target_scale_ = np.where(spread > 0, spread, 1.0)

    def _encoded(self, y: Host) -> Host:
        columns = y.reshape(len(y), -1).astype(np.float64)
        return ((columns - self.target_mean_) / self.target_scale_).astype(self._dtype)

    def _n_outputs(self) -> int:
        return len(self.target_mean_)

    def _loss_function(self) -> Callable[..., Tensor]:
        if callable(self.loss):
            return self.loss  # type: ignore[no-any-return]
        name = self.loss or "mse"
        if name not in LOSSES:
            raise ValueError(f"KobaiRegressor: unknown loss {name!r}.{nearest(str(name), LOSSES)}")
        return LOSSES[name]

"""``KobaiClassifier``: a network that tells classes apart, as a scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, unique_labels

from kobai.core.tensor import Tensor
from kobai.nn import functional as F
from kobai.sklearn.base import PARAMETERS, Estimator, Host
from kobai.sklearn.files import Saved
from kobai.xp import to_host


class KobaiClassifier(ClassifierMixin, Saved, Estimator):  # type: ignore[misc]
    __doc__ = f"""A network that tells classes apart, trained on cross-entropy; a scikit-learn estimator.

    Args:
        {PARAMETERS}
    Attributes:
        classes_: the classes (k,), sorted; the order of the network's outputs.
        module_: the trained network, whose outputs are the scores (n, k) before a softmax.
        history_: a dict for each epoch, as of :class:`kobai.train.Trainer`.
        n_iter_: epochs that the last fit took.
        callbacks_: the copies of ``callbacks`` that were called.
        n_features_in_, feature_names_in_: number of features, and their names if ``X`` had such.

    >>> import numpy as np
    >>> from kobai.sklearn import KobaiClassifier
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 2))
    >>> y = np.where(X[:, 0] > X[:, 1], "above", "below")
    >>> net = KobaiClassifier(hidden=(16,), epochs=30, lr=0.01, random_state=0).fit(X, y)
    >>> net.predict([[1.0, -1.0], [-1.0, 1.0]]), bool(net.score(X, y) > 0.95)
    (array(['above', 'below'], dtype='<U5'), True)
    """

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Any:
        """Train for one epoch on these samples, from where it is. ``classes``: all there will be, at the first call."""
        return self._partial_fit(X, y, sample_weight, classes)

    def decision_function(self, X: Any) -> Host:
        """Scores (n, k) before the softmax; for two classes (n,), the second's above the first's."""
        scores = to_host(self._outputs(X).array)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X: Any) -> Host:
        """Probabilities of the classes (n, k)."""
        return to_host(F.softmax(self._outputs(X), dim=1).array)

    def predict_log_proba(self, X: Any) -> Host:
        """Logarithms of the probabilities (n, k)."""
        return to_host(F.log_softmax(self._outputs(X), dim=1).array)

    def predict(self, X: Any) -> Host:
        """The most probable class of each sample (n,)."""
        best = to_host(self._outputs(X).array).argmax(axis=1)
        return self.classes_[best]  # type: ignore[no-any-return]

    def _checked(self, X: Any, y: Any, first: bool) -> tuple[Host, Host]:
        X, y = self._validated(X, y, first)
        check_classification_targets(y)
        return X, y

    def _learn_targets(self, y: Host, weight: Host | None, classes: Any) -> None:
        self.classes_ = np.unique(y) if classes is None else unique_labels(classes)

    def _encoded(self, y: Host) -> Host:
        strange = np.setdiff1d(y, self.classes_)
        if len(strange):
            raise ValueError(f"KobaiClassifier: expected the classes {self.classes_}, got {strange} among y too")
        return np.searchsorted(self.classes_, y)

    def _n_outputs(self) -> int:
        return len(self.classes_)

    def _loss_function(self) -> Callable[..., Tensor]:
        return self.loss or F.cross_entropy

"""Networks as scikit-learn estimators: for pipelines, cross-validation and grid searches.

``KobaiClassifier`` and ``KobaiRegressor`` train a network of their own (``hidden=(100,)``) or any module with the Trainer.
They need scikit-learn (extra ``data``).
"""

from kobai.errors import install as _install

try:
    import sklearn as _sklearn
except ImportError as error:
    raise ImportError(f"kobai.sklearn: scikit-learn is not installed. Install it: {_install('data')}") from error

from kobai.sklearn.classifier import KobaiClassifier
from kobai.sklearn.regressor import KobaiRegressor

__all__ = ["KobaiClassifier", "KobaiRegressor"]

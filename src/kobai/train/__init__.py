"""Training: the Trainer, its callbacks and metrics, checkpoints, learning curves, models by name."""

from kobai.train.callbacks import Callback, Checkpoint, EarlyStopping, History, LearningCurve
from kobai.train.log import Log
from kobai.train.metric_base import Metric
from kobai.train.metrics import Accuracy, Loss, MeanAbsoluteError, MeanSquaredError
from kobai.train.models import mlp
from kobai.train.nonfinite import NonFiniteError, TerminateOnNonFinite
from kobai.train.plotting import learning_curve
from kobai.train.progress import Progress
from kobai.train.trainer import Trainer
from kobai.train.warmup import Warmed, warmup

__all__ = [
    "Trainer",
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "History",
    "LearningCurve",
    "Log",
    "Progress",
    "TerminateOnNonFinite",
    "NonFiniteError",
    "Metric",
    "Loss",
    "Accuracy",
    "MeanSquaredError",
    "MeanAbsoluteError",
    "learning_curve",
    "mlp",
    "warmup",
    "Warmed",
]

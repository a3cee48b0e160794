"""Estimators in files: a checkpoint of the training, which also says what the estimator has learnt of its data. No pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from kobai.errors import CheckpointError
from kobai.train import Trainer, checkpoint
from kobai.train.records import Records

_PLAIN = (bool, int, float, str, type(None))
_CODE = ("module", "optimizer", "loss")
"""Parameters that may be code, which no file holds."""


class Saved:
    """``save`` and ``load`` of an estimator."""

    def save(self: Any, path: str | Path) -> None:
        """Write the fitted estimator to a checkpoint, a safetensors file, from which :meth:`load` makes it anew.

        Parameters that are code – an own ``module``, ``optimizer`` or ``loss``, ``callbacks`` – are not in it.
        """
        check_is_fitted(self, "module_")
        params = self.get_params(deep=False)
        plain = {name: value for name, value in params.items() if _is_plain(value)}
        learnt = {name: _encoded(getattr(self, name)) for name in self._learnt() if hasattr(self, name)}
        own = [name for name in _CODE if name not in plain]
        config = {"estimator": type(self).__name__, "parameters": plain, "own": own, "learnt": learnt}
        trainer = Trainer(self.module_, self._restored_optimizer(), config=config)
        trainer.history, trainer.epoch = self.history_, len(self.history_)
        checkpoint.write(trainer.state_dict(), Path(path))

    @classmethod
    def load(cls, path: str | Path, **parameters: Any) -> Any:
        """The estimator that :meth:`save` wrote. ``parameters`` take the place of saved ones.

        An own ``module``, ``optimizer`` or ``loss`` must be given again. CheckpointError for other files, and where it does
        not fit.
        """
        state = checkpoint.read(path, parameters.get("device") or "cpu")
        config = state["config"]
        if config.get("estimator") != cls.__name__:
            raise CheckpointError(
                f"{path}: expected a {cls.__name__}, got a {config.get('estimator', 'run of training')}"
            )
        missing = [name for name in config["own"] if name not in parameters]
        if missing:
            raise CheckpointError(
                f"{path}: its {' and '.join(missing)} is code, which no checkpoint holds; give it: "
                f"{cls.__name__}.load(path, {', '.join(f'{name}=...' for name in missing)})"
            )
        made: Any = cls(**{**config["parameters"], **parameters})
        for name, value in config["learnt"].items():
            setattr(made, name, _decoded(value))
        made.history_, made._saved = Records(state["history"]), state["optimizer"]
        made._optimizer = made._partial = None
        try:
            made.module_ = made._made()
            made.module_.load_state_dict(state["model"])
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"{path}: its parameters do not fit the module: {error}") from error
        return made

    def _learnt(self) -> list[str]:
        """Names of what an estimator has learnt beside the network's parameters."""
        own = ("_dtype", "_sample_shape", "_target_shape", "_seed", "_fits")
        return [*own, *(name for name in vars(self) if name.endswith("_") and name not in _ELSEWHERE)]


_ELSEWHERE = ("module_", "history_", "callbacks_")


def _is_plain(value: Any) -> bool:
    """Whether a checkpoint holds a parameter's value."""
    return type(value) in _PLAIN or (isinstance(value, (list, tuple)) and all(map(_is_plain, value)))


def _encoded(value: Any) -> Any:
    """Arrays of text, too, as what a checkpoint holds."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "UO":
        if not all(isinstance(item, str) for item in value):
            raise TypeError(f"save: expected classes that are text or numbers, got {value.dtype} with {value[0]!r}")
        return {"text": value.tolist(), "dtype": str(value.dtype)}
    return value


def _decoded(value: Any) -> Any:
    return np.array(value["text"], dtype=value["dtype"]) if isinstance(value, dict) else value

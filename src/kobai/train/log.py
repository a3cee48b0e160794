"""``Log``: each epoch's values to where the user keeps them – TensorBoard, MLflow, Weights & Biases, Trackio, a CSV file."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kobai.core.files import append, write_atomically
from kobai.train.callbacks import Callback, Trainer

Record = Mapping[str, Any]


class Log(Callback):
    """Gives the values of each epoch – loss, metrics, ``lr``, ``time`` – to an object of the user's.

    Args:
        to: the path of a CSV file, or what the values are given to, by the method that it has:

            - ``add_scalar``, a ``SummaryWriter`` of TensorBoard (:mod:`kobai.utils.tensorboard`, tensorboardX);
            - ``log_metrics``, the module ``mlflow`` with its active run; or a run, such as ``mlflow.start_run()`` returns;
            - ``info``, a ``logging.Logger``;
            - ``log``, a run of ``wandb.init()`` or ``trackio.init()``, or these modules with their active run.

    The object remains the user's: it is not closed, and a copy of the callback writes to the same one. Of several processes
    that train together the first writes. The step is the epoch;
    to ``log``, where the run counts its steps itself, the epoch is one value more, and ``time`` is called ``seconds``.

    Raises TypeError for an object with none of these methods.

    >>> import tempfile
    >>> import kobai
    >>> model = kobai.nn.Linear(2, 2, init="zeros")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = kobai.train.Log(f"{folder}/log.csv")
    ...     trainer = kobai.train.Trainer(model, kobai.optim.SGD(model.parameters(), lr=0.1), callbacks=[log])
    ...     _ = trainer.fit([(kobai.zeros(4, 2), kobai.tensor([0, 1, 1, 0]))], epochs=2)
    ...     with open(log.to) as file:
    ...         print(file.readline().strip())
    epoch,loss,lr,time
    """

    once = True

    def __init__(self, to: Any) -> None:
        self.to = to
        self._write = _adapter(to)

    def on_fit_start(self, trainer: Trainer) -> None:
        if isinstance(self._write, _Csv):
            self._write.begin(trainer.history)

    def on_epoch_end(self, trainer: Trainer) -> None:
        record = dict(trainer.history[-1])
        self._write(record.pop("epoch"), record)

    def on_close(self, trainer: Trainer) -> None:
        flush = getattr(self.to, "flush", None)
        if callable(flush):
            flush()

    def __deepcopy__(self, memo: dict[int, Any]) -> Log:
        return Log(self.to)


def _adapter(to: Any) -> Callable[[int, Record], None]:
    """What gives (epoch, values) to ``to``."""
    if isinstance(to, (str, os.PathLike)):
        return _Csv(Path(to))
    for method, adapter in _BY_METHOD.items():
        if callable(getattr(to, method, None)) and not isinstance(to, type):
            return adapter(to)
    if isinstance(getattr(getattr(to, "info", None), "run_id", None), str):
        return _mlflow_run(to)
    made = f"; make one of it: {to.__name__}()" if isinstance(to, type) else ""
    raise TypeError(
        f"Log: expected the path of a CSV file, or an object that has {', '.join(_BY_METHOD)} – a SummaryWriter, mlflow, "
        f"a run of mlflow, wandb or trackio – got {type(to).__name__}{made}"
    )


def _tensorboard(writer: Any) -> Callable[[int, Record], None]:
    def write(epoch: int, values: Record) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, epoch)

    return write


def _mlflow(module: Any) -> Callable[[int, Record], None]:
    return lambda epoch, values: module.log_metrics(dict(values), step=epoch)


def _mlflow_run(run: Any) -> Callable[[int, Record], None]:
    import mlflow

    return lambda epoch, values: mlflow.log_metrics(dict(values), step=epoch, run_id=run.info.run_id)


def _run(run: Any) -> Callable[[int, Record], None]:
    """Weights & Biases, Trackio, which keeps the name ``time`` to itself."""
    return lambda epoch, values: run.log(
        {"epoch": epoch, **{"seconds" if name == "time" else name: value for name, value in values.items()}}
    )


def _logger(logger: Any) -> Callable[[int, Record], None]:
    def write(epoch: int, values: Record) -> None:
        logger.info("epoch %d: %s", epoch, ", ".join(f"{name} {value:.4g}" for name, value in values.items()))

    return write


_BY_METHOD = {"add_scalar": _tensorboard, "log_metrics": _mlflow, "info": _logger, "log": _run}


class _Csv:
    """A line for each epoch. A resumed run rewrites the file, so that an epoch that is done twice is in it once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: list[dict[str, Any]] = []
        self.columns: list[str] = []

    def begin(self, history: list[dict[str, Any]]) -> None:
        self.records, self.columns = [], []
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, b"")
        for record in history:
            self._add(record)
        self._rewrite()

    def __call__(self, epoch: int, values: Record) -> None:
        record = {"epoch": epoch, **values}
        if self._add(record):
            self._rewrite()
        else:
            append(self.path, self._lines([record]))

    def _add(self, record: dict[str, Any]) -> bool:
        """Keep a record; whether it has columns that were not there."""
        new = [name for name in record if name not in self.columns]
        self.records.append(record)
        self.columns += new
        return bool(new)

    def _rewrite(self) -> None:
        header = self._lines([dict(zip(self.columns, self.columns, strict=True))] if self.columns else [])
        write_atomically(self.path, header + self._lines(self.records))

    def _lines(self, records: list[dict[str, Any]]) -> bytes:
        text = io.StringIO()
        csv.DictWriter(text, self.columns, lineterminator="\n").writerows(records)
        return text.getvalue().encode()

"""Callbacks: what a Trainer does beside training, each in one small class.

Events, in order: ``on_fit_start``; for each epoch ``on_epoch_start``, ``on_batch_end`` after each step,
``on_epoch_measured`` when the epoch's record is the last of ``trainer.history``, ``on_epoch_end`` after the schedule's step,
``on_save`` when the state of the epoch is complete; then ``on_fit_end``. ``on_close`` comes last, after errors too.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kobai.core.files import Lock, append, sweep, write_atomically
from kobai.core.tensor import Tensor
from kobai.errors import check_integer, nearest
from kobai.train import checkpoint

Trainer = Any
"""``kobai.train.Trainer``, whose file imports this one."""


class Callback:
    """Base of callbacks: every event does nothing. Subclass it and define those you need.

    A callback that keeps something from epoch to epoch returns it from ``state_dict``, for checkpoints. A method ``on_…`` that
    is not an event is a TypeError, because it would never be called.

    >>> import kobai
    >>> class Report(kobai.train.Callback):
    ...     def on_epoch_end(self, trainer):
    ...         print("epoch", trainer.epoch, sorted(trainer.history[-1]))
    >>> model = kobai.nn.Linear(2, 2)
    >>> batch = (kobai.zeros(4, 2), kobai.tensor([0, 1, 1, 0]))
    >>> trainer = kobai.train.Trainer(model, kobai.optim.SGD(model.parameters(), lr=0.1), callbacks=[Report()])
    >>> _ = trainer.fit([batch], epochs=2)
    epoch 1 ['epoch', 'loss', 'lr', 'time']
    epoch 2 ['epoch', 'loss', 'lr', 'time']
    """

    once = False
    """Whether it only shows or writes what happens, so that of several processes that train together the first calls it."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_names(cls.__name__, dir(cls))

    def on_fit_start(self, trainer: Trainer) -> None:
        """Before the first epoch; after a checkpoint has been loaded."""

    def on_epoch_start(self, trainer: Trainer) -> None:
        """Before the first batch of an epoch."""

    def on_batch_end(self, trainer: Trainer) -> None:
        """After a step; ``trainer.position`` counts it already."""

    def on_epoch_measured(self, trainer: Trainer) -> None:
        """``trainer.history[-1]`` is the epoch's record."""

    def on_epoch_end(self, trainer: Trainer) -> None:
        """After the schedule's step."""

    def on_save(self, trainer: Trainer) -> None:
        """All callbacks have handled the end of the epoch: time to save the state."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """Training is over, and nothing went wrong."""

    def on_close(self, trainer: Trainer) -> None:
        """Release files and screens; called after errors too."""

    def state_dict(self) -> dict[str, Any] | None:
        """What a checkpoint must hold, or None."""
        return None

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a :meth:`state_dict`."""


EVENTS = tuple(name for name in vars(Callback) if name.startswith("on_"))
"""The events, in order."""

_ELSEWHERE = {"begin": "start", "train": "fit", "training": "fit", "step": "batch"}
"""Parts of event names in other libraries, and ours."""


def check_names(who: str, names: Iterable[str]) -> None:
    """TypeError for a name ``on_…`` that is not an event."""
    for name in names:
        if name.startswith("on_") and name not in EVENTS:
            translated = "_".join(_ELSEWHERE.get(part, part) for part in name.split("_"))
            meant = translated if translated in EVENTS else None
            hint = f" Did you mean {meant!r}?" if meant else nearest(translated, EVENTS)
            raise TypeError(
                f"{who}.{name}: no event is called so, and it would never be called.{hint} Events: {', '.join(EVENTS)}"
            )


def check_callback(callback: Any, trainer: Trainer) -> None:
    """TypeError unless this is a Callback whose events can be called with a trainer."""
    if not isinstance(callback, Callback):
        made = f"; make one of it: {callback.__name__}()" if isinstance(callback, type) else ""
        raise TypeError(f"Trainer: expected Callback objects as callbacks, got {type(callback).__name__}{made}")
    who = type(callback).__name__
    check_names(who, dir(callback))
    for event in EVENTS:
        method = getattr(callback, event)
        if getattr(method, "__func__", None) is getattr(Callback, event):
            continue
        if not callable(method):
            raise TypeError(f"{who}.{event}: expected a method of (self, trainer), got {type(method).__name__}")
        if inspect.iscoroutinefunction(method) or inspect.isgeneratorfunction(method):
            raise TypeError(f"{who}.{event}: expected an ordinary method; calling this one would not run it")
        try:
            signature = inspect.signature(method)
        except ValueError:  # a C function has none
            continue
        try:
            signature.bind(trainer)
        except TypeError:
            raise TypeError(
                f"{who}.{event}: expected a method of (self, trainer), got (self{', ' * bool(signature.parameters)}"
                f"{', '.join(map(str, signature.parameters.values()))})"
            ) from None


def named(callbacks: Iterable[Callback]) -> Iterator[tuple[str, Callback]]:
    """Callbacks by names that are the same in every run: the class, and a number among those of that class."""
    seen: dict[str, int] = {}
    for callback in callbacks:
        name = type(callback).__name__
        seen[name] = seen.get(name, 0) + 1
        yield f"{name}-{seen[name]}", callback


class Best:
    """The best value so far of one monitored quantity. NaN is never better.

    ``monitor=None`` is ``val_loss``, or ``loss`` without validation data; ``mode=None`` is the metric's own. With ``ties``
    an equal value counts as better.
    """

    def __init__(
        self, monitor: str | None = None, mode: str | None = None, min_delta: float = 0.0, ties: bool = False
    ) -> None:
        if mode not in (None, "min", "max"):
            raise ValueError(f"mode: expected 'min' or 'max', got {mode!r}")
        if not min_delta >= 0:
            raise ValueError(f"min_delta: expected a number >= 0, got {min_delta}")
        self.monitor, self.mode, self.min_delta, self.ties = monitor, mode, min_delta, ties
        self.value: float | None = None
        self.epoch = 0

    def update(self, trainer: Trainer) -> bool:
        """Whether the last epoch is better than all before it, by more than ``min_delta``."""
        self.monitor, value, mode = trainer.monitored(self.monitor)
        if math.isnan(value):
            return False
        if self.value is not None:
            gain = self.value - value if (self.mode or mode) == "min" else value - self.value
            if not (gain > self.min_delta or (self.ties and gain == 0.0)):
                return False
        self.value, self.epoch = value, trainer.epoch
        return True

    def state_dict(self) -> dict[str, Any]:
        """Value and epoch."""
        return {"value": self.value, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a :meth:`state_dict`."""
        self.value, self.epoch = state["value"], state["epoch"]


class EarlyStopping(Callback):
    """Stop when the monitored value has not improved for ``patience`` epochs.

    Args:
        patience: epochs without improvement after which training stops.
        monitor, mode, min_delta: see :class:`Best`.
        restore_best: at the end of training, give the model the parameters of its best epoch, which checkpoints then hold
            too.

    Prechelt, "Early stopping – but when?", 1998.

    >>> import kobai
    >>> model = kobai.nn.Linear(2, 2)
    >>> stopper = kobai.train.EarlyStopping(patience=3)
    >>> trainer = kobai.train.Trainer(model, kobai.optim.SGD(model.parameters(), lr=0.0), callbacks=[stopper])
    >>> len(trainer.fit([(kobai.zeros(4, 2), kobai.tensor([0, 1, 1, 0]))], epochs=100))  # nothing is learnt
    4
    """

    def __init__(
        self,
        patience: int = 10,
        monitor: str | None = None,
        mode: str | None = None,
        min_delta: float = 0.0,
        restore_best: bool = False,
    ) -> None:
        check_integer("EarlyStopping", "patience", patience, 1)
        self.patience, self.restore_best = patience, restore_best
        self.best = Best(monitor, mode, min_delta)
        self.waited = 0
        self.kept: dict[str, Tensor] | None = None

    def on_epoch_measured(self, trainer: Trainer) -> None:
        if self.best.update(trainer):
            self.waited = 0
            if self.restore_best:
                self.kept = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
            return
        self.waited += 1
        if self.waited >= self.patience:
            trainer.stop(
                f"{self.best.monitor} has not improved for {self.patience} epochs; the best was "
                f"{self.best.value:.4g} in epoch {self.best.epoch}"
                if self.best.value is not None
                else f"{self.best.monitor} was NaN for {self.patience} epochs"
            )

    def on_fit_end(self, trainer: Trainer) -> None:
        if self.kept is not None:
            trainer.model.load_state_dict(self.kept)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best.state_dict(), "waited": self.waited, "kept": self.kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best.load_state_dict(state["best"])
        self.waited, self.kept = state["waited"], state["kept"]


class History(Callback):
    """The history as JSON lines, one object for each epoch, on disk before the next epoch begins.

    A resumed run rewrites the file from its checkpoint: an epoch that is done twice is in it once.

    >>> import tempfile
    >>> import kobai
    >>> model = kobai.nn.Linear(2, 2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     history = kobai.train.History(f"{folder}/history.jsonl")
    ...     trainer = kobai.train.Trainer(model, kobai.optim.SGD(model.parameters(), lr=0.1), callbacks=[history])
    ...     _ = trainer.fit([(kobai.zeros(4, 2), kobai.tensor([0, 1, 1, 0]))], epochs=3)
    ...     len(history.path.read_text().splitlines())
    3
    """

    once = True

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_fit_start(self, trainer: Trainer) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, b"".join(map(_line, trainer.history)))

    def on_epoch_end(self, trainer: Trainer) -> None:
        append(self.path, _line(trainer.history[-1]))


def _line(record: dict[str, Any]) -> bytes:
    """One line of JSON, which has no NaN or infinity: they become null."""
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
    return json.dumps(clean).encode() + b"\n"


class Checkpoint(Callback):
    """``last.safetensors`` (with the one before it as ``previous.safetensors``) and ``best.safetensors`` in a folder.

    While it trains, a process has the folder to itself; BlockingIOError, naming the owner, if another one has it. Of several
    processes that train together the first writes.

    Args:
        folder: made if it is missing.
        monitor, mode: the value by which an epoch is the best; see :class:`Best`. Of equal epochs the last is the best: on few
            samples accuracies are often equal, and the later epoch has learnt more.
        every: also write ``last`` after every so many batches, from which training resumes within the epoch; 0: only at the
            end of epochs.

    >>> import tempfile
    >>> import kobai
    >>> model = kobai.nn.Linear(2, 2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     keep = kobai.train.Checkpoint(folder)
    ...     trainer = kobai.train.Trainer(model, kobai.optim.SGD(model.parameters(), lr=0.1), callbacks=[keep])
    ...     _ = trainer.fit([(kobai.zeros(4, 2), kobai.tensor([0, 1, 1, 0]))], epochs=3)
    ...     sorted(path.name for path in keep.folder.iterdir())
    ['best.safetensors', 'last.safetensors', 'previous.safetensors']
    """

    def __init__(self, folder: str | Path, monitor: str | None = None, mode: str | None = None, every: int = 0) -> None:
        check_integer("Checkpoint", "every", every, 0)
        self.folder, self.every = Path(folder), every
        self.best = Best(monitor, mode, ties=True)
        self._lock: Lock | None = None

    def on_fit_start(self, trainer: Trainer) -> None:
        if not trainer.first:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = Lock(self.folder)
        lock.acquire()
        self._lock = lock
        sweep(self.folder)
        if trainer.epoch == trainer.position == 0:  # so that a run killed in its first epoch can be resumed
            checkpoint.write_last(trainer.state_dict(), self.folder)

    def on_batch_end(self, trainer: Trainer) -> None:
        if self.every and trainer.position % self.every == 0 and trainer.first:
            checkpoint.write_last(trainer.state_dict(), self.folder)

    def on_save(self, trainer: Trainer) -> None:
        improved = self.best.update(trainer)
        if not trainer.first:
            return
        state = trainer.state_dict()
        if improved:  # first: ``last`` refers to the file of its best epoch
            checkpoint.write(state, self.folder / checkpoint.BEST)
        checkpoint.write_last(state, self.folder)

    def on_close(self, trainer: Trainer) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best.load_state_dict(state["best"])


class LearningCurve(Callback):
    """Draws the learning curves to a PNG file at the end of training (needs ``kobai[plot]``).

    >>> import tempfile
    >>> import kobai
    >>> model = kobai.nn.Linear(2, 2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     curve = kobai.train.LearningCurve(f"{folder}/curve.png")
    ...     trainer = kobai.train.Trainer(model, kobai.optim.SGD(model.parameters(), lr=0.1), callbacks=[curve])
    ...     _ = trainer.fit([(kobai.zeros(4, 2), kobai.tensor([0, 1, 1, 0]))], epochs=2)
    ...     curve.path.stat().st_size > 1000
    True
    """

    once = True

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_fit_end(self, trainer: Trainer) -> None:
        from kobai.train.plotting import learning_curve

        if trainer.history:
            learning_curve(trainer.history, self.path)

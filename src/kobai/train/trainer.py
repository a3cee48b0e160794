"""The training loop: batches, epochs, evaluation, and a state from which training resumes bit for bit.

One step is ``model → loss → backward → (clip) → optimizer.step() → metrics``; nothing in it waits for the device.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kobai.capture.step import Captured
from kobai.core.tensor import Tensor
from kobai.errors import CheckpointError, DataError, check_integer, nearest
from kobai.nn import Module, functional as F
from kobai.ops.averaged import Averaged, listener
from kobai.optim import Optimizer
from kobai.optim.groups import learning_rate
from kobai.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau
from kobai.random import Generator, default_generator
from kobai.train import checkpoint
from kobai.train.batches import Data, batches_of, device_of, evaluating, generators_of, moved, predict
from kobai.train.callbacks import Callback, check_callback, named
from kobai.train.checks import check
from kobai.train.metric_base import Metric, read
from kobai.train.metrics import Loss, resolve
from kobai.train.nonfinite import TerminateOnNonFinite
from kobai.train.progress import progress_for
from kobai.train.records import Records
from kobai.train.shards import sharded
from kobai.train.step import apply, reduction_of, scaler_for, step
from kobai.utils.data import Dataset
from kobai.xp import beside, on

log = logging.getLogger("kobai")


class Trainer:
    """Trains a model on batches ``(input, ..., target)``; evaluates it; predicts with it; resumes bit for bit.

    Args:
        model, optimizer: the model and the optimiser of its parameters.
        loss_fn: ``loss_fn(output, target)`` gives the mean loss of a batch; cross-entropy by default. What it leaves out and
            takes its input for (:class:`Loss`, :class:`Accuracy`) holds for the epoch's loss and metrics too.
        scheduler: a learning-rate schedule. :class:`ReduceLROnPlateau` is given the monitored value.
        scheduler_interval: ``"epoch"`` or ``"batch"``: when the schedule steps; by default after each epoch, but
            :class:`OneCycleLR` after each batch.
        monitor: the value in which a plateau is looked for: ``"val_loss"`` (the default with validation data), ``"loss"``,
            ``"val_accuracy"``, ….
        metrics: names (``"accuracy"``, ``"mse"``, ``"mae"``) or :class:`Metric` objects, beside the loss.
        callbacks: :class:`Callback` objects, called in this order.
        device: where the model and each batch are moved; default: where the model is.
        clip_grad_norm: greatest norm of all gradients together; larger ones are scaled down to it.
        precision: of a step, not of an evaluation: ``"fp32"``, ``"tf32"``, or under autocast ``"bf16"``, ``"fp16"``.
        terminate_on_non_finite: stop with :class:`NonFiniteError`, naming the layer, when the loss is NaN or infinite.
            A copy of the training state at the beginning of the epoch is kept on the device for it.
        capture: record the step for each shape of batch once, and replay it from then on, see :func:`kobai.capture`. A
            step that cannot be captured is run as it is, with one warning that says why.
        verify_capture: every so many steps, compare the replay with the step itself, see ``verify`` of
            :func:`kobai.capture`; if they differ, CaptureError names the tensor and the likeliest cause.
        config: a description for checkpoints, such as the arguments the model is rebuilt from.
        progress: whether :class:`Progress` is shown; by default where a person looks, a terminal or a notebook.
        shards: V, a power of two. Each batch is cut in V parts, whose gradients are computed by themselves and added in one
            order,

                g = Σₛ (nₛ/N) gₛ,

            so that any number of processes of :mod:`kobai.distributed` that divides V trains to the same bits, each on its
            share of the parts; all are given the same loader. A checkpoint may be resumed with another number. Of N samples
            that V does not divide the first N mod V shards have one more. As in DistributedDataParallel, batch normalisation
            is over each shard, the loss is the mean of the shards' means, and buffers are those of shard 0. Noise is drawn
            by each shard for itself. All processes evaluate, and call the callbacks; one writes files and prints.

    ``history`` is a list with a dict for each epoch: ``epoch``, ``loss``, the metrics, the same with ``val_`` before them,
    ``lr`` (at the epoch's beginning) and ``time`` (seconds). ``epoch`` counts finished epochs, ``position`` the batches done
    of the one that runs; ``batch`` is the last that was trained on, as the loader gave it. ``first`` is False in all but one
    of several processes that train together.

    >>> import kobai
    >>> _ = kobai.manual_seed(0)
    >>> x = kobai.randn(64, 2)
    >>> data = kobai.utils.data.TensorDataset(x, (x[:, 0] > x[:, 1]).long())
    >>> model = kobai.nn.Linear(2, 2)
    >>> trainer = Trainer(model, kobai.optim.Adam(model.parameters(), lr=0.1), metrics=["accuracy"])
    >>> history = trainer.fit(kobai.utils.data.DataLoader(data, batch_size=16, shuffle=True), epochs=10)
    >>> len(history), history[-1]["loss"] < history[0]["loss"], trainer.evaluate(data)["accuracy"] > 0.9
    (10, True, True)
    """

    def __init__(
        self,
        model: Module,
        optimizer: Optimizer,
        loss_fn: Callable[[Any, Any], Tensor] = F.cross_entropy,
        *,
        scheduler: LRScheduler | None = None,
        scheduler_interval: str | None = None,
        monitor: str | None = None,
        metrics: Iterable[str | Metric] = (),
        callbacks: Iterable[Callback] = (),
        device: Any = None,
        clip_grad_norm: float | None = None,
        precision: str = "fp32",
        terminate_on_non_finite: bool = True,
        capture: bool = True,
        verify_capture: int | None = None,
        config: Mapping[str, Any] | None = None,
        progress: bool | None = None,
        shards: int = 1,
    ) -> None:
        check(model, optimizer, scheduler, scheduler_interval, clip_grad_norm)
        if device is not None:
            model.to(device)
        self.model, self.optimizer = model, optimizer
        self.loss_fn, self.scheduler = loss_fn, scheduler
        self.scheduler_interval = scheduler_interval or ("batch" if isinstance(scheduler, OneCycleLR) else "epoch")
        self.monitor, self.loss = monitor, Loss()
        self.metrics = resolve(metrics)
        self.clip_grad_norm = clip_grad_norm
        self.precision, self.scaler = precision, scaler_for(precision, self.device.type)
        self.capture = bool(capture)
        self._captured = Captured(step, fallback=True, verify=verify_capture)
        self.shards = sharded(shards, model, self.metrics)
        self.first = self.shards is None or self.shards.rank == 0
        self.config, self.callbacks = dict(config or {}), list(callbacks)
        for callback in self.callbacks:
            check_callback(callback, self)
        if terminate_on_non_finite and not any(isinstance(c, TerminateOnNonFinite) for c in self.callbacks):
            self.callbacks.insert(0, TerminateOnNonFinite())
        self.callbacks += progress_for(self.callbacks, progress)

        self.epoch = self.position = self.epochs = 0
        self.history: list[dict[str, Any]] = Records()
        self.stop_reason: str | None = None
        self.batch: Any = None
        self.train_data: Iterable[Any] = ()
        self.held_data: Iterable[Any] | None = None
        self._generators: list[Generator] = [default_generator]
        self._random: dict[str, Any] | None = None  # read from a checkpoint, not yet restored
        self._epoch_start: list[dict[str, Any]] | None = None
        self._averaged: Averaged | None = None
        self._epoch_lr = 0.0
        self._began = time.perf_counter()

    # --- training -----------------------------------------------------------------------------------------------------

    def fit(
        self,
        train: Iterable[Any],
        validation: Data | None = None,
        *,
        epochs: int,
        resume: str | Path | None = None,
    ) -> list[dict[str, Any]]:
        """Train until ``epochs`` epochs are done *in all*, those before a resumption included; returns ``history``.

        Args:
            train: a loader: each ``iter()`` of it gives the batches of an epoch.
            validation: a loader or data set on which the model is evaluated after each epoch.
            resume: a checkpoint, or a folder of them, to resume from.

        Raises:
            DataError: no batches. CheckpointError: see :meth:`resume`. NonFiniteError: the loss is NaN or infinite.

        A callback ends training early by :meth:`stop`. The model is left in evaluation mode.
        """
        check_integer("Trainer.fit", "epochs", epochs, 0)
        if isinstance(train, (Dataset, Tensor)):
            raise TypeError(
                f"Trainer.fit: expected a loader of batches, got a {type(train).__name__}; "
                "wrap it: DataLoader(data, batch_size=..., shuffle=True)"
            )
        if resume is not None:
            self.resume(resume)
        held = None if validation is None else batches_of(validation)
        self.epochs, self.train_data, self.held_data = epochs, train, held
        self._generators = generators_of(train, held)
        if self._random is not None and len(self._random["now"]) != len(self._generators):
            raise CheckpointError(
                f"Trainer.fit: the checkpoint holds {len(self._random['now'])} random states, and these loaders draw on "
                f"{len(self._generators)} generators; give them the generators that the run was begun with"
            )
        try:
            self._call("on_fit_start")
            while self.epoch < epochs and self.stop_reason is None:
                with on(self.device):  # what is read and added up is arrays, which are made on the current device
                    self._train_epoch(train, held)
            self.model.eval()
            self._call("on_fit_end")
        finally:
            self._call("on_close")
        return self.history

    def _train_epoch(self, train: Iterable[Any], held: Iterable[Any] | None) -> None:
        if self.position == 0:
            for metric in (self.loss, *self.metrics):
                metric.reset()
            self._epoch_lr = learning_rate(self.optimizer.param_groups[0])
        self._began = time.perf_counter()
        self._call("on_epoch_start")
        self.model.train()
        for batch in self.remaining_batches(train):
            self.train_step(batch)
            self.position += 1
            self._call("on_batch_end")
        if self.position == 0:
            raise DataError("Trainer.fit: the training data gave no batch")
        record = {"epoch": self.epoch + 1, **read([self.loss, *self.metrics])}
        if held is not None:
            record |= {f"val_{name}": value for name, value in self._evaluate(held, "validation").items()}
        self.history.append({**record, "lr": self._epoch_lr, "time": time.perf_counter() - self._began})
        self.epoch, self.position, self._epoch_start = self.epoch + 1, 0, None
        self._call("on_epoch_measured")
        if self.scheduler is not None and self.scheduler_interval == "epoch":
            if isinstance(self.scheduler, ReduceLROnPlateau):
                self.scheduler.step(self.monitored(self.monitor)[1])
            else:
                self.scheduler.step()
        self._call("on_epoch_end")
        self._call("on_save")

    def train_step(self, batch: Any) -> Tensor:
        """One step on one batch; returns its loss, still on the device."""
        self.batch = batch
        inputs, target = self.unpack(batch)
        how = (self.clip_grad_norm, self.precision, self.scaler)
        cut = None if self.shards is None else self.shards.cut(inputs, target)
        data, more = ((inputs, target), ()) if cut is None else (cut[1:], (self.shards, cut[0]))
        args = (self.model, self.optimizer, *data, self.loss_fn, *how, *more)
        heard: list[Averaged] = []
        listening = listener.set(heard)
        try:
            (output, loss), lasting = self._captured.run(args) if self.capture else (step(*args), True)
        finally:
            listener.reset(listening)
        if heard:  # a replay calls no loss function; what was said when it was recorded holds
            self._heed(heard, target)
        self._advance()
        with beside(loss._array):
            self._measure(output, target, loss, cut)
        return loss if lasting else loss.clone()

    def apply_gradients(self) -> None:
        """The half of a step after ``backward``: clip, update the parameters, step a schedule that counts batches."""
        apply(self.model, self.optimizer, self.clip_grad_norm, None)
        self._advance()

    def _advance(self) -> None:
        if self.scheduler is not None and self.scheduler_interval == "batch":
            self.scheduler.step()

    def stop(self, reason: str) -> None:
        """End training after this epoch; ``reason`` is kept, and shown."""
        self.stop_reason = reason

    def remaining_batches(self, train: Iterable[Any]) -> Iterator[Any]:
        """Batches of the current epoch from ``position`` on, with the random states as they were there."""
        random = self._random_state()
        self._random = None
        self._set_random(random["epoch_start"] if self.position else random["now"])
        self._epoch_start = [generator.get_state() for generator in self._generators]
        batches = iter(train)
        for done in range(self.position):
            if next(batches, self) is self:
                raise CheckpointError(
                    f"Trainer.fit: the checkpoint was written after {self.position} batches of an epoch, and these data have "
                    f"{done}"
                )
        if self.position:
            self._set_random(random["now"])
        yield from batches

    # --- evaluation ---------------------------------------------------------------------------------------------------

    def evaluate(self, data: Data) -> dict[str, float]:
        """Loss and metrics over a loader or data set, by name, with the model in evaluation mode.

        DataError if there is no batch.
        """
        return self._evaluate(batches_of(data), "evaluation")

    def _evaluate(self, batches: Iterable[Any], what: str) -> dict[str, float]:
        kept = [metric.state_dict() for metric in (self.loss, *self.metrics)]
        device = self.device
        for metric in (self.loss, *self.metrics):
            metric.reset()
        with evaluating(self.model), on(device):
            for batch in batches:
                inputs, target = self.unpack(batch)
                output = self.model(*inputs)
                self._measure(output, target, self.listened_loss(output, target))
            found, seen = read([self.loss, *self.metrics]), self.loss.total is not None
        for metric, state in zip((self.loss, *self.metrics), kept, strict=True):
            metric.load_state_dict(state, device)
        if not seen:
            raise DataError(f"Trainer: the {what} data gave no batch")
        return found

    def predict(self, data: Data) -> Tensor:
        """Outputs of the model, (N, ...), for all samples of a loader, a data set or a tensor, in evaluation mode.

        The last of several entries of a batch, the target, is not used; a tensor has inputs only.

        >>> import kobai
        >>> model = kobai.nn.Linear(3, 2)
        >>> Trainer(model, kobai.optim.SGD(model.parameters(), lr=0.1)).predict(kobai.ones(5, 3)).shape
        kobai.Size([5, 2])
        """
        return predict(self.model, data, self.device)

    def listened_loss(self, output: Any, target: Any) -> Tensor:
        """``loss_fn(output, target)``; the metrics are told what the loss says about its target."""
        heard: list[Averaged] = []
        listening = listener.set(heard)
        try:
            loss = self.loss_fn(output, target)
        finally:
            listener.reset(listening)
        self._heed(heard, target)
        return loss

    def _heed(self, heard: list[Averaged], target: Any) -> None:
        """Tell the metrics what the loss said: the first message about the batch's whole target, or else the first."""
        shape = tuple(target.shape) if isinstance(target, Tensor) else None
        said = next((averaged for averaged in heard if averaged.shape == shape), heard[0] if heard else None)
        if said is not None and said != self._averaged:
            self._averaged = said
            for metric in self.metrics:
                metric.heed(said)

    def _measure(self, output: Any, target: Tensor, loss: Tensor, cut: Any = None) -> None:
        self.take_loss(self.loss, loss, target)
        if self.shards is not None and cut is not None:
            self.shards.measure(self.metrics, output, cut, target, f"batch {self.epoch + 1}.{self.position + 1}")
        for metric in self.metrics if cut is None else ():
            metric.update(output, target)

    def take_loss(self, mean: Loss, loss: Tensor, target: Any) -> None:
        """Add the loss of one batch to a mean, weighted by the number of terms it is the mean of."""
        mean.take(loss, target, self._averaged, reduction_of(self.loss_fn) == "sum")

    @property
    def device(self) -> Any:
        """Where the model is: the device of its first parameter or buffer."""
        return device_of(self.model)

    def unpack(self, batch: Any) -> tuple[list[Any], Any]:
        """(inputs, target) of a batch, on the model's device."""
        if not isinstance(batch, (list, tuple)) or len(batch) < 2:
            got = f"{len(batch)} of them" if isinstance(batch, (list, tuple)) else type(batch).__name__
            raise TypeError(f"Trainer: expected batches (input, ..., target), got {got}")
        *inputs, target = moved(batch, self.device)
        return inputs, target

    def monitored(self, name: str | None = None) -> tuple[str, float, str]:
        """(name, value, ``"min"`` or ``"max"``) of a value of the last epoch; by default ``val_loss``, else ``loss``."""
        record = self.history[-1]
        if name is None:
            name = "val_loss" if "val_loss" in record else "loss"
        modes = {metric.name: metric.mode for metric in (self.loss, *self.metrics)}
        known = [key for key in record if key.removeprefix("val_") in modes]
        if name not in known:
            raise ValueError(f"monitor: no value {name!r} in an epoch's record.{nearest(name, known)}")
        return name, record[name], modes[name.removeprefix("val_")]

    # --- state --------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that training needs to resume here. Its tensors are the model's and the optimiser's own."""
        return {
            "config": self.config,
            "epoch": self.epoch,
            "position": self.position,
            "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            **({} if self.scaler is None else {"scaler": self.scaler.state_dict()}),
            **({} if self.shards is None else {"shards": self.shards.count}),
            "random": self._random_state(),
            "metrics": [metric.state_dict() for metric in (self.loss, *self.metrics)] if self.position else None,
            "epoch_lr": self._epoch_lr,
            "history": [dict(record) for record in self.history],
            "stop_reason": self.stop_reason,
            "callbacks": {
                key: state for key, callback in named(self.callbacks) if (state := callback.state_dict()) is not None
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a :meth:`state_dict`; the random states follow when :meth:`fit` opens its loaders."""
        if (state["scheduler"] is None) != (self.scheduler is None):
            raise CheckpointError(
                f"Trainer: the saved run has {'no' if state['scheduler'] is None else 'a'} learning-rate schedule, "
                f"this one has {'none' if self.scheduler is None else 'one'}"
            )
        before, now = state.get("shards", 1), 1 if self.shards is None else self.shards.count
        if before != now:
            raise CheckpointError(f"Trainer: the saved run has shards={before}, this one {now}, which gives other sums")
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"Trainer: the saved state does not fit this model and optimizer: {error}") from error
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        if self.scaler is not None and "scaler" in state:
            self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.position = state["epoch"], state["position"]
        if state["metrics"] is not None:
            if len(state["metrics"]) != 1 + len(self.metrics):
                raise CheckpointError("Trainer: the saved run measured other metrics than this one")
            for metric, saved in zip((self.loss, *self.metrics), state["metrics"], strict=True):
                metric.load_state_dict(saved, self.device)
        self._epoch_lr = state["epoch_lr"]
        self.history = Records(dict(record) for record in state["history"])
        self.stop_reason = state["stop_reason"]
        for key, callback in named(self.callbacks):
            if key in state["callbacks"]:
                callback.load_state_dict(state["callbacks"][key])
        self._random = dict(state["random"])

    def resume(self, path: str | Path, say: Callable[[str], None] = log.warning) -> Path:
        """Load a checkpoint, or the last good one of a folder; returns its path.

        ``say`` gets one line if a damaged file is passed over. CheckpointError if nothing can be read, or if it does not fit
        the model, the optimiser or the schedule.
        """
        found, state = checkpoint.find(path, say=say, map_location=self.device)
        self.load_state_dict(state)
        return found

    def _random_state(self) -> dict[str, Any]:
        if self._random is not None:
            return self._random
        return {
            "now": [generator.get_state() for generator in self._generators],
            "epoch_start": self._epoch_start if self.position else None,
        }

    def _set_random(self, states: list[dict[str, Any]]) -> None:
        for generator, state in zip(self._generators, states, strict=True):
            generator.set_state(state)

    def _call(self, event: str) -> None:
        for callback in self.callbacks:
            if self.first or not callback.once:
                getattr(callback, event)(self)

"""What the classifier and the regressor share: parameters, checks, training, and what they keep."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_array, check_consistent_length, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from kobai import nn
from kobai.core.tensor import Tensor
from kobai.errors import check_integer
from kobai.ops.create import as_tensor
from kobai.random import fork_rng, manual_seed
from kobai.train import EarlyStopping, Trainer, optimizers
from kobai.train.batches import predict
from kobai.train.models import mlp
from kobai.train.records import Records
from kobai.utils.data import DataLoader, TensorDataset
from kobai.xp import default_device, device as Device

Host = np.ndarray[Any, Any]
FLOATS = (np.float64, np.float32)
PARAMETERS = """module: the network: a class or a function that makes one of the numbers of features and of outputs, such as
            ``nn.Linear`` or ``lambda n, k: nn.Sequential(...)``, or a module, of which a copy is trained. Default: a net of
            fully connected layers.
        hidden, activation, dropout, batch_norm: of that net, see :func:`kobai.train.mlp`.
        loss: a function of output, target and ``reduction``, as those of ``kobai.nn.functional``; for the regressor also
            ``"mse"``, ``"mae"``, ``"huber"``, of the scaled targets. Default: cross-entropy, squared error.
        optimizer: a name (``"adam"``, ``"sgd"``, …), or what makes an optimiser of the parameters.
        lr, weight_decay: for the optimiser; ``lr=None`` is its usual rate.
        schedule: of the learning rate over ``epochs``: ``"none"``, ``"cosine"``, ``"step"``, ``"exponential"``,
            ``"onecycle"``, ``"plateau"``. :meth:`partial_fit` has none.
        batch_size: samples in a batch at most; the batches of an epoch are of nearly equal size.
        epochs: passes over the data in a :meth:`fit`.
        clip_grad_norm: greatest norm of all gradients together.
        early_stopping: hold out ``validation_fraction`` of the data, stop when the loss on it has not improved for
            ``patience`` epochs, and keep the parameters of the best one.
        callbacks: :class:`kobai.train.Callback` objects; copies of them are called.
        warm_start: a second :meth:`fit` trains on, instead of beginning anew.
        random_state: seed of initial weights, order and dropout; the default generator is left as it is.
        device: where to compute; default: where new arrays are made, see :func:`kobai.use`.
        dtype: ``"float32"`` or ``"float64"``; default: that of ``X``, float64 for what is no float. float32 is faster.
        verbose: show the progress of training.
"""


class Estimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Base of the estimators. A subclass says what the targets are and how far an output is from one."""

    _optimizer: Any
    _partial: Trainer | None
    _saved: dict[str, Any] | None

    def __init__(
        self,
        module: Any = None,
        *,
        hidden: Any = (100,),
        activation: str = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        loss: Any = None,
        optimizer: Any = "adam",
        lr: float | None = None,
        weight_decay: float = 0.0,
        schedule: str = "none",
        batch_size: int = 32,
        epochs: int = 100,
        clip_grad_norm: float | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        patience: int = 10,
        callbacks: Iterable[Any] = (),
        warm_start: bool = False,
        random_state: Any = None,
        device: Any = None,
        dtype: Any = None,
        verbose: bool = False,
    ) -> None:
        self.module = module
        self.hidden = hidden
        self.activation = activation
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.loss = loss
        self.optimizer = optimizer
        self.lr = lr
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.batch_size = batch_size
        self.epochs = epochs
        self.clip_grad_norm = clip_grad_norm
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.callbacks = callbacks
        self.warm_start = warm_start
        self.random_state = random_state
        self.device = device
        self.dtype = dtype
        self.verbose = verbose

    # --- what a subclass says -----------------------------------------------------------------------------------------

    def _checked(self, X: Any, y: Any, first: bool) -> tuple[Host, Host]:
        raise NotImplementedError

    def _learn_targets(self, y: Host, weight: Host | None, classes: Any) -> None:
        """Keep what must be known of all targets."""
        raise NotImplementedError

    def _encoded(self, y: Host) -> Host:
        """Targets as the network is trained on them."""
        raise NotImplementedError

    def _n_outputs(self) -> int:
        raise NotImplementedError

    def _loss_function(self) -> Callable[..., Tensor]:
        """A function of output, target and ``reduction``."""
        raise NotImplementedError

    # --- training -----------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train on samples ``X`` (n, features), or (n, ...) for a ``module`` that takes those, and their targets ``y``.

        ``sample_weight`` (n,) ≥ 0: a weight of 2 is like two such samples in a batch, one of 0 like none. Returns itself.
        """
        on = self.warm_start and hasattr(self, "module_")
        X, y, weight = self._prepared(X, y, sample_weight, first=not on)
        if not on:
            self._begin(X, y, weight, None)
        epochs = self._count("epochs")
        with self._drawing() as seed:
            arrays = [array for array in (X, self._encoded(y), weight) if array is not None]
            held = None
            if self.early_stopping:
                arrays, held = self._split(arrays, seed)
            loader = self._loader(arrays)
            optimizer = self._restored_optimizer()
            optimizer.param_groups[0]["lr"] = optimizer.defaults["lr"]  # where a schedule may have left it
            stop = [EarlyStopping(self._count("patience"), restore_best=True)] if self.early_stopping else []
            scheduler = optimizers.schedule(self.schedule, optimizer, epochs, len(loader))
            self._run(self._trainer(optimizer, scheduler, stop), loader, held, epochs)
        return self

    def _partial_fit(self, X: Any, y: Any, sample_weight: Any, classes: Any) -> Any:
        """One epoch more."""
        first = not hasattr(self, "module_")
        X, y, weight = self._prepared(X, y, sample_weight, first)
        if first:
            self._begin(X, y, weight, classes)
        with self._drawing():
            loader = self._loader([array for array in (X, self._encoded(y), weight) if array is not None])
            if self._partial is None:  # its captured step lasts from call to call
                self._partial = self._trainer(self._restored_optimizer(), None, [])
            self._run(self._partial, loader, None, 1)
        return self

    def _count(self, name: str) -> int:
        """A parameter that is a number of something; searches give NumPy's integers."""
        value = getattr(self, name)
        value = int(value) if isinstance(value, np.integer) else value
        check_integer(type(self).__name__, name, value, 1)
        return value

    def _prepared(self, X: Any, y: Any, sample_weight: Any, first: bool) -> tuple[Host, Host, Host | None]:
        """Checked samples, targets, and weights; samples of weight 0 are left out."""
        X, y = self._checked(X, y, first)
        if sample_weight is None:
            return X, y, None
        weight = check_array(sample_weight, ensure_2d=False, dtype=X.dtype, input_name="sample_weight")
        if weight.ndim != 1:
            raise ValueError(f"{type(self).__name__}: expected sample_weight of shape (n,), got {weight.shape}")
        check_consistent_length(X, weight)
        if (weight < 0).any() or not weight.any():
            got = f"{weight.min():g}" if weight.any() else "zero for all samples"
            raise ValueError(f"{type(self).__name__}: expected sample_weight >= 0, not all of them zero, got {got}")
        kept = weight > 0
        return X[kept], y[kept], weight[kept]

    def _validated(self, X: Any, y: Any = "no_validation", first: bool = False, **how: Any) -> Any:
        """``X``, or both, as arrays; ``n_features_in_`` and ``feature_names_in_`` are learnt the first time."""
        dtype = (self.dtype or FLOATS) if first else self._dtype
        return validate_data(self, X, y, reset=first, dtype=dtype, allow_nd=True, **how)

    def _begin(self, X: Host, y: Host, weight: Host | None, classes: Any) -> None:
        self._dtype, self._sample_shape = X.dtype.name, X.shape[1:]
        self._learn_targets(y, weight, classes)
        self._seed, self._fits = int(check_random_state(self.random_state).randint(2**31 - 1)), 0
        self.history_: list[dict[str, Any]] = Records()
        self._optimizer = self._partial = self._saved = None
        with self._drawing():
            self.module_ = self._made()

    def _made(self) -> nn.Module:
        """The network, on its device, untrained."""
        made, n_out = self.module, self._n_outputs()
        if made is None:
            options: dict[str, Any] = {
                "activation": self.activation,
                "dropout": self.dropout,
                "batch_norm": self.batch_norm,
            }
            made = mlp(
                math.prod(self._sample_shape), np.atleast_1d(np.asarray(self.hidden, int)).tolist(), n_out, **options
            )
        elif isinstance(made, nn.Module):
            made = copy.deepcopy(made)
        elif callable(made):
            made = made(self._sample_shape[0], n_out) if _takes_two(made) else made()
        if not isinstance(made, nn.Module):
            raise TypeError(
                f"{type(self).__name__}: expected module to be a kobai.nn.Module, or what makes one of the numbers of features "
                f"and outputs, got {self.module!r}"
            )
        where = default_device() if self.device is None else Device(self.device)
        return made.to(device=where, dtype=np.dtype(self._dtype))

    def _restored_optimizer(self) -> Any:
        """The optimiser of the network; after its way through a file or another process, with the state it had."""
        if self._optimizer is None:
            self.module_ = copy.deepcopy(
                self.module_
            )  # joblib may have mapped it from a file that cannot be written to
            options: dict[str, Any] = {"lr": self.lr, "weight_decay": self.weight_decay}
            if isinstance(self.optimizer, str):
                self._optimizer = optimizers.optimizer(self.optimizer, self.module_.parameters(), **options)
            else:
                self._optimizer = self.optimizer(
                    self.module_.parameters(), **{name: value for name, value in options.items() if value}
                )
            if self._saved is not None:
                self._optimizer.load_state_dict(copy.deepcopy(self._saved))
                self._saved = None
        return self._optimizer

    def _trainer(self, optimizer: Any, scheduler: Any, more: list[Any]) -> Trainer:
        self.callbacks_ = [*copy.deepcopy(list(self.callbacks)), *more]
        trainer = Trainer(
            self.module_,
            optimizer,
            _Loss(type(self).__name__, self._loss_function(), self._n_outputs()),
            scheduler=scheduler,
            callbacks=self.callbacks_,
            clip_grad_norm=self.clip_grad_norm,
            progress=bool(self.verbose),
        )
        trainer.history, trainer.epoch = self.history_, len(self.history_)
        return trainer

    def _run(self, trainer: Trainer, loader: Any, held: Any, epochs: int) -> None:
        before = trainer.epoch
        trainer.fit(loader, held, epochs=before + epochs)
        self.n_iter_ = trainer.epoch - before

    @contextmanager
    def _drawing(self) -> Iterator[int]:
        """Block that draws from a stream of this fit's own, whose seed it is given."""
        seed = int(np.random.SeedSequence([self._seed, self._fits]).generate_state(1)[0])
        self._fits += 1
        with fork_rng():
            manual_seed(seed)
            yield seed

    def _split(self, arrays: list[Host], seed: int) -> tuple[list[Host], Any]:
        """Arrays to train on, and a loader of those that are held out."""
        alike = arrays[1] if arrays[1].dtype.kind == "i" else None  # as many of each class
        parts = train_test_split(*arrays, test_size=self.validation_fraction, random_state=seed, stratify=alike)
        return parts[::2], self._loader(parts[1::2], shuffle=False)

    def _loader(self, arrays: list[Host], shuffle: bool = True) -> Any:
        X, target, *weight = arrays
        if weight:  # with a mean of 1, so that the mean over equally large batches is that over all samples
            weight = [(weight[0] / weight[0].mean()).astype(X.dtype)]
        n, where = len(X), next(self.module_.parameters()).device
        size = math.ceil(n / math.ceil(n / self._count("batch_size")))
        data = TensorDataset(*(as_tensor(array, device=where) for array in (X, target, *weight)))
        loader = DataLoader(data, batch_size=size, shuffle=shuffle)
        return _WithWeights(loader) if weight else loader

    # --- answers ------------------------------------------------------------------------------------------------------

    def _outputs(self, X: Any) -> Tensor:
        """The network's outputs (n, outputs)."""
        check_is_fitted(self, "module_")
        X = self._validated(X)
        output = predict(self.module_, as_tensor(X, device=next(self.module_.parameters()).device))
        return _fitting(type(self).__name__, output, (len(X), self._n_outputs()))

    # --- to other processes, and into files ---------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """For copies, pickle and joblib: the network and its optimiser's state, without the programs that run them."""
        state: dict[str, Any] = dict(super().__getstate__())
        if state.get("_optimizer") is not None:
            state["_saved"] = state["_optimizer"].state_dict()
        return state | {name: None for name in ("_optimizer", "_partial") if name in state}


class _Loss:
    """A loss as the Trainer calls it, whose targets may come with weights. It knows no estimator: what a captured step rests
    on is watched, and an estimator's history grows."""

    def __init__(self, who: str, function: Callable[..., Tensor], n_outputs: int) -> None:
        self.who, self.function, self.n_outputs = who, function, n_outputs

    def __call__(self, output: Any, target: Any) -> Tensor:
        target, weight = (target, None) if isinstance(target, Tensor) else target
        output = _fitting(self.who, output, (len(target), self.n_outputs))
        if weight is None:
            return self.function(output, target)
        each = self.function(output, target, reduction="none")
        return (each.reshape(len(weight), -1).mean(1) * weight).mean()  # type: ignore[no-any-return]


def _fitting(who: str, output: Any, shape: tuple[int, ...]) -> Tensor:
    """A module's outputs, of this shape; of one number a sample, (n,) is (n, 1)."""
    if not isinstance(output, Tensor) or (output.shape != shape and output.unsqueeze(-1).shape != shape):
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"{who}: expected outputs {shape} of the module, got {got}")
    return output if output.shape == shape else output.unsqueeze(-1)


class _WithWeights:
    """The batches (X, target, weight) of a loader as (X, (target, weight))."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        return ((X, (target, weight)) for X, target, weight in self.loader)


def _takes_two(made: Callable[..., Any]) -> bool:
    """Whether what makes a module is made of two numbers, as most are; a class may also need none."""
    try:
        inspect.signature(made).bind(0, 0)
    except TypeError:
        return False
    return True

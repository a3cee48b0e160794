"""LRScheduler: what all learning-rate schedules share."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from types import FunctionType
from typing import Any, ClassVar, TypeAlias, TypeVar

from kobai.engine.dispatch import Count, on_host
from kobai.errors import nearest, users_line
from kobai.optim.groups import learning_rate, number, set_learning_rate
from kobai.optim.optimizer import Optimizer

F = TypeVar("F", bound=Callable[..., None])

Saved: TypeAlias = tuple[list[tuple[dict[str, Any], dict[str, Any]]], list[tuple[dict[str, Any], float]]]

EPOCH_WARNING = (
    "scheduler.step(epoch): the epoch is deprecated; call step() once per epoch. Given an epoch, the closed form of "
    "the schedule is used where there is one"
)


def at_every_step(step: F) -> F:
    """Decorator of a scheduler's ``step``: inside a captured step, every replay does it too."""

    @wraps(step)
    def hosted(self: Any, *args: Any, **kwargs: Any) -> None:
        on_host(_Step(self, lambda: step(self, *args, **kwargs)))

    return hosted  # type: ignore[return-value]


class _Step(Count):
    """One step of a schedule and its parts: done as a whole or, if it fails, undone."""

    __slots__ = ("scheduler", "step")

    def __init__(self, scheduler: Any, step: Callable[[], None]) -> None:
        self.scheduler, self.step = scheduler, step

    def __call__(self) -> None:
        before = self.save()
        try:
            self.step()
        except BaseException:
            self.restore(before)
            raise

    def save(self) -> Saved:
        found = [self.scheduler.__dict__]
        for state in found:
            for part in state.get("_schedulers", ()):
                found.append(part.__dict__)
        groups = self.scheduler.optimizer.param_groups
        rates = [(group, learning_rate(group)) for group in groups]
        return [(state, state.copy()) for state in (*found, *groups)], rates

    def restore(self, saved: Saved) -> None:
        states, rates = saved
        for state, before in states:
            state.update(before)
            for name in [name for name in state if name not in before]:
                del state[name]
        for group, lr in rates:  # a tensor gets its old value back
            set_learning_rate(group, lr)


class LRScheduler:
    """Base of the schedules: sets ``lr`` of every parameter group at each :meth:`step`.

    A rate that is a tensor stays that tensor, and is written into.

    ``last_epoch`` counts the steps, from 0 at construction, which already sets the first rate. A subclass defines
    ``get_lr()``, one rate per group, computed from the groups' present rates, so that schedules can be chained; and
    optionally ``_get_closed_form_lr()``, the same computed from ``base_lrs`` and ``last_epoch`` alone. In ``get_lr``,
    ``_is_initial`` says that this is the step of the constructor.

    Arguments:
        optimizer: its groups get the key ``initial_lr`` beside ``lr``.
        last_epoch: −1 to start, else the epoch to resume from (the groups must then have ``initial_lr``).

    Errors: TypeError for what is no Optimizer; KeyError for ``last_epoch`` ≥ 0 without ``initial_lr``.

    >>> import kobai
    >>> optimizer = kobai.optim.SGD([kobai.zeros(1, requires_grad=True)], lr=1.0)
    >>> class Halving(kobai.optim.lr_scheduler.LRScheduler):
    ...     def get_lr(self):
    ...         return [lr * 0.5**self.last_epoch for lr in self.base_lrs]
    >>> scheduler = Halving(optimizer)
    >>> for _ in range(2):
    ...     optimizer.step()
    ...     scheduler.step()
    >>> scheduler.get_last_lr()
    [0.25]
    """

    _is_initial: bool = False
    _parts: ClassVar[tuple[str, ...]] = ()
    """Attributes that are schedules or a user's functions, one or a list, and are saved by their own state."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        check_optimizer(self, optimizer)
        self.optimizer = optimizer
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", learning_rate(group))
            elif "initial_lr" not in group:
                raise KeyError(
                    f"{type(self).__name__}: last_epoch={last_epoch} resumes a schedule, but parameter group {i} has "
                    "no 'initial_lr'; load the optimizer's state_dict first, or start with last_epoch=-1"
                )
        self.base_lrs: list[float] = [number(group["initial_lr"]) for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._initial_step()

    def _initial_step(self) -> None:
        self._step_count = 0
        self._is_initial = True
        try:
            self.step()
        finally:
            self._is_initial = False

    @at_every_step
    def step(self, epoch: Any = None) -> None:
        """Go to the next epoch (or iteration, whatever the schedule counts) and set the learning rates.

        Call it after ``optimizer.step()``; the other way round skips the first rate, and warns.
        """
        if self._step_count == 1 and not self.optimizer._step_called:
            warnings.warn(
                f"{type(self).__name__}: step() was called before optimizer.step(), which skips the first learning "
                "rate; call optimizer.step() first",
                stacklevel=users_line(),
            )
        self._step_count += 1
        if epoch is not None:
            warnings.warn(EPOCH_WARNING, stacklevel=users_line())
        self._update_lr(epoch)

    def _update_lr(self, epoch: int | None = None) -> None:
        if epoch is None:
            self.last_epoch += 1
            rates = self.get_lr()
        else:
            self.last_epoch = epoch
            rates = self._get_closed_form_lr()
        self._set_lr(rates)

    def _set_lr(self, rates: Sequence[float]) -> None:
        for group, lr in zip(self.optimizer.param_groups, rates, strict=True):
            set_learning_rate(group, lr)
        self._last_lr = present_lrs(self.optimizer)

    def get_lr(self) -> list[float]:
        """The rates of ``last_epoch``, from the present ones; for subclasses. Users read :meth:`get_last_lr`."""
        raise NotImplementedError(f"{type(self).__name__}: define get_lr()")

    def _get_closed_form_lr(self) -> list[float]:
        return self.get_lr()

    def _present(self, factor: float = 1.0) -> list[float]:
        """The groups' present rates times ``factor``."""
        return [learning_rate(group) * factor for group in self.optimizer.param_groups]

    def _base(self, factor: float) -> list[float]:
        """The groups' initial rates times ``factor``."""
        return [lr * factor for lr in self.base_lrs]

    def get_last_lr(self) -> list[float]:
        """The learning rates set by the last step, one per group."""
        return self._last_lr

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to resume from here, except the optimiser and plain functions."""
        saved = {key: value for key, value in self.__dict__.items() if key not in ("optimizer", *self._parts)}
        return {**saved, **{name: _saved(self.__dict__[name]) for name in self._parts}}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Resume from a saved state; the optimiser's state, with its learning rates, is loaded separately."""
        self.__dict__.update({key: value for key, value in state_dict.items() if key not in self._parts})
        for name in self._parts:
            _load(self.__dict__[name], state_dict[name])


def _saved(part: Any) -> Any:
    """The state of a schedule, the attributes of a callable object, None for a plain function."""
    if isinstance(part, list):
        return [_saved(each) for each in part]
    if isinstance(part, LRScheduler):
        return part.state_dict()
    attributes = None if isinstance(part, FunctionType) else getattr(part, "__dict__", None)
    return None if attributes is None else dict(attributes)


def _load(part: Any, saved: Any) -> None:
    if isinstance(part, list):
        for each, its in zip(part, saved, strict=True):
            _load(each, its)
    elif isinstance(part, LRScheduler):
        part.load_state_dict(saved)
    elif saved is not None:
        vars(part).update(saved)


def check_optimizer(scheduler: object, optimizer: object) -> None:
    """TypeError for what is no optimiser."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{type(scheduler).__name__}: expected an Optimizer, got {type(optimizer).__name__}")


def check_known(scheduler: object, name: str, value: str, known: Iterable[str]) -> None:
    """ValueError for an option that is not one of the ``known`` words."""
    if value not in known:
        raise ValueError(f"{type(scheduler).__name__}: unknown {name} {value!r}.{nearest(value, known)}")


def present_lrs(optimizer: Optimizer) -> list[float]:
    """The learning rate of every group."""
    return [learning_rate(group) for group in optimizer.param_groups]


def per_group(scheduler: object, name: str, value: Any, optimizer: Optimizer) -> list[Any]:
    """``value`` for every group: one for all, or a list with one each."""
    check_optimizer(scheduler, optimizer)
    n = len(optimizer.param_groups)
    if not isinstance(value, (list, tuple)):
        return [value] * n
    if len(value) != n:
        raise ValueError(f"{type(scheduler).__name__}: expected one {name} for each of {n} groups, got {len(value)}")
    return list(value)

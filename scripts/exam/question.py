"""What a question of the exam is: a situation that somebody reported, what is wrong in it, and how an answer is marked."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import kobai
from kobai.nn import functional as F

SHOWN = 256
"""Samples of the batch that the doctor is shown, unless the size of the batch is what is wrong."""


@dataclass
class Situation:
    """A net, and what somebody trains it with.

    Attributes:
        train, held: tensors ``(input, ..., target)``; ``held`` are fresh samples of the same kind.
        batch: size of the batches; ``shuffle``: whether they are drawn, or taken in the order of ``train``.
        score: what the fresh samples are judged by, the lower the better; by default the loss function.
        epochs: 0 where one batch shows what is wrong; else the doctor watches so many epochs of training.
        shown: the batch that the doctor is shown; by default the first samples of ``train``.
        validation: what the epochs are validated on; by default ``held``.
        after_epoch: called with (situation, epoch), for what goes wrong in the middle of a training.
    """

    model: Any
    optimizer: Any
    loss_fn: Callable[[Any, Any], Any]
    train: tuple[Any, ...]
    held: tuple[Any, ...]
    batch: int = 64
    shuffle: bool = True
    score: Callable[[Any, Any], Any] | None = None
    epochs: int = 0
    scheduler: Any = None
    shown: tuple[Any, ...] | None = None
    validation: tuple[Any, ...] | None = None
    clip: float | None = None
    steps: int = 150
    callbacks: list[Any] = field(default_factory=list)

    def example(self) -> tuple[Any, ...]:
        """The batch for the doctor."""
        if self.shown is not None:
            return self.shown
        size = SHOWN if self.batch >= 16 else self.batch
        return tuple(part[:size] for part in self.train)


@dataclass(frozen=True)
class Question:
    """A report from the public, rebuilt.

    Attributes:
        kind: the examination that should see it; ``source``: who reported it.
        expects: pattern of what a right answer speaks of; ``names``: diseases that are right whatever they say.
        never: diseases that are wrong whatever they say.
        make: ``make(seed, ill)``; with ``ill=False`` the healthy twin, where there is one.
    """

    name: str
    kind: str
    report: str
    source: str
    expects: str
    names: tuple[str, ...]
    never: tuple[str, ...]
    twin: bool
    function: Callable[[int, bool], Situation] = field(repr=False)

    @property
    def half(self) -> str:
        """One of :data:`HALVES`: thresholds may be set by what the tuning half says, never by the others."""
        package = self.function.__module__.split(".")[1]
        if package in FRESH_HALVES:
            return FRESH_HALVES[package]
        return "tuning" if hashlib.sha256(self.name.encode()).digest()[0] % 2 == 0 else "held"

    def make(self, seed: int, ill: bool = True) -> Situation:
        """The situation; the same seed draws the same data and weights for the ill one and its twin."""
        own = zlib.crc32(f"{self.name} {seed}".encode()) % 2**31
        kobai.manual_seed(own)
        return self.function(own, ill)

    def answered(self, disease: str, text: str, code: str = "") -> bool:
        """Whether a message of a doctor, or of another tool, names what is wrong.

        The code of a cure counts, but not where it only normalises, redraws or slows down: that is no word about the cause.
        """
        if disease in self.never or disease in WITHOUT_A_CAUSE:
            return disease in self.names
        said = text if disease in OF_SIGNALS else f"{text} {code}"
        return disease in self.names or (bool(self.expects) and re.search(self.expects, said.lower()) is not None)


OF_SIGNALS = (
    "collapsed vanishing-gradient exploding-gradient exploding-activations saturated dying-relu symmetric "
    "rate-too-large rate-too-small input-scale target-scale"
).split()
"""Diseases of signals, gradients and steps, whose cures are the same whatever has caused them."""

WITHOUT_A_CAUSE = ("no-better-than-guessing", "cannot-fit")
"""Diseases by which the doctor says that the net learns nothing, or cannot, and that he does not know why."""

FRESH_HALVES = {"fresh": "fresh", "fresh2": "second-fresh", "fresh3": "third-fresh"}
"""Packages of situations that were collected without a look at the doctor, and what each half is called."""

HALVES = ("tuning", "held", *FRESH_HALVES.values())

QUESTIONS: dict[str, Question] = {}


def asked(
    kind: str,
    source: str,
    expects: str = "",
    names: tuple[str, ...] = (),
    never: tuple[str, ...] = (),
    twin: bool = True,
) -> Callable[[Callable[[int, bool], Situation]], Callable[[int, bool], Situation]]:
    """Register a situation ``f(seed, ill)``; its docstring is the report in one sentence."""

    def register(function: Callable[[int, bool], Situation]) -> Callable[[int, bool], Situation]:
        name = function.__name__.replace("_", "-")
        assert name not in QUESTIONS, name
        report = " ".join((function.__doc__ or "").split())
        QUESTIONS[name] = Question(name, kind, report, source, expects, names, never, twin, function)
        return function

    return register


def healthy(source: str) -> Callable[[Callable[[int], Situation]], Callable[[int], Situation]]:
    """Register an unusual net ``f(seed)`` that trains well: it has nothing that should be found."""

    def register(function: Callable[[int], Situation]) -> Callable[[int], Situation]:
        asked("healthy", source)(_renamed(function))
        return function

    return register


def _renamed(function: Callable[[int], Situation]) -> Callable[[int, bool], Situation]:
    def either(seed: int, ill: bool) -> Situation:
        return function(seed)

    either.__name__, either.__doc__, either.__module__ = function.__name__, function.__doc__, function.__module__
    return either


def wrong_share(output: Any, target: Any) -> Any:
    """Share of samples whose greatest score is not their label: any monotone function of the scores has the same."""
    return (output.argmax(-1) != target).float().mean()


def sign_error(output: Any, target: Any) -> Any:
    """Share of targets of 0 and 1 that lie on the wrong side of the middle of the outputs."""
    return ((output > output.median()).float() != target).float().mean()


SHARES = (wrong_share, sign_error)
"""Scores that count samples: below one in a hundred, a difference says nothing."""


def squared(output: Any, target: Any) -> Any:
    """Mean squared error, whatever the shapes of a column are."""
    return F.mse_loss(output.reshape(len(output), -1), target.reshape(len(target), -1))


def rng_of(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)

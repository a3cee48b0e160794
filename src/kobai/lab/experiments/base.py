"""An experiment of the lab: settings, numbers, finding, figure, result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from kobai.lab.training import workers
from kobai.xp import backend

T = TypeVar("T")

Numbers = dict[str, Any]
"""What an experiment measured, as JSON holds it: dicts with string keys, lists, numbers, strings, None."""


@dataclass(frozen=True)
class Settings:
    """How to run an experiment.

    ``data`` is ``digits``, ``mnist`` or another name of :func:`kobai.data.load`; ``quick`` takes smaller sizes, which still
    show the claim; ``repeat`` is how many seeds a condition is run with, where an experiment averages; ``jobs`` how many
    processes (None: as many as processors); ``backend`` where it runs (None: the present one).
    """

    data: str = "digits"
    quick: bool = False
    seed: int = 0
    backend: str | None = None
    repeat: int = 1
    jobs: int | None = None
    data_dir: str | None = None
    done: Callable[[int, int, str], None] | None = field(default=None, compare=False, repr=False)
    """Called as runs end: (how many have, how many there are, what the last one was)."""

    def __post_init__(self) -> None:
        for name in ("seed", "repeat", "jobs"):
            value, least = getattr(self, name), 0 if name == "seed" else 1
            if name == "jobs" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"lab: expected {name} as an integer >= {least}, got {value!r}")

    def as_dict(self) -> dict[str, Any]:
        """What the numbers depend on, as JSON holds it.

        >>> Settings(quick=True).as_dict()
        {'data': 'digits', 'quick': True, 'seed': 0, 'repeat': 1, 'backend': 'numpy'}
        """
        numbers = {name: getattr(self, name) for name in ("data", "quick", "seed", "repeat")}
        return {**numbers, "backend": self.backend or backend()}

    def map(self, function: Callable[..., T], tasks: Mapping[Any, tuple[Any, ...]]) -> dict[Any, T]:
        """``{key: function(*task)}`` over tasks, several at once on the CPU, with progress; see :func:`workers.run_all`.

        ``function`` must be defined in a module, and its arguments and results must pickle. Keys are strings, or tuples.
        """
        keys, count = list(tasks), 0

        def ended(i: int, result: T) -> None:
            nonlocal count
            count += 1
            if self.done is not None:
                key: Any = keys[i]
                self.done(count, len(keys), key if isinstance(key, str) else ", ".join(map(str, key)))

        results = workers.run_all(function, list(tasks.values()), jobs=self.jobs, done=ended)
        return dict(zip(keys, results, strict=True))


@dataclass(frozen=True)
class Result:
    """The result of an experiment; ``passed`` says whether its numbers show the claim."""

    name: str
    settings: dict[str, Any]
    numbers: Numbers
    finding: str
    passed: bool
    files: tuple[Path, ...] = ()

    def _repr_html_(self) -> str:
        from kobai.lab.notebook import experiment

        return experiment(self)

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it, without the files."""
        kept = asdict(self)
        del kept["files"]
        return kept


class Experiment:
    """An experiment: subclass it in a module of ``kobai.lab.experiments`` that ends with ``EXPERIMENT = ThisClass()``.

    ``name`` as on the command line, ``title`` for headings, ``claim`` one sentence, ``source`` where the claim is from. The
    class's docstring says how it is done and how the figure is read; the documentation shows it.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    claim: ClassVar[str]
    source: ClassVar[str]

    def run(self, settings: Settings) -> Numbers:
        """Measure. Nothing but numbers; the backend is set already."""
        raise NotImplementedError(f"{type(self).__name__}.run")

    def finding(self, numbers: Numbers) -> tuple[str, bool]:
        """A paragraph computed from the numbers, and whether the claim is seen in them."""
        raise NotImplementedError(f"{type(self).__name__}.finding")

    def figure(self, numbers: Numbers) -> Any:
        """The matplotlib ``Figure``, from the numbers alone: it can be drawn again from the JSON."""
        raise NotImplementedError(f"{type(self).__name__}.figure")

    def alt_text(self, numbers: Numbers) -> str:
        """What the figure shows, for those who do not see it."""
        raise NotImplementedError(f"{type(self).__name__}.alt_text")

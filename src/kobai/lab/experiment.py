"""What an experiment of the lab is, the register of them, and ``run``: numbers, finding, figure, files."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import kobai
from kobai._checksum import from_json, to_json
from kobai._files import write_atomically
from kobai._untrusted import regular
from kobai.errors import nearest
from kobai.lab import workers
from kobai.xp import backend, using

T = TypeVar("T")

Numbers = dict[str, Any]
"""What an experiment measured, as JSON holds it: dicts with string keys, lists, numbers, strings, None."""

MODULES = {
    "vanishing-gradient": "vanishing_gradient",
    "activations": "activations",
    "init-activations": "init_activations",
    "init-scale": "init_scale",
    "init-compare": "init_compare",
    "zero-init": "zero_init",
    "batch-norm": "batch_norm",
    "optimizers": "optimizers",
    "overfitting": "overfitting",
    "hyperparameters": "hyperparameters",
    "gradient-check": "gradient_check",
    "mlp-vs-cnn": "mlp_vs_cnn",
}
"""The experiments, in the order in which they are told, and the modules of ``kobai.lab.experiments`` that hold them."""


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
        return {
            "data": self.data,
            "quick": self.quick,
            "seed": self.seed,
            "repeat": self.repeat,
            "backend": self.backend or backend(),
        }

    def map(
        self,
        function: Callable[..., T],
        tasks: Mapping[str, tuple[Any, ...]] | Mapping[tuple[Any, ...], tuple[Any, ...]],
    ) -> dict[Any, T]:
        """``{key: function(*task)}`` over tasks, several at once on the CPU, with progress; see :func:`workers.run_all`.

        ``function`` must be one of a module, and what it takes and gives must travel between processes.
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
    """What a run of an experiment leaves: ``passed`` says whether the claim was seen in these numbers."""

    name: str
    settings: dict[str, Any]
    numbers: Numbers
    finding: str
    passed: bool
    files: tuple[Path, ...] = ()

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


class _Register(Mapping[str, Experiment]):
    """The experiments by name; the module of one is imported when it is asked for."""

    def __getitem__(self, name: str) -> Experiment:
        if name not in MODULES:
            raise KeyError(name)
        found: Experiment = import_module(f"kobai.lab.experiments.{MODULES[name]}").EXPERIMENT
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(MODULES)

    def __len__(self) -> int:
        return len(MODULES)


EXPERIMENTS: Mapping[str, Experiment] = _Register()
"""The experiments by name, in the order in which they are told."""


def find(name: str) -> Experiment:
    """The experiment called ``name``; ValueError with the nearest name for an unknown one.

    >>> find("zero-init").title
    'Zero initialisation'
    >>> find("zero_inti")
    Traceback (most recent call last):
    ValueError: lab: no experiment is called 'zero_inti'. Did you mean 'zero-init'?
    """
    key = str(name).strip().lower().replace("_", "-")
    if key not in MODULES:
        raise ValueError(f"lab: no experiment is called {name!r}.{nearest(key, MODULES)}")
    return EXPERIMENTS[key]


def run(
    name: str,
    settings: Settings | None = None,
    out: str | Path | None = None,
    say: Callable[[str], None] | None = None,
) -> Result:
    """Run the experiment called ``name``; with ``out``, write ``name.json``, ``name.png`` and ``name.svg`` to that folder.

    Args:
        settings: see :class:`Settings`.
        out: a folder, made if it is not there; without one no file is written and matplotlib is not needed.
        say: given the finding and the names of the files, line by line.

    Nothing is written before everything is computed and drawn; each file is replaced whole.

    >>> result = run("activations")
    >>> result.passed, sorted(result.numbers)[:2]
    (True, ['curves', 'peaks'])
    """
    experiment, settings = find(name), settings or Settings()
    began = time.perf_counter()
    with using(settings.backend or backend()):
        settings = replace(settings, backend=backend())
        numbers = plain(experiment.run(settings))
    seconds = time.perf_counter() - began
    finding, passed = experiment.finding(numbers)
    result = Result(experiment.name, settings.as_dict(), numbers, finding, passed)
    if out is not None:
        result = replace(result, files=tuple(write(result, out, seconds)))
    if say is not None:
        say(finding)
        for path in result.files:
            say(str(path))
    return result


def write(result: Result, out: str | Path, seconds: float | None = None) -> list[Path]:
    """Draw a result's figure and write ``name.json``, ``name.png``, ``name.svg``; returns their paths."""
    from kobai.lab import plots

    experiment, folder = find(result.name), Path(out)
    figure = experiment.figure(result.numbers)
    pictures = {kind: plots.render(figure, kind) for kind in ("png", "svg")}
    content = {
        **result.as_dict(),
        "title": experiment.title,
        "claim": experiment.claim,
        "source": experiment.source,
        "alt": experiment.alt_text(result.numbers),
        "seconds": seconds,
        "kobai": kobai.__version__,
    }
    text = to_json(content, indent=1)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for kind, data in (("json", text), *pictures.items()):
        paths.append(folder / f"{result.name}.{kind}")
        write_atomically(paths[-1], data)
    return paths


def read(path: str | Path) -> Result:
    """The result in a JSON file that :func:`run` wrote; ValueError, naming it, for any other file."""
    try:
        content = from_json(regular(path).read_bytes())
        return Result(*(content[name] for name in ("name", "settings", "numbers", "finding", "passed")))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"lab: {path} holds no result of an experiment ({error})") from error


def plain(value: Any) -> Any:
    """``value`` as JSON gives it back: NumPy's numbers and arrays as Python's, keys as text, what is not finite as None.

    >>> import numpy as np
    >>> plain({1: np.float32(0.5), "a": np.arange(2), "b": float("inf")})
    {'1': 0.5, 'a': [0, 1], 'b': None}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, (str, bool, int)) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Sequence):
        return [plain(entry) for entry in value]
    raise TypeError(f"lab: {type(value).__name__} cannot be written to JSON")


__all__ = [
    "EXPERIMENTS",
    "Experiment",
    "Numbers",
    "Result",
    "Settings",
    "find",
    "plain",
    "read",
    "run",
    "write",
]

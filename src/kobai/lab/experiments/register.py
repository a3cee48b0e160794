"""The register of experiments, and ``run``: numbers, finding, figure, files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from kobai.compat.versions import VERSION
from kobai.core.checksum import from_json, to_json
from kobai.core.files import write_atomically
from kobai.core.untrusted import regular
from kobai.errors import nearest
from kobai.lab.experiments.base import Experiment, Result, Settings
from kobai.lab.plain import plain
from kobai.xp import backend, using

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
    "curvature": "curvature",
    "mlp-vs-cnn": "mlp_vs_cnn",
}
"""The experiments, in the order in which they are told, and the modules of ``kobai.lab.experiments`` that hold them."""


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
        "kobai": VERSION,
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

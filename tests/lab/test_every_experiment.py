"""Every experiment that the register names, and every file of experiments: claim, numbers, finding, figure, page.

The numbers are those stored in ``tests/frozen/results``. An experiment without stored numbers, as a new one, is run in its
quick form.
"""

from __future__ import annotations

import gzip
import inspect
import json
import re
from functools import cache
from pathlib import Path

import pytest

from kobai.lab import plots
from kobai.lab.experiments import register
from kobai.lab.experiments.base import Experiment, Result, Settings
from kobai.lab.experiments.register import EXPERIMENTS, MODULES
from kobai.lab.plain import plain
from kobai.lab.reports.reporting import report

pytest.importorskip("matplotlib", reason="figures are drawn")

FOLDER = Path(inspect.getfile(register)).parent
STORED = Path(__file__).parents[1] / "frozen" / "results"


@cache
def result(name: str) -> Result:
    """The stored result of an experiment, or that of its quick form."""
    path = STORED / f"{name}.json.gz"
    if not path.exists():
        return register.run(name, Settings(quick=True))
    return Result(**json.loads(gzip.decompress(path.read_bytes())))


def test_every_file_of_an_experiment_is_in_the_register():
    files = {path.stem for path in FOLDER.glob("[!_]*.py") if "\nEXPERIMENT = " in path.read_text(encoding="utf-8")}
    assert files == set(MODULES.values())
    assert list(EXPERIMENTS) == list(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_it_says_what_it_claims(name):
    experiment = EXPERIMENTS[name]
    assert isinstance(experiment, Experiment)
    assert experiment.name == name == MODULES[name].replace("_", "-")
    assert experiment.title
    assert experiment.source
    assert experiment.claim.endswith(".")
    assert type(experiment).__doc__, "how it is done, and how the figure is read"
    for method in ("run", "finding", "figure", "alt_text"):
        assert getattr(type(experiment), method) is not getattr(Experiment, method), method


@pytest.mark.parametrize("name", MODULES)
def test_its_finding_is_computed_from_numbers_that_json_holds(name):
    found, experiment = result(name), EXPERIMENTS[name]
    assert found.numbers
    assert plain(found.numbers) == json.loads(json.dumps(found.numbers)) == found.numbers
    text, passed = experiment.finding(found.numbers)
    assert passed is True, text
    assert (text, passed) == (found.finding, found.passed)
    assert re.search(r"\d", text), "what was measured"
    assert found.settings["quick"] is True


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.thorough] * (STORED / f"{name}.json.gz").exists()) for name in MODULES],
)
def test_it_is_drawn_and_reported(name, tmp_path):
    found, experiment = result(name), EXPERIMENTS[name]
    said = experiment.alt_text(found.numbers)
    assert len(said) > 40
    assert re.search(r"\d", said)
    paths = register.write(found, tmp_path)
    assert [path.name for path in paths] == [f"{name}.json", f"{name}.png", f"{name}.svg"]
    assert [path.read_bytes()[:4] for path in paths[1:]] == [b"\x89PNG", b"<?xm"]
    assert register.read(paths[0]).as_dict() == found.as_dict()
    page = report(tmp_path).read_text(encoding="utf-8")
    assert "data:image/svg+xml;base64," in page
    for words in (experiment.title, "seen in these numbers"):
        assert words in page
    assert experiment.figure(found.numbers).get_figwidth() in (plots.FULL, plots.HALF)


@pytest.mark.parametrize("name", ["activations", "init-activations"])
def test_its_numbers_are_the_same_again(name):
    """Of those that take no time. The others: ``-m slow tests/lab/test_lab_claims.py``."""
    one, other = (register.run(name, Settings(quick=True, seed=1)).numbers for _ in range(2))
    assert one == other

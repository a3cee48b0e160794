"""What the lab makes of numbers, bit for bit: findings, figures, JSON and reports, in ``pages``.

The numbers are kept in ``results`` (rounded, from the experiments in quick sizes, a comparison and a search), so that nothing
depends on the processor. Most experiments are drawn under ``-m slow`` only. A page is described by a checksum of each section;
what differs from day to day and from machine to machine is left out.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from freezing import FOLDER, check, machine

from kobai.lab import EXPERIMENTS, Result, report
from kobai.lab.experiments.register import write

matplotlib = pytest.importorskip("matplotlib", reason="figures are drawn")

RESULTS = FOLDER / "results"
KEPT = {path.name.partition(".")[0] for path in RESULTS.iterdir()}
ALWAYS = ("init-scale", "mlp-vs-cnn")
"""Experiments that are drawn whenever tests are run."""

PASSING = (
    (r'src="data:[^"]*"', 'src="data:"'),  # a picture, which is checked by itself
    (r"kobai \d+\.\d+\.\d+", "kobai VERSION"),
    (r" on \d{4}-\d\d-\d\d \d\d:\d\d\.", ""),
    (r"<div><dt>(Processor|GPU|System|Python|Packages|Written)</dt><dd>.*?</dd></div>", ""),
)
"""What tells of the day and of the machine, and what stands for it."""


def stored(name: str) -> dict[str, Any]:
    return json.loads(gzip.decompress((RESULTS / f"{name}.json.gz").read_bytes()))


def checksum(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:16]


def of_page(path: Path) -> Iterator[str]:
    """A line for the head of a page, one for each of its sections, one for its end."""
    text = path.read_text(encoding="utf-8")
    for pattern, instead in PASSING:
        text = re.sub(pattern, instead, text, flags=re.DOTALL)
    head, *sections = re.split(r'(?=<section id=")', text)
    *sections, last = sections
    last, end, rest = last.partition("</section>\n</main>")
    yield f"page head: {checksum(head)}"
    for section in [*sections, last]:
        name = section.split('"')[1]
        yield f"page {name}: {checksum(section)}"
    yield f"page end: {checksum(end + rest)}"


def drawn(svg: Path) -> str:
    """Checksum of a figure, its identifiers numbered: matplotlib makes some of them from addresses in memory."""
    numbers: dict[str, int] = {}
    text = svg.read_text(encoding="utf-8")
    return checksum(re.sub(r"\b[a-z][0-9a-f]{10}\b", lambda m: f"id{numbers.setdefault(m[0], len(numbers))}", text))


def of_experiment(result: Result, folder: Path) -> Iterator[str]:
    """What is said of an experiment, and checksums of what is written."""
    experiment = EXPERIMENTS[result.name]
    finding, passed = experiment.finding(result.numbers)
    yield from textwrap.wrap(f"finding: {finding}", 120)
    yield from textwrap.wrap(f"alt: {experiment.alt_text(result.numbers)}", 120)
    yield f"passed: {passed}"
    write(result, folder, 1.5)
    written = json.loads((folder / f"{result.name}.json").read_text(encoding="utf-8"))
    yield f"json: {checksum(json.dumps({k: v for k, v in written.items() if k not in ('kobai', 'kobai_checksum')}))}"
    yield f"svg by matplotlib {matplotlib.__version__}: {drawn(folder / f'{result.name}.svg')}"
    yield from of_page(report(folder))


def check_here(request: pytest.FixtureRequest, name: str, lines: list[str]) -> None:
    """As ``check``; the figure of another matplotlib is not compared."""
    path = FOLDER / name
    if path.exists() and not request.config.getoption("--freeze"):
        svg = next(line for line in lines if line.startswith("svg by"))
        before = next(line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("svg by"))
        if svg.partition(":")[0] != before.partition(":")[0]:
            lines = [before if line == svg else line for line in lines]
    check(request, name, lines)


@pytest.mark.parametrize(
    "name",
    [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.slow) for name in EXPERIMENTS if name in KEPT],
)
def test_an_experiment(request, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    result = Result(**stored(name))
    assert EXPERIMENTS[name].finding(result.numbers) == (result.finding, result.passed)
    check_here(request, f"pages/{name}.txt", list(of_experiment(result, Path("lab"))))


@pytest.mark.parametrize(("name", "file"), [("compared", "results.json"), ("searched", "search.json")])
def test_a_comparison_and_a_search(request, tmp_path, monkeypatch, name, file):
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    Path(name, file).write_text(json.dumps(stored(name)), encoding="utf-8")
    check(request, f"pages/{name}.txt", of_page(report(name)))


def changed(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """A comparison or a search as it may also come out, each with what is different."""
    content = stored(name)
    if name == "compared":
        yield "unfinished", {**content, "left": 3}
        one = [{**c, "runs": c["runs"][:1]} for c in content["conditions"]]
        yield "one seed", {**content, "seeds": [0], "conditions": one}
        yield "diverged", {**content, "ranking": [{**place, "diverged": 2} for place in content["ranking"]]}
        uneven = [{**place, "runs": 1 + i % 2, "spread": None} for i, place in enumerate(content["ranking"])]
        yield "uneven", {**content, "ranking": uneven}
        return
    trials = content["trials"]
    alone = [{**t, "parameters": {"lr": t["parameters"]["lr"]}} for t in trials]
    one = {**content, "space": {"lr": content["space"]["lr"]}, "trials": alone, "importances": {"lr": 1.0}}
    yield "by loss", {**one, "by": "loss", "prune": False, "method": "random"}
    yield "few", {**content, "trials": trials[:4], "importances": {}}
    yield "diverged", {**content, "trials": [{**t, "diverged": t["state"] == "complete"} for t in trials]}
    yield "none", {**content, "trials": [{**t, "state": "running"} for t in trials], "importances": {}}


@pytest.mark.parametrize(("name", "file"), [("compared", "results.json"), ("searched", "search.json")])
def test_comparisons_and_searches_that_came_out_otherwise(request, tmp_path, monkeypatch, name, file):
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    lines = []
    for what, content in changed(name):
        Path(name, file).write_text(json.dumps(content), encoding="utf-8")
        lines += [f"{what}: {line}" for line in of_page(report(name))]
    best = next(trial for trial in stored("searched")["trials"] if trial["number"] == 11)
    Path(name, "test.json").write_text(json.dumps({"accuracy": 0.9, "loss": 0.25, "parameters": best["parameters"]}))
    Path(name, file).write_text(json.dumps(stored(name)), encoding="utf-8")
    lines += [f"tested: {line}" for line in of_page(report(name))]
    check(request, f"pages/{name}_otherwise.txt", lines)


def test_a_run(request, tmp_path, monkeypatch):
    """Its report asks the model, so that it is the same on a machine of the same kind only."""
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(FOLDER / "checkpoints" / "run", "run")
    frozen, here = FOLDER / "pages" / "run.txt", f"on {machine(request)}"
    if not request.config.getoption("--freeze") and frozen.read_text(encoding="utf-8").splitlines()[0] != here:
        pytest.skip("the page was made on a machine of another kind")
    check(request, "pages/run.txt", [here, *of_page(report("run"))])


def test_a_page_is_the_same_on_another_day_and_not_with_another_word(tmp_path):
    page = (
        '<head>kobai 0.1.0</head>\n<section id="a">first</section><section id="b">second<div><dt>System</dt><dd>X</dd></div>'
        "</section>\n</main><footer>Written by kobai 0.1.0 on 2026-01-01 10:00. No network.</footer>"
    )
    path = tmp_path / "page.html"
    path.write_text(page)
    before = list(of_page(path))
    assert [line.split(":")[0] for line in before] == ["page head", "page a", "page b", "page end"]
    path.write_text(
        page.replace("2026-01-01 10:00", "2027-02-03 04:05").replace("0.1.0", "0.2.0").replace(">X<", ">Y<")
    )
    assert list(of_page(path)) == before
    path.write_text(page.replace("second", "2nd"))
    assert [a == b for a, b in zip(before, of_page(path), strict=True)] == [True, True, False, True]

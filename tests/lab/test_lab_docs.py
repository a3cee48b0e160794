"""The lab's documentation: a page with a figure for every experiment, commands that parse, links that lead somewhere."""

from __future__ import annotations

import doctest
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import typer

from kobai.cli import app, spelt_out
from kobai.lab.experiments.register import EXPERIMENTS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
COMMANDS = typer.main.get_command(app).commands
PAGES = [*sorted((DOCS / "lab").glob("*.md")), DOCS / "tutorial.md"]

_spec = importlib.util.spec_from_file_location("lab_docs", ROOT / "scripts" / "lab_docs.py")
lab_docs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(lab_docs)


def commands() -> list[tuple[str, str]]:
    found = []
    for path in PAGES:
        text = re.sub(r"\\\n\s*", " ", path.read_text(encoding="utf-8"))
        for block in re.findall(r"```(?:sh|console)[^\n]*\n(.*?)```", text, re.S):
            found += [
                (path.name, line.removeprefix("$ ")) for line in block.splitlines() if re.match(r"(\$ )?kobai ", line)
            ]
        found += [(path.name, line.strip()) for line in re.findall(r"^    (kobai .*)$", text, re.M)]
        found += [(path.name, line) for line in re.findall(r"`(kobai lab [^`]*)`", text)]
    return sorted({(name, line) for name, line in found if "…" not in line and "|" not in line})


@pytest.mark.parametrize(("page", "line"), commands(), ids=lambda part: part if part.endswith(".md") else part[:60])
def test_every_command_in_the_pages_parses(page, line):
    name, *arguments = spelt_out(shlex.split(line, comments=True)[1:])
    assert name in COMMANDS, f"{page}: there is no command {name}"
    COMMANDS[name].make_context(name, arguments)


def test_an_unknown_option_would_be_noticed():
    with pytest.raises(Exception, match=r"No such option: --colour"):
        COMMANDS["report"].make_context("report", ["x", "--colour"])


@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_every_experiment_has_a_page_and_a_small_figure(name):
    experiment = EXPERIMENTS[name]
    text = (DOCS / "lab" / f"{name}.md").read_text(encoding="utf-8")
    for said in (experiment.title, experiment.claim, experiment.source, "```text", "\n> ", f"kobai lab {name}"):
        assert said in text, said
    figure = re.search(r"!\[(.+)\]\((\.\./figures/.+\.png)\)", text)
    assert figure is not None
    assert len(figure[1]) > 40  # what it shows, in words
    content = (DOCS / "lab" / figure[2]).read_bytes()
    assert content[:4] == b"\x89PNG"
    assert len(content) < 100_000
    assert name in lab_docs.FORMULAS


def test_the_index_is_up_to_date():
    assert (DOCS / "lab" / "README.md").read_text(encoding="utf-8") == lab_docs.index(), (
        "run: python scripts/lab_docs.py"
    )


def test_the_page_of_a_run_is_the_committed_one_but_for_its_numbers():
    """What a page takes from the code, rather than from a run, is that of the code."""
    from kobai.lab.experiments.base import Settings
    from kobai.lab.experiments.register import run

    result = run("activations", Settings(quick=True))
    made = lab_docs.page(EXPERIMENTS["activations"], result, full=False)
    assert made == (DOCS / "lab" / "activations.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


def test_the_tutorials_program_runs():
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    failed, tried = doctest.testfile(str(DOCS / "tutorial.md"), module_relative=False)
    assert tried > 8
    assert not failed


def test_the_tutorial_tells_of_a_net_that_does_not_train_and_of_one_that_does():
    blocks = lab_docs.BLOCK.findall((DOCS / "tutorial.md").read_text(encoding="utf-8"))
    assert [command.split()[1] for _, command, _ in blocks] == (
        "train diagnose diagnose train diagnose train compare report".split()
    )
    first, _, treated, second, _, third, *_ = (output for _, _, output in blocks)
    for output, low, high in ((first, 0, 0.2), (second, 0, 0.2), (third, 0.9, 1)):
        assert low <= float(re.search(r"test accuracy ([\d.]+)", output)[1]) <= high
    assert "healthy now" in treated

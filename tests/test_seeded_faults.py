"""The list of seeded faults fits the sources: every text that it replaces is there once, and the tests that it names are."""

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("seeded_faults", ROOT / "scripts" / "seeded_faults.py")
    module = sys.modules["seeded_faults"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["seeded_faults"]


def test_every_fault_applies(script):
    faults = script.listed()
    assert len(faults) >= 60
    for fault in faults:
        for path, text in script.changed(fault.edits, ROOT).items():
            try:
                ast.parse(text)
            except SyntaxError as error:
                pytest.fail(f"{fault.name}: {path.name} is no Python any more: {error}")
            assert text != path.read_text(), fault.name
        for test in fault.tests:
            assert (ROOT / test.split()[0]).is_file(), f"{fault.name}: there is no {test.split()[0]}"


def test_a_text_that_is_not_there_once_is_refused(script):
    edit = script.Edit("x.py", "a = 1", "a = 2")
    assert edit.applied("a = 1\nb = 1\n") == "a = 2\nb = 1\n"
    for text in ("b = 1", "a = 1\na = 1\n"):
        with pytest.raises(ValueError, match=r"x\.py: expected this text once"):
            edit.applied(text)


def test_a_fault_is_in_the_tree_only_while_its_tests_run(script, tmp_path):
    file = tmp_path / "src" / "kobai" / "x.py"
    file.parent.mkdir(parents=True)
    file.write_text("a = 1\n")
    seen = script.with_edits([script.Edit("x.py", "1", "2"), script.Edit("x.py", "2", "3")], tmp_path, file.read_text)
    assert (seen, file.read_text()) == ("a = 3\n", "a = 1\n")


def test_faults_of_one_text_are_in_different_groups(script, tmp_path):
    file = tmp_path / "src" / "kobai" / "x.py"
    file.parent.mkdir(parents=True)
    file.write_text("a = 1\nb = 1\n")
    edits = {"one": ("a = 1", "a = 2"), "two": ("a = 1", "a = 3"), "three": ("b = 1", "b = 2")}
    faults = [script.Fault(name, "", (script.Edit("x.py", *texts),), ()) for name, texts in edits.items()]
    assert [[fault.name for fault in group] for group in script.together(faults, tmp_path)] == [
        ["one", "three"],
        ["two"],
    ]


def test_what_was_not_caught_is_said(script):
    fault = script.Fault("lost", "grid too small", (script.Edit("x.py", "", ""),), ())
    rows = [(fault, script.Outcome("", "", 1.0)), (fault, script.Outcome("gpu/test_x.py::test_y[a|b]", "", 1.0))]
    assert script.table(rows).splitlines()[2:] == [
        "| lost | grid too small | `x.py` | **not caught** |",
        "| lost | grid too small | `x.py` | `gpu/test_x.py::test_y[a/b]` |",
    ]

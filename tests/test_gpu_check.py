"""``scripts/gpu_check.py`` as far as it goes without a device: its steps, how it goes on, repros, and the report it writes."""

import json
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import kobai

SCRIPTS = Path(__file__).parent.parent / "scripts"

pytest_plugins = ["pytester"]


@pytest.fixture
def gpu_check(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return SimpleNamespace(**runpy.run_path(str(SCRIPTS / "gpu_check.py")))


def called(tmp_path, *arguments, **environment):
    return subprocess.run(
        [sys.executable, str(SCRIPTS / "gpu_check.py"), *arguments],
        capture_output=True,
        text=True,
        env={"PATH": str(tmp_path), **environment},
        cwd=tmp_path,
    )


# --- the command ------------------------------------------------------------------------------------------------------


def test_without_a_driver_it_says_so_and_touches_nothing(tmp_path):
    done = called(tmp_path)
    assert done.returncode == 1
    assert "no NVIDIA driver" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--minutes", "0"], "must be above 0"), (["--steps", "nothing"], "none is called 'nothing'")],
)
def test_wrong_arguments(tmp_path, arguments, words):
    done = called(tmp_path, *arguments)
    assert (done.returncode, words in done.stderr) == (2, True)


def test_the_list_of_steps(tmp_path, gpu_check):
    names = [step.name for step in gpu_check.steps()]
    listed = called(tmp_path, "--list")
    assert [line[:52].strip() for line in listed.stdout.splitlines()] == names
    assert len(set(names)) == len(names)
    order = ["facts", "kernel", "eager step", "captured step", "device words", "parity in float64", "sixteen bits"]
    order += ["several devices", "gpu suite", "benchmarks in fp32"]
    assert [name for name in names if name in order] == order


def test_every_step_names_what_is_there(gpu_check):
    probes = runpy.run_path(str(SCRIPTS / "gpu_probes.py"))["PROBES"]
    experiments = runpy.run_path(str(SCRIPTS / "gpu_experiments.py"))["EXPERIMENTS"]
    by_kind = {kind: [step.arguments for step in gpu_check.steps() if step.kind == kind] for kind in gpu_check.KINDS}
    assert by_kind["probe"] == [(name,) for name in probes]
    assert by_kind["question"] == [(name,) for name in experiments]
    assert all(function.__doc__ for function in (*probes.values(), *experiments.values()))
    paths = [argument for arguments in by_kind["tests"] for argument in arguments if "/" in argument]
    assert paths
    assert all((SCRIPTS.parent / path).exists() for path in paths)
    cases = runpy.run_path(str(SCRIPTS.parent / "benchmarks" / "cases.py"))["CUDA"]
    assert set(gpu_check.CASES.split(",")) <= set(cases)


# --- going on ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def call(gpu_check, tmp_path, monkeypatch):
    """``call(...)``: one call of the command, in which steps do what ``behave[name]`` says; the steps that were done."""
    functions = gpu_check.main.__globals__
    three = [gpu_check.probe("facts", "all", needs=()), gpu_check.probe("kernel", "all", needs=("facts",))]
    three += [gpu_check.Step("speed", "table", "peers", ("fp32",), 100, part="benchmarks")]
    monkeypatch.setitem(functions, "steps", lambda: three)
    monkeypatch.setitem(functions, "sources", lambda: call.source)
    done = []

    def run(check, step, limit):
        done.append((step.name, limit))
        return {"result": call.behave.get(step.name, "passed"), "answer": "so"}

    for kind in list(gpu_check.KINDS):
        monkeypatch.setitem(gpu_check.KINDS, kind, run)

    def call(*arguments):
        done.clear()
        check = gpu_check.Check(gpu_check.parsed(["--out", str(tmp_path / "report.md"), *arguments]))
        check.run()
        call.state = check.state["steps"]
        return list(done)

    call.behave, call.source, call.state = {}, "a", {}
    return call


def names(done):
    return [name for name, _ in done]


def test_what_is_done_is_not_done_again_but_asked_for_or_afresh(call):
    assert names(call()) == ["facts", "kernel", "speed"]
    assert call() == []
    assert names(call("--steps", "kern")) == ["kernel"]
    assert names(call("--fresh")) == ["facts", "kernel", "speed"]


def test_what_failed_is_tried_again_once_the_sources_have_changed(call):
    call.behave = {"facts": "passed", "kernel": "not there", "speed": "failed"}
    call()
    assert call() == []
    call.source, call.behave = "b", {}
    assert names(call()) == ["kernel", "speed"]
    assert call.state["facts"]["source"] == "a"


def test_nothing_is_tried_that_rests_on_what_failed(call):
    call.behave = {"facts": "failed"}
    assert names(call()) == ["facts"]
    assert call.state["kernel"]["result"] == "blocked"
    call.behave, call.source = {}, "b"
    assert names(call()) == ["facts", "kernel", "speed"]


def test_it_stops_in_order_when_time_is_up(call):
    assert call("--minutes", "0.1") == []
    ((name, limit), *_) = call("--minutes", "0.5")
    assert (name, 20 < limit <= 30) == ("facts", True)


def test_a_step_cut_off_by_the_call_goes_on_in_the_next(call):
    call.behave = {"kernel": "stopped"}
    call("--minutes", "0.5")
    assert call.state["kernel"]["result"] == "to be continued"
    assert names(call()) == ["kernel"]
    assert call.state["kernel"]["result"] == "stopped"  # by its own limit now


def test_simulation_knows_no_limits(call):
    assert {limit for _, limit in call("--simulate")} == {float("inf")}


# --- tests, written down one by one -----------------------------------------------------------------------------------

SUITE = """
import numpy as np
import pytest

@pytest.mark.parametrize("k", range(4))
def test_numbers(k):
    x = np.arange(3.0) + k
    if x.sum() != 3:
        raise ValueError("not three")

def test_left_out():
    pytest.skip("for a reason")

def test_fine():
    pass
"""


@pytest.fixture
def plugin(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(SCRIPTS))


def recorded(pytester, *arguments):
    folder = pytester.path / "kept"
    folder.mkdir(exist_ok=True)
    (pytester.path / "tests").mkdir(exist_ok=True)
    (pytester.path / "tests" / "test_it.py").write_text(SUITE)
    pytester.runpytest_subprocess(
        "-p", "gpu_record", "--record", folder, "--source", "s", "-p", "no:randomly", *arguments
    )
    lines = [json.loads(line) for line in (folder / "tests.jsonl").read_text().splitlines()]
    return folder, {line["test"].rpartition("::")[2]: line for line in lines}


def test_results_and_repros_are_on_disk(plugin, pytester):
    folder, found = recorded(pytester)
    assert Counter(test["outcome"] for test in found.values()) == {"failed": 3, "passed": 2, "skipped": 1}
    assert {test["source"] for test in found.values()} == {"s"}
    assert "for a reason" in found["test_left_out"]["why"]
    kept = [test["repro"] for test in found.values() if "repro" in test]
    assert len(kept) == 2  # of one error in one function no more
    text = (folder / "repros" / kept[0]).read_text()
    for part in (
        "test_numbers[1]'",
        "- seed: ",
        "- k = 1",
        "x = np.arange(3.0) + k",
        "ValueError: not three",
        "float64[3]",
    ):
        assert part in text
    arrays = np.load((folder / "repros" / kept[0]).with_suffix(".npz"))
    assert arrays["x"].tolist() == [1, 2, 3]


def test_what_is_done_is_left_out(plugin, pytester):
    _, found = recorded(pytester)
    done = pytester.path / "done.txt"
    done.write_text("\n".join(test["test"] for name, test in found.items() if name != "test_numbers[2]"))
    (pytester.path / "kept" / "tests.jsonl").unlink()
    assert recorded(pytester, "--done", done)[1].keys() == {"test_numbers[2]"}


def test_a_process_that_has_lost_its_device_ends(plugin, pytester):
    pytester.makepyfile(
        cupy="""
        class CUDARuntimeError(Exception): ...
        class runtime:
            broken = False
            @staticmethod
            def deviceSynchronize():
                if runtime.broken:
                    raise CUDARuntimeError("illegal access")
        class cuda: runtime = runtime
        """,
        test_it="""
        import cupy
        def test_good(): ...
        def test_breaks(): cupy.cuda.runtime.broken = True
        def test_after(): ...
        """,
    )
    done = pytester.runpytest_subprocess("-p", "gpu_record", "--record", pytester.path, "test_it.py")
    assert done.ret == 70
    lines = [json.loads(line) for line in (pytester.path / "tests.jsonl").read_text().splitlines()]
    outcomes = [(line["test"].rpartition("::")[2], line["outcome"]) for line in lines]
    assert outcomes == [("test_good", "passed"), ("test_breaks", "passed"), ("test_breaks", "failed")]


def test_the_last_word_on_a_test(gpu_check, tmp_path):
    check = gpu_check.Check(gpu_check.parsed(["--out", str(tmp_path / "report.md")]))
    lines = [
        {"test": "a", "outcome": "passed", "source": "1"},
        {"test": "a", "outcome": "failed", "source": "1"},
        {"test": "a", "outcome": "passed", "source": "1"},
        {"test": "b", "outcome": "failed", "source": "1"},
        {"test": "b", "outcome": "passed", "source": "2"},
        {"test": "c", "outcome": "failed", "source": "1"},
        {"test": "c", "outcome": "failed", "source": "1", "alone": "passed"},
    ]
    check.tests.write_text("\n".join(map(json.dumps, lines)))
    found = {name: gpu_check.verdict(test) for name, test in check.results().items()}
    assert found == {"a": "failed", "b": "passed", "c": "failed beside others only"}


def test_what_a_program_died_of(gpu_check):
    raised = "Traceback\nOSError: first\n\nduring which\n\nAssertionError: \nNot equal\n x: 1\n"
    assert gpu_check.error_in(raised) == "AssertionError: Not equal x: 1"
    assert gpu_check.error_in("well\nSegmentation fault\n") == "Segmentation fault"
    assert gpu_check.error_in("") == "nothing was printed"


# --- the report -------------------------------------------------------------------------------------------------------


def test_the_report(gpu_check):
    def step(result, answer, **more):
        return {"result": result, "answer": answer, "seconds": 2, "commit": "abc", "source": "s", **more}

    row = {
        "case": "S",
        "title": "S: small",
        "left out": {"torch-graph": "FAILED: boom"},
        "microseconds": {"kobai": [1, 100.4, 3], "torch": [1, 1234, 2]},
        "fastest peer": {"with": "torch", "ratio": 12.29},
        "own memory": {"kobai": 3 << 20, "jax": 5 << 20},
    }
    state = {
        "simulated": False,
        "commit": "abc",
        "source": "s",
        "spent": {},
        "steps": {
            "facts": step("passed", "there", figures={"devices": ["a GPU"], "python": "3.12"}),
            "kernel": step("passed", "compiles"),
            "eager step": step("failed", "a | b", repro="eager-step.md"),
            "question: epilogues": step("passed", "all there", figures={"BIAS": "yes"}),
            "benchmarks in fp32": step("passed", "1 case", peers={"cases": [row], "left out": {"jax": "no jax here"}}),
        },
    }
    state["steps"]["kernel"] |= {"commit": "old", "source": "r"}
    tests = {
        "tests/t.py::a": {"outcome": "failed", "why": "1 != 2", "repro": "a.md", "alone": "failed"},
        "tests/t.py::b": {"outcome": "skipped", "why": "Skipped: needs two devices"},
        "tests/t.py::c": {"outcome": "passed"},
    }
    text = gpu_check.report(state, tests)
    for part in (
        "# Kobai on a GPU",
        "| kernel | ✓ (at old, sources r) | 2 | everything | compiles |",
        "| eager step | ✗ FAILED | 2 | training | a \\| b |",
        "| captured step | not reached |",
        "Tests in all: 1 failed, 1 passed, 1 skipped.",
        "- **eager step**: a | b → repros/eager-step.md",
        "- `tests/t.py::a` (fails alone too): 1 != 2 → repros/a.md",
        "- 1: needs two devices",
        "- **epilogues**: all there",
        "| S: small | fp32 | 100 | – | 1,234 | – | – | – | 12.29 | 3 / – / 5 |",
        "- left out: JAX, jit, fp32: no jax here",
        "- left out: PyTorch, CUDA graph, S in fp32: FAILED: boom",
    ):
        assert part in text, part
    embedded = json.loads(text[text.index("```json") + 7 : text.rindex("```")])
    assert embedded["steps"] == state["steps"]
    assert "tests/t.py::c" not in embedded["tests"]
    assert "meaningless" not in text
    assert gpu_check.report(state | {"simulated": True}, tests).count("meaningless") == 3  # head, answers, benchmarks


@pytest.fixture
def check(gpu_check, tmp_path, monkeypatch):
    """A call on the simulated device whose programs print nothing and end well; ``check.ran``: their command lines."""
    made = gpu_check.Check(gpu_check.parsed(["--out", str(tmp_path / "report.md"), "--simulate"]))
    made.ran = []
    monkeypatch.setattr(made, "process", lambda name, command, limit, **more: (made.ran.append(command), (0, ""))[1])
    return made


def named(gpu_check, name):
    (step,) = (step for step in gpu_check.steps() if step.name == name)
    return step


def test_what_needs_a_device_is_rehearsed_without_it(gpu_check, check):
    found = gpu_check.KINDS["sanitizer"](check, named(gpu_check, "memcheck of the steps"), 10)
    assert (found["result"], "compute-sanitizer itself is not asked" in found["answer"]) == ("passed", True)
    assert [command[-2:] for command in check.ran] == [
        ["scripts/gpu_probes.py", "eager_step"],
        ["scripts/gpu_probes.py", "captured_step"],
    ]
    found = gpu_check.KINDS["peers"](check, named(gpu_check, "benchmarks in tf32"), 10)
    assert set(found["peers"]["left out"]) == {"torch", "torch-fused", "torch-graph", "jax"}
    check.state["steps"]["benchmarks in tf32"] = {**found, "source": check.source, "seconds": 1}
    assert "- left out: JAX, jit, tf32: has no device" in check.text()


def test_a_device_without_the_sanitizer(gpu_check, check, monkeypatch):
    check.simulated = False
    monkeypatch.setenv("PATH", "")
    found = gpu_check.KINDS["sanitizer"](check, named(gpu_check, "racecheck of the steps"), 10)
    assert (found["result"], check.ran) == ("not there", [])


def test_probes_say_what_is_not_there(monkeypatch):
    probes = SimpleNamespace(**runpy.run_path(str(SCRIPTS / "gpu_probes.py")))
    monkeypatch.setattr(kobai.cuda, "device_count", lambda: 1)
    with pytest.raises(probes.Absent, match="one device"):
        probes.PROBES["several_devices"]()

#!/usr/bin/env python3
"""The first hour on a CUDA device, in one command: ``python3 scripts/gpu_check.py [--quick] [--minutes M] [--fresh]``.

Checks, at most 8 minutes, ordered by what they unblock; then benchmarks beside PyTorch and JAX, at most 8 minutes. Each step
is a process of its own with a time limit of its own. What is done stands in a state file beside the report, so that the next
call goes on where this one stopped: after ``--minutes``, after Ctrl-C, or because something was mended (steps that failed run
again once the sources have changed). Whatever fails leaves a repro. ``--simulate`` does the same on the simulated device
(tests/simulator), where times mean nothing.

Where the running Python has CuPy and pytest, it is used as it is; otherwise ``.venv`` is set up, for the simulated device
``.venv-gpu``.
"""

import argparse
import datetime
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import _setup
from _setup import ROOT, live_in, prepare

PART = 8 * 60
"""Seconds for the checks, and again for the benchmarks, unless ``--minutes`` says how long this call may take."""
ENOUGH = 15
"""Seconds under which no step is begun."""
ALONE, ALONE_LIMIT = 40, 60
"""So many tests that failed beside others are tried again by themselves, for so many seconds."""


CASES = "S,S+BN,M',L',CNN,transformer,RNN"
"""Of benchmarks/cases.py."""


@dataclass(frozen=True)
class Step:
    """One thing to try, and what rests on it."""

    name: str
    unblocks: str
    kind: str
    """Of :data:`KINDS`: how it is run."""
    arguments: tuple[str, ...]
    limit: int
    """Seconds."""
    needs: tuple[str, ...] = ("facts", "kernel")
    part: str = "checks"
    quick: bool = True
    """Whether it is done under ``--quick``."""


def probe(name, unblocks, limit=60, needs=("facts", "kernel")):
    """A step of gpu_probes.py."""
    return Step(name.replace("_", " "), unblocks, "probe", (name,), limit, needs)


def question(name):
    """A step of gpu_experiments.py."""
    return Step(f"question: {name.replace('_', ' ')}", "0008", "question", (name,), 60)


def steps():
    """All steps in order."""
    gpu = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "tests/gpu").glob("test_*.py"))]
    first = ["devices", "kernels", "device_faults", "same_numbers"]
    parity, training = "tests/gpu/test_parity.py", ("tests/gpu/test_training.py", "tests/gpu/test_graphs.py")
    return [
        probe("facts", "everything", needs=()),
        probe("kernel", "everything", 90, ("facts",)),
        probe("eager_step", "training"),
        probe("captured_step", "captured training, every figure below"),
        probe("device_words", "errors that name their cause"),
        Step("devices and kernels", "all tests", "tests", tuple(f"tests/gpu/test_{name}.py" for name in first), 90),
        Step("parity in float64", "every primitive", "tests", (parity, "-k", "float64 and row"), 120),
        Step("training parity", "programs of users", "tests", training, 120, quick=False),
        probe("sixteen_bits", "mixed precision"),
        probe("several_devices", "cuda:1, data parallel"),
        Step("parity in full", "every primitive", "tests", (parity,), 240, quick=False),
        Step("gpu folder", "the suite", "tests", tuple(path for path in gpu if path != parity), 240, quick=False),
        Step("gpu suite", "trust", "tests", ("tests",), 360, quick=False),
        *(question(name) for name in questions()),
        *(
            Step(f"benchmarks in {kind}", "the README's table", "peers", (kind,), 300, part="benchmarks", quick=False)
            for kind in ("fp32", "tf32", "bf16")
        ),
        *(
            Step(f"{tool} of the steps", "trust", "sanitizer", (tool,), 120, quick=False)
            for tool in ("memcheck", "racecheck")
        ),
    ]


def questions():
    """Names of the experiments, in the order of their file."""
    text = (ROOT / "scripts" / "gpu_experiments.py").read_text(encoding="utf-8")
    return re.findall(r"^        (\w+),$", text[text.index("EXPERIMENTS = {") :], re.MULTILINE)


def main(arguments=None):
    """Do what is left to do, write the report, and fail if something did."""
    options = parsed(arguments)
    driver = None if options.simulate else driver_facts()
    python = usable_python(driver)
    if Path(python).absolute() != Path(sys.executable).absolute():
        os.execv(python, [python, str(Path(__file__).resolve()), *(sys.argv[1:] if arguments is None else arguments)])
    check = Check(options, driver)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        check.run()
    except KeyboardInterrupt:
        check.say("interrupted; the next call goes on")
    check.write()
    sys.exit(check.verdict())


def parsed(arguments):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="no benchmarks; of the tests the first ones only")
    parser.add_argument("--minutes", type=float, help="stop in order after so many; the next call goes on")
    parser.add_argument("--fresh", action="store_true", help="forget what earlier calls did")
    parser.add_argument(
        "--steps", help="only these, done already or not: parts of their names, with commas between them"
    )
    parser.add_argument("--list", action="store_true", help="name the steps, and do nothing")
    parser.add_argument(
        "--simulate", action="store_true", help="on the simulated device (tests/simulator), without limits"
    )
    parser.add_argument("--jobs", type=int, help="processes of pytest-xdist; default: half the cores, at most 8")
    parser.add_argument("--out", type=Path, help="the report; state, repros and logs lie beside it")
    options = parser.parse_args(arguments)
    if options.minutes is not None and options.minutes <= 0:
        parser.error("--minutes must be above 0")
    if options.list:
        for step in steps():
            print(f"{step.name:52} {step.limit:4} s   unblocks: {step.unblocks}")
        sys.exit()
    if options.steps and not chosen(options.steps):
        parser.error(f"--steps: none is called {options.steps!r}; --list names them")
    options.out = options.out or ROOT / "build" / ("gpu-simulated" if options.simulate else "gpu-check") / "report.md"
    options.out = options.out.absolute()
    return options


def chosen(names):
    """The steps whose names contain one of ``names``."""
    return [step for step in steps() if any(name.strip() in step.name for name in names.split(","))]


# --- what is here -----------------------------------------------------------------------------------------------------


def driver_facts():
    """What nvidia-smi says; ends the program with a sentence where there is no driver."""
    smi = shutil.which("nvidia-smi")
    if smi is None:
        sys.exit(
            "gpu_check: no NVIDIA driver here (nvidia-smi is not found); this check needs a machine with a CUDA device. "
            "--simulate does without one."
        )
    done = subprocess.run([smi], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"gpu_check: the NVIDIA driver reports no device: {(done.stdout + done.stderr).strip()}")
    found = re.search(r"CUDA Version:\s*(\d+)\.", done.stdout)
    return {"cuda": int(found[1]) if found else 12, "nvidia-smi": done.stdout}


def usable_python(driver):
    """The running interpreter if it has what is needed, else one of our own."""
    if all(importlib.util.find_spec(name) for name in ("cupy", "pytest", "numpy", "rich")):
        return sys.executable
    cuda = {"gpu-proof"} if driver is None else {"cuda13" if driver["cuda"] >= 13 else "cuda12"}
    if driver is None:
        live_in(".venv-gpu")
    prepare({"data", "dev", "plot", "cpu"} | cuda)
    return str(_setup.PYTHON)


def commit():
    """The commit that is checked, with a + if files differ from it."""
    try:
        ask = ["git", "-C", str(ROOT)]
        name = subprocess.run([*ask, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
        changed = subprocess.run(
            [*ask, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True
        ).stdout
        return name.strip() + ("+" if changed.strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def sources():
    """A fingerprint of everything that a step reads."""
    digest = hashlib.sha256()
    for folder in ("src", "tests", "scripts", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".h", ".cu") and "__pycache__" not in path.parts:
                digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


# --- doing it ---------------------------------------------------------------------------------------------------------


class Check:
    """One call: the options, and the state that outlives it."""

    def __init__(self, options, driver=None):
        from rich.console import Console

        self.options, self.simulated = options, options.simulate
        self.home, self.console = options.out.parent, Console(stderr=True, highlight=False)
        self.home.mkdir(parents=True, exist_ok=True)
        self.file, self.tests = self.home / "state.json", self.home / "tests.jsonl"
        if options.fresh:
            for path in (self.file, self.tests, *(self.home / name for name in ("repros", "logs", "alone"))):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        (self.home / "logs").mkdir(exist_ok=True)
        self.source = sources()
        self.resumed = self.file.exists()
        self.state = json.loads(self.file.read_text(encoding="utf-8")) if self.resumed else {"steps": {}, "spent": {}}
        self.state |= {"simulated": self.simulated, "commit": commit(), "source": self.source, "driver": driver}
        self.started = time.monotonic()
        self.end = self.started + 60 * options.minutes if options.minutes else float("inf")
        self.again, self.tried = False, set()

    def environment(self, command):
        """What a program sees: Kobai from here, kernels kept in the checkout, under ``--simulate`` the simulated device."""
        paths = [ROOT / "src", ROOT / "scripts", os.environ.get("PYTHONPATH")]
        found = {**os.environ, "PYTHONUNBUFFERED": "1"}
        if self.simulated:
            found["KOBAI_SIMULATE_GPU"] = "1"
            if "pytest" not in command:  # there tests/conftest.py sees to it
                paths[:0] = [ROOT / "scripts" / "simulated", ROOT / "tests"]
        else:
            found.setdefault("CUPY_CACHE_DIR", str(ROOT / "build" / "cupy-kernels"))
        return found | {"PYTHONPATH": os.pathsep.join(str(path) for path in paths if path)}

    def say(self, text):
        """A line on the screen."""
        self.console.print(text, markup=False, soft_wrap=True)

    def run(self):
        """The steps that are asked for or left, as long as there is time.

        First the checks and the benchmarks, each with its share of time, then whatever the shares have left undone – unless
        this is the first call, and nobody said how long it may take.
        """
        if self.options.steps:
            for step in chosen(self.options.steps):
                self.do(step, again=True)
            return
        rounds = [("checks", PART), ("benchmarks", PART), (None, None)]
        for part, share in rounds:
            if part is None and not (self.resumed or self.options.minutes or self.simulated):
                break
            for step in steps():
                if part in (None, step.part) and not (self.options.quick and not step.quick):
                    left = float("inf") if share is None or self.simulated else share - self.state["spent"].get(part, 0)
                    if not self.do(step, left):
                        break

    def do(self, step, share=float("inf"), again=False):
        """One step, unless it is done or hopeless; False if there is no time for it."""
        before = self.state["steps"].get(step.name)
        if not again and before and not self.worth_repeating(step.name, before):
            return True
        if blocked := [name for name in step.needs if self.state["steps"].get(name, {}).get("result") == "failed"]:
            self.note(step, {"result": "blocked", "answer": f"rests on {', '.join(blocked)}", "seconds": 0})
            return True
        left = min(share, self.end - time.monotonic())
        if left < ENOUGH:
            return False
        limit = left if self.simulated else min(step.limit, left)
        self.again = again
        self.say(f"== {step.name} …")
        start = time.monotonic()
        found = KINDS[step.kind](self, step, limit)
        found["seconds"] = round(time.monotonic() - start, 1)
        if found["result"] == "stopped" and limit == left:  # by this call's time, not by the step's
            found["result"] = "to be continued"
        self.state["spent"][step.part] = self.state["spent"].get(step.part, 0) + found["seconds"]
        self.note(step, found)
        return True

    def worth_repeating(self, name, before):
        """Whether a step is to be done again: time cut it off, or in an earlier call it failed with other sources."""
        if name in self.tried:
            return before["result"] == "to be continued"
        unfinished = before["result"] in ("to be continued", "stopped", "blocked")
        return unfinished or (before["result"] in ("failed", "not there") and before["source"] != self.source)

    def note(self, step, found):
        """Keep what came out, and say it."""
        self.tried.add(step.name)
        self.state["steps"][step.name] = {**found, "source": self.source, "commit": self.state["commit"]}
        self.say(f"   {found['result']} after {found['seconds']} s: {found.get('answer', '')}")
        self.write()

    # --- processes

    def process(self, name, command, limit, **more):
        """(exit code, output) of a Python program. After the limit it is asked to end, then made to; the code is 124."""
        log = self.home / "logs" / f"{re.sub(r'[^a-z0-9]+', '-', name.lower())}.txt"
        own = {"start_new_session": True} if os.name != "nt" else {}
        with log.open("w", encoding="utf-8") as file:
            child = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**self.environment(command), **more},
                stdout=file,
                stderr=subprocess.STDOUT,
                **own,
            )
            try:
                code = child.wait(None if limit == float("inf") else limit)
            except subprocess.TimeoutExpired:
                code = 124
                end(child)
            except BaseException:
                end(child)
                raise
        return code, log.read_text(encoding="utf-8", errors="replace")

    def program(self, step, script, limit, **more):
        """A program that prints its answer as JSON in its last line."""
        command = [sys.executable, f"scripts/{script}", *step.arguments]
        code, output = self.process(step.name, command, limit, **more)
        if code == 124:
            return {"result": "stopped", "answer": f"no answer within {limit:.0f} s"}
        answers = [line for line in output.splitlines() if line.startswith("{")]
        if code or not answers:
            shown = " ".join(["python", *command[1:]])
            return {"result": "failed", "answer": error_in(output), "repro": self.keep(step.name, shown, output)}
        found = json.loads(answers[-1])
        if "absent" in found:
            return {"result": "not there", "answer": found["absent"]}
        return {"result": "passed", "answer": found.pop("answer"), "figures": found}

    def keep(self, name, command, output):
        """A repro of a program that failed: its command, seed, file, and what it printed."""
        folder = self.home / "repros"
        folder.mkdir(exist_ok=True)
        file = f"{re.sub(r'[^a-z0-9]+', '-', name.lower())}.md"
        simulated = (
            "KOBAI_SIMULATE_GPU=1 PYTHONPATH=scripts/simulated:src:tests" if self.simulated else "PYTHONPATH=src"
        )
        text = f"# {name}\n\n    {simulated} {command}\n\n- seed: set in the script\n\n```\n{output[-20_000:]}\n```\n"
        (folder / file).write_text(text, encoding="utf-8")
        return file

    def probe(self, step, limit):
        return self.program(step, "gpu_probes.py", limit)

    def question(self, step, limit):
        return self.program(step, "gpu_experiments.py", limit)

    def sanitizer(self, step, limit):
        """compute-sanitizer over the probes' training steps: accesses out of bounds, or races within a block."""
        tool = None if self.simulated else shutil.which("compute-sanitizer")
        if tool is None and not self.simulated:
            return {"result": "not there", "answer": "compute-sanitizer is not on the PATH"}
        command = [tool, "--tool", *step.arguments, "--error-exitcode", "9"] if tool else []
        command += [sys.executable, "scripts/gpu_probes.py"]
        for name in ("eager_step", "captured_step"):
            code, output = self.process(f"{step.name} {name}", [*command, name], limit / 2)
            if code:
                said = [line for line in output.splitlines() if line.startswith("=========")] or [output[-300:]]
                result = "stopped" if code == 124 else "failed"
                return {
                    "result": result,
                    "answer": said[0][:300],
                    "repro": self.keep(step.name, " ".join(command), output),
                }
        answer = "nothing found" if tool else "the steps end; compute-sanitizer itself is not asked, it needs a device"
        return {"result": "passed", "answer": answer}

    def suite(self, step, limit):
        """Tests, with those left out that earlier steps and calls have done."""
        until = time.monotonic() + limit
        done = [] if self.again else self.finished()
        code = self.pytest(step.name, step.arguments, self.home, done, until, self.jobs())
        mine = tuple(argument for argument in step.arguments if "/" in argument or argument == "tests")
        failed = [
            name for name, test in self.results().items() if test["outcome"] == "failed" and name.startswith(mine)
        ]
        self.alone([name for name in failed if "alone" not in self.results()[name]], until)
        ran = {name: test for name, test in self.results().items() if name.startswith(mine)}
        count = Counter(verdict(test) for test in ran.values())
        answer = ", ".join(f"{number} {what}" for what, number in sorted(count.items(), key=lambda pair: pair[0]))
        if code == 124:
            return {"result": "stopped", "answer": f"{answer}; not all of them ran", "counts": count}
        if code not in (0, 1, 5):
            log = f"pytest ended with code {code}; see logs"
            return {"result": "failed", "answer": f"{answer}; {log}", "counts": count}
        return {"result": "failed" if count["failed"] else "passed", "answer": answer or "no tests", "counts": count}

    def jobs(self):
        """How many processes of tests at a time."""
        if importlib.util.find_spec("xdist") is None:
            return 0
        return min(8, (os.cpu_count() or 2) // 2) if self.options.jobs is None else self.options.jobs

    def pytest(self, name, arguments, folder, done, until, jobs, **more):
        """Run pytest until it has seen all tests or time is up; a process that lost its device is followed by another."""
        file = self.home / "done.txt"
        flags = ["-m", "gpu and not slow" if self.simulated else "gpu", "-q", "--tb=short", "-p", "no:cacheprovider"]
        flags += ["-p", "gpu_record", "--record", str(folder), "--source", self.source, "--done", str(file)]
        flags += ["--continue-on-collection-errors"]
        if jobs:
            flags += [f"-n{jobs}", "--dist=worksteal", "--max-worker-restart=50"]
        if importlib.util.find_spec("pytest_timeout") is not None and not self.simulated:
            flags += ["--timeout=90", "--timeout-method=thread"]  # a kernel that hangs ends its process, not the step
        while True:
            file.write_text("\n".join(done), encoding="utf-8")
            command = [sys.executable, "-m", "pytest", *flags, *arguments]
            code, _ = self.process(name, command, max(until - time.monotonic(), 1), **more)
            before, done = done, self.finished(folder)
            if code in (0, 1, 2, 5, 124) or len(done) <= len(before):
                return code

    def alone(self, names, until):
        """What failed beside others once more by itself, waiting after each launch, so that the right kernel is blamed."""
        names = [name for name in names if "::" in name][:ALONE]
        if not names or time.monotonic() + ENOUGH > until:
            return
        folder = self.home / "alone"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        until = min(until, time.monotonic() + ALONE_LIMIT)
        self.pytest("alone", names, folder, [], until, 0, CUDA_LAUNCH_BLOCKING="1")
        again = self.results(folder)
        with self.tests.open("a", encoding="utf-8") as file:
            for name in again.keys() & set(names):
                found = self.results()[name] | {"alone": again[name]["outcome"]}
                found |= {"repro": again[name]["repro"]} if "repro" in again[name] else {}
                file.write(json.dumps(found, ensure_ascii=False) + "\n")
        for path in (folder / "repros").glob("*"):
            path.replace(self.home / "repros" / path.name)  # the better ones

    def results(self, folder=None):
        """What each test did last, by name; a test of several reports has failed if one of them says so."""
        found = {}
        file = (folder or self.home) / self.tests.name
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        for line in lines:
            test = json.loads(line)
            before = found.get(test["test"], {})
            same = before.get("source") == test.get("source")
            if before.get("outcome") != "failed" or "alone" in test or not same:
                found[test["test"]] = test
        return found

    def finished(self, folder=None):
        """Names of the tests that need not run again: those that failed do, once the sources have changed."""
        return [
            name
            for name, test in self.results(folder).items()
            if test["outcome"] != "failed" or test["source"] == self.source
        ]

    def peers(self, step, limit):
        """The benchmarks of one precision, case by case; those measured already are left out."""
        (precision,) = step.arguments
        file = self.home / f"peers-{precision}.json"
        if self.state["steps"].get(step.name, {}).get("source") != self.source:
            file.unlink(missing_ok=True)
        sides = "kobai,kobai-eager" if self.simulated else "kobai,kobai-eager,torch,torch-fused,torch-graph,jax"
        command = [sys.executable, "benchmarks/peers.py", "--device", "cuda", "--precision", precision, "--own-memory"]
        command += [
            "--cases",
            CASES,
            "--out",
            str(file),
            "--resume",
            "--sides",
            sides,
            "--rounds",
            "1" if self.simulated else "5",
        ]
        code, output = self.process(step.name, command + ["--tiny"] * self.simulated, limit)
        found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"cases": []}
        if self.simulated:
            found["left out"] = dict.fromkeys(list(SIDES)[2:], "has no device: the simulated one lies beneath CuPy")
        wrong = [
            f"{row['case']}, {side}: {why}"
            for row in found["cases"]
            for side, why in row["left out"].items()
            if why.startswith("FAILED")
        ]
        answer = f"{len(found['cases'])} cases" + (f"; {'; '.join(wrong)}"[:400] if wrong else "")
        result = "stopped" if code == 124 else "failed" if code else "passed"
        more = {"repro": self.keep(step.name, " ".join(["python", *command[1:]]), output)} if result == "failed" else {}
        if result == "failed" and not wrong:
            answer += f"; {error_in(output)}"
        return {"result": result, "answer": answer, "peers": found, **more}

    # --- the report

    def write(self):
        """State and report, each replaced as a whole."""
        for path, text in (
            (self.file, json.dumps(self.state, indent=1, ensure_ascii=False)),
            (self.options.out, self.text()),
        ):
            part = path.with_name(path.name + ".part")
            part.write_text(text, encoding="utf-8")
            part.replace(path)

    def text(self):
        """The report."""
        return report(self.state, self.results())

    def verdict(self):
        """What the command ends with."""
        self.say(f"gpu_check: wrote {self.options.out}")
        done = self.state["steps"]
        asked = [step.name for step in steps() if step.name in done]
        failed = [name for name in asked if done[name]["result"] in ("failed", "stopped")]
        left = [step.name for step in steps() if step.name not in done and not (self.options.quick and not step.quick)]
        if left and not self.options.steps:
            self.say(f"gpu_check: {len(left)} steps are left for the next call: {', '.join(left)}")
        return f"gpu_check: failed: {', '.join(failed)}" if failed else 0


KINDS = {
    "probe": Check.probe,
    "question": Check.question,
    "sanitizer": Check.sanitizer,
    "tests": Check.suite,
    "peers": Check.peers,
}


def end(child):
    """Interrupt a process with all that it started, as Ctrl-C would; what still lives after 15 s is killed."""
    for sign, patience in ((signal.SIGINT, 15), (getattr(signal, "SIGKILL", signal.SIGTERM), 15)):
        try:
            os.killpg(child.pid, sign) if os.name != "nt" else child.kill()
            child.wait(patience)
            return
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            return


def error_in(output):
    """The last exception that a program printed, else its last line."""
    found = [match.start() for match in re.finditer(r"^[\w.]*(Error|Exception)\b", output, re.MULTILINE)]
    text = output[found[-1] :] if found else (output.strip().splitlines() or ["nothing was printed"])[-1]
    return " ".join(text.split())[:300]


def verdict(test):
    """What one test counts as. One that fails only beside others is told apart: it measures what others disturb, or races."""
    if test["outcome"] == "failed" and test.get("alone") == "passed":
        return "failed beside others only"
    return test["outcome"]


# --- what was found ---------------------------------------------------------------------------------------------------

SIGNS = {
    "passed": "✓",
    "failed": "✗ FAILED",
    "stopped": "✗ out of time",
    "blocked": "– blocked",
    "not there": "– not there",
}
SIDES = {
    "kobai": "Kobai, captured",
    "kobai-eager": "Kobai, eager",
    "torch": "PyTorch, eager",
    "torch-fused": "PyTorch, fused optimiser",
    "torch-graph": "PyTorch, CUDA graph",
    "jax": "JAX, jit",
}


def report(state, tests):
    """What a person reads first, the details, the README's table, and everything as JSON."""
    done = state["steps"]
    facts = done.get("facts", {}).get("figures", {})
    where = "the simulated device" if state["simulated"] else ", ".join(facts.get("devices", [])) or "an unknown device"
    lines = [f"# Kobai on {where}", ""]
    lines += [
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC, commit {state['commit']}, sources {state['source']}",
        "",
    ]
    if state["simulated"]:
        lines += [
            "**Simulated: every time below is meaningless, and shapes are shrunk where the device would be measured.**",
            "",
        ]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    count = Counter(verdict(test) for test in tests.values())
    lines += ["", "## Steps", "", "| step | result | s | unblocks | what was found |", "|---|---|---|---|---|"]
    for step in steps():
        found = done.get(step.name)
        if found is None:
            lines.append(f"| {step.name} | not reached | | {step.unblocks} | |")
            continue
        old = "" if found["source"] == state["source"] else f" (at {found['commit']}, sources {found['source']})"
        answer = cell(found.get("answer", ""))
        lines.append(
            f"| {step.name} | {SIGNS.get(found['result'], found['result'])}{old} | {found['seconds']} | ",
        )
        lines[-1] += f"{step.unblocks} | {answer} |"
    lines += ["", f"Tests in all: {', '.join(f'{n} {what}' for what, n in sorted(count.items())) or 'none'}.", ""]
    lines += [*failures(done, tests), *skips(tests), *answers(state), *benchmarks(state)]
    everything = {**state, "tests": {name: test for name, test in tests.items() if test["outcome"] != "passed"}}
    lines += ["## All of it", "", "```json", json.dumps(everything, indent=1, ensure_ascii=False), "```", ""]
    return "\n".join(lines)


def cell(text):
    """Text in a cell of a table."""
    return " ".join(str(text).replace("|", "\\|").split())


def failures(done, tests):
    """Each failure in a line, with its repro."""
    lines = []
    for name, found in done.items():
        if found["result"] in ("failed", "stopped") and "counts" not in found:
            lines.append(f"- **{name}**: {found.get('answer', '')}{kept(found)}")
    for name, test in tests.items():
        if test["outcome"] == "failed":
            told = {"passed": " (passes alone)", "failed": " (fails alone too)"}.get(test.get("alone"), "")
            lines.append(f"- `{name}`{told}: {test['why']}{kept(test)}")
    return ["## Failures", "", *(lines or ["None."]), ""]


def kept(found):
    """Where the repro lies."""
    return f" → repros/{found['repro']}" if "repro" in found else ""


def skips(tests):
    """Reasons for which tests did not run, with their numbers."""
    count = Counter(test["why"].removeprefix("Skipped: ") for test in tests.values() if test["outcome"] == "skipped")
    return ["## Skipped", "", *([f"- {number}: {why}" for why, number in count.most_common()] or ["None."]), ""]


def answers(state):
    """The open questions, each with its line and its figures."""
    lines = ["## Open questions", ""]
    if state["simulated"]:
        lines += ["**Asked of the simulator: its times, and what is computed from them, are meaningless.**", ""]
    for step in steps():
        if step.kind == "question" and (found := state["steps"].get(step.name)):
            lines.append(f"- **{step.arguments[0].replace('_', ' ')}**: {found.get('answer', '')}")
            lines += [f"  - {key}: {value}" for key, value in found.get("figures", {}).items()]
    return [*lines, ""]


def benchmarks(state):
    """The table for the README, memory included, and who was left out and why."""
    rows, why = [], defaultdict(list)
    for name, found in state["steps"].items():
        for row in found.get("peers", {}).get("cases", []) if name.startswith("benchmarks") else ():
            rows.append((name.rpartition(" ")[2], row))
            for side, reason in row["left out"].items():
                why[SIDES[side], reason].append(f"{row['case']} in {rows[-1][0]}")
        for side, reason in found.get("peers", {}).get("left out", {}).items():
            why[SIDES[side], reason].append(name.rpartition(" ")[2])
    heads = ["step", "products in", *SIDES.values(), "fastest peer / Kobai", "peak memory: Kobai, PyTorch, JAX (MiB)"]
    lines = ["## Benchmarks", "", "Table for the README: one training step, µs, median.", ""]
    if state["simulated"]:
        lines += ["**Times of the simulator, at next to no data: meaningless.**", ""]
    lines += [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for precision, row in rows:
        times = [f"{row['microseconds'][side][1]:,.0f}" if side in row["microseconds"] else "–" for side in SIDES]
        ratio = f"{row['fastest peer']['ratio']:.2f}" if "fastest peer" in row else "–"
        held = row.get("own memory", {})
        memory = [f"{held[side] / 2**20:,.0f}" if held.get(side) else "–" for side in ("kobai", "torch-fused", "jax")]
        lines.append(f"| {cell(row['title'])} | {precision} | {' | '.join(times)} | {ratio} | {' / '.join(memory)} |")
    lines += ["", *(f"- left out: {side}, {', '.join(what)}: {reason}" for (side, reason), what in sorted(why.items()))]
    return [*lines, ""]


if __name__ == "__main__":
    main()

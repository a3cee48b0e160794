"""Plugin of pytest for ``gpu_check.py``: what each test did is on disk as soon as it did it, and a failure leaves a repro.

``pytest -p gpu_record --record FOLDER`` appends one line of JSON for each test to ``FOLDER/tests.jsonl``, so that nothing is
lost when the process dies, as it may on a device. ``--done FILE`` leaves out tests whose names stand in the file.

After an illegal access every later CUDA call of the process fails. So the device is waited for at the end of each test, which
pins the error to the test that caused it, and a process whose device is lost ends at once with the code ``LOST``: xdist
replaces the worker; without xdist, ``gpu_check.py`` starts pytest again for the rest.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

LOST = 70
EACH, MOST = 2, 40
"""Repros of one test function with one error, and such kinds in one process: more of the same say no more."""
LARGEST = 1 << 20
"""Bytes of one repro's inputs; larger arrays are left out, with their shapes in the text."""


def pytest_addoption(parser):
    group = parser.getgroup("gpu_check")
    group.addoption("--record", type=Path, help="folder of tests.jsonl and repros/")
    group.addoption("--source", default="", help="fingerprint of the sources, noted with each test")
    group.addoption("--done", type=Path, help="file of tests to leave out, one name a line")


def pytest_configure(config):
    if config.option.record:
        config.pluginmanager.register(Recorder(config), "gpu_check recorder")


class Recorder:
    """What this process saw. Of several processes the first writes results, those that run tests write repros."""

    def __init__(self, config):
        self.folder, self.source = config.option.record, config.option.source
        self.done = set(config.option.done.read_text(encoding="utf-8").splitlines()) if config.option.done else set()
        self.writes = not hasattr(config, "workerinput")
        self.runs = not (self.writes and getattr(config.option, "numprocesses", 0))
        self.left: dict[object, int] = {}
        self.lost = False

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config, items):
        out = [item for item in items if item.nodeid in self.done]
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item.nodeid not in self.done]

    def pytest_collectreport(self, report):
        if self.writes and report.failed:
            self.write(report, "failed")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self):
        result = yield
        if (cupy := sys.modules.get("cupy")) is not None:
            cupy.cuda.runtime.deviceSynchronize()
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        if report.failed:
            self.lost = lost()
            kind = getattr(item, "function", None), last_line(report)[:60]
            self.left[kind] = self.left.get(kind, 0) + 1
            if self.left[kind] <= EACH and len(self.left) <= MOST:
                name = save(self.folder / "repros", item, call, report, self.lost)
                report.user_properties.append(("repro", name))
        return report

    def pytest_runtest_logreport(self, report):
        if self.writes and (report.when == "call" or report.outcome != "passed"):
            self.write(report, report.outcome)

    def write(self, report, outcome):
        found = {"test": report.nodeid, "outcome": outcome, "seconds": round(getattr(report, "duration", 0), 3)}
        found["source"] = self.source
        if outcome == "skipped":
            found["why"] = report.longrepr[-1] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            if hasattr(report, "wasxfail"):
                found["why"] = report.wasxfail
        elif outcome == "failed":
            found["why"] = last_line(report)
            found |= dict(report.user_properties if hasattr(report, "user_properties") else [])
        with (self.folder / "tests.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(found, ensure_ascii=False) + "\n")

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(self):
        if self.runs and self.lost:  # reports have gone out: xdist's channel and the file are written at once
            os._exit(LOST)


def lost() -> bool:
    """Whether this process can do nothing more on its device."""
    if (cupy := sys.modules.get("cupy")) is None:
        return False
    try:
        cupy.cuda.runtime.deviceSynchronize()
        cupy.zeros(1).get()
    except Exception as error:
        return type(error).__name__ in ("CUDARuntimeError", "CUDADriverError")
    return False


def last_line(report) -> str:
    """What went wrong, in a line."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr)
    return " ".join(text.split())[:300]


# --- repros -----------------------------------------------------------------------------------------------------------


def slug(nodeid: str) -> str:
    """A file name for a test: readable, short, unlike any other's."""
    words = re.sub(r"[^\w.]+", "-", nodeid.rpartition("/")[2]).strip("-")[:80]
    return f"{words}-{hashlib.sha256(nodeid.encode()).hexdigest()[:6]}"


def save(folder: Path, item, call, report, device_lost: bool) -> str:
    """Command, seed, parameters, source, traceback as text; the arrays of the test's frames beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    name = slug(item.nodeid)
    kobai = sys.modules.get("kobai")
    arrays, said = ({}, ["the device is lost, its arrays with it"]) if device_lost else inputs(call.excinfo)
    if arrays:
        np.savez_compressed(folder / f"{name}.npz", **arrays)
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    try:
        source = inspect.getsource(item.function)
    except (AttributeError, OSError, TypeError):
        source = "(no source)"
    lines = [
        f"# {item.nodeid}",
        "",
        last_line(report),
        "",
        f"    python -m pytest -m gpu -n 0 '{item.nodeid}'",
        "",
        f"- failed in: {report.when}",
        f"- seed: {kobai.initial_seed() if kobai else 'none'}, the last one set; tests/conftest.py sets 0",
        *(f"- {key} = {value!r}"[:500] for key, value in parameters.items()),
        *(f"- array {line}" for line in said),
        "",
        "## Source",
        "",
        f"```python\n{source}```",
        "",
        "## Traceback",
        "",
        f"```\n{str(report.longrepr)[-20_000:]}\n```",
        "",
    ]
    (folder / f"{name}.md").write_text("\n".join(lines), encoding="utf-8")
    return f"{name}.md"


def inputs(excinfo) -> tuple[dict[str, np.ndarray], list[str]]:
    """Arrays and tensors among the locals of the frames that belong to the tests, innermost last; and a line on each."""
    arrays: dict[str, np.ndarray] = {}
    said = []
    for entry in excinfo.traceback if excinfo is not None else ():
        if "tests" not in Path(entry.path).parts:
            continue
        for name, value in entry.frame.f_locals.items():
            try:
                host = on_host(value)
            except Exception as error:  # what cannot be read is part of the finding
                said.append(f"{name}: cannot be read: {type(error).__name__}")
                continue
            if host is None:
                continue
            kept = host.dtype.kind in "biufc" and sum(a.nbytes for a in arrays.values()) + host.nbytes <= LARGEST
            said.append(f"{name}: {host.dtype}{list(host.shape)}, {'in the .npz' if kept else 'not kept'}")
            if kept:
                arrays[name] = host
    return arrays, said


def on_host(value) -> np.ndarray | None:
    """The values of an array or tensor of any device; None if it is neither."""
    if isinstance(value, np.ndarray):
        return value
    kobai, cupy = sys.modules.get("kobai"), sys.modules.get("cupy")
    if kobai is not None and isinstance(value, kobai.Tensor):
        value = value.detach().array
    if cupy is not None and isinstance(value, cupy.ndarray):
        return value.get()
    return value if isinstance(value, np.ndarray) else None

#!/usr/bin/env python3
"""Everything that only a GPU can prove, in one command: ``python3 scripts/gpu_check.py [--quick] [--out FILE]``.

Runs all tests marked ``gpu``, the benchmarks of both backends, the comparison with PyTorch and JAX where they are installed,
and the open questions of ``gpu_experiments.py``; writes one report, readable at the top, with everything as JSON at its end.
Where the running Python has CuPy and pytest, it is used as it is; otherwise ``.venv`` is set up.
"""

import argparse
import datetime
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as xml
from pathlib import Path

from _setup import PYTHON, ROOT, prepare, say

HOUR = 3600


def main():
    """Check, write the report, and fail if a test did."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="no benchmarks, and of the experiments only the short ones"
    )
    parser.add_argument("--out", default="gpu-report.md", help="where the report goes")
    options = parser.parse_args()
    driver = driver_facts()
    python = usable_python(driver)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}

    def run(title, command, limit=HOUR, **more):
        say(f"== {title}")
        start = time.monotonic()
        try:
            done = subprocess.run(
                [python, *command], cwd=ROOT, env={**environment, **more}, capture_output=True, text=True, timeout=limit
            )
            code, output = done.returncode, done.stdout + done.stderr
        except subprocess.TimeoutExpired as error:
            code, output = 124, f"{(error.stdout or b'').decode()}\nstopped after {limit} s"
        return {
            "command": " ".join(command),
            "exit": code,
            "seconds": round(time.monotonic() - start, 1),
            "output": output,
        }

    device = run("device", ["-c", DEVICE], 300)
    if device["exit"]:
        sys.exit(f"gpu_check: no usable CUDA device. {device['output'].strip().splitlines()[-1]}")
    report = {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": {
            **json.loads(device["output"].splitlines()[-1]),
            "driver": driver,
            "processor": platform.processor(),
        },
        "tests": {},
        "experiments": {},
        "benchmarks": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for title, marks, more in (
            ("every test for a device", ["-m", "gpu"], {}),
            ("the same without CUB", ["-m", "gpu", "tests/gpu"], {"CUPY_ACCELERATORS": ""}),
        ):
            file = Path(folder) / "tests.xml"
            done = run(title, ["-m", "pytest", *marks, "-q", "--tb=short", f"--junitxml={file}"], **more)
            report["tests"][title] = {**counts(file), **done, "output": done["output"][-20_000:]}
        for name in experiments():
            done = run(f"experiment: {name}", ["scripts/gpu_experiments.py", name], 900)
            lines = done["output"].strip().splitlines() or [""]
            report["experiments"][name] = json.loads(lines[-1]) if not done["exit"] else f"failed: {lines[-1]}"
        if not options.quick:
            file = Path(folder) / "benchmarks.json"
            flags = ["--backend", "numpy,cupy", f"--benchmark-json={file}"]
            done = run("benchmarks of both backends", ["-m", "pytest", "benchmarks", *flags])
            report["benchmarks"]["kobai"] = {**done, "medians": medians(file)}
            for title, more in (("fp32", []), ("tf32", ["--precision", "tf32"])):
                done = run(f"peers, {title}", ["benchmarks/peers.py", "--device", "cuda", *more])
                report["benchmarks"][f"peers {title}"] = done
    Path(options.out).write_text(readable(report) + embedded(report), encoding="utf-8")
    say(f"gpu_check: wrote {options.out}")
    failed = sum(part["failed"] for part in report["tests"].values())
    sys.exit(f"gpu_check: {failed} tests failed" if failed else 0)


# --- what is here ------------------------------------------------------------------------------------------------------

DEVICE = """
import json, sys, importlib.metadata as m
import kobai
reason = kobai.available_backends()["cupy"]
if reason: sys.exit(reason)
import cupy
names = ["cupy-cuda13x", "cupy-cuda12x", "nvmath-python", "numpy", "torch", "jax", "numba"]
def version(name):
    try: return m.version(name)
    except m.PackageNotFoundError: return None
runtime = cupy.cuda.runtime
free, total = runtime.memGetInfo()
print(json.dumps({"device": kobai.cuda.get_device_name(), "compute capability": cupy.cuda.Device().compute_capability,
  "memory GiB": round(total / 2**30, 1), "CUDA runtime": runtime.runtimeGetVersion(), "CUDA driver": runtime.driverGetVersion(),
  "python": sys.version.split()[0], "nvmath usable": kobai.cuda.cublaslt.is_available(),
  "packages": {n: version(n) for n in names if version(n)}}))
"""


def driver_facts():
    """What nvidia-smi says; ends the program with a sentence where there is no driver."""
    smi = shutil.which("nvidia-smi")
    if smi is None:
        sys.exit(
            "gpu_check: no NVIDIA driver here (nvidia-smi is not found); this check needs a machine with a CUDA device."
        )
    done = subprocess.run([smi], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"gpu_check: the NVIDIA driver reports no device: {(done.stdout + done.stderr).strip()}")
    found = re.search(r"CUDA Version:\s*(\d+)\.", done.stdout)
    return {"cuda": int(found[1]) if found else 12, "nvidia-smi": done.stdout}


def usable_python(driver):
    """The running interpreter if it has what is needed, else that of ``.venv``."""
    if all(importlib.util.find_spec(name) for name in ("cupy", "pytest", "numpy")):
        return sys.executable
    prepare({"data", "dev", "plot", "cpu", "cuda13" if driver["cuda"] >= 13 else "cuda12"})
    return str(PYTHON)


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


def experiments():
    """Names of the experiments, in the order of their file."""
    text = (ROOT / "scripts" / "gpu_experiments.py").read_text(encoding="utf-8")
    return re.findall(r"^        (\w+),$", text[text.index("EXPERIMENTS = {") :], re.MULTILINE)


# --- what was found ----------------------------------------------------------------------------------------------------


def counts(file):
    """How many tests ran, failed, were skipped; the failed ones by name."""
    if not file.exists():
        return {"ran": 0, "failed": 1, "skipped": 0, "names": ["pytest did not get as far as running tests"]}
    suite = xml.parse(file).getroot().find("testsuite")
    bad = [
        case for case in suite.iter("testcase") if case.find("failure") is not None or case.find("error") is not None
    ]
    return {
        "ran": int(suite.get("tests")) - int(suite.get("skipped")),
        "failed": len(bad),
        "skipped": int(suite.get("skipped")),
        "names": [f"{case.get('classname')}::{case.get('name')}" for case in bad],
    }


def medians(file):
    """Median microseconds of each benchmark."""
    if not file.exists():
        return {}
    found = json.loads(file.read_text(encoding="utf-8"))["benchmarks"]
    return {one["fullname"]: round(one["stats"]["median"] * 1e6, 2) for one in found}


def readable(report):
    """The report as a person reads it."""
    machine = report["machine"]
    lines = [f"# Kobai on {machine['device']}", "", f"{report['when']}, commit {report['commit']}", ""]
    lines += [f"- {name}: {value}" for name, value in machine.items() if name not in ("driver", "device")]
    lines += ["", "## Tests", ""]
    for title, part in report["tests"].items():
        lines.append(
            f"- {title}: {part['ran']} ran, {part['failed']} failed, {part['skipped']} skipped, {part['seconds']} s"
        )
        lines += [f"  - failed: {name}" for name in part["names"]]
    lines += ["", "## Experiments", ""]
    for name, answer in report["experiments"].items():
        lines += [f"### {name.replace('_', ' ')}", ""]
        lines += [f"- {k}: {v}" for k, v in answer.items()] if isinstance(answer, dict) else [f"- {answer}"]
        lines.append("")
    lines += ["## Benchmarks", ""]
    for title, part in report["benchmarks"].items():
        lines += [
            f"### {title} (exit {part['exit']}, {part['seconds']} s)",
            "",
            "```",
            part["output"].strip(),
            "```",
            "",
        ]
    return "\n".join(lines) + "\n"


def embedded(report):
    """The same as JSON, for programs."""
    return f"## All of it\n\n```json\n{json.dumps(report, indent=1, ensure_ascii=False)}\n```\n"


if __name__ == "__main__":
    main()

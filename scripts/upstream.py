#!/usr/bin/env python3
"""Run the tests against other releases of CuPy and NumPy: ``python3 scripts/upstream.py [NAME ...] [-- arguments of pytest]``.

Every name (all of ``--help``, unless some are given) gets an environment of its own in ``.upstream/``, which is kept: a second
run only asks for newer releases. The tests of CuPy run on the simulated GPU. A change there shows before users see it.
"""

import argparse
import os
import subprocess
import sys
import time

from _setup import ROOT, explain, indented, run, say

FOLDER = ROOT / ".upstream"
CUPY = ["-m", "gpu and not slow", "--dist=worksteal", "--shard", "0/4"]
NUMPY = ["--dist=loadfile"]
EXTRAS = "cpu,cuda-proof,data,dev,plot,tensorboard,tune"
RELEASES = {
    "cupy-oldest": ("cupy-cuda13x", ["cupy-cuda13x==14.0.*"], CUPY),
    "cupy-14.1": ("cupy-cuda13x", ["cupy-cuda13x==14.1.*"], CUPY),
    "cupy-newest": ("cupy-cuda13x", ["cupy-cuda13x"], CUPY),
    "cupy-pre": ("cupy-cuda13x", ["--pre", "cupy-cuda13x"], CUPY),
    "numpy-oldest": ("numpy", ["numpy==2.0.*"], NUMPY),
    "numpy-newest": ("numpy", ["numpy"], NUMPY),
    "numpy-pre": ("numpy", ["--pre", "numpy"], NUMPY),
}
"""By name: the package whose release it is, what pip is asked for, and which tests run."""


def main() -> None:
    """Try each release, print a table, and fail if one failed."""
    own, dashes, pytest = sys.argv[1:], [], []
    if "--" in own:
        own, dashes, pytest = own[: own.index("--")], ["--"], own[own.index("--") + 1 :]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="of: " + ", ".join(RELEASES))
    names = parser.parse_args(own).names or list(RELEASES)
    unknown = set(names) - set(RELEASES)
    if unknown:
        parser.error(f"expected names of {', '.join(RELEASES)}, got {', '.join(sorted(unknown))}")
    table, tried = [], {}
    for name in names:
        package, wanted, tests = RELEASES[name]
        version = install(name, package, wanted)
        if (package, version) in tried:
            table.append((name, version, f"is {tried[package, version]}"))
            continue
        tried[package, version] = name
        say(f"== {name}: {package} {version}")
        table.append((name, version, test(name, package, pytest if dashes else tests)))
    for row in table:
        print("  ".join(f"{cell:14}" for cell in row))
    sys.exit(any("failed" in row[2] for row in table))


def install(name: str, package: str, wanted: "list[str]") -> str:
    """Bring the environment of ``name`` up to date; returns the package's version in it."""
    python = interpreter(name)
    if not os.path.exists(python):
        say(f"== {name}: a new environment in {FOLDER.name}/{name}")
        checked([sys.executable, "-m", "venv", str(FOLDER / name)])
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--upgrade"]
    checked([*pip, "-e", f"{ROOT}[{EXTRAS}]"])
    checked([*pip, *wanted])  # alone, so that --pre concerns this package only
    ask = f"import importlib.metadata as m; print(m.version({package!r}))"
    return checked([python, "-c", ask]).strip()


def test(name: str, package: str, arguments: "list[str]") -> str:
    """Run the tests in the environment of ``name``: how it ended, in a few words."""
    simulate = {"KOBAI_SIMULATE_GPU": "1"} if package != "numpy" else {}
    begin = time.monotonic()
    command = [interpreter(name), "-m", "pytest", "--numprocesses=auto", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **simulate})
    return f"{'failed' if done.returncode else 'passed'} in {time.monotonic() - begin:.0f} s"


def interpreter(name: str) -> str:
    return str(FOLDER / name / "bin" / "python")


def checked(command: "list[str]") -> str:
    """Output of a command that has to work."""
    done = run(command)
    if done.returncode:
        sys.exit(f"{explain(done.stdout)}\n{indented(done.stdout)}")
    return done.stdout


if __name__ == "__main__":
    main()

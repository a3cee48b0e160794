#!/usr/bin/env python3
"""Install the wheel in fresh environments, outside the repository, and run what the README shows there.

    python3 scripts/wheel_check.py                               # builds the wheel; by this Python
    python3 scripts/wheel_check.py --python python3.12 --python python3.13
    python3 scripts/wheel_check.py --wheel dist                  # a wheel, or the folder that holds it
    python3 scripts/wheel_check.py --sbom sbom.cdx.json          # lists what an installation holds, as CycloneDX, and ends

For each Python: an environment with the wheel and the extras ``data`` and ``plot``, the first Python program of the README,
``kobai train``, ``kobai evaluate`` and ``kobai info``, and the licence among the files. Only the standard library is used here.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(*command: object, cwd: "Path | None" = None) -> str:
    """Run a command without a Kobai from elsewhere; its output, or the end of the program with it."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "KOBAI_BACKEND")}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(
            f"wheel_check: {' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        )
    return done.stdout


def pip(python: object, *arguments: object) -> str:
    """pip of an environment, without its remarks."""
    return run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments)


def environment(folder: Path, python: str) -> Path:
    """A fresh virtual environment; its Python."""
    run(python, "-m", "venv", folder)
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def built(folder: Path) -> Path:
    """The wheel of this repository, built in an environment of its own."""
    python = environment(folder / "build", sys.executable)
    pip(python, "build")
    run(python, "-m", "build", "--wheel", "--outdir", folder / "dist", ROOT)
    return folder / "dist"


def first_program(readme: str) -> str:
    """The first block of Python in the README."""
    found = re.search(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    if found is None:
        sys.exit("wheel_check: README.md has no block of Python")
    return found[1]


def examine(wheel: Path, python: str, folder: Path) -> str:
    """Install and run it all; one line of what was found."""
    inside = environment(folder / "venv", python)
    pip(inside, f"{wheel}[data,plot]")
    work = folder / "work"
    work.mkdir()
    where = run(inside, "-c", "import kobai; print(kobai.__file__)", cwd=work).strip()
    if not Path(where).is_relative_to(folder):
        sys.exit(f"wheel_check: expected the installed kobai, got {where}")
    (work / "program.py").write_text(first_program((ROOT / "README.md").read_text(encoding="utf-8")), encoding="utf-8")
    accuracies = [
        run(inside, "program.py", cwd=work).splitlines()[-1],
        run(inside, "-m", "kobai", "train", "--out", "run", "--quiet", cwd=work).splitlines()[-1],
        run(inside, "-m", "kobai", "evaluate", "run", cwd=work).splitlines()[-1],
    ]
    if any(float(line.split()[-1]) < 0.9 for line in accuracies):
        sys.exit(f"wheel_check: expected accuracies of at least 0.9, got {accuracies}")
    about = run(inside, "-m", "kobai", "info", cwd=work).splitlines()[0]
    held = "import importlib.metadata as m; print([str(f) for f in m.files('kobai') if f.name == 'LICENSE'])"
    if "LICENSE" not in run(inside, "-c", held, cwd=work):
        sys.exit("wheel_check: the licence is not among the installed files")
    return f"{about}: {'; '.join(accuracies)}"


def list_parts(wheel: Path, folder: Path, output: Path) -> None:
    """Write what an installation with its dependencies holds, as a CycloneDX file."""
    inside, tool = environment(folder / "venv", sys.executable), environment(folder / "tool", sys.executable)
    pip(inside, wheel)
    pip(tool, "cyclonedx-bom")
    run(tool, "-m", "cyclonedx_py", "environment", "--output-reproducible", "-o", output.resolve(), inside)
    print(f"{output}: what an installation of {wheel.name} holds")


def main() -> None:
    """Read the arguments and do it."""
    parser = argparse.ArgumentParser(description="Try the wheel outside the repository.")
    parser.add_argument("--wheel", type=Path, help="a wheel, or a folder that holds one; default: built now")
    parser.add_argument("--python", action="append", help="a Python to try, again for more; default: this one")
    parser.add_argument("--sbom", type=Path, help="write a CycloneDX file of what an installation holds, and end")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = asked.wheel or built(Path(folder))
        wheels = sorted(place.glob("kobai-*.whl")) if place.is_dir() else [place]
        if len(wheels) != 1:
            sys.exit(f"wheel_check: expected one wheel in {place}, got {len(wheels)}")
        wheel = wheels[0].resolve()
        if asked.sbom is not None:
            list_parts(wheel, Path(folder), asked.sbom)
            return
        for i, python in enumerate(asked.python or [sys.executable]):
            (Path(folder) / str(i)).mkdir()
            print(examine(wheel, python, Path(folder) / str(i)), flush=True)


if __name__ == "__main__":
    main()

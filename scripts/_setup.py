"""Set-up shared by the scripts here: a virtual environment in ``.venv`` with Kobai installed, then run a module in it.

Only the standard library is used, and no syntax newer than Python 3.6, so that an old Python gets a sentence and not a
SyntaxError. The stamp file is written last: an interrupted set-up is done again, a finished one costs no call of pip.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys

if sys.version_info < (3, 11):  # noqa: UP036  (said here, before anything newer is needed)
    sys.exit(f"Kobai needs Python 3.11 or newer, and this is {sys.version.split()[0]} ({sys.executable}).")

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def live_in(folder: str) -> None:
    """Where the environment is: ``.venv``, unless a script wants one of its own."""
    global VENV, STAMP, LOG, PYTHON
    VENV = ROOT / folder
    STAMP, LOG = VENV / "kobai-setup.json", VENV / "kobai-setup.log"
    PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


live_in(".venv")


def say(text: str) -> None:
    """One line of progress, on stderr: stdout belongs to the command that is run."""
    print(text, file=sys.stderr, flush=True)


def key() -> str:
    """Hash of all that makes an installed environment stale: the metadata, the Python, and where both lie."""
    parts = [(ROOT / "pyproject.toml").read_bytes(), sys.version.encode(), str(VENV).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def installed() -> "set[str] | None":
    """Extras that the environment was finished with; None if it is missing, unfinished, stale or broken."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
        if stamp["key"] != key():
            return None
        works = subprocess.run([PYTHON, "-c", "import kobai"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return set(stamp["extras"]) if works.returncode == 0 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def prepare(extras: "set[str]") -> None:
    """Make ``.venv`` hold Kobai with ``extras``; does nothing if it does already."""
    have = installed()
    if have is not None and extras <= have:
        return
    with locked():
        have = installed()  # another script may have finished it while this one waited
        if have is not None and extras <= have:
            return
        if have is None:
            create()
        install(extras | (have or set()))


class locked:
    """While one script sets up, others wait. The lock dies with its process, so nothing can stay locked."""

    def __enter__(self) -> None:
        self.file = open(ROOT / "pyproject.toml", encoding="utf-8")  # a file that is there anyway
        try:
            import fcntl
        except ImportError:  # Windows: two first runs at one time are then the user's to avoid
            return
        fcntl.flock(self.file, fcntl.LOCK_EX)

    def __exit__(self, *error: object) -> None:
        self.file.close()


def create() -> None:
    """A fresh, empty virtual environment, with pip in it."""
    if VENV.is_symlink():
        sys.exit(f"{VENV} is a link to elsewhere; remove it, or replace it by a folder.")
    say(f"set-up 1/2: virtual environment in {VENV.name}" + (" (built anew)" if VENV.exists() else ""))
    shutil.rmtree(VENV, ignore_errors=True)
    made = run([sys.executable, "-m", "venv", str(VENV)])
    if made.returncode == 0:
        return
    # Debian and Ubuntu ship Python without the module that puts pip into a new environment.
    bare = run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(VENV)])
    lent = run([sys.executable, "-m", "pip", "--python", str(PYTHON), "install", "pip"])
    if bare.returncode or lent.returncode:
        sys.exit(
            "Could not make a virtual environment:\n"
            f"{indented(made.stdout)}\n"
            "On Debian or Ubuntu: sudo apt install python3-venv. Then run this again."
        )


def install(extras: "set[str]") -> None:
    """Kobai in editable form with ``extras``, then the stamp."""
    names = ",".join(sorted(extras))
    say(f"set-up 2/2: installing Kobai with the extras {names} (a minute or two, the first time)")
    STAMP.unlink(missing_ok=True)
    pip = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    done = run([*pip, "-e", f"{ROOT}[{names}]"])
    LOG.write_text(done.stdout, encoding="utf-8")
    if done.returncode:
        sys.exit(f"{explain(done.stdout)}\n{indented(done.stdout)}\nAll that pip said is in {LOG}.")
    partial = STAMP.with_suffix(".part")
    partial.write_text(json.dumps({"key": key(), "extras": sorted(extras)}), encoding="utf-8")
    os.replace(partial, STAMP)


def explain(output: str) -> str:
    """What a failed installation most likely means."""
    signs = ("NewConnectionError", "ConnectTimeout", "Temporary failure in name resolution", "ProxyError", "SSLError")
    signs += (
        "Max retries exceeded",
        "Network is unreachable",
        "Connection refused",
        "ReadTimeoutError",
        "(from versions: none)",
    )
    if any(sign in output for sign in signs):
        return "The packages could not be downloaded: is the network up, and is a proxy needed? Run this again then."
    if "No space left on device" in output:
        return "The disk is full."
    return "Installing Kobai and what it needs has failed."


def run(command: "list[str]") -> "subprocess.CompletedProcess[str]":
    """Run a command quietly; what it prints, errors included, is in ``stdout``."""
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace"
    )


def indented(output: str) -> str:
    """What matters of a command's output, as a quotation: its error lines, or its last ones."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR") or "No space left" in line]
    return "\n".join(f"  | {line}" for line in (errors or lines)[-6:])


def main(extras: "set[str]", module: "list[str]") -> None:
    """Set up, then become ``python -m module ...`` with this script's arguments; its exit code is ours."""
    try:
        prepare(extras)
    except KeyboardInterrupt:
        say("\ninterrupted; the next run sets up again")
        sys.exit(130)
    except OSError as error:
        sys.exit(f"Set-up has failed: {error}")
    command = [str(PYTHON), "-m", *module, *sys.argv[1:]]
    if os.name == "nt":  # exec there returns to the shell at once
        sys.exit(subprocess.run(command).returncode)
    os.execv(command[0], command)

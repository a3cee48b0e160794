"""Commands in processes of their own, killed at random moments and gone on with until they come to their end."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from attacks.commands import COMMANDS, prepare

ROUNDS = 20
"""Times that each command is brought to its end, killed five times on the way."""

KILLS = 5


def process(arguments: str) -> subprocess.Popen[str]:
    """A command as a user starts it."""
    environment = {**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "kobai", *arguments.split()]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def attack(seed: int, share: float, folder: Path, say: Callable[[str], None]) -> list[str]:
    """Training, a comparison, a search."""
    failures = []
    given = prepare(folder)
    for name in ("train", "compare", "tune"):
        command, chance, killed = COMMANDS[name], random.Random(f"{seed} {name}"), 0
        wanted, longest = None, 0.0
        for number in range(1 + max(1, round(ROUNDS * share))):
            out = folder / f"{name}{number}"
            command.before(given, out)
            for k in range(KILLS + 1 if number else 1):
                again = command.again(out, k) if k and command.again is not None else command.arguments
                began = time.monotonic()
                running = process(again.format(table=given / "table.csv", run=given / "run", out=out))
                if number and k < KILLS:  # the first time it runs undisturbed, and is what all others must come to
                    time.sleep(chance.uniform(0.2, 1.0) * longest)
                    running.kill()
                killed += running.poll() is None
                told = running.communicate()[1]
                if running.returncode not in (0, -9):
                    failures.append(f"{name} {number}.{k}, seed {seed}: exit code {running.returncode}, {told}")
                longest = max(longest, time.monotonic() - began) if not number else longest
            found = command.outcome(out)
            if number == 0:
                wanted = found
            elif found != wanted:
                failures.append(f"{name} {number}, seed {seed}: comes to something else, see {out}")
        say(f"{name}: {number} times to its end, killed {killed} times")
    return failures

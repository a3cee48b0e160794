"""Attacks on the library and its commands, in full: what the tests do in small.

    python scripts/attack.py                                all of them, for hours
    python scripts/attack.py crash_points --seed 3          one of them, with other draws
    python scripts/attack.py damage kills --share 0.1       a tenth of their cases

Prints each failure, and what repeats it; exits with 1 if there was one. ``tests/attacks/`` says how another is added.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from attacks import MODULES, find


def main() -> int:
    """Run what is asked for; 1 if anything failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=f"of {', '.join(MODULES)}; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of the cases, from 0 to 1")
    asked = parser.parse_args()
    for name in asked.attacks:
        if name not in MODULES:
            parser.error(f"no attack is called {name!r}; there are {', '.join(MODULES)}")
    failures = []
    for name in asked.attacks or MODULES:
        print(f"== {name}", flush=True)
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            found = find(name)(asked.seed, asked.share, Path(folder), lambda line: print(line, flush=True))
        print(f"{len(found)} failures in {time.monotonic() - began:.0f} s", flush=True)
        failures += found
    for failure in failures:
        print(f"FAIL {failure}")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Whether everything that names the version names the same one: ``python3 scripts/release_check.py [version]``.

The package, ``CITATION.cff`` and a heading ``## 0.1.0`` of the changelog; with an argument, that of a tag, it is the number
that they must all have. What belongs to the next release stands under ``## Unreleased`` and is renamed for it.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def named() -> "dict[str, str | None]":
    """The version by the place that names it; None where there is none."""
    places = {
        "src/kobai/compat/versions.py": r'^VERSION = "(.+)"$',
        "CITATION.cff": r"^version: (.+)$",
        "CHANGELOG.md": r"^## (\d\S*)",  # the newest comes first
    }
    found = {}
    for path, pattern in places.items():
        match = re.search(pattern, (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
        found[path] = match[1] if match else None
    return found


def main() -> None:
    """Exit code 1, and what differs, if a place names another version or none."""
    versions = named()
    wanted = sys.argv[1] if len(sys.argv) > 1 else versions["src/kobai/compat/versions.py"]
    wrong = [f"{place}: {found or 'no version'}" for place, found in versions.items() if found != wanted]
    if wrong:
        sys.exit(f"release_check: expected version {wanted} everywhere, but\n  " + "\n  ".join(wrong))
    print(f"version {wanted} everywhere")


if __name__ == "__main__":
    main()

"""Flipped bits, zeroed blocks, noise, truncation and additions in every file that a command writes and reads back.

The file is read as Kobai reads it. Damage is noticed – an error of ours – or harmless: what is read is what was written.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kobai
from attacks.commands import COMMANDS, perform, prepare, timeless
from kobai.core.checksum import read_json
from kobai.errors import CheckpointError, DataError
from kobai.lab.experiments.register import read as read_result
from kobai.lab.sweep import tune_study
from kobai.lab.sweep.tune import read_plan
from kobai.lab.sweep.tune_study import JOURNAL

FLIPS = 300
"""Flipped bits of each file, and a third as many of each other kind of damage."""


def damages(whole: bytes, count: int, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """Descriptions and contents."""
    for _ in range(count):
        place, bit = chance.randrange(len(whole)), chance.randrange(8)
        yield f"bit {bit} of byte {place}", whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
    for _ in range(max(1, count // 3)):
        begin = chance.randrange(len(whole))
        end = min(len(whole), begin + chance.choice((1, 16, 512, 4096)))
        yield f"zeros in {begin}:{end}", whole[:begin] + bytes(end - begin) + whole[end:]
        yield f"noise in {begin}:{end}", whole[:begin] + chance.randbytes(end - begin) + whole[end:]
        yield f"cut at {begin}", whole[:begin]
        yield f"without {begin}:{end}", whole[:begin] + whole[end:]
        yield f"with {end - begin} bytes more", whole + chance.randbytes(end - begin)


def searched(path: Path) -> Any:
    plan = read_plan(path.parent)
    return [
        (t.number, t.state, t.value, t.curve) for t in tune_study.trials(tune_study.open_study(path.parent, plan), plan)
    ]


def fewer_trials(found: Any, written: Any) -> bool:
    """Whether trials are missing, or not ended, that were: they are done again, and nothing is wrong."""
    known = {trial[0]: trial for trial in written}
    return all(t == known[t[0]] or (t[1] == "running" and t[3] == known[t[0]][3][: len(t[3])]) for t in found)


FILES: dict[str, tuple[str, str, Callable[[Path], Any]]] = {
    "checkpoint": ("train", "best.safetensors", lambda path: timeless(kobai.load(path))),
    "plan of a comparison": ("compare", "comparison.json", read_json),
    "results of a comparison": ("compare", "results.json", read_json),
    "journal of a search": ("tune", JOURNAL, searched),
    "results of a search": ("tune", "search.json", read_json),
    "look at the test split": ("tune", "test.json", read_json),
    "experiment": ("lab", "activations.json", read_result),
}


def attack(seed: int, share: float, folder: Path, say: Callable[[str], None]) -> list[str]:
    """All files."""
    failures = []
    given = prepare(folder)
    for what, (name, file, read) in FILES.items():
        out, command = folder / name, COMMANDS[name]
        if not out.exists():
            command.before(given, out)
            assert perform(command, given, out)[0] == 0
        path, chance = out / file, random.Random(f"{seed} {what}")
        whole, written = path.read_bytes(), read(path)
        noticed = harmless = 0
        for how, damaged in damages(whole, max(20, round(FLIPS * share)), chance):
            path.write_bytes(damaged)
            try:
                found = read(path)
            except (CheckpointError, DataError, ValueError):
                noticed += 1
                continue
            except Exception as error:
                failures.append(f"{what}, {how}: {type(error).__name__}: {error}")
                continue
            if found == written or (file == JOURNAL and fewer_trials(found, written)):
                harmless += 1
            else:
                failures.append(f"{what}, {how}: is not noticed")
        path.write_bytes(whole)
        say(f"{what}: {noticed} noticed, {harmless} harmless")
    return failures

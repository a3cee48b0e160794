"""Random training programs, captured against eager: many at once, or a closer look at one.

    python scripts/fuzz_capture.py --sequences 100000 --processes 2     numbers 0 to 99,999; half a minute a thousand
    python scripts/fuzz_capture.py --seed 500000 --sequences 2000       others
    python scripts/fuzz_capture.py --show 4711                          one sequence as text, and how it ends
    python scripts/fuzz_capture.py --kinds                              also a table by kind of what happens

A sequence that differs is printed as plainly as it can be made; see ``tests/step_sequences.py`` for what they are made of.
Each thousand has a process of its own, so that one that dies is named too. Exit status 1 where something differs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from capture_fuzz import Found, described, difference, many
from step_programs import text_of
from step_sequences import draw

CHUNK = 500


def run_chunk(start: int, count: int, faults: int) -> tuple[int, subprocess.CompletedProcess[str]]:
    command = [sys.executable, "-X", "faulthandler", __file__, "--chunk", str(start), str(count), str(faults)]
    return start, subprocess.run(command, capture_output=True, text=True, check=False)


def table(kinds: dict[str, list[int]]) -> str:
    lines = [f"{'alone in a sequence':50} {'number':>7} {'differ':>7} {'captured':>8}"]
    lines += [f"{kind:50} {all_:7} {differ:7} {last:8}" for kind, (all_, differ, last) in sorted(kinds.items())]
    return "\n".join(lines)


def collect(results: Iterable[tuple[int, subprocess.CompletedProcess[str]]], total: Found, most: int) -> int:
    """Add up what the processes found; returns how many of them died."""
    dead = 0
    for start, done in results:
        if done.returncode:
            dead += 1
            print(
                f"the process of sequences {start} to {start + CHUNK - 1} ended with {done.returncode}:\n{done.stderr[-2000:]}"
            )
            continue
        found: Found = eval(done.stdout.splitlines()[-1], {"Found": Found, "__builtins__": {}})
        total.calls += found.calls
        total.replays += found.replays
        total.seeds += found.seeds
        for kind, counts in found.kinds.items():
            total.kinds[kind] = [a + b for a, b in zip(total.kinds.get(kind, [0, 0, 0]), counts, strict=True)]
        for fault in found.faults:
            if len(total.faults) < most:
                total.faults.append(fault)
                print(fault, end="\n\n", flush=True)
    return dead


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=2000, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="number of the first")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--faults", type=int, default=3, help="how many that differ are made small and printed")
    parser.add_argument("--kinds", action="store_true", help="a table of what differed, by kind")
    parser.add_argument("--show", type=int, metavar="NUMBER", help="one sequence")
    parser.add_argument("--chunk", type=int, nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.chunk:
        start, count, faults = args.chunk
        print(repr(many(range(start, start + count), faults)))
        return 0
    if args.show is not None:
        sequence = draw(args.show)
        found = difference(sequence)
        print(text_of(sequence.spec) if found is None else described(sequence, found))
        if found is None:
            print("\n".join(f"before call {c.call}: {sequence.text_of(c)}" for c in sequence.changes))
        return found is not None
    total = Found()
    starts = range(args.seed, args.seed + args.sequences, CHUNK)
    counts = [min(CHUNK, args.seed + args.sequences - start) for start in starts]
    with ThreadPoolExecutor(args.processes) as pool:
        dead = collect(pool.map(run_chunk, starts, counts, [args.faults] * len(starts)), total, args.faults)
    if args.kinds:
        print(table(total.kinds))
    print(
        f"{args.sequences} sequences, {total.calls} calls, of them {total.replays} replays; {len(total.seeds)} differ"
        + (f", {dead} processes died" if dead else "")
        + (f": {total.seeds[:20]}" if total.seeds else "")
    )
    return bool(total.seeds or dead)


if __name__ == "__main__":
    sys.exit(main())

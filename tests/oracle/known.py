"""The differences that are known, with their reasons: ``known.toml``, and the table as it should be.

    python tests/oracle/known.py            prints the table as it should be
    python tests/oracle/known.py --write    writes it: what has ceased to differ is gone, what is new stands under NEW
    python tests/oracle/known.py --lacking  lists what PyTorch has and Kobai has not
    python tests/oracle/known.py --share    writes ``share.toml``: how many entries and samples agree

A section of the table is a reason; a key is an operation, module or optimiser; its value are the forms and kinds in which
it differs. A reason has to be given before the tests pass: nothing may stand under NEW.
"""

from __future__ import annotations

import json
import sys
import tomllib
import warnings
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

FILE = Path(__file__).with_suffix(".toml")
SHARE = FILE.with_name("share.toml")
NEW = "Not reviewed"
Table = dict[str, dict[str, list[str]]]
Found = dict[str, list[str]]


def read() -> Table:
    return tomllib.loads(FILE.read_text())


def expected(table: Table, name: str) -> set[str]:
    """In what ``name`` is known to differ."""
    return {kind for entries in table.values() for kind in entries.get(name, ())}


def renewed(table: Table, found: Found) -> Table:
    """``table`` without what has ceased to differ, and with what is not in it under NEW."""
    kept: Table = {}
    for reason, entries in table.items():
        left = {name: [k for k in kinds if k in found.get(name, ())] for name, kinds in entries.items()}
        kept[reason] = {name: kinds for name, kinds in left.items() if kinds}
    new = {name: [k for k in kinds if k not in expected(kept, name)] for name, kinds in found.items()}
    kept.setdefault(NEW, {}).update({name: kinds for name, kinds in new.items() if kinds})
    return {reason: entries for reason, entries in kept.items() if entries}


def written(table: Table) -> str:
    """The table as TOML."""
    quoted = partial(json.dumps, ensure_ascii=False)  # what TOML calls a basic string is a string of JSON
    sections = []
    for reason, entries in table.items():
        lines = [f"{quoted(name)} = {quoted(kinds)}" for name, kinds in sorted(entries.items())]
        sections.append("\n".join([f"[{quoted(reason)}]", *lines]))
    return "\n\n".join(sections) + "\n"


Counts = dict[str, tuple[int, int]]
Result = tuple[str, list[str], bool, Counts]


def _examine(job: tuple[str, str]) -> Result:
    warnings.simplefilter("ignore")
    import importlib

    kind, name = job
    findings = importlib.import_module(f"oracle.{kind}").examine(name)
    counts = {form: (findings.agreed[form], tried) for form, tried in findings.tried.items()}
    return name, sorted(findings), findings.lacks_out, counts


def examine_all() -> list[Result]:
    """Of everything that Kobai has: what differs, whether out= is lacking, and how many samples of each form agree."""
    from oracle import modules, operations, optimizers

    jobs = [("operations", n) for n in operations.OPERATIONS]
    jobs += [("modules", n) for n in modules.MODULES] + [("optimizers", n) for n in optimizers.OPTIMIZERS]
    with ProcessPoolExecutor() as pool:
        return list(pool.map(_examine, jobs, chunksize=8))


def share(results: list[Result]) -> str:
    """The share of entries and samples that agree, as TOML."""
    import torch

    from oracle import operations

    ours = [result for result in results if result[0] in operations.OPERATIONS]
    there = len(ours)
    lines = [
        f'torch = "{torch.__version__.partition("+")[0]}"',
        'command = "python tests/oracle/known.py --share"',
        f"entries = {there + len(operations.LACKING)}",
        f"there = {there}",
        f"without_difference = {sum(not kinds for _, kinds, *_ in ours)}",
        "",
        "[samples] # that agree, of how many",
    ]
    counts: dict[str, list[int]] = {}
    for *_, forms in ours:
        for form, (agreed, tried) in forms.items():
            total = counts.setdefault(form, [0, 0])
            total[0] += agreed
            total[1] += tried
    return "\n".join([*lines, *(f'"{form}" = {total}' for form, total in sorted(counts.items()))]) + "\n"


def lacking(without_out: Iterable[str]) -> dict[str, list[str]]:
    """What PyTorch has and Kobai has not, found by looking."""
    from oracle import modules, operations, optimizers

    infos = operations.OPERATIONS.items()
    return {
        "operations": operations.LACKING,
        "modules": modules.LACKING,
        "optimisers": optimizers.LACKING,
        "methods": [n for n, i in infos if i.method_variant is not None and operations.method(i) is None],
        "in-place forms": [
            n for n, i in infos if i.inplace_variant is not None and operations.in_place_form(i) is None
        ],
        "out=": list(without_out),
    }


def main(arguments: list[str]) -> None:
    results = examine_all()
    if "--share" in arguments:
        SHARE.write_text(share(results))
        return
    found = {name: kinds for name, kinds, *_ in results if kinds}
    without_out = [name for name, _, lacks, _ in results if lacks]
    if "--lacking" in arguments:
        for what, names in lacking(without_out).items():
            print(f"{what} ({len(names)}): {', '.join(names)}")
        return
    text = written(renewed(read(), found))
    if "--write" in arguments:
        FILE.write_text(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    sys.path.insert(0, str(FILE.parents[1]))
    main(sys.argv[1:])

"""The exam of the doctor: situations from public reports, on fresh seeds, and what other tools would say of them.

    python scripts/doctor_exam.py                              all situations; prints a table for each kind, and the totals
    python scripts/doctor_exam.py --kind loss --verbose        one kind, with all that is found
    python scripts/doctor_exam.py --name softmax-twice --seed 7 --verbose
    python scripts/doctor_exam.py --half second-fresh          the situations that nobody may tune the doctor by
    python scripts/doctor_exam.py --write                      write docs/lab/exam.md

Every situation names who reported it, and says what a right answer speaks of. *right*: the first finding is the
answer; *partly*: another one is; *wrong*: none is; *unsure*: it is only said that the net learns nothing; *silent*:
there is no finding. Each cure that is offered is applied to a fresh copy, and the loss of fresh samples compared with
that of the copy without it. Most situations have a healthy twin, which differs by the fault alone.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "KOBAI_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

from exam.page import FIRST_PAGES, PAGE, page, summary  # noqa: E402
from exam.question import HALVES  # noqa: E402
from exam.questions import QUESTIONS  # noqa: E402
from exam.running import examined  # noqa: E402


def one(job: tuple[str, int, bool, bool]) -> dict[str, Any]:
    """The record of one question; what fails is a record too."""
    name, seed, quick, tools = job
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    try:
        return examined(QUESTIONS[name], seed, quick, tools)
    except Exception as error:
        question = QUESTIONS[name]
        record = {"name": name, "kind": question.kind, "half": question.half, "seed": seed, "failed": repr(error)}
        return record | ({} if question.kind == "healthy" else {"mark": "failed"})


def chosen(kind: str | None, name: str | None, half: str | None) -> list[str]:
    """Names of the questions whose kind and name hold what was asked for, of one of the halves or of all."""
    return [
        key
        for key, question in QUESTIONS.items()
        if (kind is None or kind.replace("-", " ") in question.kind)
        and (name is None or name in key)
        and half in (None, question.half)
    ]


def records(jobs: list[tuple[str, int, bool, bool]], processes: int) -> Iterator[dict[str, Any]]:
    if processes == 1:
        yield from map(one, jobs)
        return
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        yield from pool.map(one, jobs)


def line(record: dict[str, Any]) -> str:
    """One line about one question."""
    found = ", ".join(f"{f['disease']} ({f['severity'][0]})" for f in record.get("findings", ()))
    cures = ", ".join(
        f"{c['disease']} {c['effect']} {c['before']:.3g}→{c['after']:.3g}" for c in record.get("cures", ())
    )
    twin = ", ".join(f"{f['disease']} ({f['severity'][0]})" for f in record.get("healthy", ()))
    parts = [f"{record.get('mark', ''):7}", f"{record['half']:12}", record["name"], found or "-"]
    parts += [f"cures: {cures}"] * bool(cures) + [f"HEALTHY: {twin}"] * bool(twin)
    parts += [f"FAILED: {record.get('failed')}"] * ("failed" in record)
    return f"{record.get('seconds', 0):4.1f}/{record.get('total', 0):4.1f} s  " + "  ".join(parts)


def detail(record: dict[str, Any]) -> str:
    """The report, what was found in full, and what other tools say."""
    question = QUESTIONS[record["name"]]
    lines = [
        f"    {question.report} [{question.source}]",
        f"    expected: {question.expects or ''} {question.names or ''}",
    ]
    for heading, key in (("found", "findings"), ("in the healthy twin", "healthy")):
        for finding in record.get(key, ()):
            after = f" (follows {finding['follows']})" if finding["follows"] else ""
            what = f"{finding['severity']} {finding['disease']}{after} in {finding['where']}: {finding['text']}"
            lines.append(f"    {heading}: {what}")
            lines += [f"        {text}" for text in [*finding["evidence"], finding["tried"]] if text]
            lines += [f"        > {code}" for code in finding["code"].splitlines()]
    for tool, said in record.get("tools", {}).items():
        lines.append(f"    {tool}: {said.get('mark', '')} {said.get('says', '')} | twin: {said.get('twin', '')}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", help="part of a kind's name, with - for blanks")
    parser.add_argument("--name", help="part of a situation's name")
    parser.add_argument("--half", choices=HALVES, help="only this part of the situations")
    parser.add_argument("--seed", type=int, default=0, help="draws data and weights")
    parser.add_argument("--quick", action="store_true", help="diagnose without trials of cures, where it has them")
    parser.add_argument("--no-tools", action="store_true", help="leave out what other tools would say")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file for the records")
    parser.add_argument("--with", dest="earlier", type=Path, nargs="*", default=[], help="records to add to the totals")
    parser.add_argument("--verbose", action="store_true", help="print all findings in full")
    parser.add_argument("--write", action="store_true", help="write docs/lab/exam.md, of all situations")
    parser.add_argument(
        "--first",
        metavar="COMMIT",
        help="write the page of a fresh half: what the code at this commit said the first time",
    )
    args = parser.parse_args()
    if args.write and (args.kind or args.name):
        sys.exit("doctor_exam: the page is of all kinds and names")
    if args.first and args.half not in FIRST_PAGES:
        sys.exit(f"doctor_exam: --first is of one --half: {', '.join(FIRST_PAGES)}")
    names = chosen(args.kind, args.name, args.half)
    if not names:
        sys.exit("doctor_exam: no situation has such a kind, name and half")
    gathered = [record for path in args.earlier for record in json.loads(path.read_text(encoding="utf-8"))]
    for record in records([(name, args.seed, args.quick, not args.no_tools) for name in names], args.processes):
        gathered.append(record)
        print(line(record), flush=True)
        if args.verbose:
            print(detail(record), flush=True)
    gathered.sort(key=lambda record: list(QUESTIONS).index(record["name"]))
    if args.json is not None:
        args.json.write_text(json.dumps(gathered, indent=1), encoding="utf-8")
    print("\n" + summary(gathered))
    if args.write:
        PAGE.write_text(page(gathered, args.seed), encoding="utf-8")
    if args.first:
        FIRST_PAGES[args.half].write_text(page(gathered, args.seed, args.half, args.first), encoding="utf-8")


if __name__ == "__main__":
    main()

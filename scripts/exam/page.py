"""The tables of the exam, and its page in the documentation."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from exam.question import FRESH_HALVES, HALVES
from exam.questions import QUESTIONS
from exam.tools import TOOLS

PAGE = Path(__file__).parents[2] / "docs" / "lab" / "exam.md"
FIRST_PAGES = {half: PAGE.with_name(f"exam_{half.replace('-', '_')}.md") for half in FRESH_HALVES.values()}
"""Where the first figure of each fresh half stands; a half that the doctor was never asked about has no page yet."""

MARKS = ("right", "partly", "wrong", "unsure", "silent")


def row(name: str, records: list[dict[str, Any]]) -> str:
    ill = [record for record in records if "mark" in record]
    marks = Counter(record["mark"] for record in ill)
    effects = Counter(cure["effect"] for record in ill for cure in record.get("cures", ()))
    well = [record["healthy"] for record in records if "healthy" in record]
    errors = sum(any(f["severity"] == "error" for f in found) for found in well)
    warned = sum(bool(found) and all(f["severity"] != "error" for f in found) for found in well)
    cells = [len(ill), *(marks[mark] for mark in MARKS), effects["helps"], effects["neutral"], effects["harms"]]
    return f"| {name} | {' | '.join(map(str, cells))} | {len(well)} | {errors} | {warned} |"


def summary(records: list[dict[str, Any]]) -> str:
    """A row for each kind, each half, and all."""
    lines = [
        "| kind | situations | right | partly | wrong | unsure | silent | cures help | neutral | harm | healthy nets "
        "| errors | warnings |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for kind in dict.fromkeys(record["kind"] for record in records):
        lines.append(row(kind, [record for record in records if record["kind"] == kind]))
    for half in dict.fromkeys(record["half"] for record in sorted(records, key=lambda r: HALVES.index(r["half"]))):
        lines.append(row(f"*{half} half*", [record for record in records if record["half"] == half]))
    lines.append(row("**all**", records))
    failed = [record["name"] for record in records if "failed" in record]
    lines += [f"\nFailed: {', '.join(failed)}"] if failed else []
    return "\n".join(lines)


def tools_table(records: list[dict[str, Any]]) -> str:
    """What other tools say of the same situations."""
    ill = [record for record in records if "mark" in record and "tools" in record]
    twins = [record for record in records if "healthy" in record and "tools" in record]
    lines = [
        "| | names it | alarms, but names something else | silent | alarms at a healthy net |",
        "|---|---:|---:|---:|---:|",
    ]
    marks = Counter(record["mark"] for record in ill)
    alarmed = sum(bool(record["healthy"]) for record in twins)
    named = marks["right"] + marks["partly"]
    lines.append(
        f"| Kobai's doctor | {named} | {marks['wrong'] + marks['unsure']} | {marks['silent']} | {alarmed} of {len(twins)} |"
    )
    for tool in TOOLS:
        said = Counter(record["tools"][tool].get("mark") for record in ill)
        alarmed = sum(bool(record["tools"][tool].get("twin")) for record in twins)
        lines.append(f"| {tool} | {said['named']} | {said['alarm']} | {said['silent']} | {alarmed} of {len(twins)} |")
    return "\n".join(lines)


def situations_table(records: list[dict[str, Any]], kind: str) -> str:
    lines = [
        "| situation | half | doctor | " + " | ".join(TOOLS) + " | source |",
        "|---|---|---|" + "---|" * (len(TOOLS) + 1),
    ]
    for record in records:
        question = QUESTIONS[record["name"]]
        if question.kind != kind or "mark" not in record:
            continue
        said = [record.get("tools", {}).get(tool, {}).get("mark", "") for tool in TOOLS]
        link, _, remark = question.source.partition(" ")
        source = f"[{link.removeprefix('https://').removeprefix('http://')}]({link}) {remark}".strip()
        lines.append(f"| {question.report} | {question.half} | {record['mark']} | {' | '.join(said)} | {source} |")
    return "\n".join(lines)


def page(records: list[dict[str, Any]], seed: int, half: str = "", commit: str = "") -> str:
    """The page of all situations; with a ``half``, that of this fresh half as the code at ``commit`` has met it."""
    asked = [QUESTIONS[record["name"]] for record in records]
    kinds = [kind for kind in dict.fromkeys(question.kind for question in asked) if kind != "healthy"]
    ill = sum("mark" in record for record in records)
    well = sum("healthy" in record for record in records)
    tables = {"ill": ill, "well": well, "seed": seed, "summary": summary(records), "tools": tools_table(records)}
    parts = [FIRST_TEXTS[half].format(commit=commit, **tables) if half else TEXT.format(**tables)]
    parts.append(TOOLS_TEXT.format(**tables))
    for kind in kinds:
        parts.append(f"### {kind[0].upper()}{kind[1:]}\n\n{situations_table(records, kind)}\n")
    lines = [f"- {question.report} ({question.source})" for question in asked if question.kind == "healthy"]
    parts.append("## Healthy nets that look unusual\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts) + "\n[The lab](README.md)\n"


TEXT = """\
# The doctor's exam

{ill} situations from public reports – forums, issues, papers – rebuilt from what their authors describe, and {well}
healthy nets: the same situation without its fault, and nets that look unusual and train well.
`python scripts/doctor_exam.py` draws data and weights anew for a seed (here {seed}), asks the doctor, tries the cures
and, with `--write`, writes this page.

*right*: the first finding names the fault; *partly*: another finding does; *wrong*: there are findings, and none does;
*unsure*: it is only said that the net learns nothing; *silent*: there is no finding. A cure *helps* where the loss of
fresh samples is lower by more than 2 % after training with it, and *harms* where it is higher by more than 5 %. Of the
healthy nets those with an error, and those with warnings only, are counted.

The situations are in five parts. A hash of its name puts each of the older ones into the *tuning* or the *held* half.
Thresholds are set by the tuning half; the authors of the examinations have looked at some situations of the held half
too, so its figure is an upper bound of what a situation would show that the doctor never met. The *fresh* half was
collected afterwards by somebody who knew neither the doctor's rules nor its wording, and was complete before it was put
to the doctor. It is frozen: no threshold is set by it, and what the doctor said of it the first time stays as it was, on
[a page of its own](exam_fresh.md). The *second fresh* half came about in the same way, after the doctor had been mended by
what the first one brought to light, and has [its page](exam_second_fresh.md) too. So did the *third fresh* half after it,
most of which is about convolutional, recurrent, graph and generative nets ([its page](exam_third_fresh.md)).

## Figures

{summary}
"""

TOOLS_TEXT = """\
## Beside other tools

What the checks of other tools would say of the same situations, told again by rules from their documentation
([`scripts/exam/tools.py`](../../scripts/exam/tools.py) names it); none of them was run. All that a tool documents
is taken to be switched on, and a reader to see what its charts and tables show. A message that speaks of the fault counts
as naming it, however short.

{tools}

## Situations
"""

FRESH_TEXT = """\
# The doctor's exam: what it had never met

{ill} situations from public reports and {well} healthy nets, collected by somebody who knew neither the rules of the
doctor nor their wording, complete and committed before the doctor was asked about any of them: `scripts/exam/fresh/`.
This is what it said the first time, at {commit}, with seed {seed}. Nothing is set by this half, and this page is not
written anew when the doctor changes: what it says of the same situations today stands in [the exam](exam.md), which also
says how answers are marked.

The machine was busy with other work, and trials end after some seconds: a net that learns slowly was given fewer steps.
Some of the marks are harsher than the answers: each looks for words that were chosen before the first run, and they were
left as they are. Five situations had faults of their own or of the exam's (a copy, a schedule's length), and were asked again
after these were mended, of the same doctor. Faults of the doctor's mechanisms that this run brought to light were mended
afterwards, each with a test of another net; these figures are of before.

## Figures

{summary}
"""

SECOND_FRESH_TEXT = """\
# The doctor's exam: a second half that it had never met

{ill} situations from public reports and {well} healthy nets, collected by somebody who knew neither the rules of the
doctor nor their wording, complete and committed before the doctor was asked about any of them: `scripts/exam/fresh2/`.
Each ill net was trained beside its twin before that, without the doctor, and does worse, or has a loss that is not a
number. This is what the doctor said the first time, at {commit}, with seed {seed}. Nothing is set by this half, and this
page is not written anew when the doctor changes: what it says of the same situations today stands in [the exam](exam.md),
which also says how answers are marked.

## Figures

{summary}
"""

THIRD_FRESH_TEXT = """\
# The doctor's exam: a third half that it had never met

{ill} situations from public reports and {well} healthy nets, collected by somebody who knew neither the rules of the
doctor nor their wording, complete and committed before the doctor was asked about any of them: `scripts/exam/fresh3/`.
Most are no stacks of dense layers but convolutional, recurrent, attention and graph nets, autoencoders, discriminators,
policies and embeddings, and many faults look like none of an earlier part. Each ill net was trained beside its twin
before that, without the doctor, and does worse. Which findings are right was written down with each situation, by their
names where the fault has one, and by what a message has to speak of. This is what the doctor said the first time, at
{commit}, with seed {seed}. Nothing is set by this half, and this page is not written anew when the doctor changes: what it
says of the same situations today stands in [the exam](exam.md), which also says how answers are marked.

The machine was busy with other work, and trials end after some seconds: a net that learns slowly was given fewer steps.
One diagnosis ended with an error: a cure that it tried took the last layer away, and the loss refused the shape. It has no
mark, and the healthy twin was not asked. Some marks are kinder than the answers, and some are harsher. The divergence with a
flipped sign is "right" because the finding speaks of a divergence, though it calls its weight too large. The border that
gives fakes away is "wrong" though the finding, that training and validation differ, is true. Marks were left as the words
that were chosen beforehand give them. Without trials of cures (`--quick`) 15 answers were right, 3 partly, 6 wrong and 19
silent; of the healthy nets 3 had an error and 5 a warning.

## Figures

{summary}
"""

FIRST_TEXTS = {"fresh": FRESH_TEXT, "second-fresh": SECOND_FRESH_TEXT, "third-fresh": THIRD_FRESH_TEXT}
"""How the page of each fresh half begins."""

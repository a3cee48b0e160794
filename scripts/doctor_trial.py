"""A trial of the doctor: nets drawn by a fixed rule, whose state is found out by training them, not by the doctor.

    python scripts/doctor_trial.py --seed 3                     draw, train, examine and treat; prints a table
    python scripts/doctor_trial.py --seed 3 --mnist data        with MNIST (14×14 pixels) among the data
    python scripts/doctor_trial.py --seed 4 --healthy 20 --sick 2 --out trial.jsonl

A *recipe* is a net as people build it: family, depth, width, activation, initialiser, optimiser, batch size and data are drawn.
It is *well* if 300 steps take its loss below 0.6 of what knowing nothing costs. A *sick* net is a recipe that is well with one
thing spoilt, to a degree that is drawn too; it counts if it makes less than half of the recipe's progress. All else that is
drawn is left out. The same seed gives the same nets. A whole trial (150 and 12 × 13 nets) takes half an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import _trial_recipes
import kobai
from _trial_injuries import SICK, Detached, sick, train
from _trial_recipes import Case, Residual, Written, recipe
from kobai import nn
from kobai.lab import diagnose, treat
from kobai.nn import functional as F

STEPS, WELL, LAGS = 300, 0.6, 0.5


def progress(case: Case) -> float:
    """1 − loss / chance after training, over some 512 samples, in training mode."""
    kobai.manual_seed(case.seed)
    parameters = list(case.model.parameters())
    if any(p.requires_grad for p in parameters) and not isinstance(case.model, Detached):
        train(case, case.rule(parameters), STEPS)
    loss_fn = case.task.loss_fn.func if isinstance(case.task.loss_fn, partial) else case.task.loss_fn
    chance = float(case.task.t.var()) if loss_fn is F.mse_loss else case.task.chance
    batches = case.batches
    with kobai.no_grad():
        some = batches[:: max(1, len(batches) * case.batch // 512)]
        losses = [float(loss_fn(case.model.train()(x), t).item()) for x, t in some]
    mean = sum(losses) / len(losses)
    return 1 - mean / chance if math.isfinite(mean) else -math.inf


def dead(case: Case) -> bool:
    """Whether half of the units of some ReLU are 0 for all samples, and all numbers are finite."""
    outputs: list[np.ndarray] = []
    relus = [module for module in case.model.modules() if isinstance(module, nn.ReLU)]
    handles = [module.register_forward_hook(lambda m, x, y: outputs.append(y.numpy())) for module in relus]
    with kobai.no_grad():
        case.model(kobai.from_numpy(case.task.x))
    for handle in handles:
        handle.remove()
    shares = [float((y.max((0, *range(2, y.ndim))) <= 0).mean()) for y in outputs]
    return all(np.isfinite(y).all() for y in outputs) and max(shares) >= 0.5


def verified(kind: str, index: str) -> bool:
    """Whether training shows a draw to be as it should be: ``healthy``, or sick."""
    with np.errstate(all="ignore"):
        if kind == "healthy":
            return progress(recipe(f"healthy {index}")) > 1 - WELL
        well, ill = sick(kind, index)
        if ill.checked and not dead(ill):
            return False
        best = progress(well)
        return best > 1 - WELL and progress(ill) < LAGS * best


def case_of(kind: str, index: str) -> Case:
    """The net, untrained. Three in ten of those that can be are written with functions for their activations."""
    case = recipe(f"healthy {index}") if kind == "healthy" else sick(kind, index)[1]
    plain = type(case.model) is nn.Sequential and not any(isinstance(part, Residual) for part in case.model)
    if plain and random.Random(f"style {kind} {index}").random() < 0.3:
        case.model, case.name = Written(case.model), f"(functions) {case.name}"
    return case


def drawn(seed: int, kind: str, count: int) -> Iterator[str]:
    """Indices of the first ``count`` draws of a kind that training shows to be so."""
    for i in range(12 * count):
        if count and verified(kind, f"{seed}/{i}"):
            count -= 1
            yield f"{seed}/{i}"


# --- what the doctor says -----------------------------------------------------------------------------------------------


def examined(kind: str, index: str, cure: bool = False) -> dict[str, Any]:
    """What is found in a net on one batch; and, with ``cure``, whether what is found can be cured."""
    with np.errstate(all="ignore"):
        case = case_of(kind, index)
        optimizer = case.rule(case.model.parameters())
        found = diagnose(case.model, case.batches[0], case.task.loss_fn, optimizer, clip_grad_norm=case.clip)
        record = {
            "kind": kind,
            "index": index,
            "name": case.name,
            "truth": case.truth,
            "found": [(finding.disease, finding.severity) for finding in found.findings],
            "evidence": [str(evidence) for finding in found.findings for evidence in finding.evidence],
        }
        if cure and found.findings:
            treated = treat(found, steps=200, data=case.batches)
            if treated.cured or treated.failed:
                record |= {"before": treated.loss_before, "after": treated.loss_after}
    return record


def named(record: dict[str, Any]) -> bool:
    return any(disease in record["truth"] for disease, _ in record["found"])


def table(records: list[dict[str, Any]]) -> str:
    """Rows: what was spoilt. *named*: that disease, or another right name of it, is found; *first*: as the first root."""
    lines = [
        "| spoilt | nets | named | first | some finding | error | lower loss after cure |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    total: Counter[int] = Counter()
    for kind in [*SICK, "healthy"]:
        rows = [record for record in records if record["kind"] == kind]
        cured = [record for record in rows if "after" in record]
        counts = [
            len(rows),
            sum(named(record) for record in rows),
            sum(bool(record["found"]) and record["found"][0][0] in record["truth"] for record in rows),
            sum(bool(record["found"]) for record in rows),
            sum(any(severity == "error" for _, severity in record["found"]) for record in rows),
            sum(record["after"] < record["before"] for record in cured),
            len(cured),
        ]
        if kind == "healthy":
            sick = [total[i] for i in range(7)]
            lines.append(f"| all | {' | '.join(map(str, sick[:5]))} | {sick[5]} of {sick[6]} |")
            lines.append(f"| nothing | {counts[0]} | | | {counts[3]} | {counts[4]} | |")
        else:
            total.update(dict(enumerate(counts)))
            lines.append(f"| {kind} | {' | '.join(map(str, counts[:5]))} | {counts[5]} of {counts[6]} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--healthy", type=int, default=150, help="healthy nets")
    parser.add_argument("--sick", type=int, default=13, help="sick nets of each kind")
    parser.add_argument("--mnist", help="folder that holds MNIST")
    parser.add_argument("--out", type=Path, help="file for a line of JSON about each net")
    args = parser.parse_args()
    _trial_recipes.mnist = args.mnist
    records = []
    for kind in [*SICK, "healthy"]:
        for index in drawn(args.seed, kind, args.healthy if kind == "healthy" else args.sick):
            records.append(record := examined(kind, index, cure=kind != "healthy"))
            wrong = not named(record) if record["truth"] else bool(record["found"])
            print(f"{'!' if wrong else ' '} {kind} {index} {record['name']}: {record['found']}", flush=True)
    if args.out is not None:
        args.out.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    print(table(records))


if __name__ == "__main__":
    main()

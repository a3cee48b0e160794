"""Put one question to the doctor, mark the answer, and try each cure that it offers on fresh samples."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import time
from typing import Any

import numpy as np

import kobai
from exam.question import SHARES, WITHOUT_A_CAUSE, Question, Situation
from exam.tools import TOOLS, watched
from kobai.lab import Doctor, diagnose
from kobai.lab.doctor.cures import Patient
from kobai.optim.lr_scheduler import ReduceLROnPlateau
from kobai.train import Trainer
from kobai.utils.data import DataLoader, TensorDataset

HELPS, HARMS = 0.02, 0.05
"""A cure helps if the fresh samples' loss is lower by this share, and harms if it is higher by that."""


def batches(data: tuple[Any, ...], size: int) -> list[Any]:
    return list(DataLoader(TensorDataset(*data), batch_size=size))


def findings_of(case: Situation, quick: bool) -> list[Any]:
    """What the doctor finds, its roots first: of a batch, or while he watches the epochs."""
    if not case.epochs:
        how: dict[str, Any] = {"clip_grad_norm": case.clip, "quick": quick}
        if case.validation is not None:
            how |= {"data": batches(case.train, case.batch), "validation": batches(case.validation, case.batch)}
        known = {name: value for name, value in how.items() if name in inspect.signature(diagnose).parameters}
        found = diagnose(case.model, case.example(), case.loss_fn, case.optimizer, **known)
        return [finding for finding in found.findings if finding.severity != "note"]
    doctor = Doctor(every=20, say=lambda message: None)
    trainer = Trainer(
        case.model,
        case.optimizer,
        case.loss_fn,
        scheduler=case.scheduler,
        callbacks=[doctor, *case.callbacks],
        clip_grad_norm=case.clip,
    )
    loader = DataLoader(TensorDataset(*case.train), batch_size=case.batch, shuffle=case.shuffle)
    with contextlib.suppress(FloatingPointError):  # a training that stops itself; what the doctor saw until then counts
        trainer.fit(loader, TensorDataset(*(case.validation or case.held)), epochs=case.epochs)
    found = [visit.finding for visit in doctor.visits if visit.finding.severity != "note"]
    return sorted(found, key=lambda finding: finding.follows is not None)


def marked(question: Question, findings: list[Any]) -> str:
    """``right`` if the first finding is the answer, ``partly`` if another is, ``wrong`` if none is; ``silent`` without any.

    That the net learns nothing, said without a cause, is ``unsure``.
    """
    said = [(f.disease, question.answered(f.disease, f"{f.title} {f.cause}", f.cure.code)) for f in findings]
    right = [is_right for disease, is_right in said if is_right or disease not in WITHOUT_A_CAUSE]
    if not right:
        return "unsure" if findings else "silent"
    return "right" if right[0] else "partly" if any(right) else "wrong"


# --- cures --------------------------------------------------------------------------------------------------------------


def trained_loss(case: Situation, patient: Patient, seed: int, judge: Any = None) -> float:
    """What the fresh samples cost after some steps of training, or after the epochs of the situation with its schedule.

    They are judged by the situation's score, or else by ``judge``, or by the loss function that the net was trained with.
    """
    kobai.manual_seed(seed)
    loss_fn = patient.loss_fn or case.loss_fn
    model, optimizer = patient.model.train(), patient.optimizer
    count = len(case.train[-1])
    size = min(case.batch, count)
    each = count // size  # whole batches of an epoch
    rng, order = np.random.default_rng(seed), np.arange(count)
    scheduler, value = _rescaled(case.scheduler, optimizer), math.nan
    for step in range(each * case.epochs or case.steps):
        if step % each == 0:
            if step and scheduler is not None:
                scheduler.step(*[value] * isinstance(scheduler, ReduceLROnPlateau))
            order = rng.permutation(count) if case.shuffle else order
        rows = order[step % each * size : (step % each + 1) * size]
        *inputs, target = (part[rows] for part in case.train)
        optimizer.zero_grad()
        loss = loss_fn(model(*inputs), target)
        value = float(loss.item())
        if loss.requires_grad:
            loss.backward()
            if patient.clip_grad_norm is not None:
                kobai.nn.utils.clip_grad_norm_(model.parameters(), patient.clip_grad_norm)
            optimizer.step()
    *inputs, target = case.held
    with kobai.no_grad():
        value = float((case.score or judge or loss_fn)(model.eval()(*inputs), target).item())
    return value if math.isfinite(value) else math.inf


def _rescaled(scheduler: Any, optimizer: Any) -> Any:
    """The schedule, from the rate that the optimiser has now: a cure may have changed it, or the optimiser itself."""
    if scheduler is not None:
        scheduler.optimizer = optimizer
        if hasattr(scheduler, "base_lrs") and scheduler.last_epoch == 0:
            scheduler.base_lrs = [group["lr"] for group in optimizer.param_groups]
    return scheduler


def effect(before: float, after: float, floor: float = 0.0) -> str:
    """``helps``, ``neutral`` or ``harms``; a difference below ``floor`` is neither."""
    if not math.isfinite(before):
        return "helps" if math.isfinite(after) else "neutral"
    if after < before - max(HELPS * abs(before), floor):
        return "helps"
    return "harms" if after > before + max(HARMS * abs(before), floor) else "neutral"


def offered(finding: Any) -> bool:
    """Whether a finding offers a cure that a program can apply, and does not say itself that it did not help."""
    refuted = finding.tried is not None and not finding.tried.helped
    return finding.follows is None and finding.cure.applicable and not refuted


def cures_tried(question: Question, seed: int, findings: list[Any]) -> list[dict[str, Any]]:
    """Each cure that is offered, on a situation drawn again from the same seed: alone, and else on top of those before it."""
    wanted = [finding.cure for finding in findings if offered(finding)]
    names = [finding.disease for finding in findings if offered(finding)]

    @functools.cache
    def loss(which: tuple[int, ...], judge: tuple[int, ...]) -> float:
        return _cured(question, seed, [wanted[i] for i in which], [wanted[i] for i in judge])

    floor = 0.01 if wanted and question.make(seed).score in SHARES else 0.0
    tried = []
    for i, name in enumerate(names):
        pairs = [((), (i,)), (tuple(range(i)), tuple(range(i + 1)))][: 1 + (i > 0)]
        for before, after in pairs:
            lost, left = loss(before, after), loss(after, after)
            what = effect(lost, left, floor)
            if what == "helps" or (before, after) == pairs[-1]:
                tried.append({"disease": name, "before": lost, "after": left, "effect": what})
                break
    return tried


def _cured(question: Question, seed: int, cures: list[Any], judge: list[Any]) -> float:
    """What fresh samples cost after training with these cures, by the loss function that the cures in ``judge`` leave.

    A net that was trained with the wrong loss is judged by the right one: two loss functions cannot be compared.
    """
    case = question.make(seed)
    patient = Patient(case.model, case.optimizer, case.clip)
    for cure in cures:
        cure.apply(patient)
    other = question.make(seed)
    right = Patient(other.model, other.optimizer, other.clip)
    for cure in judge:
        cure.apply(right)
    return trained_loss(case, patient, seed, right.loss_fn)


# --- one question -------------------------------------------------------------------------------------------------------


def plain(findings: list[Any]) -> list[dict[str, Any]]:
    """As JSON holds them."""
    return [
        {
            "disease": finding.disease,
            "severity": finding.severity,
            "follows": finding.follows,
            "where": list(finding.where),
            "text": f"{finding.title} – {finding.cause}",
            "evidence": [str(evidence) for evidence in finding.evidence],
            "tried": "" if finding.tried is None else str(finding.tried),
            "code": finding.cure.code,
        }
        for finding in findings
    ]


def examined(question: Question, seed: int, quick: bool = False, tools: bool = True) -> dict[str, Any]:
    """The record of a question: what was found in the ill situation and its twin, and what came of the cures."""
    began = time.perf_counter()
    record: dict[str, Any] = {"name": question.name, "kind": question.kind, "half": question.half, "seed": seed}
    with np.errstate(all="ignore"):
        if question.kind == "healthy":
            found = findings_of(question.make(seed), quick)
        else:
            findings = findings_of(question.make(seed), quick)
            record |= {"mark": marked(question, findings), "findings": plain(findings)}
            record["seconds"] = time.perf_counter() - began
            record["cures"] = cures_tried(question, seed, findings)
            found = findings_of(question.make(seed, ill=False), quick) if question.twin else []
        if question.twin:
            record["healthy"] = plain(found)
        if tools:
            record["tools"] = told_by_tools(question, seed)
    return record | {"total": time.perf_counter() - began}


def told_by_tools(question: Question, seed: int) -> dict[str, dict[str, str]]:
    """What each tool says of the ill situation, marked like the doctor, and how often it alarms at the twin."""
    said: dict[str, dict[str, str]] = {tool: {} for tool in TOOLS}
    if question.kind != "healthy":
        seen = watched(question.make(seed), seed)
        for tool, check in TOOLS.items():
            messages = check(seen)
            named = [question.answered("", message) for message in messages]
            said[tool]["mark"] = "named" if any(named) else "alarm" if messages else "silent"
            said[tool]["says"] = "; ".join(messages)
    if question.twin:
        seen = watched(question.make(seed, ill=False), seed)
        for tool, check in TOOLS.items():
            said[tool]["twin"] = "; ".join(check(seen))
    return said

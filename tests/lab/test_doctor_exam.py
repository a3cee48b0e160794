"""``scripts/doctor_exam.py``: its situations can be built and are what they say, and its marks are given as described."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import kobai

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "scripts"))

import doctor_exam  # noqa: E402
from exam.page import FIRST_PAGES, PAGE  # noqa: E402
from exam.question import HALVES  # noqa: E402
from exam.questions import QUESTIONS  # noqa: E402
from exam.running import effect, marked, trained_loss  # noqa: E402
from exam.tools import TOOLS, watched  # noqa: E402
from kobai.lab.doctor.cures import Patient  # noqa: E402

NOT_FINITE = {
    "logarithm-of-a-softmax-that-is-zero",
    "missing-values",
    "labels-from-one",
    "a-constant-column-divided-by-its-range",
    "rates-that-may-be-negative",
    "a-softmax-of-ones-own",
    "a-hyperbolic-cosine-of-a-large-error",
    "weights-of-whatever-was-in-memory",
}
"""Situations whose loss is NaN or infinite from the start, or refuses the targets."""


def first_loss(case):
    *inputs, target = case.example()
    with np.errstate(all="ignore"):
        try:
            return case.loss_fn(case.model(*inputs), target).item()
        except IndexError:  # a label without a score
            return math.nan


@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.filterwarnings("ignore")
def test_a_situation_has_a_report_a_source_and_a_loss(name):
    question = QUESTIONS[name]
    assert question.report
    assert question.source.startswith("http")
    assert math.isfinite(first_loss(question.make(3))) is (name not in NOT_FINITE)
    if question.kind == "healthy":
        return
    assert question.expects or question.names
    if question.twin:
        assert math.isfinite(first_loss(question.make(3, ill=False)))


@pytest.mark.rest
@pytest.mark.thorough
@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.filterwarnings("ignore")
def test_the_same_seed_draws_a_situation_again(name):
    losses = [first_loss(QUESTIONS[name].make(3)) for _ in range(2)]
    assert losses[0] == losses[1] or not math.isfinite(losses[0])


@pytest.mark.parametrize(
    ("half", "ill", "healthy"), [("fresh", 50, 40), ("second-fresh", 45, 20), ("third-fresh", 40, 25)]
)
def test_a_fresh_half_is_large_enough_and_apart_from_the_others(half, ill, healthy):
    fresh = [question for question in QUESTIONS.values() if question.half == half]
    assert sum(question.kind != "healthy" for question in fresh) >= ill
    assert sum(question.kind == "healthy" for question in fresh) >= healthy
    assert {question.half for question in QUESTIONS.values()} == set(HALVES)
    assert doctor_exam.chosen(None, None, half) == [question.name for question in fresh]


def test_no_two_situations_tell_the_same_story():
    reports = [question.report for question in QUESTIONS.values()]
    assert len(set(reports)) == len(reports)


LATER = [question for question in QUESTIONS.values() if question.half in ("second-fresh", "third-fresh")]

OFF_THE_POINT = {
    "the loss does not fall – the net learns nothing": (),
    "the gradient vanishes – that of layer 0 is a thousandth of that of layer 3": (),
    "the gradient explodes – that of layer 0 is a thousand times that of layer 3": ("weights and signal",),
    "dead rectifiers – 80 % of the units of layer 1 (ReLU) are 0 for every sample": (),
    "units are saturated – 90 % of the units of layer 1 (Tanh) are at ±1": (),
    "the learning rate is too large – the loss rises after one step at 0.01": ("optimiser",),
    "the learning rate is too small – a step changes the weights by a millionth": ("optimiser",),
    "the inputs are not standardised – column 3 has a deviation of 1000, others have 1": ("data",),
    "the targets are not standardised – their mean is 300 and their deviation 50": ("data",),
    "the classes are not balanced – class 3 has 2 % of the samples": (),
    "the output does not depend on the input – it is the same for all samples": (),
    "the labels have nothing to do with the inputs – they are learnt no faster than shuffled ones": (),
    "batch norm over two samples – the statistics of a batch of 2 are noise": ("optimiser",),
    "the validation loss rises while the training loss falls – samples are learnt by heart": ("over epochs",),
    "the loss is not a number – the first value that is not finite comes from layer 2 (Linear)": (),
    "units of a layer are the same – all rows of the weight are equal": (),
    "samples are mixed – the output of one depends on the others of the batch": ("samples independent",),
    "weight decay is too large – it moves the weights more than the gradient does": ("optimiser",),
    "parameters without a gradient – layer 3 is not used by the loss": ("who is trained",),
    "there is no activation – layers 0 and 1 are one linear map": ("capacity",),
    "too few units – a layer of one unit stands between 128 and 64": (),
    "dropout of 0.9 – nine in ten units are dropped in each step": (),
    "validation samples are in the training set": (),
}
"""Answers to other questions, and the kinds in which they may be right."""


@pytest.mark.parametrize("question", LATER, ids=lambda question: question.name)
def test_an_answer_to_another_question_is_wrong_in_the_later_fresh_halves(question):
    assert question.twin
    if question.kind == "healthy":
        return
    accepted = [answer for answer, kinds in OFF_THE_POINT.items() if question.answered("anything", answer)]
    assert [answer for answer in accepted if question.kind not in OFF_THE_POINT[answer]] == []
    assert not question.answered("no-better-than-guessing", question.report)


def finding(disease, title="", follows=None):
    return SimpleNamespace(
        disease=disease,
        title=title,
        cause="",
        severity="error",
        where=(),
        follows=follows,
        cure=SimpleNamespace(code=""),
    )


def test_an_answer_is_marked_by_where_the_right_finding_stands():
    question = replace(QUESTIONS["softmax-twice"], names=("bounded-scores",), never=("rate-too-small",))
    right, other = finding("bounded-scores"), finding("saturated")
    assert marked(question, []) == "silent"
    assert marked(question, [finding("no-better-than-guessing", "a softmax?")]) == "unsure"
    assert marked(question, [right, other]) == "right"
    assert marked(question, [other, right]) == "partly"
    assert marked(question, [other]) == "wrong"
    assert marked(question, [finding("anything", "there is a Softmax before the loss")]) == "right"
    assert marked(question, [finding("rate-too-small", "after the softmax the rate is too small")]) == "wrong"


def test_a_cure_is_judged_by_shares_of_the_loss_before_it():
    assert [effect(1.0, after) for after in (0.97, 0.99, 1.04, 1.06)] == ["helps", "neutral", "neutral", "harms"]
    assert effect(math.inf, 5.0) == "helps"
    assert effect(1.0, math.inf) == "harms"
    assert effect(-1.0, -1.1) == "helps"
    assert effect(0.010, 0.015, floor=0.01) == "neutral"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "tool", "speaks_of"),
    [
        ("softmax-of-one-unit", "Keras", "size 1"),
        ("column-against-row", "skorch", "1-dimensional"),
        ("normalised-over-the-wrong-dimension", "Lightning", "mixes data"),
        ("detach-in-the-middle", "W&B", "encoder.0.weight"),
    ],
)
def test_other_tools_say_of_the_fault_what_they_document_and_nothing_of_its_twin(name, tool, speaks_of):
    question = QUESTIONS[name]
    assert any(speaks_of in message for message in TOOLS[tool](watched(question.make(0), 0)))
    assert not any(speaks_of in message for message in TOOLS[tool](watched(question.make(0, ill=False), 0)))


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")
def test_a_run_prints_a_line_for_each_situation_and_the_totals(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(
        sys, "argv", ["doctor_exam", "--name", "sigmoid-twice", "--verbose", "--json", str(tmp_path / "x")]
    )
    monkeypatch.setattr("logging.disable", lambda level: None)
    kobai.manual_seed(5)
    doctor_exam.main()
    text = capsys.readouterr().out
    assert "sigmoid-twice-many-labels" in text
    assert "| **all** | 2 | 2 | 0 | 0 | 0 | 0 |" in text
    assert (tmp_path / "x").read_text().startswith("[")


def test_the_page_lists_every_situation_and_healthy_net():
    pages = {half: FIRST_PAGES.get(half, PAGE) for half in HALVES}
    texts = {half: page.read_text(encoding="utf-8") for half, page in pages.items() if page.exists()}
    assert {"tuning", "held", "fresh"} <= set(texts)  # a half that was not asked about yet has no page
    listed = [question for question in QUESTIONS.values() if question.half in texts]
    assert [question.name for question in listed if question.report not in texts[question.half]] == []


@pytest.mark.rest
@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", QUESTIONS)
def test_a_healthy_net_learns(name):
    question = QUESTIONS[name]
    if not question.twin:
        return
    case = question.make(1, ill=False)
    *inputs, target = case.held
    with kobai.no_grad():
        before = (case.score or case.loss_fn)(case.model.eval()(*inputs), target).item()
    after = trained_loss(case, Patient(case.model, case.optimizer, case.clip), 1)
    assert after < before - 0.1 * abs(before)


@pytest.mark.rest
@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", QUESTIONS)
def test_the_whole_exam_runs(name, monkeypatch):
    monkeypatch.setattr("logging.disable", lambda level: None)
    assert "failed" not in doctor_exam.one((name, 1, True, True))

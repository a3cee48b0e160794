"""All questions of the exam, kind by kind."""

from exam.question import QUESTIONS as _FOUND

KINDS = (
    "who is trained",
    "loss and output",
    "samples independent",
    "optimiser",
    "capacity",
    "weights and signal",
    "batch statistics",
    "data",
    "over epochs",
    "healthy",
)
"""In the order of the tables."""

QUESTIONS = dict(sorted(_FOUND.items(), key=lambda item: KINDS.index(item[1].kind)))

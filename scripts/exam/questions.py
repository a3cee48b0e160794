"""All questions of the exam, kind by kind."""

from importlib import import_module

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

_MODULES = """
    who losses samples optimisers capacity statistics faults_of_data epochs unusual unusual_losses fresh fresh2 fresh3
"""
for _module in _MODULES.split():
    import_module(f"exam.{_module}")

QUESTIONS = dict(sorted(_FOUND.items(), key=lambda item: KINDS.index(item[1].kind)))

"""All questions of the exam."""

from exam import losses, samples, who
from exam.question import QUESTIONS

__all__ = ["QUESTIONS", "losses", "samples", "who"]

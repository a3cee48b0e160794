"""All questions of the exam."""

from exam import capacity, epochs, faults_of_data, losses, optimisers, samples, statistics, unusual, unusual_losses, who
from exam.question import QUESTIONS

KINDS = (who, losses, samples, optimisers, capacity, statistics, faults_of_data, epochs, unusual, unusual_losses)
"""Modules in the order of the tables."""

__all__ = ["KINDS", "QUESTIONS"]

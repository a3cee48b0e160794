"""Timing a model's training steps, eager and captured, on every backend: ``kobai bench``."""

from kobai.bench.drawing import picture
from kobai.bench.machine import facts
from kobai.bench.timing import CAPTURED, EAGER, Plan, Timing, measure, win

__all__ = ["CAPTURED", "EAGER", "Plan", "Timing", "facts", "measure", "picture", "win"]

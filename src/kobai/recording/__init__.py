"""What a captured step on the CPU is made of: arrays that note what is done with them, and the program of these notes."""

from kobai.recording.arrays import Recorded
from kobai.recording.recorder import Program, Recorder
from kobai.recording.rules import Rules

__all__ = ["Program", "Recorded", "Recorder", "Rules"]

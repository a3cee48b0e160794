"""Random sequences of training steps: captured, they do in everything what they do eagerly.

Ten here; ``scripts/fuzz_capture.py`` runs as many as are asked for (two thousand in ``.ci/run``), and looks into one.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import capture_fuzz
import step_sequences
from kobai.capture import session
from step_changes import CHANGES
from step_effects import EFFECTS
from step_places import NUMBERS, PLACES

SEQUENCES = 10


@pytest.mark.rest
@pytest.mark.thorough  # they compile many kernels; and CI runs thousands of others
def test_captured_sequences_do_what_eager_ones_do():
    found = capture_fuzz.many(range(SEQUENCES), most=1)
    assert not found.faults, found.faults[0]
    assert found.replays > 0.15 * found.calls, "hardly anything was captured: this compared eager steps with themselves"


def test_a_sequence_is_the_same_in_every_process():
    code = """
from step_programs import text_of
from step_sequences import draw
for i in range(30):
    print(draw(i), text_of(draw(i).spec))
"""
    tests = str(Path(__file__).parents[1])
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": tests, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert f"{step_sequences.draw(29)}" in outputs.pop()


def test_every_kind_is_drawn():
    drawn = set().union(*(step_sequences.draw(seed).kinds for seed in range(2000)))
    kinds = {*CHANGES}
    kinds |= {f"place: {place}" for place in (*PLACES, *NUMBERS)}
    kinds |= {f"effect: {effect}" for effect in EFFECTS}
    assert kinds <= drawn


@pytest.mark.thorough
def test_a_program_that_is_never_looked_after_is_found_out(monkeypatch):
    """The fuzzer's own check: with no guards at all a stale replay is found, and told as plainly as it can be."""
    monkeypatch.setattr(session.Replay, "holds", lambda self: True)
    found = capture_fuzz.many(range(80), most=1)
    assert found.faults
    assert "sequence" in found.faults[0]
    assert "the program:" in found.faults[0]

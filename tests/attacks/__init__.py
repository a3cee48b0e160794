"""Attacks on the library and its commands. A short form of each is a test; ``scripts/attack.py`` runs the long one.

An attack is a function ``(seed, share, folder, say) -> failures``: ``share`` of its cases are drawn by the seed (1 for all of
them), ``folder`` is empty and its own, ``say`` is given lines on how far it is. A failure is a line that says how to repeat it.
To add an attack, put its module here and its name into ``MODULES``.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

Attack = Callable[[int, float, Path, Callable[[str], None]], list[str]]

MODULES = ["crash_points", "damage", "kills"]


def find(name: str) -> Attack:
    """The attack in a module, which calls it ``attack``."""
    found: Attack = import_module(f"attacks.{name}").attack
    return found

"""The table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

FORMS: dict[str, Callable[..., Any]] = {}
"""By key: the function that adds the nodes of a call."""


def form(*keys: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: the form of these primitives."""

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        for key in keys:
            if key in FORMS:
                raise RuntimeError(f"form: {key} is declared twice")
            FORMS[key] = function
        return function

    return declare

"""Watching runs that other processes do: a thread looks at what they have written, now and then."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

POLL = 0.25
"""Seconds between two looks."""


@contextmanager
def watching(look: Callable[[], T], watch: Callable[[T], None] | None) -> Iterator[None]:
    """While the block runs, give ``watch`` what ``look`` returns whenever that has changed; once more at the end."""
    if watch is None:
        yield
        return
    over = threading.Event()

    def go() -> None:
        before = None
        while not over.wait(POLL):
            now = look()
            if now != before:
                watch(now)
            before = now

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        watch(look())

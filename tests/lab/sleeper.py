"""Work that does not end, for tests of workers: a module of its own, because they import it."""

from __future__ import annotations

import os
import time
from pathlib import Path


def sleep(folder: str) -> None:
    """Say who does it, by a file, and go on for ever."""
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(600)

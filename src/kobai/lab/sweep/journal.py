"""The journal of a study on the disk: Optuna's lines, each with its checksum, and none that was cut off among them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kobai.core.checksum import DamagedError, from_json, to_json
from kobai.core.files import append
from kobai.core.untrusted import real
from kobai.errors import DataError
from kobai.lab.sweep.needs_optuna import calm


class Journal:
    """What Optuna's JournalStorage writes to and reads from; see ``optuna.storages.journal.BaseJournalBackend``."""

    def __init__(self, path: Path) -> None:
        # The lock is a link to this path, from its own folder: a relative one would lead nowhere, and Optuna would wait for a
        # lock that a dead process has left for ever.
        self.path = real(path)
        self.seen = (0, 0)
        self.lock = _lock(str(self.path))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add lines; each is whole, or goes when the next is added."""
        self.lock.acquire()
        try:
            append(self.path, b"".join(to_json(log, allow_nan=True) for log in logs))
        finally:
            self.lock.release()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The lines from a number on; DataError for one that is damaged."""
        if not self.path.exists():
            return
        number, place = self.seen if self.seen[0] <= log_number_from else (0, 0)
        with self.path.open("rb") as lines:
            lines.seek(place)
            for line in lines:
                if not line.endswith(b"\n"):
                    break  # another process is writing it, or was killed
                number, place = number + 1, place + len(line)
                if number > log_number_from:
                    entry = entry_of(self.path, number, line)
                    self.seen = number, place
                    yield entry


def entry_of(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """What a line holds; DataError, naming it, where that is nothing of a journal's or damaged."""
    try:
        entry: dict[str, Any] = from_json(line)
        entry["op_code"]
    except DamagedError as error:
        raise DataError(f"{path}: line {number} {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is no journal of a search ({type(error).__name__}: {error})") from error
    return entry


def _lock(path: str) -> Any:
    from optuna.storages.journal import JournalFileOpenLock, JournalFileSymlinkLock

    # A link is atomic on network drives too; Windows lets only some users make one.
    with calm():
        return JournalFileOpenLock(path) if sys.platform == "win32" else JournalFileSymlinkLock(path)

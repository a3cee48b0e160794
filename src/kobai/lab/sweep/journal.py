"""The journal of a search: Optuna's log on disk, with a checksum in each line, and safe against lines that are cut off."""

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
    """The file behind Optuna's JournalStorage; see ``optuna.storages.journal.BaseJournalBackend``."""

    def __init__(self, path: Path) -> None:
        # The lock is a link to this path, in the same folder. A relative link would lead nowhere, and Optuna would wait for
        # ever for a lock that a dead process has left.
        self.path = real(path)
        self.seen = (0, 0)  # lines, and where they end
        self.lock = _lock(str(self.path))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add lines. One that is cut off is removed before the next is added."""
        self.lock.acquire()
        try:
            append(self.path, b"".join(to_json(log, allow_nan=True) for log in logs))
        finally:
            self.lock.release()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The lines from a number on; DataError for a damaged one."""
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
                    entry = _entry(self.path, number, line)
                    self.seen = number, place
                    yield entry


def _entry(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """The content of a line; DataError, with its number, if it is damaged or does not belong to a journal."""
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

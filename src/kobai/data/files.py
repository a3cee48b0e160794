"""Where data files are kept, and how they are downloaded."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from kobai.errors import DataError, install


@dataclass(frozen=True)
class Remote:
    """A file that can be downloaded: its name, where it is served, the SHA-256 of its contents, and its size in bytes."""

    name: str
    urls: tuple[str, ...]
    sha256: str
    size: int


def cache_dir() -> Path:
    """Folder of downloaded files: the user's cache folder by the system's convention; DataError if there is no home."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "~/AppData/Local")
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(base).expanduser() / "kobai"
    except RuntimeError:
        raise DataError("there is no home folder to keep data in. Name a folder (data_dir=, KOBAI_DATA)") from None


def data_dirs(data_dir: str | Path | None) -> list[Path]:
    """Folders to look in: ``data_dir`` alone where it is given, else ``KOBAI_DATA`` where it is set, then the cache."""
    if data_dir is not None:
        return [Path(data_dir).expanduser()]
    named = os.environ.get("KOBAI_DATA")
    if not named:
        return [cache_dir()]
    folders = [Path(named).expanduser()]
    with suppress(DataError):  # without a home it is the only one
        folders.append(cache_dir())
    return folders


def locate(
    who: str,
    data_dir: str | Path | None,
    folders: Sequence[str],
    wanted: Sequence[Sequence[str]],
    remotes: Sequence[Remote] | None,
) -> list[Path]:
    """The files of a data set: found, else downloaded from ``remotes`` if given, else a DataError that says what to do.

    Downloads go into the sub folder ``folders[0]`` of ``data_dir``, or of the cache without one.
    """
    roots = data_dirs(data_dir)
    paths = find(who, roots, folders, wanted, complete=remotes is None)
    if paths is not None:
        return paths
    if remotes is not None:
        return download(remotes, roots[-1] / folders[0])
    raise DataError(
        f"{who}: no files found in {', '.join(str(root) for root in roots)} (nor in a sub folder {folders[0]}); expected "
        f"{', '.join(names[0] for names in wanted)}. Name their folder (data_dir=, KOBAI_DATA) or pass download=True"
    )


def find(
    who: str, roots: Sequence[Path], folders: Sequence[str], wanted: Sequence[Sequence[str]], complete: bool = True
) -> list[Path] | None:
    """One file for each entry of ``wanted`` (alternative names), all from one folder; None if no folder has them.

    Each root is searched in the sub folders ``folders`` and then by itself. With ``complete``, a folder that holds some of
    the files but not all is an error that names the missing ones.
    """
    for root in roots:
        for folder in [*(root / name for name in folders), root]:
            found = [next((folder / name for name in names if (folder / name).is_file()), None) for names in wanted]
            if all(found):
                return [path for path in found if path]
            if any(found) and complete:
                lacking = ", ".join(names[0] for names, path in zip(wanted, found, strict=True) if path is None)
                raise DataError(f"{who}: {folder} lacks {lacking}")
    return None


def download(remotes: Sequence[Remote], folder: Path, timeout: float = 30.0) -> list[Path]:
    """The files in ``folder``, downloaded unless they are already there with the right checksum.

    A file appears under its name only when it is complete and its SHA-256 is right; a failure leaves nothing behind, and no
    server can send more than the file's size. Mirrors are tried in turn. Raises :class:`~kobai.errors.DataError`, which says
    what each of them answered.
    """
    try:
        import pooch
    except ImportError as error:
        raise DataError(f"download: needs pooch. Install it: {install('data')}") from error
    # pooch announces every download, as the bar does.
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        return [_fetch(pooch, remote, folder, timeout) for remote in remotes]
    finally:
        logger.setLevel(level)


def _fetch(pooch: Any, remote: Remote, folder: Path, timeout: float) -> Path:
    reasons = []
    for url in remote.urls:
        bar = _Progress(remote.name)
        try:
            # chunk_size is also what pooch tells the bar for each piece.
            downloader = pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 16, timeout=timeout)

            def capped(url: str, target: str, retriever: Any, send: Any = downloader) -> None:
                with open(target, "wb") as file:
                    send(url, _Capped(file, remote.size), retriever)

            return Path(
                pooch.retrieve(
                    url, known_hash=f"sha256:{remote.sha256}", fname=remote.name, path=folder, downloader=capped
                )
            )
        except (OSError, ValueError) as error:  # what requests raises is an OSError, a wrong checksum a ValueError
            reasons.append(f"{url}: {' '.join(str(error).split())}")
        finally:
            bar.close()
    raise DataError(f"download of {remote.name} failed. " + "; ".join(reasons))


class _Capped:
    """A file that takes no more than ``size`` bytes."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size, self.left = file, size, size

    def write(self, content: bytes) -> None:
        self.left -= len(content)
        if self.left < 0:
            raise OSError(errno.EFBIG, f"the server sends more than the file's {self.size} bytes")
        self.file.write(content)

    def flush(self) -> None:
        self.file.flush()


class _Progress:
    """A bar of rich behind the few methods that pooch calls."""

    def __init__(self, name: str) -> None:
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        from kobai.core.terminal import Terminal

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self.bar = Progress(*columns, console=Terminal(stderr=True))
        self.task = self.bar.add_task(name, total=None)
        self.bar.start()

    @property
    def total(self) -> float | None:
        return self.bar.tasks[0].total

    @total.setter
    def total(self, size: int) -> None:
        self.bar.update(self.task, total=size or None)

    def update(self, n: int) -> None:
        self.bar.advance(self.task, n)

    def reset(self) -> None:
        self.bar.update(self.task, completed=0)

    def close(self) -> None:
        self.bar.stop()

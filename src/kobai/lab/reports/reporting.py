"""``report``: one HTML file, which needs no network, on a run, a comparison, a search or experiments."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from kobai.core.files import write_atomically
from kobai.errors import DataError
from kobai.lab.reports import comparison, experiments, run, search
from kobai.lab.reports.page import Page
from kobai.random import default_generator

log = logging.getLogger("kobai")

FILE = "report.html"
"""The name of a report in the folder that it is about."""

_PAGES = (".html", ".htm")


def report(
    source: str | Path,
    out: str | Path | None = None,
    *,
    data_dir: str | Path | None = None,
    model: str | None = None,
    say: Callable[[str], None] = log.warning,
    tell: Callable[[str], None] = log.info,
) -> Path:
    """Write the report on what is in ``source``; returns its path.

    Args:
        source: the folder of a run of ``kobai train`` (its best checkpoint), or one of its checkpoints; the folder of a
            comparison or of a search, or its results (JSON); a folder with results of experiments, or one of these (JSON).
        out: the file to write; by default ``report.html`` in the folder. It is replaced whole.
        data_dir: where the files of the run's data set are, if not where they were.
        model: ``file.py:MyNet`` of a run with a net of your own; a checkpoint never runs code.
        say: called with a line for what could not be reported, such as a damaged checkpoint that was skipped.
        tell: called with a line on what the report is about: which checkpoint, of which epoch, or which results.

    The file holds all it needs: figures are SVG within it, pictures are in its addresses, and it has no script. What a run was
    trained on is read once more, and its model is asked about one batch of 256 training samples as it was before training (the
    seed says how) and as it is now; nothing is trained. Data that cannot be read are left out, and the report says why.

    Raises:
        FileNotFoundError: there is no ``source``.
        DataError: ``source`` holds nothing to report on; ``out`` is a file of another kind.
        CheckpointError: a run without a checkpoint that can be read.

    >>> import tempfile
    >>> from kobai.lab import run
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = run("activations", out=folder)
    ...     page = report(folder)
    ...     page.name, "<svg" in page.read_text() or "data:image/svg+xml" in page.read_text()
    ('report.html', True)
    """
    source = Path(source).expanduser()
    if not source.exists():
        raise FileNotFoundError(2, "no such file or folder to report on", str(source))
    target = Path(out).expanduser() if out is not None else (source if source.is_dir() else source.parent) / FILE
    if target.is_dir():
        target = target / FILE
    if target.exists() and target.suffix.lower() not in _PAGES:
        raise DataError(
            f"{target}: is there already and is no page; choose another name for the report, such as {FILE}"
        )
    random = default_generator.get_state()
    try:
        page = _page(source, None if data_dir is None else str(data_dir), model, say, tell)
    finally:  # models are rebuilt from their seeds, and what the caller draws next should not depend on it
        default_generator.set_state(random)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, page.html().encode())
    return target


def _page(
    source: Path,
    data_dir: str | None,
    model: str | None,
    say: Callable[[str], None],
    tell: Callable[[str], None],
) -> Page:
    if run.is_run(source):
        return run.page(source, data_dir, model, say, tell)
    tell(str(source))
    if comparison.SOURCE.is_at(source):
        return comparison.page(source)
    if search.SOURCE.is_at(source):
        return search.page(source)
    if experiments.results(source):
        return experiments.experiments(source)
    raise DataError(
        f"{source}: holds nothing to report on; expected a run of kobai train (a checkpoint), a comparison of kobai compare, "
        "a search of kobai tune, or results of kobai lab"
    )

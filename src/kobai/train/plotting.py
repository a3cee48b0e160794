"""The learning curve: loss and metrics by epoch, training and validation, as a PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kobai.core.files import write_atomically
from kobai.errors import install

# Okabe and Ito's blue and vermilion: every kind of colour vision tells them apart, and so does a print in grey.
TRAINING, VALIDATION = "#0072B2", "#D55E00"


def learning_curve(history: Sequence[Mapping[str, Any]], path: str | Path) -> Path:
    """Draw the history of a run, one panel for the loss and one for each metric; returns the path of the PNG.

    ``history``: a dict for each epoch, as :class:`~kobai.train.Trainer` keeps them. Raises ValueError for an empty history,
    ImportError (with the install line) without matplotlib.

    >>> import tempfile
    >>> import kobai
    >>> history = [{"epoch": 1, "loss": 2.0, "val_loss": 2.5}, {"epoch": 2, "loss": 1.0, "val_loss": 1.5}]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     kobai.train.learning_curve(history, f"{folder}/curve.png").name
    'curve.png'
    """
    if not history:
        raise ValueError("learning_curve: expected at least one epoch, got an empty history")
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise ImportError(f"learning_curve: matplotlib is not installed. Install it: {install('plot')}") from error

    epochs = [record["epoch"] for record in history]
    marker = "o" if len(epochs) <= 15 else None  # a single epoch has no line
    names = [name for name in history[0] if name not in ("epoch", "lr", "time") and not name.startswith("val_")]
    # Figure without pyplot: no window system, no state shared with the caller's own figures.
    figure = Figure(figsize=(4.6 * len(names), 3.4), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for panel, name in zip(panels, names, strict=True):
        for key, label, colour in ((name, "training", TRAINING), (f"val_{name}", "validation", VALIDATION)):
            if key in history[0]:
                values = [float("nan") if record[key] is None else record[key] for record in history]
                panel.plot(epochs, values, color=colour, label=label, linewidth=1.6, marker=marker, markersize=3.5)
        panel.set_xlabel("epoch")
        panel.set_ylabel(name)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", color="0.9", linewidth=0.8)
        panel.set_axisbelow(True)
    if any(name.startswith("val_") for name in history[0]):
        panels[0].legend(frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content.getvalue())
    return path

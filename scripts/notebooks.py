"""Run the notebooks of docs/notebooks, and keep what they show.

    python scripts/notebooks.py            all of them
    python scripts/notebooks.py table      one of them, by a part of its name

What belongs to the machine is left out of the files: paths, the kernel's version, times of execution.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
PATHS = re.compile(r"(?:/(?:home|root|tmp|usr|opt|work|private|Users|var)\b|[A-Z]:\\)[^\s\"'<>,)]*")


def executed(path: Path, folder: str) -> Any:
    """The notebook after all its cells have run in ``folder``; CellExecutionError for one that fails."""
    notebook: Any = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": folder}}
    ).execute()


def clean(notebook: Any) -> Any:
    """Without what belongs to the machine that has run it."""
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
        for output in cell.get("outputs", []):
            output.pop("metadata", None)
            if output.output_type in ("display_data", "execute_result"):
                output.metadata = {}
            for place in (output, output.get("data", {})):
                for key, value in place.items():
                    if isinstance(value, str):
                        place[key] = PATHS.sub(lambda found: Path(found[0]).name, value)
    return notebook


def main(names: list[str]) -> None:
    for path in sorted(FOLDER.glob("*.ipynb")):
        if not names or any(name in path.name for name in names):
            with tempfile.TemporaryDirectory() as folder:
                nbformat.write(clean(executed(path, folder)), path)
            print(path.name)


if __name__ == "__main__":
    main(sys.argv[1:])

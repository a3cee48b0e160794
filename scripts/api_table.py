"""Write docs/api.md: every public name of Kobai with the first line of its documentation.

    python scripts/api_table.py

A test compares the file with what this prints: a name cannot come or go without the table saying so.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

TABLE = Path(__file__).parents[1] / "docs" / "api.md"
MODULES = [
    "kobai",
    "kobai.nn",
    "kobai.nn.functional",
    "kobai.nn.attention",
    "kobai.nn.init",
    "kobai.nn.parallel",
    "kobai.nn.utils",
    "kobai.optim",
    "kobai.optim.lr_scheduler",
    "kobai.optim.swa_utils",
    "kobai.autograd",
    "kobai.autograd.functional",
    "kobai.linalg",
    "kobai.special",
    "kobai.distributions",
    "kobai.func",
    "kobai.random",
    "kobai.cuda",
    "kobai.accelerator",
    "kobai.amp",
    "kobai.backends",
    "kobai.compiler",
    "kobai.distributed",
    "kobai.jit",
    "kobai.library",
    "kobai.onnx",
    "kobai.overrides",
    "kobai.profiler",
    "kobai.testing",
    "kobai.utils.checkpoint",
    "kobai.utils.data",
    "kobai.utils.tensorboard",
    "kobai.data",
    "kobai.transforms",
    "kobai.train",
    "kobai.sklearn",
]
INTRODUCTION = """# Every public name

Made by `scripts/api_table.py` from the documentation in the code; a test keeps it equal to what the modules offer.
"""


def public_names(module: object) -> list[str]:
    """Names in ``__all__``, else those without an underscore; of modules those of this table, whatever else is imported."""
    names = getattr(module, "__all__", None)
    if names is None:
        names = [
            name
            for name, value in vars(module).items()
            if not name.startswith("_")
            and not (inspect.ismodule(value) and value.__name__ not in MODULES)
            and name != "annotations"
        ]
    return sorted(set(names), key=lambda name: (name.lower(), name))


def summary(value: object) -> str:
    """First line of a docstring; constants and dtypes show themselves."""
    if not (inspect.isclass(value) or callable(value) or inspect.ismodule(value)):
        return f"`{value!r}`"
    text = inspect.getdoc(value) or ""
    first = text.split("\n\n")[0].replace("\n", " ").strip()
    return first.replace("|", "\\|")


def table() -> str:
    """The whole file."""
    parts = [INTRODUCTION]
    for module in [importlib.import_module(path) for path in MODULES]:  # all of them first: some load on demand
        path = module.__name__
        rows = [f"| `{name}` | {summary(getattr(module, name))} |" for name in public_names(module)]
        parts.append(f"## `{path}`\n\n| name | what it is |\n|---|---|\n" + "\n".join(rows) + "\n")
    import kobai

    methods = sorted(n for n in dir(kobai.Tensor) if not n.startswith("_"))
    rows = [f"`{name}`" for name in methods]
    parts.append("## Methods and attributes of `kobai.Tensor`\n\n" + ", ".join(rows) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    TABLE.write_text(table())
    print(f"{TABLE}: {len(TABLE.read_text().splitlines())} lines")

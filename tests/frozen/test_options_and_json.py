"""The command line: options with their types and defaults in ``options.txt``, fields of all JSON it writes in ``json.txt``.

What helps and messages say may be said better at any time; scripts depend on names, kinds and defaults.
"""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import typer
from freezing import check, form, lines_of

from kobai.cli import app, main

# --- options ------------------------------------------------------------------------------------------------------------


def options(app: typer.Typer) -> Iterator[str]:
    """Each command with its arguments and options: spellings, type, limits, default."""
    parsed = typer.main.get_command(app)
    for info in [*([app.registered_callback] if app.registered_callback else []), *app.registered_commands]:
        name = getattr(info, "name", None) or info.callback.__name__
        command = parsed if info is app.registered_callback else getattr(parsed, "commands", {name: parsed})[name]
        yield name
        types = get_type_hints(info.callback, include_extras=True)
        for parameter in command.params:
            yield f"    {described(parameter, types[parameter.name])}"


def described(parameter: Any, annotated: Any) -> str:
    """One option or argument, as a script sees it."""
    kind, *more = get_args(annotated) if get_origin(annotated) is Annotated else [annotated]
    spelt = (
        kind.__name__ if isinstance(kind, type) and not get_args(kind) else re.sub(r"pathlib[\w.]*\.", "", str(kind))
    )
    ends = [(end, getattr(entry, end, None)) for entry in more for end in ("min", "max")]
    parts = [spelt.removesuffix(" | None"), *(f"{end} {value}" for end, value in ends if value is not None)]
    if parameter.required:
        parts.append("required")
    elif parameter.default not in (None, [], ()):
        parts.append(f"default {parameter.default!r}")
    parts += [f"from {parameter.envvar}"] * bool(parameter.envvar)
    names = [*parameter.opts, *parameter.secondary_opts] if parameter.param_type_name == "option" else ["argument"]
    return f"{' '.join(names)}{f' {parameter.name}' * (names == ['argument'])}: {', '.join(parts)}"


def test_options_are_as_they_were(request):
    check(request, "options.txt", options(app))


def test_an_option_that_changes_is_seen():
    one = typer.Typer(add_completion=False)

    @one.command()
    def command(path: Path, size: Annotated[int, typer.Option("--size", "-s", min=1)] = 3, quick: bool = False):
        pass

    assert list(options(one)) == [
        "command",
        "    argument path: Path, required",
        "    --size -s: int, min 1, default 3",
        "    --quick --no-quick: bool, default False",
    ]


# --- JSON -----------------------------------------------------------------------------------------------------------------

SICK = "--hidden 20,20,20,20,20 --activation sigmoid --init normal(0.01) --optimizer sgd --lr 0.1"
SMALL = "--batch-size 64 --epochs 1 --out"
COMMANDS = {
    f"train --hidden 8 {SMALL} run": ["run/history.jsonl", "run/config.toml"],
    "diagnose run --json": ["output"],
    f"diagnose {SICK} --json --treat --steps 5": ["output"],
    f"compare --vary activation=sigmoid,relu --hidden 8 --repeat 2 --jobs 1 {SMALL} compared": [
        "compared/comparison.json",
        "compared/results.json",
    ],
    f"tune --space lr=1e-3..1e-1:log --space hidden=4|8,4 --trials 10 --test --jobs 1 {SMALL} searched": [
        "searched/search.json",
        "searched/test.json",
    ],
    "bench --hidden 8 --batch-sizes 2 --widths 4 --batch-size 2 --seconds 0.001 --backend numpy --out bench": [
        "bench/bench.json"
    ],
    "lab activations --quick --out lab": ["lab/activations.json"],
    "verify mlp --json": ["output"],
}
DIFFER = {"packages", "blas", "gpus", "load average"}
"""Facts of a machine whose kind depends on what it has."""


def read(path: str, output: str) -> object:
    """A file's values: JSON, lines of JSON, TOML; or the JSON that was printed."""
    if path == "output":
        return json.loads(output)
    text = Path(path).read_text(encoding="utf-8")
    if path.endswith(".toml"):
        return tomllib.loads(text)
    return [json.loads(line) for line in text.splitlines()] if path.endswith(".jsonl") else json.loads(text)


@pytest.mark.thorough
def test_json_has_the_fields_that_it_had(request, tmp_path, monkeypatch, capsys):
    for package in ("sklearn", "matplotlib", "optuna"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    lines = []
    for command, files in COMMANDS.items():
        capsys.readouterr()
        try:
            main(shlex.split(command.replace("normal(0.01)", "'normal(0.01)'").replace("4|8,4", "'4|8,4'")))
        except SystemExit as stop:
            lines.append(f"kobai {command}: exit code {stop.code or 0}")
        output = capsys.readouterr().out
        for path in files:
            found = form(read(path, output))
            if isinstance(found, dict) and "machine" in found:
                found["machine"] = {k: "…" if k in DIFFER else v for k, v in found["machine"].items()}
            lines += [f"  {path}", *lines_of({"": found} if isinstance(found, list) else found, 2)]
    check(request, "json.txt", lines)

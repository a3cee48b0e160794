"""Running commands of ``kobai`` in this process, and reading what they left."""

import json
import os
import sys
from pathlib import Path

import kobai
from kobai.cli import main
from kobai.train import job

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "200", "OPENBLAS_NUM_THREADS": "1"}


SMALL = ["--hidden", "8", "--batch-size", "16", "--epochs", "3"]


def kobai_command(capsys, *arguments):
    """(exit code, standard output, standard error) of a command in this process."""
    capsys.readouterr()
    try:
        main([str(argument) for argument in arguments])
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    return code, *capsys.readouterr()


def history(folder):
    records = map(json.loads, (Path(folder) / job.HISTORY).read_text().splitlines())
    return [{k: v for k, v in record.items() if k != "time"} for record in records]


def command_line(*arguments):
    return [sys.executable, "-m", "kobai", *map(str, arguments)]


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one.numpy().tobytes() == other.numpy().tobytes() if isinstance(one, kobai.Tensor) else one == other


def table_path():
    return Path("points.csv").resolve()

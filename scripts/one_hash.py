#!/usr/bin/env python3
"""One training, one hash: any number of processes and threads, eager or captured, killed and resumed in other numbers.

    python scripts/one_hash.py            digits, 4 epochs, V = 4 shards on 1, 2 and 4 processes; about five minutes
    python scripts/one_hash.py --small    fewer samples and epochs; about one minute
    python scripts/one_hash.py --shards 8 --processes 1,8

Needs ``pip install 'kobai[cpu,data,mpi]'``. The trainings: an MLP with batch normalisation, dropout, Adam, a schedule in every
batch and clipped gradients; a CNN; a transformer, which reads each row of an image as a word. Each line is a training and its
hash: of parameters, buffers, the optimiser's state, the random streams' and the history. Exit status 1 if one differs.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kobai
from kobai import distributed, nn
from kobai.cli.launch import command, environment
from kobai.train import Callback, Checkpoint, Trainer
from kobai.utils.data import DataLoader, TensorDataset

MODELS = ("mlp", "cnn", "transformer")


class Transformer(nn.Module):
    """Rows of an image, (N, 8, 8), as words of a sentence: one encoder layer, their mean, the classes."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.places = nn.Linear(8, 16), nn.Parameter(kobai.randn(8, 16) * 0.1)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.classes = nn.Linear(16, 10)

    def forward(self, x: kobai.Tensor) -> kobai.Tensor:
        return self.classes(self.layer(self.embedding(x.reshape(-1, 8, 8)) + self.places).mean(1))


def network(name: str) -> nn.Module:
    """One of the three, its parameters drawn from a fixed seed."""
    kobai.manual_seed(0)
    if name == "mlp":
        layers: list[nn.Module] = [nn.Flatten(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2)]
        return nn.Sequential(*layers, nn.Linear(64, 10))
    if name == "cnn":
        layers = [nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
        return nn.Sequential(*layers, nn.Dropout(0.2), nn.Linear(128, 10))
    return Transformer()


class KilledAt(Callback):
    """Ends the last process by signal 9 after some batches of the second epoch, as the kernel does when memory is out."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def on_batch_end(self, trainer: Trainer) -> None:
        rank = distributed.get_rank() if distributed.is_initialized() else 0
        last = not distributed.is_initialized() or rank == distributed.get_world_size() - 1
        if trainer.epoch == 1 and trainer.position == self.batches and last:
            os.kill(os.getpid(), signal.SIGKILL)


def train(name: str, shards: int, small: bool, capture: bool, folder: Path | None, kill: bool, resume: bool) -> str:
    """The hash that a training comes to."""
    epochs, samples = (2, 330) if small else (4, 1290)
    data = kobai.data.load("digits", seed=0)
    x, t = (part[:samples] for part in data.train.tensors)
    model = network(name)
    optimizer = kobai.optim.Adam(model.parameters(), lr=0.003)
    order = kobai.Generator().manual_seed(1)
    loader = DataLoader(TensorDataset(x, t), batch_size=50, shuffle=True, generator=order)  # the last batch is short
    schedule = kobai.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=epochs * len(loader))
    callbacks: list[Callback] = [Checkpoint(folder, every=3)] if folder else []
    trainer = Trainer(
        model,
        optimizer,
        scheduler=schedule,
        metrics=["accuracy"],
        callbacks=[*callbacks, *[KilledAt(5)] * kill],
        clip_grad_norm=1.0,
        capture=capture,
        shards=shards,
    )
    trainer.fit(loader, data.validation, epochs=epochs, resume=folder if resume else None)
    if capture and trainer._captured.programs < 1:
        raise RuntimeError(f"{name}: the step was not captured: {trainer._captured.failure}")
    return digest(trainer)


def digest(trainer: Trainer) -> str:
    """SHA-256 of all that a run has come to, but for its times."""
    state = trainer.state_dict()
    history = [{key: value for key, value in record.items() if key != "time"} for record in state["history"]]
    found = hashlib.sha256(json.dumps([history, state["random"]], sort_keys=True).encode())
    for tensor in _tensors([state["model"], state["optimizer"]]):
        found.update(tensor.detach().numpy().tobytes())
    return found.hexdigest()[:16]


def _tensors(value: Any) -> Iterator[kobai.Tensor]:
    if isinstance(value, kobai.Tensor):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


# --- processes --------------------------------------------------------------------------------------------------------


def job(arguments: argparse.Namespace) -> None:
    """One process of a job: every training it is asked for, each in one line."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        distributed.init_process_group()
    first = not distributed.is_initialized() or distributed.get_rank() == 0
    for name in arguments.models.split(","):
        for threads in map(int, arguments.threads.split(",")):
            kobai.set_num_threads(threads)
            for capture in (True,) if arguments.folder else (False, True):
                folder = arguments.folder / name if arguments.folder else None
                hashed = train(
                    name, arguments.shards, arguments.small, capture, folder, arguments.kill, arguments.resume
                )
                if first:
                    how = f"{threads} thread{'s' * (threads > 1)}, {'captured' if capture else 'eager'}"
                    print(f"{name:12}{hashed}  {arguments.what}{how}", flush=True)


def launched(n: int, shards: int, what: str, *options: str) -> tuple[int, str]:
    """Exit code and output of a job of ``n`` processes."""
    line = ["--job", f"--shards={shards}", f"--what={what}", *options]
    script = str(Path(__file__).resolve())
    started = [sys.executable, script, *line] if n == 1 else command(script, line, n)
    done = subprocess.run(started, env=environment(n), capture_output=True, text=True, check=False, timeout=1200)
    return done.returncode, done.stdout + done.stderr


def compare(shards: int, processes: list[int], small: bool) -> bool:
    """Run all, print every line, and say whether every model has one hash."""
    hashes: dict[str, set[str]] = {name: set() for name in MODELS}
    size = ["--small"] * small

    def take(output: str, code: int) -> None:
        found = re.findall(r"^(\w+) +([0-9a-f]{16})  .*$", output, re.MULTILINE)
        for name, hashed in found:
            hashes[name].add(hashed)
        print("\n".join(line for line in output.splitlines() if re.match(r"\w+ +[0-9a-f]{16}  ", line)), flush=True)
        if code or not found:
            print(output, file=sys.stderr)
            hashes[MODELS[0]].add(f"exit code {code}")

    def of(n: int) -> str:
        return f"{n} process{'es' * (n > 1)}"

    for n in processes:
        code, output = launched(n, shards, f"{of(n)}, ", "--threads=1,2", *size)
        take(output, code)
    count = len(processes)
    for at, name in enumerate(MODELS):
        n, then = (processes[(count - at - more) % count] for more in (1, 2))
        with tempfile.TemporaryDirectory() as folder:
            one = [f"--models={name}", f"--folder={folder}", *size]
            code, output = launched(n, shards, "", *one, "--kill")
            if code == 0:
                print(f"{name}: nobody was killed\n{output}", file=sys.stderr)
                hashes[name].add("not killed")
            code, output = launched(then, shards, f"killed with {of(n)}, resumed with {of(then)}, ", *one, "--resume")
            take(output, code)
    for name, found in hashes.items():
        print(f"{name}: {'one hash' if len(found) == 1 else f'{len(found)} hashes: ' + ', '.join(sorted(found))}")
    return all(len(found) == 1 for found in hashes.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--processes", default="1,2,4")
    parser.add_argument("--small", action="store_true")
    hidden = {"help": argparse.SUPPRESS}
    parser.add_argument("--models", default=",".join(MODELS), **hidden)
    parser.add_argument("--threads", default="1", **hidden)
    parser.add_argument("--folder", type=Path, **hidden)
    parser.add_argument("--what", default="", **hidden)
    for name in ("--job", "--kill", "--resume"):
        parser.add_argument(name, action="store_true", **hidden)
    arguments = parser.parse_args()
    if arguments.job:
        job(arguments)
        return
    with contextlib.suppress(BrokenPipeError):
        sys.exit(not compare(arguments.shards, list(map(int, arguments.processes.split(","))), arguments.small))


if __name__ == "__main__":
    main()

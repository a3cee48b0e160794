"""Files that an earlier Kobai wrote, in ``checkpoints``: they load, and training goes on from them to the same numbers.

The files are never written anew: where the format changes, the old ones must go on to load. What is computed from them is
compared bit for bit on a machine like the one that wrote them down (``machine`` in their metadata), and closely elsewhere.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from freezing import FOLDER, machine

import kobai
from kobai import nn, optim
from kobai.cli import main
from kobai.optim import lr_scheduler
from optim.optimizer_table import CASES, IDS

BEFORE = FOLDER / "checkpoints"
RULES = {
    **{which: (name, flags) for which, (name, flags, _) in zip(IDS, CASES, strict=True)},
    "Rprop": ("Rprop", {}),
    "ASGD": ("ASGD", {}),
    "LBFGS": ("LBFGS", {"lr": 0.1, "max_iter": 2}),
}


def kept(request, name: str, write: Callable[[Path], None]) -> Path:
    """A file or folder of before; with ``--freeze`` one that is missing is written, and one that is there stays."""
    path = BEFORE / name
    if request.config.getoption("--freeze") and not path.exists():
        write(path)
    return path


def compare(request, name: str, tensors: dict[str, kobai.Tensor]) -> None:
    """Compare with the numbers in the file called ``name``, bit for bit on a like machine; with ``--freeze``, write them."""
    path = BEFORE / name
    if request.config.getoption("--freeze"):
        kobai.save({"machine": machine(request), "tensors": tensors}, path)
    content = kobai.load(path)
    same_machine = content["machine"] == machine(request)
    assert content["tensors"].keys() == tensors.keys()
    for key in tensors:
        before, now = (values[key].detach().numpy() for values in (content["tensors"], tensors))
        assert (now.dtype, now.shape) == (before.dtype, before.shape), key
        np.testing.assert_allclose(now, before, rtol=1e-5, atol=5e-6, err_msg=key)
        if same_machine:
            assert now.tobytes() == before.tobytes(), f"{key}: other bits than before on the same kind of machine"


# --- a model ------------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    """Something of every kind: convolution, normalisation with buffers, attention, recurrence, an embedding."""

    def __init__(self):
        super().__init__()
        self.images = nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1, bias=False), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.words = nn.Embedding(5, 4)
        self.encoder = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True)
        self.recurrent = nn.LSTM(4, 3, batch_first=True, bidirectional=True)
        self.head = nn.Linear(8 + 6, 3)

    def forward(self, images, words):
        seen = self.images(images).flatten(1)
        read, _ = self.recurrent(self.encoder(self.words(words)))
        return self.head(kobai.cat([seen, read.mean(1)], 1))


def test_a_model(request):
    net = Net()
    path = kept(request, "model.safetensors", lambda path: kobai.save(Net().state_dict(), path))
    net.load_state_dict(kobai.load(path))
    images = kobai.arange(32, dtype=kobai.float32).reshape(2, 1, 4, 4) / 32
    words = kobai.tensor([[0, 1, 2], [4, 3, 1]])
    found = {"trained": net(images, words), "evaluated": net.eval()(images, words)}
    found["trained"].sum().backward()
    found |= {f"gradient {name}": p.grad for name, p in net.named_parameters()}
    found["running_mean"] = net.images[1].running_mean
    compare(request, "model_numbers.safetensors", found)


# --- optimisers and schedules ---------------------------------------------------------------------------------------------


def _optimizer(name: str, parameters: list[kobai.Tensor]) -> tuple[optim.Optimizer, lr_scheduler.LRScheduler]:
    rule, flags = RULES[name]
    made = getattr(optim, rule)(parameters, **{"lr": 0.01, **flags})
    return made, lr_scheduler.StepLR(made, 2, 0.5)


def _step(optimizer: optim.Optimizer, schedule: lr_scheduler.LRScheduler, parameters: list[kobai.Tensor]) -> None:
    def loss():
        optimizer.zero_grad()
        value = sum(((p - 0.3) ** 2).sum() for p in parameters)
        value.backward()
        return value

    loss()
    optimizer.step(loss)
    schedule.step()


def _parameters() -> list[kobai.Tensor]:
    values = np.linspace(-1, 1, 9, dtype=np.float32)
    return [kobai.tensor(part, requires_grad=True) for part in (values[:6].reshape(2, 3), values[6:])]


def _write_optimizers(path: Path) -> None:
    states = {}
    for name in RULES:
        parameters = _parameters()
        optimizer, schedule = _optimizer(name, parameters)
        for _ in range(3):
            _step(optimizer, schedule, parameters)
        states[name] = {
            "parameters": [p.detach() for p in parameters],
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
        }
    kobai.save(states, path)


def test_optimizers(request):
    found = {}
    for name, state in kobai.load(kept(request, "optimizers.safetensors", _write_optimizers)).items():
        parameters = [p.requires_grad_() for p in state["parameters"]]
        optimizer, schedule = _optimizer(name, parameters)
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        for _ in range(2):
            _step(optimizer, schedule, parameters)
        found |= {f"{name} {i}": p for i, p in enumerate(parameters)}
        found[f"{name} lr"] = kobai.tensor(optimizer.param_groups[0]["lr"], dtype=kobai.float64)
    compare(request, "optimizers_numbers.safetensors", found)


# --- a run ----------------------------------------------------------------------------------------------------------------

RUN = "train --data digits --hidden 4 --batch-norm --dropout 0.1 --schedule plateau --batch-size 128 --lr 0.02 --quiet"


def _command(line: str) -> None:
    code = 0
    try:
        main(line.split())
    except SystemExit as stop:
        code = stop.code or 0
    assert code == 0, line


def _write_run(folder: Path) -> None:
    _command(f"{RUN} --epochs 2 --out {folder}")
    for name in ("previous.safetensors", "learning_curve.png"):
        (folder / name).unlink(missing_ok=True)


@pytest.fixture
def run(request, tmp_path, monkeypatch):
    """A copy of the run of before: two epochs, on the digits."""
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    folder = kept(request, "run", _write_run)
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(folder, tmp_path / "run")


def test_a_run_goes_on(request, run, capsys):
    begun = kobai.load(run / "last.safetensors")
    _command("train --resume run --epochs 3 --quiet")
    assert capsys.readouterr().out.startswith("test accuracy ")
    state = kobai.load(run / "last.safetensors")
    assert (begun["epoch"], state["epoch"]) == (2, 3)
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in history] == [1, 2, 3]
    numbers = {f"model {name}": tensor for name, tensor in state["model"].items()}
    numbers |= {
        f"history {name}": kobai.tensor(value, dtype=kobai.float64)
        for name, value in history[-1].items()
        if name not in ("epoch", "time")
    }
    compare(request, "run_numbers.safetensors", numbers)


def test_a_run_of_before_is_evaluated_and_asked(run, capsys):
    _command("evaluate run")
    assert "epoch 2" in (out := capsys.readouterr().out)
    assert "accuracy" in out
    _command("report run")
    page = (run / "report.html").read_text()
    assert "64-4-10" in page
    assert "best of run" in capsys.readouterr().err

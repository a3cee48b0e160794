"""``kobai diagnose script.py::model,loader``: a program is examined without a checkpoint, and errors name what it has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli_commands import kobai_command

pytestmark = pytest.mark.usefixtures("elsewhere")

PROGRAM = """
import kobai as torch
from kobai import nn
from kobai.utils.data import DataLoader, TensorDataset
from helper import WIDTH

torch.manual_seed(0)
print("made")
x = torch.randn(200, 8)
data = TensorDataset(x, (x[:, 0] > 0).long())

class Net(nn.Module):
    def __init__(self, std):
        super().__init__()
        layers = [part for _ in range(4) for part in (nn.Linear(8, WIDTH, init=f"normal({std})"), nn.Tanh())]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(WIDTH, 2)

    def forward(self, x):
        return self.head(self.body(x))

class Holder:
    model = Net(0.3)

net, holder = Net(0.01), Holder()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
held_optimizer = torch.optim.SGD(Holder.model.parameters(), lr=0.1)
criterion = nn.CrossEntropyLoss()
train_loader = DataLoader(data, batch_size=50, shuffle=True)
batch = next(iter(train_loader))
names = ["a"]

def own_loss(output, target):
    return nn.functional.cross_entropy(output, target)

if __name__ == "__main__":
    raise RuntimeError("it was run")
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "helper.py").write_text("WIDTH = 8\n")
    file = tmp_path / "train.py"
    file.write_text(PROGRAM)
    return file


def diagnosed(capsys, *arguments):
    code, out, err = kobai_command(capsys, "diagnose", *arguments)
    return code, " ".join(out.split()), " ".join(err.replace("│", " ").split())


def test_a_sick_net_under_usual_names(capsys, program):
    code, out, err = diagnosed(capsys, "train.py::", "--quick")
    assert code == 1
    assert "train.py: model 'net', loader 'train_loader', loss_fn 'criterion', optimizer 'optimizer'" in out
    assert "4 batches, the first of 50 samples" in out
    assert "collapsed activations" in out
    assert "made" in err


def test_a_healthy_net_by_its_names(capsys, program):
    code, out, _ = diagnosed(capsys, f"{program}::holder.model,batch,own_loss,held_optimizer", "--quick")
    assert code == 0
    assert "loss_fn 'own_loss'" in out
    assert "healthy" in out


def test_json_and_treatment(capsys, program):
    code, out, _ = kobai_command(capsys, "diagnose", "train::net,train_loader", "--quick", "--json", "--treat")
    found = json.loads(out)  # what the program prints is not among it
    assert found["findings"][0]["disease"] == "collapsed"
    assert found["treatment"]["helped"]
    assert code == 0


@pytest.mark.parametrize(
    ("named", "code", "words"),
    [
        ("train.py::nett", 2, "train.py has no 'nett'. Did you mean 'net'? It has models: net; optimizers: optimizer, "),
        ("train.py::net,loadr", 2, "loaders and batches: train_loader, batch"),
        ("train.py::Net", 2, "got the class Net; write model = Net(...)"),
        ("train.py::net,data", 2, "got a TensorDataset; wrap it: DataLoader(data, batch_size=64, shuffle=True)"),
        ("train.py::net,names", 2, "expected the batches of 'names' in train.py to be tensors (input, ..., target), got str"),
        ("train.py::net,batch,own_loss,criterion", 2, "expected 'criterion' in train.py to be an optimizer"),
        ("train.py::a,b,c,d,e,f", 2, "at most model, loader, loss_fn, optimizer, validation"),
        ("trian.py::net", 2, "trian.py: there is no such file"),
        ("no.package::net", 2, "no.package: there is no such file, and no such module"),
        ("helper.py::", 2, "helper.py has no model under a usual name; name it: helper.py::MODEL"),
        ("broken.py::", 1, "broken.py, line 3: ZeroDivisionError"),
        ("ends.py::", 1, "ends.py ends itself at import (exit code 3)"),
        ("torchy.py::", 1, "line 1: ModuleNotFoundError: No module named 'torch'; in its place write import kobai as torch"),
    ],
)  # fmt: skip
def test_errors_say_what_the_program_has(capsys, program, named, code, words):
    for name, text in (
        ("broken", "x = 1\n\nx / 0\n"),
        ("ends", "import sys\nsys.exit(3)\n"),
        ("torchy", "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')\n"),
    ):
        program.with_name(f"{name}.py").write_text(text)
    found, _, err = diagnosed(capsys, named)
    assert found == code
    assert words in err


def test_settings_belong_to_the_program(capsys, program):
    code, _, err = diagnosed(capsys, "train.py::net", "--hidden", "3")
    assert code == 2
    assert "belongs to the program" in err

"""SummaryWriter: what a program written for PyTorch logs arrives in the event file."""

from __future__ import annotations

import struct
import sys
from importlib.util import find_spec

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.utils.tensorboard import SummaryWriter

needs_tensorboardx = pytest.mark.skipif(find_spec("tensorboardX") is None, reason="pip install 'kobai[tensorboard]'")


def events(folder):
    """The events of the one file in ``folder``: records of a length, its checksum, the event, its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    (file,) = folder.glob("events.out.*")
    content, at = file.read_bytes(), 0
    while at < len(content):
        (size,) = struct.unpack_from("<Q", content, at)
        yield Event.FromString(content[at + 12 : at + 12 + size])
        at += 12 + size + 4


def logged(folder):
    return {value.tag: (event.step, value) for event in events(folder) for value in event.summary.value}


@needs_tensorboardx
def test_tensors_wherever_an_array_or_a_number_may_stand(tmp_path):
    model = nn.Linear(3, 2)
    with SummaryWriter(tmp_path) as writer:
        assert writer.log_dir == writer.get_logdir() == str(tmp_path)
        loss = model(kobai.ones(4, 3)).square().mean()
        writer.add_scalar("loss/train", loss, global_step=kobai.tensor(7))
        writer.add_histogram("weight", model.weight, 7)
        writer.add_histogram("half", model.weight.detach().to(kobai.bfloat16), 7)
        writer.add_image("image", kobai.rand(3, 4, 5), 7)
        writer.add_images("images", kobai.rand(2, 3, 4, 5), 7)
        writer.add_text("note", "a text", 7)
        writer.add_pr_curve("curve", kobai.tensor([0, 1, 1]), kobai.tensor([0.1, 0.8, 0.4]), 7)
    found = logged(tmp_path)
    step, value = found["loss/train"]
    assert step == 7
    assert value.simple_value == pytest.approx(loss.item())
    assert found["weight"][1].histo.num == 6
    assert found["weight"][1].histo.sum == pytest.approx(model.weight.sum().item(), abs=1e-5)
    assert found["half"][1].histo.num == 6
    assert (found["image"][1].image.height, found["image"][1].image.width) == (4, 5)
    assert "images" in found
    assert "curve" in found
    assert any(tag.startswith("note") for tag in found)


@needs_tensorboardx
def test_several_scalars_and_hyperparameters(tmp_path):
    writer = SummaryWriter(log_dir=str(tmp_path), flush_secs=1)
    writer.add_scalars("losses", {"train": kobai.tensor(1.0), "val": np.float32(2.0)}, 1)
    writer.add_hparams({"lr": 0.1, "layers": kobai.tensor(3)}, {"accuracy": kobai.tensor(0.9)})
    writer.flush()
    writer.close()
    assert (tmp_path / "losses" / "train").is_dir() or (tmp_path / "losses_train").is_dir()


@needs_tensorboardx
def test_figure(tmp_path):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    figure.add_subplot().plot([1, 2])
    with SummaryWriter(tmp_path) as writer:
        writer.add_figure("plot", figure, 1)
    assert logged(tmp_path)["plot"][1].image.width > 0


@needs_tensorboardx
def test_the_graph_of_a_model_is_its_tape(tmp_path, capsys):
    from tensorboardX.proto.graph_pb2 import GraphDef

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x, index):
            return {"y": self.second(self.first(x).relu()), "z": x[index]}

    with SummaryWriter(tmp_path) as writer:
        writer.add_graph(Two(), (kobai.rand(5, 3), kobai.tensor([0, 1])), verbose=True)
    assert "first/weight" in capsys.readouterr().out
    (content,) = [event.graph_def for event in events(tmp_path) if event.graph_def]
    nodes = {node.name: list(node.input) for node in GraphDef.FromString(content).node}
    assert nodes["linear"] == ["input/0", "first/weight", "first/bias"]
    assert nodes["relu"] == ["linear"]
    assert nodes["linear_1"] == ["relu", "second/weight", "second/bias"]
    assert nodes["output"] == ["linear_1"]
    assert nodes["output_1"] != nodes["output"]


@needs_tensorboardx
def test_an_unknown_method_is_named(tmp_path):
    with (
        SummaryWriter(tmp_path) as writer,
        pytest.raises(AttributeError, match=r"add_scalr.*Did you mean 'add_scalar'"),
    ):
        writer.add_scalr("a", 1.0)


def test_without_tensorboardx_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"pip install 'kobai\[tensorboard\]'"):
        SummaryWriter(tmp_path)

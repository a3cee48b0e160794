"""Nets for images by name, and training with changed images."""

from __future__ import annotations

import pytest

import kobai
from cli_commands import kobai_command
from kobai.train import job
from kobai.train.models import build
from kobai.train.recipes import recipe
from kobai.train.settings import RunSettings, SettingsError

COUNTS = {  # by hand: LeNet-5 is that of the paper but for its subsampling, which had weights
    ("cnn", (1, 28, 28)): 9 * 32 + 32 + 9 * 32 * 64 + 64 + 64 * 49 * 100 + 100 + 100 * 10 + 10,
    ("lenet", (1, 28, 28)): 25 * 6 + 6 + 25 * 6 * 16 + 16 + 400 * 120 + 120 + 120 * 84 + 84 + 84 * 10 + 10,
    ("resnet8", (3, 32, 32)): 27 * 16
    + 2 * 9 * 16 * 16
    + (9 * 16 * 32 + 9 * 32 * 32 + 16 * 32)
    + (9 * 32 * 64 + 9 * 64 * 64 + 32 * 64)
    + 2 * (3 * 16 + 3 * 32 + 3 * 64)
    + 64 * 10
    + 10,
}


@pytest.mark.parametrize(("name", "shape"), COUNTS)
def test_nets_have_the_layers_of_their_papers(name, shape):
    hidden = {"hidden": [100]} if name == "cnn" else {}
    net = build({"name": name, "input_shape": shape, "classes": 10, **hidden})
    assert sum(p.numel() for p in net.parameters()) == COUNTS[name, shape]
    assert net(kobai.rand(3, *shape)).shape == (3, 10)


@pytest.mark.parametrize("size", [4, 5, 9, 30])
def test_images_of_any_size_will_do(size):
    for name in ("cnn", "resnet8"):
        hidden = {"hidden": []} if name == "cnn" else {}
        net = build({"name": name, "input_shape": (3, size, size + 3), "classes": 2, **hidden})
        assert net(kobai.rand(2, 3, size, size + 3)).shape == (2, 2)


def test_what_a_net_cannot_take_is_named():
    with pytest.raises(
        ValueError, match="lenet: expected images of at least 12 × 12, got 8 × 8; --model cnn takes them"
    ):
        build({"name": "lenet", "input_shape": (1, 8, 8), "classes": 10})
    with pytest.raises(
        ValueError, match=r"cnn: expected images \(C, H, W\), got inputs \(4,\); --model mlp takes them"
    ):
        build({"name": "cnn", "input_shape": (4,), "classes": 3, "hidden": []})
    with pytest.raises(SettingsError, match="lenet has no such part to set; mlp and cnn have"):
        RunSettings(model="lenet", hidden=(5,)).check()
    with pytest.raises(SettingsError, match="is for images"):
        job.describe_model(RunSettings(augment=True), (4,), 3)


def test_recipes_of_the_mlp_are_not_those_of_other_nets():
    assert set(recipe("digits", {"model": "cnn"})) == {"lr", "schedule"}


def test_only_photographs_are_mirrored():
    settings = RunSettings(model="resnet8", augment=True)
    assert job.describe_model(settings, (1, 28, 28), 10)["augment"] == {"shift": 2, "flip": False}
    assert job.describe_model(settings, (3, 32, 32), 10)["augment"] == {"shift": 2, "flip": True}


def run(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints last, once it has ended well."""
    code, out, err = kobai_command(capsys, *line.split())
    assert code == 0, err
    return out.splitlines()[-1]


@pytest.mark.thorough
def test_a_run_with_changed_images_can_be_used(tmp_path, monkeypatch, capsys):
    pytest.importorskip("sklearn", reason="the embedded digits need the extra 'data'")
    monkeypatch.chdir(tmp_path)
    command = "train --model cnn --augment --hidden 16 --quiet"
    first = run(f"{command} --epochs 2 --out run", capsys)
    assert run("evaluate run", capsys) == first
    resumed = run("train --resume run --epochs 3 --quiet", capsys)
    assert run(f"{command} --epochs 3 --out whole", capsys) == resumed


def test_images_of_ones_own_are_trained_on(tmp_path, monkeypatch, capsys):
    image = pytest.importorskip("PIL.Image", reason="images are read by Pillow")
    lines = ["file,kind"]
    for k in range(40):
        file = tmp_path / "shapes" / ("dark" if k % 2 else "light") / f"{k}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        image.new("RGB", (8, 8), (k % 2 * 150 + k, 90, 20)).save(file)
        lines.append(f"{file.parent.name}/{file.name},{file.parent.name}")
    (tmp_path / "shapes" / "all.csv").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    options = "--model cnn --hidden 8 --epochs 6 --batch-size 8 --quiet"
    for data in ("shapes", "shapes/all.csv", "shapes --image-size 12"):
        assert float(run(f"train --data {data} {options}", capsys).split()[-1]) > 0.8

"""A model of images answers an image, a folder of them, and a table of paths, cut as those that it was trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cli_commands import kobai_command

Image = pytest.importorskip("PIL.Image", reason="images are read by Pillow")

COLOURS = {"blue": (10, 20, 200), "red": (200, 20, 10)}


@pytest.fixture
def trained(capsys):
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        for k in range(20):
            pixels = np.clip(np.array(colour) + rng.integers(0, 40, (12, 14 + k % 3, 3)), 0, 255).astype(np.uint8)
            file = Path("pictures", name, f"{k:02}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
    options = ["--image-size", 12, "--hidden", 8, "--epochs", 15, "--lr", 0.02, "--quiet", "--out", "run"]
    assert kobai_command(capsys, "train", "--data", "pictures", *options)[0] == 0
    return "run"


def answered(capsys, *arguments):
    code, out, err = kobai_command(capsys, "predict", *arguments)
    assert code == 0, err
    header, *rows = [line.split(",") for line in out.splitlines()]
    return header, rows, err


def test_one_image_is_answered(capsys, trained):
    header, rows, err = answered(capsys, trained, "--data", "pictures/red/03.png")
    assert header == ["sample", "prediction", "probability", "P(blue)", "P(red)"]
    assert [row[:2] for row in rows] == [["03.png", "red"]]
    assert "on pictures/red/03.png: 1 image" in err


def test_a_folder_without_classes_is_answered_by_the_names_of_its_files(capsys, trained):
    for name in ("b/1.jpg", "a.png"):
        path = Path("new", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (50, 30), COLOURS["blue"]).save(path)
    Path("new/notes.txt").write_text("no image")
    header, rows, _ = answered(capsys, trained, "--data", "new")
    assert "label" not in header
    assert [row[:2] for row in rows] == [["a.png", "blue"], [str(Path("b/1.jpg")), "blue"]]
    code, _, err = kobai_command(capsys, "evaluate", trained, "--data", "new")
    assert code == 1
    assert "new: has no labels to compare with" in err


def test_a_folder_of_classes_is_measured_whole(capsys, trained):
    """And what of it is known is said: a fifth would be no answer to "how good is it on these?"."""
    code, out, _ = kobai_command(capsys, "evaluate", trained, "--data", "pictures")
    assert code == 0
    assert "on pictures: 40 images" in out
    assert "it was trained on 29 of them" in out
    _, rows, _ = answered(capsys, trained, "--data", "pictures")
    assert {(row[3]) for row in rows} == {"blue", "red"}
    assert len(rows) == 40
    code, own, _ = kobai_command(capsys, "evaluate", trained)
    assert "test split: 8 samples" in own


def test_parts_of_a_folder_and_a_table_of_paths(capsys, trained):
    for part in ("train", "test"):
        for name, colour in COLOURS.items():
            file = Path("parted", part, name, "1.png")
            file.parent.mkdir(parents=True)
            Image.new("RGB", (12, 12), colour).save(file)
    assert "parted: 2 images" in kobai_command(capsys, "evaluate", trained, "--data", "parted")[1]
    Path("list.csv").write_text("kind,file\nred,parted/train/red/1.png\n")
    assert "list.csv: 1 image" in kobai_command(capsys, "evaluate", trained, "--data", "list.csv")[1]
    Path("bare.csv").write_text("file\nparted/train/red/1.png\n")
    header, rows, _ = answered(capsys, trained, "--data", "bare.csv")
    assert "label" not in header
    assert rows[0][:2] == ["parted/train/red/1.png", "red"]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("nothing.png", "nothing.png: cannot be read (No such file or directory)"),
        ("text.png", "text.png: cannot be read (no image that Pillow can read)"),
        ("empty", "empty: no image in this folder; they end in .jpg"),
        ("nowhere", "'nowhere' is neither a known data set nor a file"),
    ],
)
def test_what_cannot_be_asked_is_said(capsys, trained, data, told):
    Path("text.png").write_text("no image")
    Path("empty").mkdir()
    code, _, err = kobai_command(capsys, "predict", trained, "--data", data)
    assert code == 1
    assert told in err


def test_a_model_of_other_data_takes_no_images(capsys, run):
    Image.new("RGB", (8, 8)).save("one.png")
    code, _, err = kobai_command(capsys, "predict", run, "--data", "one.png")
    assert code == 1
    assert "one.png: holds images, and the model was trained on" in err
    code, _, err = kobai_command(capsys, "train", "--data", "one.png")
    assert code == 1
    assert "one.png is one image; expected a folder that holds a folder of images for each class" in err

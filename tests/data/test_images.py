"""Images of one's own: folders, tables of paths, grids."""

from __future__ import annotations

import numpy as np
import pytest

import kobai
from kobai.data import ImageFolder, images
from kobai.errors import DataError
from kobai.transforms import ToTensor
from kobai.utils import make_grid, save_image
from kobai.utils.data import DataLoader

Image = pytest.importorskip("PIL.Image", reason="images are read by Pillow")


def write(path, value=0, size=(6, 4), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 0)).save(path)


@pytest.fixture
def folder(tmp_path):
    for name, value in (("cats", 200), ("dogs", 20)):
        for k in range(15):
            write(tmp_path / "pets" / name / f"{k:02}.png", value + k)
    (tmp_path / "pets" / "cats" / "notes.txt").write_text("no image")
    (tmp_path / "pets" / ".cache").mkdir()
    return tmp_path / "pets"


def test_a_folder_of_folders_is_a_data_set(folder):
    data = ImageFolder(folder, ToTensor())
    assert data.classes == ["cats", "dogs"]
    assert data.class_to_idx == {"cats": 0, "dogs": 1}
    assert data.targets == [0] * 15 + [1] * 15
    x, t = next(iter(DataLoader(data, batch_size=30)))
    assert x.shape == (30, 3, 4, 6)
    assert t.tolist() == data.targets
    np.testing.assert_allclose(x[:15, 0, 0, 0].numpy() * 255, np.arange(200, 215), rtol=1e-6)


def test_a_data_set_of_images_is_split(folder):
    splits = images(folder, validation=0.25)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (18, 6, 6)
    assert splits.input_shape == (3, 4, 6)
    assert splits.classes == ("cats", "dogs")
    for part in (splits.train, splits.validation, splits.test):
        x, t = part.tensors
        assert ((x[:, 0, 0, 0] * 255 < 100).long() == t).all()
    assert images(folder, seed=1).test.tensors[0].tolist() == splits.test.tensors[0].tolist()
    assert kobai.data.load(folder).classes == splits.classes


def test_parts_that_are_given_are_kept(tmp_path):
    for part, n in (("train", 5), ("val", 3), ("test", 2)):
        for k in range(n):
            write(tmp_path / part / "a" / f"{k}.png", 250, mode="L")
            write(tmp_path / part / "b" / f"{k}.png", 5, mode="L")
    splits = images(tmp_path)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (10, 6, 4)
    assert splits.input_shape == (1, 4, 6)  # all are grey
    write(tmp_path / "test" / "c" / "0.png")
    with pytest.raises(DataError, match="class 'c' of the part 'test' has no folder in train"):
        images(tmp_path)


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_a_table_of_paths(folder, delimiter):
    lines = [delimiter.join(("kind", "file", "note"))]
    lines += [delimiter.join((name, f"{name}/{k:02}.png", "x")) for k in range(15) for name in ("cats", "dogs")]
    table = folder / "all.csv"
    table.write_text("\n".join(lines))
    splits = images(table)
    assert splits.classes == ("cats", "dogs")
    assert sum(len(part) for part in (splits.train, splits.validation, splits.test)) == 30
    with pytest.raises(DataError, match=r"no column named 'kinds'.*kind"):
        images(table, label="kinds")


def test_several_sizes_become_one(folder):
    write(folder / "cats" / "large.png", 250, size=(90, 50))
    with pytest.warns(UserWarning, match=r"images of 2 sizes, from 4 × 6 to 50 × 90; .* 64 × 64"):
        assert images(folder).input_shape == (3, 64, 64)
    assert images(folder, size=16).input_shape == (3, 16, 16)
    assert images(folder, size=(8, 12)).input_shape == (3, 8, 12)


def test_what_cannot_be_read_is_named(folder, tmp_path):
    with pytest.raises(DataError, match=r"expected a folder for each class in .*, found none"):
        images(folder / "cats")
    with pytest.raises(DataError, match="cannot be read"):
        ImageFolder(tmp_path / "nowhere")
    (folder / "cats" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(DataError, match=r"broken\.png: .*no image that Pillow can read"):
        images(folder)
    (folder / "cats" / "broken.png").unlink()
    (folder / "birds").mkdir()
    with pytest.raises(DataError, match="no image in the folder of class 'birds'"):
        images(folder)
    assert ImageFolder(folder, allow_empty=True).classes == ["birds", "cats", "dogs"]
    write(folder / "birds" / "one.png")
    with pytest.raises(DataError, match="class 'birds' has one image"):
        images(folder)
    (tmp_path / "numbers.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="no column holds paths of images"):
        images(tmp_path / "numbers.csv")


# --- grids ------------------------------------------------------------------------------------------------------------


def test_a_grid_shows_every_image_in_its_place():
    batch = kobai.arange(5.0).reshape(5, 1, 1, 1).expand(5, 1, 3, 2)
    grid = make_grid(batch, nrow=3, padding=1, pad_value=9)
    assert grid.shape == (3, 2 * 4 + 1, 3 * 3 + 1)
    assert bool((grid[0] == grid[2]).all())
    assert grid[0, ::4].tolist() == [[9.0] * 10] * 3
    assert [grid[0, 1 + 4 * (k // 3), 1 + 3 * (k % 3)].item() for k in range(6)] == [0, 1, 2, 3, 4, 9]
    assert make_grid(kobai.rand(1, 3, 4, 4)).shape == (3, 4, 4)
    assert make_grid([kobai.rand(3, 4, 4)] * 2, padding=0).shape == (3, 4, 8)
    scaled = make_grid(batch, padding=0, normalize=True)
    assert (scaled.min().item(), scaled.max().item()) == (0.0, 1.0)
    each = make_grid(
        kobai.rand(4, 1, 3, 3) + kobai.arange(4.0).reshape(4, 1, 1, 1), 1, 0, normalize=True, scale_each=True
    )
    assert each.reshape(3, 4, -1)[0].max(1).values.tolist() == [1.0] * 4


def test_an_image_is_written_whole(tmp_path):
    batch = kobai.rand(4, 3, 5, 5)
    save_image(batch, tmp_path / "grid.png", nrow=2)
    with Image.open(tmp_path / "grid.png") as image:
        back = ToTensor()(image)
    np.testing.assert_allclose(back.numpy(), make_grid(batch, nrow=2).numpy(), atol=0.5 / 255 + 1e-6)
    with (tmp_path / "stream").open("wb") as stream:
        save_image(batch[0], stream, "bmp")
    with Image.open(tmp_path / "stream") as image:
        assert image.format == "BMP"
    with pytest.raises(ValueError, match=r"save_image: no format is known by the ending of 'grid\.xyz'"):
        save_image(batch, tmp_path / "grid.xyz")
    with pytest.raises(ValueError, match=r"make_grid: expected \(N, C, H, W\) with 1 or 3 channels"):
        make_grid(kobai.rand(2, 2, 3, 3))
    with pytest.raises(ValueError, match="make_grid: expected nrow as an integer >= 1, got 0"):
        make_grid(batch, nrow=0)

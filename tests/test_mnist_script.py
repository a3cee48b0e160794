"""The example script is an ordinary PyTorch program: it trains on Kobai, and on PyTorch after its imports change back."""

from __future__ import annotations

import gzip
import os
import re
import types
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "mnist_pytorch_style.py"
MNIST = next(
    (
        p
        for p in (Path(os.environ.get("KOBAI_DATA", "/nowhere")) / "mnist", SCRIPT.parents[2] / "shared/data/mnist")
        if p.exists()
    ),
    None,
)


def program(source: str) -> types.ModuleType:
    module = types.ModuleType("mnist_script")
    exec(compile(source, str(SCRIPT), "exec"), module.__dict__)
    return module


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


@pytest.fixture
def folder(tmp_path):
    """Four IDX files of ten easy classes: a bright bar in one of ten places, with noise."""
    rng = np.random.default_rng(0)
    for part, n in (("train", 1000), ("t10k", 200)):
        labels = rng.integers(0, 10, n)
        images = rng.integers(0, 60, (n, 28, 28))
        for image, label in zip(images, labels, strict=True):
            image[2 + 2 * label : 5 + 2 * label] += 150
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", labels)
    return tmp_path


def test_it_trains_and_saves(folder, tmp_path, capsys):
    arguments = ["--data-dir", str(folder), "--epochs", "3", "--save", str(tmp_path / "m.safetensors")]
    assert program(SCRIPT.read_text()).main(arguments) > 0.9
    assert "epoch 3 test loss" in capsys.readouterr().out


def test_two_runs_with_one_seed_are_equal(folder):
    first, second = (program(SCRIPT.read_text()).main(["--data-dir", str(folder), "--epochs", "1"]) for _ in range(2))
    assert first == second


@pytest.mark.thorough
@pytest.mark.skipif(MNIST is None, reason="MNIST is not at hand (KOBAI_DATA)")
def test_it_reaches_the_published_accuracy_on_mnist(capsys):
    """784-100-100-10, He, ReLU, Adam, batch 100: at least 97.5 % within five epochs."""
    assert program(SCRIPT.read_text()).main(["--data-dir", str(MNIST)]) >= 0.975


@pytest.mark.oracle
def test_it_runs_on_pytorch_after_its_imports_change_back(folder):
    pytest.importorskip("torch")
    source = SCRIPT.read_text()
    changed = re.sub(r"^import kobai as torch$", "import torch", source, flags=re.M)
    changed = re.sub(r"^(import|from) kobai\.", r"\1 torch.", changed, flags=re.M)
    different = [(a, b) for a, b in zip(source.splitlines(), changed.splitlines(), strict=True) if a != b]
    assert all(a.startswith(("import ", "from ")) for a, _ in different)
    assert program(changed).main(["--data-dir", str(folder), "--epochs", "3"]) > 0.9

"""What the README and the pages show is what happens: every command and every block of code in them is run.

A block that shows output is compared with what is printed, word for word, its numbers within what another processor may make of
them. Commands that would take long are run with options behind them that make them short (``SHORTER``); names of folders
and files that a reader has are made first (``world``).
"""

from __future__ import annotations

import gzip
import importlib.util
import re
import shlex
import shutil
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kobai
from data.builders import NAMES, idx
from kobai.cli import main
from kobai.engine import dispatch
from kobai.errors import BackendError
from kobai.lab.experiments.register import EXPERIMENTS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
pytest.importorskip("matplotlib", reason="figures are drawn")
pytest.importorskip("optuna", reason="the search needs it")


@dataclass(frozen=True)
class Block:
    """A fenced or indented block of a page; ``kind`` is what stands behind its fence."""

    page: str
    line: int
    kind: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Lines for a shell, those that go on joined."""
        lines = re.sub(r"\\\n\s*", " ", self.text).splitlines()
        if self.kind.startswith("console"):
            return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return [line.strip() for line in lines if line.strip()]


def blocks() -> list[Block]:
    found = []
    for path in PAGES:
        name, text = str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")

        def at(match: re.Match[str], text: str = text) -> int:
            return text.count("\n", 0, match.start()) + 1

        fences = list(re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.S | re.M))
        found += [Block(name, at(match), match[1], match[2]) for match in fences]
        for match in re.finditer(r"(?:^    \S[^\n]*\n(?:^ {5,}\S[^\n]*\n)*)+", text, re.M):
            if not any(fence.start() < match.start() < fence.end() for fence in fences):
                found.append(Block(name, at(match), "sh", textwrap.dedent(match[0])))
    return found


BLOCKS = blocks()
SHELL = [(b, line) for b in BLOCKS if b.kind == "sh" for line in b.commands]
PYTHON = [b for b in BLOCKS if b.kind == "python" and ">>>" not in b.text]


def test_every_block_is_of_a_kind_that_is_run():
    """``text`` holds formulas; what a session of Python shows is a doctest, run in test_lab_docs and by pytest."""
    assert len(SHELL) > 50
    assert len(PYTHON) >= 6
    for block in BLOCKS:
        assert block.kind in ("sh", "python", "text") or re.fullmatch(r"console(?: tail=\d+)?", block.kind), block
        if block.kind == "text":
            assert not re.search(r"^\s*(\$ )?(kobai|python3?|pip|import|from) ", block.text, re.M), block
        if block.kind.startswith("console"):
            assert block.page == "docs/tutorial.md", f"{block}: no test compares this with what is printed"
        if block.kind == "python" and ">>>" in block.text:
            assert block.page in ("docs/tutorial.md", "README.md"), f"{block}: no test runs this"


# --- what a reader has ------------------------------------------------------------------------------------------------


def run_command(*arguments: str) -> int:
    try:
        main(list(arguments))
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def write_digits_as_mnist(folder: Path) -> None:
    """The digits, blown up to 28 × 28, in the files of MNIST: a set that the same nets learn from."""
    data = kobai.data.digits()
    parts = []
    for part in (data.train, data.test):
        x, t = (tensor.numpy() for tensor in part.tensors)
        raw = np.rint(x.reshape(-1, 8, 8) * np.array(data.scaling.scale) * 15.9).clip(0, 255)
        large = np.pad(raw.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))
        parts += [large.astype(np.uint8), t.astype(np.uint8)]
    folder.mkdir()
    for name, array in zip(NAMES, parts, strict=True):
        (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array), 1))


def write_photos(folder: Path) -> None:
    for k in range(40):
        file = folder / ("oak" if k % 2 else "elm") / f"{k:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 16), (200 - k, 90, 20) if k % 2 else (20, 90, 200 - k)).save(file)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with the runs, tables and data sets that the pages speak of; made once, of few epochs."""
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    points = [(*(rng.normal(size=2) * 0.4 + [k, -k]), "abc"[k]) for k in (0, 1, 2) for _ in range(40)]
    table = "x,y,kind\n" + "".join(f"{x:.4f},{y:.4f},{kind}\n" for x, y, kind in points)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("measurements.csv").write_text(table)
        for name in ("net.py", "mynet.py"):
            Path(name).write_text(next(block.text for block in PYTHON if block.text.startswith(f"# {name}")))
        write_photos(Path("photos"))
        Path("experiment.toml").write_text("hidden = [16]\nepochs = 2\nseed = 1\n")
        write_digits_as_mnist(Path("data"))
        short = ["--epochs", "2", "--hidden", "16", "--quiet"]
        vary = ["--vary", "activation=relu,tanh", "--repeat", "1", "--jobs", "1"]
        for arguments in (
            ["train", "--data", "measurements.csv", *short, "--out", "runs/NAME"],
            ["train", "--data", "photos", "--image-size", "32", *short, "--out", "runs/photos"],
            ["train", "--model", "mynet.py:MyNet", "--epochs", "1", "--quiet", "--out", "runs/mine"],
            ["train", *short, "--out", "runs/digits-mlp-20260101-120000"],
            ["compare", *vary, *short, "--out", "runs/compare-20260101-120000"],
            [
                "tune",
                "--space",
                "lr=1e-3..1e-2:log",
                "--trials",
                "2",
                "--jobs",
                "1",
                *short,
                "--out",
                "runs/tune-20260101-120000",
            ],
            ["lab", "activations", "--quick", "--quiet", "--out", "lab"],
            ["train", "--config", "experiment.toml", "--quiet"],  # the newest: what --resume goes on with
        ):
            assert run_command(*arguments) == 0, arguments
    return folder


@pytest.fixture
def world(made, tmp_path, monkeypatch):
    """A copy of it, to which commands may write."""
    shutil.copytree(made, tmp_path / "world", copy_function=shutil.copy2)
    monkeypatch.chdir(tmp_path / "world")
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path / "world"


# --- commands ---------------------------------------------------------------------------------------------------------

SHORTER = {
    "kobai train --data mnist": "--epochs 1",
    "kobai train --doctor": "--epochs 1",
    "kobai train --data photos": "--epochs 1 --out again",
    "kobai train --model": "--epochs 1 --out again",
    "kobai compare --vary": "--epochs 1 --repeat 1",
    "kobai compare --resume": "",
    "kobai tune --space": "--trials 2 --epochs 1",
    "kobai tune --resume": "--trials 3",
    "kobai bench": "--seconds 0.005 --batch-sizes 8,32 --widths ''",
    "kobai lab": "--quick",
}
"""Options that shorten commands which begin so, the longest beginning first; those named later on a command line win."""

SAYS = {
    "kobai diagnose --activation sigmoid --hidden 50,50,50,50,50,50 --init 'normal(0.01)' --treat": [
        "error  vanishing gradient",
        "error  collapsed activations",
        r"where     4, 6, 8",
        "cause     The weights are too small",
        r"cure 1, against collapsed activations:\n  for layer in",
        r"before +2\.\d+ +2\.[23]\d*\nafter +[\d.]+ +0\.\d+\nhealthy now",
    ],
    "kobai diagnose net.py": [
        "net.py: model 'model', loader 'train_loader', loss_fn 'criterion', optimizer 'optimizer'",
        "warning  batch statistics of few samples",
        "samples in a batch: 4",
    ],
    "kobai train": [r"test accuracy (0\.\d{4}|1\.0000)"],
    "kobai export": [r"^runs/NAME/model\.onnx: ", r"scores +float32 \(samples, 3\)"],
    "kobai evaluate": [
        r"runs/NAME/best\.safetensors, epoch \d(, the best of runs/NAME)?, on measurements, test split",
        r"test accuracy \d\.\d{4}\n$",
    ],
    "kobai evaluate runs/photos": ["on photos: 40 images", "it was trained on .* of them", r"accuracy \d\.\d{4}\n$"],
    "kobai evaluate runs/mine": [r"on digits, test split", r"test accuracy \d\.\d{4}\n$"],
    "kobai predict runs/photos": [r"^sample,prediction,probability,P\(elm\),P\(oak\)\n001\.png,(elm|oak),0\.\d+,"],
    "kobai predict": [r"^sample,prediction,probability,label,P\(a\),.*\n0,[abc],0\.\d+,[abc],"],
    "kobai report": [r"\.html\n", "with the train|runs/|lab"],
    "kobai compare": [r"condition +accuracy", "train the best one: kobai train"],
    "kobai tune": ["train with them: kobai train|kobai train"],
    "kobai lab list": [*EXPERIMENTS],
    "kobai lab": ["claim", "finding", r"files .*\.png"],
    "kobai bench": ["numpy", r"bench\.json"],
    "kobai warmup": ["compiled|ready|numba"],
    "kobai verify": ['residual .*as shipped|"same": true', "promised"],
    "kobai info": ["Backends", "numpy +ready", "[Tt]hreads", r"Python 3\.\d+", "numba"],
}
"""What a command that begins so prints, the longest beginning first."""

ELSEWHERE = {
    "python3 scripts/": "tests/test_scripts.py, and .ci/run begins with it",
    "pip install": "no network in a test",
    "pytest": "needs a GPU",
    "CUPY_ACCELERATORS=": "needs a GPU",
    "compute-sanitizer": "needs a GPU",
}
"""Commands that no test can run here, and why; that what they name is there, one looks at."""

QUICK = {"activations", "init-activations"}
"""Experiments of two seconds, which are run on what stands for MNIST too; the others there when slow tests are asked for."""


def longest(table: dict[str, object], line: str) -> str | None:
    return max((start for start in table if line.startswith(start)), key=len, default=None)


def shown_commands() -> list[object]:
    found: dict[str, object] = {}
    for block, line in SHELL:
        bare = shlex.join(shlex.split(line.replace("…", "20260101-120000"), comments=True))
        if not bare.startswith("kobai") or bare in found:
            continue
        words = bare.split()
        if words[1] == "lab" and words[2] != "list" and "mnist" not in words:
            continue  # test_the_page_of_an_experiment_shows_what_it_finds runs it; all of them are all of these
        heavy = words[1] == "lab" and words[2] not in ("list", *QUICK)
        found[bare] = pytest.param(block, bare, marks=[pytest.mark.slow] * heavy, id=f"{bare[6:70]} ({block.page})")
    return list(found.values())


@pytest.mark.parametrize(("block", "line"), shown_commands())
def test_every_command_that_is_shown_runs(block, line, world, capsys, monkeypatch):
    if line.startswith("kobai warmup"):
        if not dispatch.numba_installed:
            pytest.skip("without Numba there is nothing to warm up")
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(world / "cache"))
    shorter = longest(SHORTER, line)
    arguments = [*shlex.split(line)[1:], *shlex.split(SHORTER[shorter] if shorter else "")]
    arguments = [word.replace("PATH", "data") for word in arguments]
    capsys.readouterr()
    code = run_command(*arguments)
    out, err = capsys.readouterr()
    assert code == 0, f"{block.page}:{block.line}: {err}"
    said = longest(SAYS, line)
    assert said is not None, f"{block.page}:{block.line}: nothing is known of what {line!r} prints"
    for words in SAYS[said]:
        assert re.search(words, out + err), (words, out, err)


def test_commands_of_other_programs_name_files_that_are_there():
    for block, line in SHELL:
        bare = line.split("#")[0].strip()
        if bare.startswith("kobai"):
            continue
        assert longest(ELSEWHERE, bare) is not None, f"{block.page}:{block.line}: no test runs {bare!r}"
        for name in re.findall(r"(?:scripts|tests|benchmarks)/[\w/.]+", bare):
            assert (ROOT / name).exists(), (block.page, name)


def test_the_first_command_ends_with_the_accuracy_that_the_readme_shows(tmp_path, monkeypatch, capsys):
    """``python3 scripts/train.py`` is ``kobai train`` (tests/test_scripts.py)."""
    (shown,) = re.findall(r"scripts/train\.py .*ends with: test accuracy ([\d.]+)…", (ROOT / "README.md").read_text())
    monkeypatch.chdir(tmp_path)
    assert run_command("train") == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert float(last.removeprefix("test accuracy ")) == pytest.approx(float(shown), abs=0.011)
    left = {path.name for path in next((tmp_path / "runs").iterdir()).iterdir()}
    assert {"best.safetensors", "last.safetensors", "history.jsonl", "learning_curve.png"} <= left


# --- Python -----------------------------------------------------------------------------------------------------------

SHORTER_CODE = {"epochs=20": "epochs=1", "repeat=3": "repeat=1", "trials=40": "trials=2", "epochs=10,": "epochs=1,"}
"""In calls of the lab, which train for minutes otherwise."""


@pytest.mark.parametrize("page", sorted({block.page for block in PYTHON}))
def test_every_block_of_python_runs(page, world, capsys):
    """Blocks of a page go on from one another."""
    names: dict[str, object] = {}
    for block in PYTHON:
        if block.page != page:
            continue
        code = block.text
        if "kobai.lab." in code:
            for long, short in SHORTER_CODE.items():
                code = code.replace(long, short)
        where = f"{page}:{block.line}"
        if 'use("cupy")' in code and kobai.available_backends()["cupy"]:
            with pytest.raises(BackendError, match=r"pip install"):
                exec(compile(code, where, "exec"), names)
            continue
        exec(compile(code, where, "exec"), names)
        if page == "docs/capture.md":  # the step it defines is called, and learns
            images, labels = (tensor[:32] for tensor in names["data"].train.tensors)
            losses = [names["step"](images, labels).item() for _ in range(5)]
            assert losses[-1] < losses[0]


# --- output that is shown ---------------------------------------------------------------------------------------------

_spec = importlib.util.spec_from_file_location("lab_docs_for_shown", ROOT / "scripts" / "lab_docs.py")
lab_docs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(lab_docs)

NUMBER = re.compile(r"(?<![\w.])[-−]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?")


def alike(shown: str, printed: str) -> None:
    """The same words, and numbers that agree to a fifth, or to 0.02, but for times."""
    shown, printed = (re.sub(r"\b\d+(\.\d+)? s\b", "1 s", " ".join(text.split())) for text in (shown, printed))
    words = [re.split(NUMBER, text) for text in (shown, printed)]
    assert words[0] == words[1]
    numbers = [[float(n.replace(",", "").replace("−", "-")) for n in NUMBER.findall(text)] for text in (shown, printed)]
    for a, b in zip(*numbers, strict=True):
        assert a == pytest.approx(b, rel=0.2, abs=0.02), (a, b, shown, printed)


def test_differences_would_be_noticed():
    alike("loss 2.30, healthy now  (3 s)", "loss 2.31, healthy now (9 s)")
    for other in ("loss 3.30, healthy now", "loss 2.30, healthy", "loss 2.30 healthy now"):
        with pytest.raises(AssertionError):
            alike("loss 2.30, healthy now", other)


@pytest.mark.slow
def test_the_tutorial_shows_what_its_commands_print(monkeypatch):
    pytest.importorskip("numba", reason="what is shown was computed by compiled loops, whose last bits are others")
    monkeypatch.setattr(sys, "path", [str(ROOT / "src"), *sys.path])
    shown = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    made = lab_docs.tutorial(shown)
    for before, after in zip(lab_docs.BLOCK.findall(shown), lab_docs.BLOCK.findall(made), strict=True):
        alike(before[2], after[2])


TAKES_LONG = {"overfitting", "hyperparameters", "mlp-vs-cnn"}
"""Experiments of which even the quick form takes more than 20 seconds."""


@pytest.mark.thorough
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in TAKES_LONG)) for name in EXPERIMENTS]
)
def test_the_page_of_an_experiment_shows_what_it_finds(name, tmp_path, capsys, monkeypatch):
    """``kobai lab NAME --quick``, of which ``kobai lab all --quick`` is the sum."""
    monkeypatch.setenv("COLUMNS", "100000")
    assert run_command("lab", name, "--quick", "--out", str(tmp_path)) == 0
    out = capsys.readouterr().out
    page = (ROOT / "docs" / "lab" / f"{name}.md").read_text(encoding="utf-8")
    (quoted,) = re.findall(r"^On the digits, in quick size, seed 0:\n\n((?:> .*\n)+)", page, re.M)
    (found,) = re.findall(r"^  finding  (.*)$", out, re.M)
    alike(quoted.replace("> ", "").replace("\n", " "), found)

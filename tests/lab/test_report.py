"""The report: what it tells, what it escapes, what it refuses, and that a browser shows it without complaint."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import kobai
from kobai.cli import app
from kobai.core.checksum import read_json, write_json
from kobai.errors import CheckpointError, DataError
from kobai.lab.reports import charts, count_charts, markup, run
from kobai.lab.reports.charts import Line
from kobai.lab.reports.count_charts import Bars
from kobai.lab.reports.drawing import WIDTH
from kobai.lab.reports.reporting import FILE, report
from kobai.train import checkpoint, job
from kobai.train.settings import RunSettings

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

from browser import Browser, find
from page_reader import Page, self_contained

EVIL = "<script>alert('x')</script>\"&\x1b[31m"


def train(folder: Path, **settings) -> Path:
    chosen = RunSettings(**{"epochs": 3, "hidden": (20,), **settings}).check()
    job.train(chosen, job.load_data(chosen), folder, say=lambda line: None, curve=False)
    return folder


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    return train(tmp_path_factory.mktemp("healthy") / "run", hidden=(32, 32), epochs=8, schedule="cosine")


@pytest.fixture(scope="module")
def sick(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sick") / "run"
    return train(folder, hidden=(30,) * 5, activation="sigmoid", init="normal(0.01)", optimizer="sgd", lr=0.1)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    from kobai.lab.sweep.compare import compare

    folder = tmp_path_factory.mktemp("compared") / "c"
    compare(
        {"activation": "sigmoid,relu", "init": ["normal(0.01)", "he"]},
        out=folder, repeat=2, epochs=1, hidden=(10,), optimizer="sgd", jobs=1, measures=4,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    pytest.importorskip("optuna")
    from kobai.lab.sweep.tune import tune

    folder = tmp_path_factory.mktemp("searched") / "t"
    space = {"lr": "1e-4..1:log", "hidden": "10|20,20", "batch_size": "16..128:log", "dropout": "0..0.5"}
    tune(space, out=folder, trials=14, epochs=1, activation="tanh", jobs=1)
    return folder


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("experiment") / "lab"
    kobai.lab.run("activations", out=folder)
    return folder


# --- what it tells ------------------------------------------------------------------------------------------------------


def test_a_run_is_told_from_its_data_to_its_environment(healthy):
    before = kobai.get_rng_state()
    path = report(healthy)
    assert kobai.get_rng_state() == before  # what follows is as random as it would have been
    assert path == healthy / FILE
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    self_contained(page)
    assert "url(" not in text
    assert "@import" not in text
    titles = "Data, Model, Learning curves, Activations through depth, Gradient flow, Findings and cures, Mistakes, Environment"
    assert [a["aria-labelledby"] for a in page.all("section")] == [
        f"{title.lower().replace(' ', '-')}-title" for title in titles.split(", ")
    ]
    restored = job.restore(healthy, print)
    history = [json.loads(line) for line in (healthy / job.HISTORY).read_text().splitlines()]
    best = next(r for r in history if r["epoch"] == restored.epoch)
    for said in (
        f"{100 * best['val_accuracy']:.1f} %",
        f"{sum(p.numel() for p in restored.model.parameters()):,}",
        "1,294 samples",
        f"numpy {np.__version__}",
        f"kobai {kobai.version.kobai}",
        "kobai train --hidden 32,32",
        "Seed0",
    ):
        assert said in page.text, said
    assert len(page.all("img")) >= 20


def test_the_test_accuracy_is_that_of_evaluate(healthy):
    done = CliRunner().invoke(app, ["evaluate", str(healthy)])
    accuracy = float(re.search(r"accuracy ([\d.]+)", done.stdout)[1])
    page = Page(report(healthy).read_text(encoding="utf-8"))
    assert f"{100 * accuracy:.1f} %test accuracy" in page.text


def test_a_sick_net_gets_its_findings_and_a_cure(sick, healthy):
    page = Page(report(sick).read_text(encoding="utf-8"))
    self_contained(page)
    assert "vanishing gradient" in page.text
    assert "nn.init.by_name(" in page.text
    begun = page.text.partition("As it began")[2]
    assert "error" in begun.partition("As it is now")[0]
    well = Page(report(healthy).read_text(encoding="utf-8")).text
    assert "vanishing gradient" not in well.partition("As it began")[2]


def test_before_training_is_what_the_seed_draws(healthy):
    from kobai.lab.reports import depth
    from kobai.train import checkpoint
    from kobai.train.models import build

    restored = job.restore(healthy, print)
    state = checkpoint.read(restored.path)
    x, t = job.load_data(restored.settings).train.tensors
    seen = depth.look(restored, state, (x[:64], t[:64]))
    kobai.manual_seed(restored.settings.seed)
    fresh = build(job.describe_model(restored.settings, restored.input_shape, 10))
    weight = fresh[1].weight
    assert seen.before.weights[0].value.std == pytest.approx(weight.std(correction=0).item(), rel=1e-5)
    trained = restored.model[1].weight
    assert seen.after.weights[0].value.std == pytest.approx(trained.std(correction=0).item(), rel=1e-5)


def test_a_comparison_ranks_and_a_condition_keeps_its_look(compared):
    page = Page(report(compared).read_text(encoding="utf-8"))
    self_contained(page)
    ranking = json.loads((compared / "results.json").read_text())["ranking"]
    assert f"{100 * ranking[0]['accuracy']:.1f} %validation accuracy of the best" in page.text
    assert len(page.all("polygon")) > 4  # bands over the seeds
    assert page.text.count("He (√(2/n))") >= 4


def test_experiments_show_claim_figure_and_finding(experiment):
    page = Page(report(experiment).read_text(encoding="utf-8"))
    self_contained(page)
    content = json.loads((experiment / "activations.json").read_text())
    for said in (content["claim"], content["finding"][:60], "seen in these numbers"):
        assert said in page.text
    pictures = [a for a in page.all("img") if a["src"].startswith("data:image/svg+xml;base64,")]
    assert pictures[0]["alt"] == content["alt"]
    alone = report(experiment / "activations.json", experiment / "one.html")
    assert content["claim"] in Page(alone.read_text(encoding="utf-8")).text


def test_an_experiment_that_did_not_show_its_claim_says_so(experiment, tmp_path):
    write_json(tmp_path / "activations.json", {**read_json(experiment / "activations.json"), "passed": False})
    text = Page(report(tmp_path).read_text(encoding="utf-8")).text
    assert "not seen in these numbers" in text
    assert "is not there" in text  # its figure


# --- whatever the data are ----------------------------------------------------------------------------------------------


def table(path: Path, rows: int = 120, classes: int = 3) -> Path:
    rng = np.random.default_rng(0)
    names = [EVIL.partition("\x1b")[0].replace('"', "'").replace(",", ""), "b & c", *(f"k{i}" for i in range(classes))][
        :classes
    ]
    lines = ["<b>one</b>,two,kind"]
    for i in range(rows):
        k = i % classes
        lines.append(f"{rng.normal() + k:.4f},{rng.normal() - k:.4f},{names[k]}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_names_from_a_table_are_escaped_everywhere(tmp_path):
    data = table(tmp_path / "a&b<i>.csv")
    path = report(train(tmp_path / "run", data=str(data), hidden=(5,)))
    page = Page(path.read_text(encoding="utf-8"))
    self_contained(page)
    assert not page.all("b") or "<b>one</b>" in page.text
    assert "<script>alert('x')</script>" in page.text  # as text
    assert "a&b<i>.csv" in page.text


@pytest.mark.parametrize("classes", [12, 45])
@pytest.mark.filterwarnings("ignore:.*few training rows")
def test_many_classes(tmp_path, classes):
    data = table(tmp_path / "t.csv", rows=classes * 8, classes=classes)
    page = Page(report(train(tmp_path / "run", data=str(data), hidden=(), epochs=1)).read_text(encoding="utf-8"))
    self_contained(page)


def test_data_that_are_gone_are_told_and_the_rest_is_there(tmp_path):
    data = table(tmp_path / "t.csv")
    folder = train(tmp_path / "run", data=str(data), hidden=(5,))
    data.unlink()
    said: list[str] = []
    page = Page(report(folder, say=said.append).read_text(encoding="utf-8"))
    assert "t.csv" in said[0]
    assert "could not be read" in page.text
    assert "Learning curves" in page.text
    assert "Gradient flow" not in page.text


def test_other_data_under_the_same_name_are_not_taken_for_the_runs(tmp_path):
    data = table(tmp_path / "t.csv")
    folder = train(tmp_path / "run", data=str(data), hidden=(5,))
    table(data, rows=160, classes=4)
    said: list[str] = []
    report(folder, say=said.append)
    assert "not those that the model was trained on" in said[0]


def test_a_checkpoint_by_itself(healthy, tmp_path):
    shutil.copy(healthy / "last.safetensors", tmp_path / "net.safetensors")
    path = report(tmp_path / "net.safetensors")
    assert path == tmp_path / FILE
    assert "Learning curves" in path.read_text(encoding="utf-8")


def test_a_history_that_was_cut_off_is_mended_from_the_checkpoint(healthy, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(healthy, folder)
    history = folder / job.HISTORY
    history.write_text(history.read_text()[:-40])
    said: list[str] = []
    assert report(folder, say=said.append).exists()
    assert "history.jsonl" in said[0]


def test_a_history_that_was_damaged_is_noticed(healthy, tmp_path):
    """It has no checksum of its own, and need not have one: the checkpoint holds what it says, with a checksum."""
    folder = tmp_path / "run"
    shutil.copytree(healthy, folder)
    history = folder / job.HISTORY
    whole, rng = history.read_bytes(), np.random.default_rng(0)
    state, heard = checkpoint.read(folder / checkpoint.BEST), 0
    for _ in range(200):
        place, bit = int(rng.integers(len(whole))), 1 << int(rng.integers(8))
        history.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        said: list[str] = []
        found = run._history(folder, state, said.append)
        heard += len(said)
        assert said or [json.loads(line) for line in history.read_bytes().splitlines()] == found
        assert [record["epoch"] for record in found] == list(range(1, 9))
    assert heard > 150


@pytest.mark.parametrize("value", [None, 1e300, 0.0])
def test_any_loss_can_be_drawn(healthy, tmp_path, monkeypatch, value):
    folder = tmp_path / "run"
    shutil.copytree(healthy, folder)
    record = {
        "epoch": 1,
        "loss": value,
        "accuracy": 0.1,
        "val_loss": value,
        "val_accuracy": 0.1,
        "lr": 0.1,
        "time": 0.1,
    }
    monkeypatch.setattr(run, "_history", lambda *_: [{**record, "epoch": epoch} for epoch in range(1, 9)])
    self_contained(Page(report(folder).read_text(encoding="utf-8")))


# --- what it refuses ----------------------------------------------------------------------------------------------------


def test_bad_sources_and_targets(tmp_path, healthy):
    with pytest.raises(FileNotFoundError, match="no such file or folder to report on"):
        report(tmp_path / "none")
    with pytest.raises(DataError, match=r"holds nothing to report on; expected a run of kobai train"):
        report(tmp_path)
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    with pytest.raises(DataError, match="is there already and is no page"):
        report(healthy, notes)
    assert notes.read_text() == "mine"
    broken = tmp_path / "last.safetensors"
    broken.write_bytes(b"no")
    with pytest.raises(CheckpointError):
        report(tmp_path)
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"ranking": [], "conditions": []}', '{"ranking": [{"name": "a"}]}']
)
def test_broken_comparisons_and_results(tmp_path, content):
    for name in ("results.json", "activations.json"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text(content)
        with pytest.raises(DataError):
            report(folder)
        assert not (folder / FILE).exists()


def test_the_command(healthy, tmp_path):
    done = CliRunner().invoke(app, ["report", str(healthy), "--out", str(tmp_path / "new" / "r.html")])
    assert done.exit_code == 0
    assert done.stdout.strip() == str(tmp_path / "new" / "r.html")
    assert (tmp_path / "new" / "r.html").exists()
    done = CliRunner().invoke(app, ["report", str(tmp_path / "none")])
    assert done.exit_code == 1
    assert "no such file or folder" in done.stderr
    assert "Traceback" not in done.stderr


# --- markup and charts --------------------------------------------------------------------------------------------------


def test_markup_escapes_what_is_not_markup():
    made = markup.tag("p", EVIL, [markup.tag("b", EVIL)], title=EVIL)
    page = Page(made)
    assert [name for name, _ in page.tags] == ["p", "b"]
    assert page.all("p")[0]["title"] == EVIL.replace("\x1b", "\ufffd")


def test_png_is_read_by_others():
    image = pytest.importorskip("PIL.Image")
    import io

    for shape in ((5, 7), (5, 7, 3)):
        pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
        np.testing.assert_array_equal(np.asarray(image.open(io.BytesIO(markup.png(pixels)))), pixels)
    with pytest.raises(ValueError, match="expected uint8"):
        markup.png(np.zeros((2, 2)))


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    "y",
    [
        [1.0, 2.0],
        [0.0, 0.0],
        [5.0],
        [],
        [NAN, None],
        [1e-300, 1e300],
        [-1.0, INF, 3.0],
        [1e308, -1e308],
        [0.1, 0.1 + 1e-12],
    ],
    ids=str,
)
def test_charts_draw_any_numbers(y, log):
    drawn = charts.lines(
        [Line("a", list(range(len(y))), y)], alt="x", x_label="x", y_label="y", log=log, levels=[(1.0, "one")]
    )
    found = [float(n) for n in re.findall(r'(?:x|y|cx|cy|x1|x2|y1|y2)="(-?[\d.]+|nan|inf)"', drawn)]
    assert all(-400 <= n <= WIDTH + 1 for n in found)
    Page(drawn)


@pytest.mark.parametrize("edges", [[0.0, 0.5, 1.0], [0.5, 0.5, 0.5], [1e-30, 2e-30, 3e-30], [-1e30, 0, 1e30]], ids=str)
def test_histograms_of_any_width(edges):
    Page(count_charts.histogram([Bars("a", edges, [1, 2]), Bars("b", edges, [0, 0])], alt="x"))


# --- in a browser -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    command = find()
    if command is None:
        pytest.skip("there is no Chromium")
    with Browser(command) as opened:
        yield opened


SEEN = """(() => {
    const found = [...document.querySelectorAll('svg[role=img], img')].filter(e => !e.closest('details:not([open])'));
    const hidden = found.filter(e => {
        const box = e.getBoundingClientRect(), scrolls = e.closest('.wide');
        return !(box.width > 20 && box.height > 20 && box.left >= -0.5 && (scrolls || box.right <= innerWidth + 0.5)
            && getComputedStyle(e).visibility === 'visible' && (e.tagName !== 'IMG' || e.naturalWidth > 0));
    });
    return [found.length, hidden.length];
})()"""

CONTRAST = """(() => {
    const light = text => {
        const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255).map(
            v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = e => {
        for (; e; e = e.parentElement) {
            const c = getComputedStyle(e).backgroundColor;
            if (c !== 'rgba(0, 0, 0, 0)') return c;
        }
    };
    let least = 99, where = '';
    for (const e of document.querySelectorAll('p, h1, h2, h3, dt, dd, td, th, a, summary, figcaption, .tile *, .badge')) {
        const a = light(getComputedStyle(e).color), b = light(ground(e));
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < least) { least = ratio; where = e.outerHTML.slice(0, 80); }
    }
    return [least, where];
})()"""

SMALLEST = """Math.min(...[...document.querySelectorAll('svg[role=img] text')].filter(e => !e.closest('details:not([open])'))
    .map(e => parseFloat(getComputedStyle(e).fontSize) * e.ownerSVGElement.getBoundingClientRect().width
        / e.ownerSVGElement.viewBox.baseVal.width))"""


@pytest.mark.thorough
@pytest.mark.few(3)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("what", ["healthy", "sick", "compared", "searched", "experiment"])
def test_a_browser_shows_it(browser, request, what, width, dark):
    path = report(request.getfixturevalue(what))
    browser.open(path.as_uri(), width=width, dark=dark)
    assert browser.complaints() == []
    assert [address for address in browser.requests() if not address.startswith("data:")] == [path.as_uri()]
    assert browser.ask("document.documentElement.scrollWidth") == width
    browser.ask("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.ask("document.documentElement.scrollWidth") == width  # what opens does not push the page apart
    figures, hidden = browser.ask(SEEN)
    assert figures >= 1
    assert hidden == 0
    ground = [int(v) for v in re.findall(r"\d+", browser.ask("getComputedStyle(document.body).backgroundColor"))]
    assert (sum(ground[:3]) < 150) == dark
    least, where = browser.ask(CONTRAST)
    assert least >= 4.5, where  # WCAG 2.2, 1.4.3
    if what != "experiment":
        assert browser.ask(SMALLEST) >= 8.5  # in CSS pixels

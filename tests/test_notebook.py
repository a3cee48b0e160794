"""What a notebook shows: HTML that parses, escaped, without scripts; and when progress is shown."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

import kobai
from kobai import nn
from kobai.core import notebook
from kobai.lab.doctor.cures import Cure
from kobai.lab.doctor.findings import Diagnosis, Evidence, Finding
from kobai.train import Progress, Trainer
from kobai.train.records import Records

OPEN_ENDED = {"br", "hr", "img", "meta", "link"}


class Page(HTMLParser):
    """Tags in balance, and the text of each kind of cell."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.tags = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in OPEN_ENDED:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self):
        return "".join(self.texts)


def shown(thing):
    page = Page(thing._repr_html_())
    names = {tag for tag, _ in page.tags}
    assert "script" not in names
    assert not [attrs for _, attrs in page.tags for name in attrs if name.startswith("on") or name in ("src", "href")]
    return page


NASTY = "<script>alert('a & b')</script>"


@pytest.mark.parametrize("dtype", "bool int64 float32 bfloat16".split())
def test_tensors_of_any_kind(dtype, backend):
    for shape in ((), (0,), (3,), (2, 3), (2, 3, 4), (2000, 2)):
        tensor = kobai.ones(shape).to(getattr(kobai, dtype))
        text = shown(tensor).text
        assert dtype in text
        assert str(list(shape)) in text
        assert str(tensor.device) in text


def test_a_tensor_says_what_is_not_finite():
    assert "from 1 to 3, mean 2 · 2 not finite" in shown(kobai.tensor([1.0, float("nan"), 3.0, float("inf")])).text
    assert "3 not finite" in shown(kobai.tensor([float("nan")] * 3)).text
    assert "requires_grad" in shown(kobai.ones(2, requires_grad=True)).text
    assert "MulBackward" in shown(kobai.ones(2, requires_grad=True) * 2).text


def test_a_module_is_a_table_of_its_layers():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential(nn.Flatten(), nn.Linear(16, 10)))
    net[0].weight.requires_grad_(False)
    page = shown(net)
    for part in ("210 parameters", "174 of them trained", "Conv2d(1, 4", "(N, 4, …)", "(…, 10)", "170"):
        assert part in page.text, part
    assert [attrs["style"] for tag, attrs in page.tags if tag == "span" and "style" in attrs][
        -1
    ] == "padding-left:1.2em"


def test_odd_modules():
    tied = nn.Linear(3, 3)
    tied.again = tied.weight
    assert "12 parameters" in shown(tied).text
    assert "0 parameters" in shown(nn.LazyLinear(3)).text
    assert nn.LazyLinear(3).weight._repr_html_ is None
    assert "… and 51 more" in shown(nn.Sequential(*(nn.ReLU() for _ in range(150)))).text
    assert NASTY in shown(nn.Sequential()._get_name() and type(NASTY, (nn.Module,), {})()).text


def history(n):
    return Records(
        {"epoch": i + 1, "loss": 1 / (i + 1), "val_loss": 2.0, NASTY: 0.5, "lr": 0.1, "time": 1.0} for i in range(n)
    )


@pytest.mark.parametrize(("n", "charts"), [(0, 0), (1, 0), (2, 2), (300, 2)])
def test_a_history_is_curves(n, charts):
    page = shown(history(n))
    assert sum(tag == "svg" for tag, _ in page.tags) == charts
    assert ("no epoch yet" in page.text) == (n == 0)
    said = [attrs["aria-label"] for tag, attrs in page.tags if tag == "svg"]
    assert not said or said[0] == f"loss by epoch: training ends at {1 / n:.4g}, validation ends at 2"


def test_gaps_in_a_curve():
    nan, inf = float("nan"), float("inf")
    for values in ([nan, nan], [1.0, nan, 2.0, inf, 3.0], [5.0, 5.0, 5.0], [0.0, 0.0], [-1e300, 1e300], [nan, 1.0]):
        text = notebook.curves({"one": (range(len(values)), values), "two": (range(len(values)), values)}, "loss")
        Page(text)
        assert "nan," not in text
        assert ",nan" not in text
    assert notebook.curves({"one": ([1, 2], [nan, nan])}, "loss") == ""


def test_a_trainers_history_is_shown_and_is_a_list():
    model = nn.Linear(2, 2)
    trainer = Trainer(model, kobai.optim.SGD(model.parameters(), lr=0.1))
    found = trainer.fit([(kobai.zeros(4, 2), kobai.tensor([0, 1, 1, 0]))], epochs=3)
    assert isinstance(found, list)
    assert "svg" in found._repr_html_()
    twin = Trainer(model, trainer.optimizer)
    twin.load_state_dict(trainer.state_dict())
    assert twin.history == found
    assert "svg" in twin.history._repr_html_()


# --- the lab ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sick():
    kobai.manual_seed(0)
    x, t = kobai.randn(64, 20), kobai.arange(64) % 4
    layers = [part for _ in range(6) for part in (nn.Linear(20, 20, init="normal(0.01)"), nn.Tanh())]
    return kobai.lab.diagnose(nn.Sequential(*layers, nn.Linear(20, 4)), (x, t), quick=True)


def test_a_diagnosis(sick):
    page = shown(sick)
    for finding in sick.findings:
        assert finding.title in page.text
        assert finding.cause in page.text
    assert sick.findings[0].cure.code in page.text
    assert "error" in [attrs.get("class") for _, attrs in page.tags]


def test_a_diagnosis_is_escaped(sick):
    finding = Finding("d", NASTY, "warning", (NASTY,), (Evidence(NASTY, 1.0, 2.0, True),), NASTY, Cure(NASTY))
    found = Diagnosis((finding,), (), sick.reading, NASTY, (NASTY,), examined=(NASTY,))
    assert shown(found).text.count(NASTY) == 8


def test_a_treatment(sick):
    done = kobai.lab.treat(sick, steps=30)
    page = shown(done)
    assert "after 30 steps" in page.text
    assert sum(tag == "svg" for tag, _ in page.tags) == 1
    healthy = kobai.lab.treat(kobai.lab.diagnose(nn.Linear(20, 4), sick.case.batch, quick=True), steps=5)
    assert "nothing to cure" in shown(healthy).text


@pytest.mark.thorough
def test_comparisons_searches_and_experiments():
    settings = {"data": "digits", "epochs": 2, "hidden": (8,), "jobs": 1}
    page = shown(kobai.lab.compare({"lr": [0.01, 0.1]}, measures=4, **settings))
    assert sum(tag == "svg" for tag, _ in page.tags) == 2
    assert "kobai train" in page.text
    page = shown(kobai.lab.tune({"lr": [0.01, 0.1]}, trials=2, **settings))
    assert "best so far" in page.text
    result = kobai.lab.run("vanishing-gradient", kobai.lab.Settings(quick=True))
    assert result.finding in shown(result).text


# --- progress ---------------------------------------------------------------------------------------------------------


def trained(**options):
    model = nn.Linear(2, 2)
    trainer = Trainer(model, kobai.optim.SGD(model.parameters(), lr=0.1), metrics=["accuracy"], **options)
    trainer.fit([(kobai.zeros(4, 2), kobai.tensor([0, 1, 1, 0]))] * 2, epochs=2)
    return trainer


def shows(trainer):
    return sum(isinstance(callback, Progress) for callback in trainer.callbacks)


def no_test(monkeypatch):
    for name in ("PYTEST_CURRENT_TEST", "CI"):
        monkeypatch.delenv(name, raising=False)


def terminal(monkeypatch, is_one=True):
    monkeypatch.setattr(
        sys, "stdout", SimpleNamespace(isatty=lambda: is_one, write=lambda text: None, flush=lambda: None)
    )


def test_progress_is_shown_where_a_person_looks(monkeypatch, capsys):
    no_test(monkeypatch)
    assert shows(trained()) == 0  # a pipe
    terminal(monkeypatch)
    assert notebook.looked_at()
    monkeypatch.setenv("CI", "true")
    assert not notebook.looked_at()
    monkeypatch.setenv("CI", "false")
    assert notebook.looked_at()
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "this")
    assert not notebook.looked_at()


def test_progress_by_will(capsys):
    assert shows(trained()) == 0
    assert capsys.readouterr().out == ""
    assert shows(trained(progress=True)) == 1
    assert capsys.readouterr().out.startswith("epoch 1/2  loss 0.")
    assert shows(trained(progress=True, callbacks=[Progress(quiet=True)])) == 1
    assert capsys.readouterr().out == ""


class Notebook:
    """IPython in a kernel, as far as progress needs it: ``get_ipython``, and ``display`` with a handle to update."""

    def __init__(self):
        self.pages = []
        self.get_ipython = lambda: SimpleNamespace(kernel=True)
        self.display = SimpleNamespace(HTML=str, display=self._display)

    def _display(self, page, display_id):
        assert display_id is True
        return SimpleNamespace(update=self.pages.append)


def test_progress_in_a_notebook(monkeypatch, capsys):
    no_test(monkeypatch)
    fake = Notebook()
    monkeypatch.setitem(sys.modules, "IPython", fake)
    monkeypatch.setitem(sys.modules, "IPython.display", fake.display)
    monkeypatch.setattr("kobai.train.progress.REFRESH", 0.0)
    trainer = trained()
    assert shows(trainer) == 1
    pages = [Page(text) for text in fake.pages]
    assert len(pages) == 7  # four batches, two epochs, the end
    bars = [dict(attrs) for page in pages for tag, attrs in page.tags if tag == "progress"]
    assert [float(bar["value"]) for bar in bars] == [0.5, 1, 1, 1.5, 2, 2]
    assert [tag for tag, _ in pages[-1].tags].count("svg") == 2
    assert capsys.readouterr().out == ""

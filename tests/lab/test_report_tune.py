"""The page on a search: the best settings, what mattered, the test result if there is one."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

pytest.importorskip("optuna")

from page_reader import Page, self_contained

from kobai.errors import DataError
from kobai.lab.reports import search_charts
from kobai.lab.reports.reporting import FILE, report
from kobai.lab.sweep.tune_plan import Trial, plan
from kobai.lab.sweep.tune_result import RESULTS, TEST, Search
from kobai.train.settings import RunSettings

SPACE = {"lr": "1e-4..1:log", "batch_size": "16..256:log", "hidden": "50|100,100", "batch_norm": "on,off"}


def made_up(count: int = 20, *, best_lr: float = 0.01, space=SPACE, **options) -> Search:
    """Trials whose score falls with the distance of lr from the best one."""
    made = plan(RunSettings(), space, **options)
    rng, trials = np.random.default_rng(0), []
    for i in range(count):
        lr = best_lr if i == 3 else 10 ** rng.uniform(-4, 0)
        parameters = {"lr": lr, "batch_size": int(rng.integers(16, 257)), "hidden": ((50,), (100, 100))[i % 2]}
        parameters["batch_norm"] = bool(i % 3)
        distance = abs(math.log10(lr / best_lr))
        score = 0.95 - 0.1 * distance if made.greatest else 0.05 + distance
        pruned = made.prune and i % 4 == 2
        curve = [score * (0.5 + 0.5 * k / 27) for k in range(1, 28)][: 3 if pruned else None]
        chosen = {name: parameters[name] for name in made.space}
        state = "pruned" if pruned else "complete"
        trials.append(Trial(i, state, curve[-1], chosen, curve, loss=0.1 + distance, seconds=1.0, backend="numpy"))
    return Search(made, tuple(trials))


def page_of(search: Search, folder, tested=None) -> Page:
    if tested is not None:
        folder.mkdir(exist_ok=True)
        (folder / TEST).write_text(json.dumps(tested))
    search.save(folder)
    page = Page((folder / FILE).read_text(encoding="utf-8"))
    self_contained(page)
    return page


@pytest.mark.parametrize("by", ["accuracy", "loss"])
@pytest.mark.parametrize("method", ["tpe", "random", "grid"])
def test_it_tells_what_was_searched_and_found(tmp_path, method, by):
    search = made_up(method=method, by=by)
    page = page_of(search, tmp_path / "t")
    best = search.best
    assert best.number == 3
    score = f"{100 * best.value:.1f} %" if by == "accuracy" else f"{best.value:.3g}"
    for said in (
        f"Trial 3 is best, with a validation {by} of {score}: lr 0.01, batch size {best.parameters['batch_size']}, "
        "hidden 100,100, batch norm off.",
        "What mattered most is lr",
        "0.0001 to 1, logarithmic",
        {"tpe": "Bayesian (TPE)", "random": "random", "grid": "grid of 100"}[method] + ", 20 trials",
        "of them pruned" if search.plan.prune else "Complete trials.",
        search.command(),
        "The test split has not been looked at",
        "20.0 sof training, all trials together",
        "Backendnumpy",
    ):
        assert said in page.text, said
    assert "test accuracy" not in page.text
    drawn = [a["aria-label"] for a in page.all("svg") if a.get("role") == "img"]
    assert sum(label.startswith("Importance of each setting: lr") for label in drawn) == 1
    assert sum("complete trials by" in label for label in drawn) == 4
    assert sum(label.startswith("Each complete trial as a line") for label in drawn) == 1
    assert len(page.all("table")) == 2  # the best ten and the rest


def test_the_test_result_is_shown_only_with_the_settings_it_is_of(tmp_path):
    search = made_up()
    chosen = json.loads(json.dumps({**search.best.parameters, "hidden": list(search.best.parameters["hidden"])}))
    page = page_of(search, tmp_path / "t", {"accuracy": 0.9123, "loss": 0.25, "parameters": chosen})
    assert "91.2 %test accuracy, looked at once" in page.text
    assert "Trained with these settings once more, the model scores 91.2 % on the test split (loss 0.25)" in page.text
    assert "has not been looked at" not in page.text
    page = page_of(search, tmp_path / "t", {"accuracy": 0.9123, "loss": 0.25, "parameters": {**chosen, "lr": 0.5}})
    assert "The search has gone on since the test split was looked at" in page.text
    assert "lr 0.5" in page.text
    assert "91.2 %test accuracy" not in page.text  # it is not that of the best settings


@pytest.mark.thorough
def test_a_best_value_at_the_end_of_its_range_is_pointed_out(tmp_path):
    assert "At the edge" not in page_of(made_up(), tmp_path / "a").text
    page = page_of(made_up(best_lr=0.9), tmp_path / "b")
    assert "At the edge. lr is at the upper end of what was searched, 0.0001 to 1, logarithmic" in page.text


@pytest.mark.thorough
def test_few_trials_and_a_single_setting(tmp_path):
    page = page_of(made_up(4), tmp_path / "a")
    assert "Importances need ten trials that differ in their score; there are 4." in page.text
    page = page_of(made_up(4, space={"lr": SPACE["lr"]}, prune=False), tmp_path / "b")
    assert "Importances" not in page.text
    assert "All at once" not in page.text
    page = page_of(Search(made_up().plan, made_up().trials[:1]), tmp_path / "c")
    assert "Trial 0 is best" in page.text


def test_where_nothing_trains_there_is_no_best(tmp_path):
    made = plan(RunSettings(), {"lr": "1e37..1e38"})
    search = Search(made, tuple(Trial(i, "complete", 0.0, {"lr": 2e37}, diverged=True) for i in range(3)))
    page = page_of(search, tmp_path / "t")
    assert "Every trial that came to its end left the finite numbers" in page.text
    assert "3of them left the finite numbers" in page.text
    assert "kobai train" not in page.text.replace("as kobai train has it", "")
    waiting = Search(made, (Trial(0, "waiting", None, {"lr": 2e37}), Trial(1, "running", None, {})))
    assert "No trial has come to its end yet." in page_of(waiting, tmp_path / "w").text


@pytest.mark.thorough
def test_by_the_file_and_by_the_folder_it_is_one_page(tmp_path):
    search = made_up()
    search.save(tmp_path / "t")
    whole = (tmp_path / "t" / FILE).read_text()
    alone = report(tmp_path / "t" / RESULTS, tmp_path / "alone.html").read_text()
    assert alone.splitlines()[:-4] == whole.splitlines()[:-4]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"trials": []}', '{"trials": [{}], "space": {"lr": "0..1"}}'])
def test_what_is_no_result_of_a_search_is_refused(tmp_path, content):
    (tmp_path / RESULTS).write_text(content)
    with pytest.raises(DataError):
        report(tmp_path)
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize("values", [[], [None], [float("inf"), 1.0], [0.0, 0.0], [1e-300, 1e300], [-1.0, 2.0]], ids=str)
def test_charts_draw_any_scores(values):
    made = plan(RunSettings(), SPACE, by="loss")
    point = {"lr": 0.01, "batch_size": 16, "hidden": (50,), "batch_norm": True}
    trials = [Trial(i, "complete", v, point, [v]) for i, v in enumerate(values)]
    for drawing in (
        search_charts.history(made, trials, alt="x"),
        search_charts.curves(made, trials, alt="x"),
        search_charts.slices(made, trials, "lr", alt="x"),
        search_charts.parallel(made, trials, alt="x"),
    ):
        page = Page(drawing)
        assert page.all("svg")[0]["aria-label"].startswith("x")
        assert "nan" not in drawing
        assert "inf" not in drawing

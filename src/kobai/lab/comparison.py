"""``compare``: the product of conditions, each run from the same seeds; curves, a ranked table, and a folder to go on from."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from kobai.errors import DataError
from kobai.lab import compare_figure, plots, running, workers
from kobai.lab.compare_figure import SHOWN
from kobai.lab.running import Run
from kobai.lab.values import label, setting, spelt, values
from kobai.serialization import write_atomically
from kobai.train.job import kobai_version
from kobai.train.settings import Settings, SettingsError

__all__ = ["Comparison", "Condition", "Place", "Plan", "compare", "plan", "read_plan"]

PLAN, RESULTS, TABLE, FIGURE, RUNS = "comparison.json", "results.json", "ranking.md", "curves", "runs"
"""What a comparison's folder holds: what is compared, what came out of it, and each finished run."""

REACHED = 0.9
"""A condition's speed is how soon its accuracy passes this share of the best final accuracy of all."""

Watch = Callable[[tuple[int, int], dict[str, Any], bool], None]
"""Called with (number of the condition, of the seed), where the run is, and whether it has ended."""


@dataclass(frozen=True)
class Plan:
    """What is to be compared: all products of ``vary`` over ``base``, each with ``repeat`` seeds from ``base.seed`` on."""

    base: Settings
    vary: dict[str, list[Any]]
    repeat: int = 1
    measures: int = 40

    def conditions(self) -> list[tuple[str, Settings]]:
        """(name, settings) of each condition, in the order of the product."""
        found = []
        for combination in product(*self.vary.values()):
            chosen = dict(zip(self.vary, combination, strict=True))
            name = ", ".join(label(setting, value) for setting, value in chosen.items())
            found.append((name, replace(self.base, **chosen)))
        return found

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it: what a folder of another comparison is told by."""
        kept = {name: v for name, v in running.lasting(self.base).items() if name not in self.vary}
        return {"vary": _plain(self.vary), "settings": kept, "measures": self.measures}


@dataclass(frozen=True)
class Condition:
    """One condition with its runs, one for each seed; curves are over the measurements that all of them have."""

    name: str
    settings: Settings
    runs: tuple[Run, ...]

    def curve(self, what: str) -> list[list[float]]:
        """Values of ``train_loss``, ``held_accuracy``, …: for each measurement those of all runs that got so far."""
        longest = max(len(run.epoch) for run in self.runs)
        return [[getattr(r, what)[i] for r in self.runs if i < len(r.epoch)] for i in range(longest)]

    @property
    def epochs(self) -> list[float]:
        """Where the measurements of :meth:`curve` are."""
        return max((run.epoch for run in self.runs), key=len)

    def final(self, what: str) -> list[float]:
        """The last value of each run."""
        return [getattr(run, what)[-1] for run in self.runs]


@dataclass(frozen=True)
class Place:
    """A line of the ranked table; ``spread`` is the standard deviation over seeds, None with a single one.

    ``reached``: epochs until the mean accuracy passes 90 % of the best condition's, None if it never does.
    """

    rank: int
    name: str
    accuracy: float
    spread: float | None
    best: float
    loss: float
    train_loss: float
    reached: float | None
    diverged: int
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """What a comparison found: conditions in the order of the product, and how they rank."""

    plan: Plan
    conditions: tuple[Condition, ...]

    def __repr__(self) -> str:
        best = self.ranking()[0]
        return f"Comparison({len(self.conditions)} conditions × {self.plan.repeat}; best: {best.name}, {best.accuracy:.4f})"

    def ranking(self) -> list[Place]:
        """The conditions, best first: by the mean validation accuracy at the end, then by the validation loss.

        A condition whose runs left the finite numbers is behind all whose did not.
        """
        goal = REACHED * max(_mean(c.final("held_accuracy")) for c in self.conditions)
        places = []
        for c in self.conditions:
            accuracy, gone = c.final("held_accuracy"), sum(run.diverged is not None for run in c.runs)
            means = [_mean(v) for v in c.curve("held_accuracy")]
            places.append(
                Place(
                    rank=0,
                    name=c.name,
                    accuracy=_mean(accuracy),
                    spread=_spread(accuracy),
                    best=_mean([max(run.held_accuracy) for run in c.runs]),
                    loss=_mean(c.final("held_loss")),
                    train_loss=_mean(c.final("train_loss")),
                    reached=next((at for at, mean in zip(c.epochs, means, strict=True) if mean >= goal), None),
                    diverged=gone,
                    seconds=_mean([run.seconds for run in c.runs]),
                )
            )
        places.sort(key=lambda p: (p.diverged, -p.accuracy, p.loss if math.isfinite(p.loss) else math.inf))
        return [replace(place, rank=i) for i, place in enumerate(places, 1)]

    def table(self) -> str:
        """The ranking as a table in Markdown."""
        places = self.ranking()
        rows = [["rank", "condition", *headings(places).values()]]
        rows += [[str(p.rank), p.name, *cells(p, headings(places))] for p in places]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        padded = [
            [cell.ljust(w) if i == 1 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
            for row in rows
        ]
        rule = ["-" * w if i == 1 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
        return "".join(f"| {' | '.join(row)} |\n" for row in (padded[0], rule, *padded[1:]))

    def command(self) -> str:
        """The command that trains with the settings of the best condition."""
        best = self.ranking()[0].name
        return running.command(next(c.settings for c in self.conditions if c.name == best))

    def figure(self) -> Any:
        """Learning curves, a matplotlib ``Figure``: mean over seeds, and in a band from the least to the greatest."""
        return compare_figure.figure(self)

    def alt_text(self) -> str:
        """What the figure shows, for those who do not see it."""
        places = self.ranking()
        shown = "; ".join(f"{p.name} {p.accuracy:.3f}" for p in places[:SHOWN])
        more = f"; and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
        return f"Training loss and validation accuracy by epoch. Final validation accuracy, best first: {shown}{more}."

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON holds it: plan, ranking, and each run's curves."""
        return {
            "kobai": kobai_version(),
            "title": "Comparison",
            **self.plan.as_dict(),
            "repeat": self.plan.repeat,
            "seeds": [self.plan.base.seed + r for r in range(self.plan.repeat)],
            "ranking": [_plain(asdict(place)) for place in self.ranking()],
            "command": self.command(),
            "alt": self.alt_text(),
            "conditions": [
                {"name": c.name, "settings": running.lasting(c.settings), "runs": [run.as_dict() for run in c.runs]}
                for c in self.conditions
            ],
        }

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``results.json``, ``ranking.md``, and ``curves.png`` and ``curves.svg`` if matplotlib is there."""
        folder = Path(folder)
        content = {
            RESULTS: json.dumps(self.as_dict(), ensure_ascii=False, allow_nan=False, indent=1).encode() + b"\n",
            TABLE: self.table().encode(),
        }
        try:
            drawn = self.figure()
            content |= {f"{FIGURE}.{kind}": plots.render(drawn, kind) for kind in ("png", "svg")}
        except ImportError:
            pass  # the numbers are there, and the command line says what is missing
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in content.items():
            write_atomically(folder / name, data)
        return [folder / name for name in content]


def compare(
    vary: Mapping[str, Any],
    *,
    repeat: int = 1,
    jobs: int | None = None,
    out: str | Path | None = None,
    measures: int = 40,
    watch: Watch | None = None,
    **settings: Any,
) -> Comparison:
    """Train every combination of the values in ``vary``, all from the same seeds, and rank them by validation accuracy.

    Args:
        vary: for each setting its values, as a sequence or as text: ``{"activation": ["sigmoid", "relu"], "init":
            "normal:0.01,xavier,he", "batch_norm": [True, False]}``. Any setting of ``kobai train`` that describes the model
            or its training.
        repeat: run each condition with so many seeds, ``seed``, ``seed + 1``, …; all conditions have the same.
        jobs: processes, with one thread each; by default as many as there are processors. On a GPU runs go one after another.
        out: a folder for the files. What it holds of an interrupted comparison is not run again.
        measures: measurements along each run.
        watch: called with each measurement and at the end of each run.
        settings: what all conditions share, as options of ``kobai train``. A data set's own recipe is not applied: it would
            hide what is compared.

    The test split is not looked at: a condition chosen by it would look better than it is.

    Raises:
        SettingsError: a setting that does not exist or has a wrong value. DataError: ``out`` holds something else.

    >>> found = compare({"init": ["normal:0.0001", "he"]}, hidden=(20, 20), optimizer="sgd", epochs=3, jobs=1)
    >>> [place.name for place in found.ranking()]
    ['he', 'std 0.0001']
    """
    base = running.settings_of("compare", settings)
    return perform(plan(base, vary, repeat, measures, given=settings), jobs=jobs, out=out, watch=watch)


def plan(
    base: Settings,
    vary: Mapping[str, Any],
    repeat: int = 1,
    measures: int = 40,
    given: Sequence[str] | Mapping[str, Any] = (),
) -> Plan:
    """The plan of a comparison; SettingsError for what cannot be. ``given`` names the settings of ``base`` that were set."""
    running.check_repeats("repeat", repeat)
    running.check_repeats("measures", measures)
    named = {setting("vary", name): what for name, what in vary.items()}
    if not named:
        raise SettingsError("vary", "expected at least one setting to vary, such as activation=sigmoid,relu")
    for name in named:
        if name in given:
            raise SettingsError("vary", f"{name} is given for all runs too; leave one of the two out")
    found = Plan(base.check(), {name: values("vary", name, what) for name, what in named.items()}, repeat, measures)
    for name, one in found.conditions():
        try:
            one.check()
        except SettingsError as error:
            raise SettingsError("vary", f"{name}: {error.option.replace('_', '-')} {error}") from None
    return found


def perform(
    plan: Plan, *, jobs: int | None = None, out: str | Path | None = None, watch: Watch | None = None
) -> Comparison:
    """Do what a plan says, or what is left of it in the folder ``out``."""
    running.check_jobs(jobs)
    folder = None if out is None else Path(out)
    if folder is not None:
        _claim(folder, plan)
    running.parts(plan.base)  # downloads, and complains, once and here
    names = [name for name, _ in plan.conditions()]
    runs: dict[tuple[int, int], Run] = {}
    tasks = []
    for key, one in _runs(plan):
        path = None if folder is None else folder / RUNS / _file(key, names[key[0]], one)
        run = None if path is None else _finished(path, plan, one)
        if run is None:
            tasks.append((key, one, plan.measures, path))
        else:
            runs[key] = run
            if watch is not None:
                watch(key, _news(run), True)

    def ended(i: int, run: dict[str, Any]) -> None:
        key = tasks[i][0]
        runs[key] = Run.from_dict(run)
        if watch is not None:
            watch(key, _news(runs[key]), True)

    def told(letter: dict[str, Any]) -> None:
        c, r = letter.pop("key")
        if watch is not None and (c, r) not in runs:
            watch((c, r), letter, False)

    with running.mailbox(None if watch is None else told) as box:
        workers.run_all(_work, [(*task, box) for task in tasks], jobs=jobs, done=ended)
    found = tuple(
        Condition(name, one, tuple(runs[c, r] for r in range(plan.repeat)))
        for c, (name, one) in enumerate(plan.conditions())
    )
    comparison = Comparison(plan, found)
    if folder is not None:
        comparison.save(folder)
    return comparison


def read_plan(folder: str | Path) -> Plan:
    """The plan of a comparison that was begun in a folder; DataError where there is none."""
    path = Path(folder) / PLAN
    if not path.exists():
        raise DataError(f"{folder}: holds no comparison to go on with ({PLAN} is missing)")
    content = running.read_json(path)
    try:
        base = Settings.from_dict({**content["settings"], **content["where"]})
        vary = {name: [tuple(v) if isinstance(v, list) else v for v in vs] for name, vs in content["vary"].items()}
        return Plan(base, vary, content["repeat"], content["measures"])
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: is not the plan of a comparison ({type(error).__name__}: {error})") from error


# --- the runs ---------------------------------------------------------------------------------------------------------


def _runs(plan: Plan) -> Iterator[tuple[tuple[int, int], Settings]]:
    """((number of the condition, of the seed), settings) of every run, seed by seed: an early stop leaves whole rounds."""
    for r in range(plan.repeat):
        for c, (_, one) in enumerate(plan.conditions()):
            yield (c, r), replace(one, seed=plan.base.seed + r)


def _work(
    key: tuple[int, int], settings: Settings, measures: int, path: Path | None, box: running.Mailbox | None
) -> dict[str, Any]:
    """One run, in whatever process; its file is there as soon as it has ended."""
    run = running.train(settings, measures, None if box is None else lambda run: box.tell(key, run))
    content = run.as_dict()
    if path is not None:
        entry = {"settings": running.lasting(settings), "measures": measures, "run": content}
        write_atomically(path, json.dumps(entry, allow_nan=False).encode() + b"\n")
    return content


def _finished(path: Path, plan: Plan, settings: Settings) -> Run | None:
    """The run in a file; None where there is none."""
    if not path.exists():
        return None
    content = running.read_json(path)
    if not isinstance(content, dict) or (content.get("settings"), content.get("measures")) != (
        running.lasting(settings),
        plan.measures,
    ):
        raise DataError(f"{path}: is not the run that its name says; remove it to have it done again")
    return Run.from_dict(content["run"])


def _file(key: tuple[int, int], name: str, settings: Settings) -> str:
    slug = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")[:60]
    return f"{key[0]:03d}-{slug}-seed{settings.seed}.json"


def _claim(folder: Path, plan: Plan) -> None:
    """Make the folder this comparison's, if it is free or has been so before; DataError if it holds anything else."""
    path = folder / PLAN
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file, and a comparison needs a folder")
    asked = {**plan.as_dict(), "data": running.fingerprint(plan.base)}
    repeat = plan.repeat
    if path.exists():
        held = running.read_json(path)
        for name in asked:
            there = held.get(name) if isinstance(held, dict) else None
            if there != json.loads(json.dumps(asked[name])):
                raise DataError(
                    f"{folder}: holds another comparison: {_difference(name, there, asked[name])}; nothing is overwritten, "
                    "choose another folder"
                )
        if held["repeat"] >= repeat:
            return
    elif folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder}: holds files that are not a comparison's; choose another folder")
    (folder / RUNS).mkdir(parents=True, exist_ok=True)
    where = {name: getattr(plan.base, name) for name in ("data_dir", "download")}
    content = {"kobai": kobai_version(), **asked, "repeat": repeat, "where": where}
    write_atomically(path, json.dumps(content, ensure_ascii=False, indent=1).encode() + b"\n")


def _difference(name: str, there: Any, asked: Any) -> str:
    if name == "data":
        return "its data are not those of this one"
    if not isinstance(there, dict) or not isinstance(asked, dict):
        return f"its {name} is {there}, not {asked}"
    if name == "vary":
        return f"it varies {_varied(there)}, and this one {_varied(asked)}"
    asked = json.loads(json.dumps(asked))
    key = next(k for k in [*asked, *there] if there.get(k, ...) != asked.get(k, ...))
    return f"its {key} is {spelt(_tuple(there.get(key)))}, not {spelt(_tuple(asked.get(key)))}"


def _varied(vary: Mapping[str, Sequence[Any]]) -> str:
    return " and ".join(f"{name}={'|'.join(spelt(_tuple(v)) for v in values)}" for name, values in vary.items())


# --- small things -----------------------------------------------------------------------------------------------------


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _news(run: Run) -> dict[str, Any]:
    return {"epoch": run.epoch[-1], "loss": run.train_loss[-1], "held_accuracy": run.held_accuracy, "run": run}


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def _spread(numbers: Sequence[float]) -> float | None:
    if len(numbers) < 2:
        return None
    mean = _mean(numbers)
    return math.sqrt(sum((x - mean) ** 2 for x in numbers) / (len(numbers) - 1))


def headings(places: Sequence[Place], short: bool = False) -> dict[str, str]:
    """The columns of a ranked table after rank and condition: those in which these places have anything to say.

    ``short`` headings are for a screen, and there are fewer of them.
    """
    goal = f"{REACHED * max(place.accuracy for place in places):.2f}"
    found = {
        "accuracy": "accuracy" if short else "validation accuracy",
        "spread": "± std",
        "best": "" if short else "best",
        "loss": "loss" if short else "validation loss",
        "train_loss": "train loss" if short else "training loss",
        "reached": f"to {goal}" if short else f"epochs to {goal}",
        "diverged": "diverged",
        "seconds": "" if short else "seconds",
    }
    if all(place.spread is None for place in places):
        del found["spread"]
    if not any(place.diverged for place in places):
        del found["diverged"]
    return {name: heading for name, heading in found.items() if heading}


def cells(place: Place, columns: Mapping[str, str]) -> list[str]:
    """A place's values in these columns."""
    found = []
    for name in columns:
        value = getattr(place, name)
        if value is None or not math.isfinite(value):
            found.append("–")
        elif name == "diverged":
            found.append(str(value))
        elif name in ("reached", "seconds"):
            found.append(f"{value:.1f}")
        else:
            found.append(f"{value:.4f}" if abs(value) < 1000 else f"{value:.3g}")
    return found

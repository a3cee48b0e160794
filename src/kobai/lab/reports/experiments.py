"""The report on experiments of the lab."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kobai.core.checksum import from_json
from kobai.core.untrusted import regular
from kobai.errors import DataError
from kobai.lab.experiments.register import EXPERIMENTS, MODULES
from kobai.lab.reports.markup import Markup, code, data_uri, facts, paragraphs, tag
from kobai.lab.reports.page import Page, environment, figure, how, more
from kobai.train.progress import duration


def results(source: Path) -> list[Path]:
    """The files of results that ``source`` is or holds, in the order of the register."""
    found = [source] if source.is_file() else sorted(source.glob("*.json"))
    named = {path.stem: path for path in found if path.stem in MODULES and path.suffix == ".json"}
    return [named[name] for name in MODULES if name in named]


def experiments(source: Path) -> Page:
    """The page on the results in ``source``: claim, figure, finding and settings of each."""
    found = [(path, _content(path)) for path in results(source)]
    shown = sum(content.get("passed") is True for _, content in found)
    if len(found) == 1:
        content = found[0][1]
        page = Page("Experiment", _text(content, "title") or _text(content, "name"), sub=_text(content, "claim"))
    else:
        page = Page(
            "Experiments",
            "The lab: what training looks like",
            lead=f"{len(found)} experiments; in {shown} of them the numbers show what is claimed.",
        )
        page.tiles = [(f"{shown} of {len(found)}", "claims seen in the numbers")]
        seconds = [s for _, c in found if isinstance(s := c.get("seconds"), (int, float))]
        if seconds:
            page.tiles.append((duration(sum(seconds)), "of computing"))
    for path, content in found:
        page.section(_text(content, "title") or path.stem, *_experiment(path, content))
    settings = [c.get("settings") or {} for _, c in found]
    computed = [
        ("Computed by", ", ".join(sorted({f"kobai {_text(c, 'kobai') or 'unknown'}" for _, c in found}))),
        ("Backend", ", ".join(sorted({str(s.get("backend", "unknown")) for s in settings}))),
        ("Seed", ", ".join(sorted({str(s.get("seed", "unknown")) for s in settings}))),
    ]
    page.section("Environment", environment(computed))
    return page


def _experiment(path: Path, content: dict[str, Any]) -> list[Any]:
    settings = content.get("settings") or {}
    word, badge = ("seen", "good") if content.get("passed") is True else ("not seen", "bad")
    verdict = tag("span", f"{word} in these numbers", class_=f"badge {badge}")
    claim = tag("p", tag("b", "Claim: "), _text(content, "claim"), " ", verdict)
    finding = paragraphs(_text(content, "finding"))
    seconds, quick = content.get("seconds"), bool(settings.get("quick"))
    command = f"kobai lab {path.stem} --data {settings.get('data', 'digits')} --seed {settings.get('seed', 0)}"
    known = [
        ("Data", f"{settings.get('data', 'unknown')}{', quick sizes' * quick}"),
        ("Took", duration(seconds) if isinstance(seconds, (int, float)) else None),
        ("Source of the claim", _text(content, "source") or None),
        ("Command", tag("code", command + " --quick" * quick)),
    ]
    image = picture(path.with_suffix(".svg"), _text(content, "alt") or _text(content, "title"))
    return [claim, image, finding, facts(known), more("The numbers", code(numbers(content.get("numbers"))))]


def picture(path: Path, alt: str) -> Markup:
    """A figure from its file, as an image: a script in it would not run."""
    try:
        content = regular(path).read_bytes()
    except OSError:
        return how(f"The figure, {path.name}, is not there.")
    return figure(tag("div", tag("img", src=data_uri(content, "image/svg+xml"), alt=alt), class_="paper"))


def numbers(value: Any, most: int = 6000) -> str:
    """Numbers as JSON, one key to a line; lists in one line; cut where it would be long."""
    lines: list[str] = []

    def walk(value: Any, indent: int, name: str) -> None:
        before = "  " * indent + (f"{name}: " if name else "")
        if isinstance(value, dict) and value:
            lines.append(before.rstrip())
            for key, entry in value.items():
                walk(entry, indent + 1, str(key))
        else:
            text = json.dumps(_rounded(value), ensure_ascii=False)
            lines.append(before + (text if len(text) <= 400 else text[:400] + " …"))

    walk(value, 0, "")
    text = "\n".join(lines).strip()
    return text if len(text) <= most else text[:most] + "\n… the JSON file has all of them"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    return [_rounded(entry) for entry in value] if isinstance(value, list) else value


def _content(path: Path) -> dict[str, Any]:
    try:
        content = from_json(regular(path).read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as the result of an experiment ({error})") from error
    if not isinstance(content, dict) or "finding" not in content:
        raise DataError(f"{path}: is not the result of an experiment (it has no finding)")
    return content


def _text(content: dict[str, Any], key: str) -> str:
    value = content.get(key)
    if not value and content.get("name") in EXPERIMENTS and key in ("title", "claim", "source"):
        return str(getattr(EXPERIMENTS[content["name"]], key))
    return value if isinstance(value, str) else ""

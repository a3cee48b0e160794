"""A page of a report: heading, tiles, sections; written into the template beside this file."""

from __future__ import annotations

import re
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from kobai.bench.machine import facts as machine
from kobai.compat.versions import VERSION
from kobai.core.checksum import read_json
from kobai.errors import DataError
from kobai.lab.reports.markup import Markup, escaped, facts, tag
from kobai.lab.sweep.values import spelt
from kobai.lab.training.from_settings import shared
from kobai.train.settings import RunSettings


@dataclass
class Page:
    """What a page holds. ``tiles``: (value, what it is); ``sections`` are added by :meth:`section`."""

    eyebrow: str
    heading: str
    lead: str = ""
    sub: str = ""
    tiles: list[tuple[str, str]] = field(default_factory=list)
    sections: list[tuple[str, str, Markup]] = field(default_factory=list)

    def section(self, title: str, *content: Any) -> None:
        """A section with a heading; an entry of the page's navigation."""
        name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        while any(name == known for known, _, _ in self.sections):
            name += "-2"
        self.sections.append((name, title, escaped(list(content))))

    def html(self) -> str:
        """The whole file."""
        tiles = [
            tag("div", tag("b", value), tag("span", what), class_="tile first" if i == 0 else "tile")
            for i, (value, what) in enumerate(self.tiles)
        ]
        introduction = [
            tag("p", self.sub, class_="sub") if self.sub else None,
            tag("p", self.lead, class_="lead") if self.lead else None,
            tag("div", tiles, class_="tiles") if tiles else None,
        ]
        links = [tag("a", title, href=f"#{name}") for name, title, _ in self.sections]
        blocks = [
            tag("section", tag("h2", title, id=f"{name}-title"), body, id=name, aria_labelledby=f"{name}-title")
            for name, title, body in self.sections
        ]
        template = Template((files("kobai.lab.reports") / "report.html.in").read_text(encoding="utf-8"))
        written = time.strftime("%Y-%m-%d %H:%M")
        return template.substitute(
            title=escaped(f"{self.heading} – Kobai"),
            generator=escaped(f"kobai {VERSION}"),
            eyebrow=escaped(self.eyebrow),
            heading=escaped(self.heading),
            introduction=escaped(introduction),
            navigation=tag("nav", links, aria_label="Sections") if len(links) > 1 else "",
            sections=escaped(blocks),
            footer=escaped(f"Written by kobai {VERSION} on {written}. This file needs no network."),
        )


def figure(drawing: Any, caption: str = "", note: str = "", class_: str | None = None) -> Markup:
    """A drawing with its caption above."""
    above = tag("figcaption", caption, tag("small", note) if note else None) if caption else None
    return tag("figure", above, drawing, class_=class_)


def how(text: str) -> Markup:
    """A quiet note on how to read what follows."""
    return tag("p", text, class_="how")


def more(summary: str, *content: Any) -> Markup:
    """Content that opens at a click."""
    return tag("details", tag("summary", summary), list(content))


def common(settings: Mapping[str, Any], varied: Container[str]) -> list[Markup]:
    """What the runs of a comparison or a search have in common: what is not the default in a line, and all settings."""
    base = RunSettings.from_dict(settings)
    listed = [(told(name), spelt(of_json(value))) for name, value in settings.items()]
    return [
        tag("h3", "What all had in common"),
        tag("p", f"{shared(base, varied)}; the rest as kobai train has it by default."),
        more("All settings", facts(listed)),
    ]


def told(name: str) -> str:
    """A setting's name in a sentence.

    >>> told("batch_size")
    'batch size'
    """
    return name.replace("_", " ")


def of_json(value: Any) -> Any:
    """A setting's value out of a JSON file, which knows no tuples."""
    return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True)
class Source:
    """How a comparison or a search is recognised on disk and read.

    ``file`` holds the results, with ``entry`` among them; ``begun`` exists from the start. ``what``, ``part`` and ``command``
    are words for messages.
    """

    file: str
    entry: str
    begun: str
    what: str
    part: str
    command: str

    def is_at(self, path: Path) -> bool:
        """Whether ``path`` is such a folder, or its file of results."""
        if path.is_dir():
            return (path / self.begun).is_file() or self.is_at(path / self.file)
        return path.name == self.file and path.is_file() and self.entry in read_json(path)

    @contextmanager
    def results(self, path: Path) -> Iterator[Any]:
        """The content of its file; errors of the block that come from missing or odd entries become a DataError."""
        file = path / self.file if path.is_dir() else path
        if not file.exists():
            raise DataError(
                f"{path}: no {self.part} of the {self.what} in it has come to its end; {self.command} --resume goes on with it"
            )
        content = read_json(file)
        try:
            yield content
        except (KeyError, TypeError, IndexError, AttributeError, ValueError, StopIteration) as error:
            reason = f"{type(error).__name__}: {error}"
            raise DataError(f"{file}: is not the whole result of a {self.what} ({reason})") from error


def environment(pairs: Sequence[tuple[str, Any]]) -> Markup:
    """Facts about the run, then versions and machine."""
    found = machine()
    here = [
        ("Processor", f"{found['processor']}, {found['cores']} cores"),
        ("GPU", ", ".join(found["gpus"]) or None),
        ("System", found["system"]),
        ("Python", found["python"]),
        ("Packages", ", ".join(f"{name} {version}" for name, version in found["packages"].items())),
    ]
    note = how("Processor, system and packages are those of the machine that wrote this report.")
    return escaped([facts([*pairs, *here]), note])

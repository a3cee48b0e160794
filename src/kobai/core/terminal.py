"""The one console that Kobai prints to: it shows text, and does not obey it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from kobai.core.untrusted import printable


class Terminal(Console):
    """A ``rich`` console for text that may come from anywhere: labels, names of files, messages of errors.

    Square brackets and colons in plain strings stay what they are: markup is for :class:`rich.text.Text` and
    ``markup=True``. Control characters are shown as escapes, and so is what the encoding of the output lacks.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False} | options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Plain strings, before their width is measured."""
        return super().render_str(self._shown(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What goes to the terminal, with the codes that ``rich`` itself makes and no others."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(self._shown(segment.text), segment.style)

    def _shown(self, text: str) -> str:
        if text.isascii() and text.isprintable():
            return text
        return printable(text).encode(self.encoding, "backslashreplace").decode(self.encoding)

"""The one console that Kobai prints to. It shows text and never interprets it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from kobai.core.untrusted import printable


class Terminal(Console):
    """A ``rich`` console for untrusted text: labels, file names, error messages.

    Square brackets and colons in plain strings are literal; for markup use :class:`rich.text.Text` or ``markup=True``.
    Control characters, and what the output's encoding lacks, are shown as escapes.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False} | options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Plain strings, before their width is measured."""
        return super().render_str(self._shown(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What goes to the terminal: only the control codes that ``rich`` itself makes."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(self._shown(segment.text), segment.style)

    def _shown(self, text: str) -> str:
        if text.isascii() and text.isprintable():
            return text
        return printable(text).encode(self.encoding, "backslashreplace").decode(self.encoding)

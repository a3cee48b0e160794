"""HTML and SVG elements; text is escaped unless it is markup already."""

from __future__ import annotations

import html
from typing import Any

_EMPTY = frozenset({"br", "hr", "img", "meta", "link"})


class Markup(str):
    """Markup, which goes into a page as it is."""

    __slots__ = ()


def escaped(value: Any) -> Markup:
    """``value`` as markup: text is escaped, markup kept, None is empty, and a list is the markup of its entries.

    >>> escaped("a < b & 'c'"), escaped(Markup("<b>"))
    ('a &lt; b &amp; &#x27;c&#x27;', '<b>')
    """
    if value is None:
        return Markup()
    if isinstance(value, Markup):
        return value
    if isinstance(value, (list, tuple)):
        return Markup("".join(map(escaped, value)))
    # XML has no control characters, such as the escape that begins a terminal's colours.
    shown = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in str(value))
    return Markup(html.escape(shown, quote=True))


def tag(name: str, *children: Any, **attributes: Any) -> Markup:
    """An element. In attribute names a last ``_`` is dropped and others become ``-``; None and False leave an attribute out.

    >>> tag("p", "1 < 2, ", tag("b", "yes"), class_="note", hidden=False)
    '<p class="note">1 &lt; 2, <b>yes</b></p>'
    >>> tag("img", src="data:,", alt='a "b"')
    '<img src="data:," alt="a &quot;b&quot;">'
    """
    written = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        word = key.rstrip("_").replace("_", "-")
        written.append(f" {word}" if value is True else f' {word}="{escaped(value)}"')
    opened = f"<{name}{''.join(written)}>"
    return Markup(opened if name in _EMPTY else f"{opened}{escaped(list(children))}</{name}>")

"""Axes of SVG charts: their ranges, their ticks, and where values lie in the drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kobai.lab.reports.drawing import HEIGHT, WIDTH, label, stroke
from kobai.lab.reports.markup import Markup

Ticks = tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Axis:
    """A range of numbers from ``low`` to ``high``; ``ticks`` are the labelled ones, each with its text."""

    low: float
    high: float
    ticks: Ticks
    log: bool = False

    def share(self, value: float) -> float:
        """How far along the axis a value lies: 0 at ``low``, 1 at ``high``.

        >>> between(1e-4, 1, log=True).share(0.01)
        0.5
        """
        scale = math.log10 if self.log else float
        low = scale(self.low)
        return (scale(value) - low) / (scale(self.high) - low)


def between(low: float, high: float, log: bool = False, whole: bool = False) -> Axis:
    """The axis from exactly ``low`` to ``high``; ``whole``: only integers are labelled.

    >>> [text for _, text in between(1e-4, 1, log=True).ticks]
    ['10⁻⁴', '10⁻³', '10⁻²', '10⁻¹', '1']
    """
    if not high > low:
        low, high, log = low - 0.5, high + 0.5, False
    if log:
        return Axis(low, high, _decades(math.log10(low), math.log10(high)), True)
    return Axis(low, high, tuple((v, number(v)) for v in nice(low, high) if not whole or v == round(v)))


def around(values: Sequence[float], log: bool = False, shares: bool = False) -> Axis:
    """The axis for measured values, with some room at its ends; from 0 where that costs little, so that lengths compare.

    ``shares``: ticks are percentages.

    >>> around([0.2, 0.9], shares=True).ticks[0]
    (0.0, '0 %')
    """
    low, high = min(values), max(values)
    if log:
        a, b = math.log10(low), math.log10(high)
        if b - a < 1:
            a, b = (a + b) / 2 - 0.5, (a + b) / 2 + 0.5
        a, b = a - 0.05 * (b - a), b + 0.05 * (b - a)
        return Axis(10.0**a, 10.0**b, _decades(a, b), True)
    if low >= 0 and low < 0.6 * high:
        low = 0.0
    if high == low:
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    reach = high - low
    high = min(high + 0.05 * reach, 1.0) if shares and high <= 1 else high + 0.05 * reach
    if low:
        low -= 0.05 * reach
    return Axis(low, high, tuple((v, f"{100 * v:.6g} %" if shares else number(v)) for v in nice(low, high)))


def wide(values: Sequence[float]) -> bool:
    """Whether positive values spread so far that only a logarithmic axis shows them all.

    >>> wide([0.01, 1.0]), wide([0.1, 1.0]), wide([0.0, 1.0]), wide([])
    (True, False, False, False)
    """
    return bool(values) and min(values) > 0 and max(values) > 30 * min(values)


def named(names: Sequence[str]) -> Axis:
    """The axis of categories: the first at 0, the second at 1, each with room on both sides.

    >>> named(["relu", "tanh"]).share(0), named(["relu", "tanh"]).ticks
    (0.25, ((0.0, 'relu'), (1.0, 'tanh')))
    """
    return Axis(-0.5, len(names) - 0.5, tuple((float(i), name) for i, name in enumerate(names)))


def thinned(ticks: Sequence[tuple[float, str]], most: int) -> Ticks:
    """At most ``most`` of the ticks, evenly spaced."""
    return tuple(ticks[:: max(1, math.ceil(len(ticks) / most))])


# --- numbers ------------------------------------------------------------------------------------------------------------


def nice(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers within [low, high], about ``about`` of them.

    >>> nice(0, 1), nice(-3.2, 7, 3)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.0, 5.0])
    """
    if not high > low:
        return [low]
    rough = (high - low) / max(1, about)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def _decades(low: float, high: float) -> Ticks:
    """Powers of ten from 10^low to 10^high; where there are fewer than two, numbers between them too."""
    first, last = math.ceil(low - 1e-9), math.floor(high + 1e-9)
    step = max(1, math.ceil((last - first + 1) / 6))
    ticks = tuple((10.0**e, power(10.0**e)) for e in range(first, last + 1, step))
    if len(ticks) >= 2:
        return ticks
    between = [m * 10.0**e for e in range(first - 1, last + 1) for m in (1, 2, 5)]
    return tuple((v, number(v)) for v in between if low - 1e-9 <= math.log10(v) <= high + 1e-9)


def number(value: float) -> str:
    """A number in its shortest readable form.

    >>> [number(v) for v in (0.25, 1500, 0.00001, -2.0, 1e6, 0)]
    ['0.25', '1,500', '1e−5', '−2', '1e6', '0']
    """
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        text = f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    else:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        text = f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return text.replace("-", "−")


def rounded(value: float | None, digits: int = 3) -> str:
    """A number to so many significant digits; a dash for None.

    >>> rounded(0.123456), rounded(None)
    ('0.123', '–')
    """
    return "–" if value is None else number(float(f"{value:.{digits}g}"))


def percent(share: float | None) -> str:
    """A share as a percentage with one decimal; a dash for None.

    >>> percent(0.9876), percent(None)
    ('98.8 %', '–')
    """
    return "–" if share is None else f"{100 * share:.1f} %"


def score(value: float | None, measure: str) -> str:
    """A value of the ``measure`` as people write it: accuracies in percent, R² as a number, which may be below 0.

    >>> score(0.9876, "accuracy"), score(-0.5, "R²"), score(None, "R²")
    ('98.8 %', '-0.500', '–')
    """
    return percent(value) if measure == "accuracy" or value is None else f"{value:.3f}"


def whole_percent(value: float) -> str:
    """A share as a whole percentage.

    >>> whole_percent(0.876), whole_percent(0.001), whole_percent(0.0)
    ('88 %', '< 1 %', '0 %')
    """
    return "< 1 %" if 0 < value < 0.005 else f"{100 * value:.0f} %"


def power(value: float) -> str:
    """A power of ten with a superscript exponent.

    >>> power(0.001), power(1.0), power(100.0)
    ('10⁻³', '1', '10²')
    """
    exponent = round(math.log10(value))
    if exponent in (0, 1):
        return "1" if exponent == 0 else "10"
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


# --- in the drawing -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Frame:
    """Two axes in a drawing of ``width`` × ``height``."""

    across: Axis
    up: Axis
    width: int = WIDTH
    height: int = HEIGHT

    top = 10.0

    @property
    def left(self) -> float:
        return 34.0 + 6.4 * max((len(text) for _, text in self.up.ticks), default=1)

    @property
    def right(self) -> float:
        return self.width - 14.0

    @property
    def bottom(self) -> float:
        return self.height - (74.0 if self.turned else 42.0)

    @property
    def turned(self) -> bool:
        """Whether the labels below are turned, for want of room side by side."""
        room = (self.right - self.left) / max(1, len(self.across.ticks))
        return any(6.2 * len(text) > room for _, text in self.across.ticks)

    def x(self, value: float) -> float:
        return self.left + self.across.share(value) * (self.right - self.left - 8) + 4

    def y(self, value: float) -> float:
        return self.bottom - self.up.share(value) * (self.bottom - self.top)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the data lies in the drawing."""
        return self.x(x), self.y(y)

    def axes(self, x_label: str, y_label: str) -> Markup:
        """Grid, axis lines, ticks and labels."""
        parts = []
        for value, text in self.up.ticks:
            y = self.y(value)
            parts.append(stroke(self.left, y, self.right, y, "grid"))
            parts.append(label(text, self.left - 6, y + 4, "tick end"))
        parts.append(stroke(self.left, self.bottom, self.right, self.bottom, "axis"))
        for value, text in self.across.ticks:
            x, y = self.x(value), self.bottom + 16
            parts.append(stroke(x, self.bottom, x, self.bottom + 3, "axis"))
            if self.turned:
                parts.append(label(shortened(text, 11), x + 4, y, "tick end", turn=(-45, x + 4, y - 4)))
            else:
                parts.append(label(text, x, y, "tick middle"))
        middle = (self.top + self.bottom) / 2
        parts.append(label(x_label, (self.left + self.right) / 2, self.height - 5, "label middle"))
        parts.append(label(y_label, 13, middle, "label middle", turn=(-90, 13, middle)))
        return Markup("".join(parts))


def shortened(name: str, most: int) -> str:
    """A name cut to ``most`` letters."""
    return name if len(name) <= most else name[: most - 1] + "…"

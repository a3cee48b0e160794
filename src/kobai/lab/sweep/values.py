"""Values of settings as text: ``init=normal:0.01,xavier,he``, ``hidden=50|100,100``, ``lr=1e-4..1e-1:log``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from kobai.errors import nearest
from kobai.train.own_models import named, short
from kobai.train.settings import RunSettings, SettingsError

KINDS: dict[str, str] = {
    "model": "name",
    "hidden": "sizes",
    "activation": "name",
    "init": "name",
    "batch_norm": "switch",
    "dropout": "number",
    "optimizer": "name",
    "lr": "number",
    "momentum": "number",
    "weight_decay": "number",
    "schedule": "name",
    "epochs": "count",
    "batch_size": "count",
    "clip_grad_norm": "number",
    "patience": "count",
}
"""The settings that a comparison may vary and a search may search, with the kind of their values."""

OPTIONAL = ("lr", "clip_grad_norm", "patience")
SWITCH = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}
SHORT = {"weight_decay": "weight decay", "batch_size": "batch", "clip_grad_norm": "clip", "lr": "lr"}


def setting(option: str, name: str) -> str:
    """The setting called ``name`` (``batch-norm`` too); SettingsError, with the nearest, for one that may not be varied.

    >>> setting("vary", "batch-norm")
    'batch_norm'
    """
    key = name.strip().replace("-", "_")
    if key in KINDS:
        return key
    if key in {f.name for f in fields(RunSettings)}:
        why = "; --repeat runs each condition with several seeds" if key == "seed" else ""
        raise SettingsError(option, f"{name} is one and the same for all runs{why}")
    raise SettingsError(option, f"no setting is called {name!r}.{nearest(key, KINDS)}")


def pairs(option: str, texts: Iterable[str]) -> dict[str, str]:
    """``["lr=0.1,1", "init=he"]`` as a dict; SettingsError for what has no ``=`` and for names given twice."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or not values.strip():
            raise SettingsError(option, f"expected NAME=VALUES, got {text!r}")
        name = setting(option, name)
        if name in found:
            raise SettingsError(option, f"{name} is given twice")
        found[name] = values.strip()
    return with_own_models(found)


def with_own_models(varied: Mapping[str, Any]) -> dict[str, Any]:
    """What a person or a program varies: nets of their files may be run, those that a plan on the disk names may not."""
    found = dict(varied)
    if "model" in found:
        found["model"] = [named(str(one)) for one in _listed(found["model"])]
    return found


def value(option: str, name: str, given: Any) -> Any:
    """One value of a setting from text or from Python.

    >>> value("vary", "init", "normal:0.01"), value("vary", "hidden", "100,50"), value("vary", "batch_norm", "on")
    ('normal(0.01)', (100, 50), True)
    """
    kind = KINDS[name]
    text = given.strip() if isinstance(given, str) else None
    if name in OPTIONAL and (given is None or text in ("none", "default")):
        return None
    try:
        if kind == "switch":
            return SWITCH[text.lower()] if text is not None else _is(bool, given)
        if kind == "sizes":
            if text is not None:
                return tuple(int(n) for n in text.split(",")) if text not in ("", "none") else ()
            return tuple(_is(int, n) for n in given)
        if kind == "count":
            return int(text) if text is not None else _is(int, given)
        if kind == "number":
            number = float(text if text is not None else _is((int, float), given))
            if not math.isfinite(number):
                raise ValueError
            return number
        if text is None:
            raise ValueError
        if name == "model":
            return given  # text would forget that its file may be run
        return re.sub(r"^(\w+):(.+)$", r"\1(\2)", text) if name == "init" else text
    except (KeyError, TypeError, ValueError):
        expected = {
            "switch": "on or off",
            "sizes": "widths such as 100,100",
            "count": "an integer",
            "number": "a number",
            "name": "a name",
        }[kind]
        raise SettingsError(option, f"{name}: expected {expected}, got {given!r}") from None


def _is(kind: Any, given: Any) -> Any:
    if not isinstance(given, kind) or (isinstance(given, bool) and kind is not bool):
        raise TypeError
    return given


def values(option: str, name: str, given: Any) -> list[Any]:
    """Several values of a setting: a sequence, or text that separates them by ``|`` (or by commas outside brackets).

    >>> values("vary", "init", "normal:0.01,xavier,he"), values("space", "hidden", "50|100,100")
    (['normal(0.01)', 'xavier', 'he'], [(50,), (100, 100)])
    """
    found = [value(option, name, one) for one in _listed(given)]
    if not found:
        raise SettingsError(option, f"{name}: expected values, got none")
    for i, one in enumerate(found):
        if one in found[:i]:
            hint = "; write | between values that hold commas" if KINDS[name] == "sizes" else ""
            raise SettingsError(option, f"{name}: {spelt(one)} is given twice{hint}")
    return found


def _listed(given: Any) -> Any:
    """Texts of several values; without a |, commas outside brackets separate them."""
    if isinstance(given, str):
        return given.split("|") if "|" in given else re.split(r",(?![^(]*\))", given)
    return given if isinstance(given, (list, tuple, range, set, frozenset)) else [given]


def spelt(one: Any) -> str:
    """A value as the command line writes it.

    >>> spelt((100, 50)), spelt(True), spelt(0.001), spelt(None)
    ('100,50', 'on', '0.001', 'default')
    """
    if isinstance(one, bool):
        return "on" if one else "off"
    if isinstance(one, tuple):
        return ",".join(map(str, one)) or "none"
    if one is None:
        return "default"
    if isinstance(one, float):
        short = f"{one:g}"
        return short if float(short) == one else repr(one)
    return str(one)


def spelt_out(parameters: Mapping[str, Any]) -> str:
    """Settings and their values in one line.

    >>> spelt_out({"lr": 0.00123456, "hidden": (100, 50)})
    'lr 0.00123, hidden 100,50'
    """
    return ", ".join(
        f"{n} {v:.3g}" if isinstance(v, float) else f"{n} {spelt(tuple(v) if isinstance(v, list) else v)}"
        for n, v in parameters.items()
    )


def label(name: str, one: Any) -> str:
    """The name of a setting's value in a table or a legend.

    >>> label("activation", "relu"), label("init", "normal(0.01)"), label("batch_norm", False), label("lr", 0.1)
    ('relu', 'std 0.01', 'no batch norm', 'lr 0.1')
    """
    if name == "batch_norm":
        return "batch norm" if one else "no batch norm"
    if name == "init":
        return re.sub(r"^normal\(([\d.e+-]+)\)$", r"std \1", one)
    if name == "schedule":
        return "no schedule" if one == "none" else f"{one} schedule"
    if KINDS[name] == "name":
        return short(str(one))
    return f"{SHORT.get(name, name)} {'none' if one is None and name != 'lr' else spelt(one)}"


# --- spaces to search -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included; a grid has ``points`` of them."""

    low: float
    high: float
    log: bool = False
    points: int = 5
    whole: bool = False

    def grid(self) -> list[float]:
        """Evenly spaced values, on a logarithmic scale if ``log``.

        >>> Range(0.001, 0.1, log=True, points=3).grid(), Range(16, 64, True, 3, whole=True).grid()
        ([0.001, 0.01, 0.1], [16, 32, 64])
        """
        a, b = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        at = [a + (b - a) * i / max(1, self.points - 1) for i in range(self.points)]
        # Twelve digits: 0.01 instead of 0.010000000000000002.
        found = [float(f"{math.exp(x) if self.log else x:.12g}") for x in at]
        return list(dict.fromkeys(round(x) for x in found)) if self.whole else found

    def __str__(self) -> str:
        low, high = spelt(self.low), spelt(self.high)
        return f"{low}..{high}{':log' * self.log}{f':{self.points}' if self.points != 5 else ''}"


Space = dict[str, Range | list[Any]]


def space(given: Mapping[str, Any]) -> Space:
    """A search space, from text or Python values: for each setting a :class:`Range` or a list of choices.

    >>> found = space({"lr": "1e-4..1e-1:log", "hidden": "50|100,100"})
    >>> str(found["lr"]), found["hidden"]
    ('0.0001..0.1:log', [(50,), (100, 100)])
    """
    if not given:
        raise SettingsError("space", "expected at least one setting to search, such as lr=1e-4..1e-1:log")
    found: Space = {}
    for key, what in given.items():
        name = setting("space", key)
        if isinstance(what, str) and ".." in what:
            what = _range(name, what)
        if isinstance(what, Range):
            found[name] = _checked(name, what)
        else:
            found[name] = values("space", name, what)
    return found


def _range(name: str, text: str) -> Range:
    match = re.fullmatch(r"([^:]+?)\.\.([^:]+?)((?::\w+)*)", text.replace(" ", ""))
    if match is None or KINDS[name] not in ("number", "count"):
        expected = "LOW..HIGH[:log][:POINTS]" if KINDS[name] in ("number", "count") else "values, for it is no number"
        raise SettingsError("space", f"{name}: expected {expected}, got {text!r}")
    low, high = (value("space", name, end) for end in match.groups()[:2])
    log, points = False, 5
    for option in filter(None, match[3].split(":")):
        if option == "log":
            log = True
        elif option.isdecimal() and int(option) >= 2:
            points = int(option)
        else:
            raise SettingsError("space", f"{name}: expected log, or at least 2 points of a grid, got {option!r}")
    return Range(low, high, log, points, KINDS[name] == "count")


def _checked(name: str, given: Range) -> Range:
    if KINDS[name] not in ("number", "count"):
        raise SettingsError("space", f"{name}: expected values, for it is no number, got the range {given}")
    if not given.low < given.high:
        raise SettingsError("space", f"{name}: expected LOW < HIGH, got {given}")
    if given.log and given.low <= 0:
        raise SettingsError("space", f"{name}: a logarithmic range begins above 0, got {given}")
    whole = KINDS[name] == "count"
    if whole and (given.low != int(given.low) or given.high != int(given.high)):
        raise SettingsError("space", f"{name}: expected integers, got {given}")
    low, high = (int(given.low), int(given.high)) if whole else (float(given.low), float(given.high))
    return Range(low, high, given.log, given.points, whole)

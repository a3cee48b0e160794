"""The plan of a comparison: every combination of the values of some settings is a condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from kobai.lab.sweep.values import label, setting, values
from kobai.lab.training import from_settings
from kobai.train.settings import RunSettings, SettingsError

__all__ = ["ComparePlan", "plan"]


@dataclass(frozen=True)
class ComparePlan:
    """What to compare: all combinations in ``vary`` on top of ``base``, with ``repeat`` seeds from ``base.seed`` on."""

    base: RunSettings
    vary: dict[str, list[Any]]
    repeat: int = 1
    measures: int = 40

    def conditions(self) -> list[tuple[str, RunSettings]]:
        """(name, settings) of each condition, in the order of the product."""
        found = []
        for combination in product(*self.vary.values()):
            chosen = dict(zip(self.vary, combination, strict=True))
            name = ", ".join(label(setting, value) for setting, value in chosen.items())
            found.append((name, replace(self.base, **chosen)))
        return found

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it; the folder of another comparison has another one."""
        kept = {name: v for name, v in from_settings.lasting(self.base).items() if name not in self.vary}
        return {"vary": self.vary, "settings": kept, "measures": self.measures}

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> ComparePlan:
        """The plan that :meth:`as_dict` describes, with ``repeat`` beside it.

        >>> made = plan(RunSettings(), {"hidden": "50|100,100"}, repeat=2)
        >>> ComparePlan.from_dict({**made.as_dict(), "repeat": 2}) == made
        True
        """
        vary = {name: [tuple(v) if isinstance(v, list) else v for v in vs] for name, vs in content["vary"].items()}
        base = RunSettings.from_dict({**content["settings"], **content.get("where", {})})
        return ComparePlan(base, vary, content["repeat"], content["measures"])


def plan(
    base: RunSettings,
    vary: Mapping[str, Any],
    repeat: int = 1,
    measures: int = 40,
    given: Sequence[str] | Mapping[str, Any] = (),
) -> ComparePlan:
    """The plan of a comparison; SettingsError if it cannot be done. ``given`` are the settings that the user set."""
    from_settings.check_count("repeat", repeat)
    from_settings.check_count("measures", measures)
    named = {setting("vary", name): what for name, what in vary.items()}
    if not named:
        raise SettingsError("vary", "expected at least one setting to vary, such as activation=sigmoid,relu")
    for name in named:
        if name in given:
            raise SettingsError("vary", f"{name} is given for all runs too; leave one of the two out")
    vary = {name: values("vary", name, what) for name, what in named.items()}
    conditions = ComparePlan(base, vary, repeat, measures).conditions()
    return ComparePlan(from_settings.settled("vary", base, vary, conditions), vary, repeat, measures)

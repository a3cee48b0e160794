"""A module whose variables are switches: known ones can be set, others raise."""

from __future__ import annotations

import sys
from types import ModuleType

from kobai.errors import nearest


class _Switches(ModuleType):
    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_") and name not in self.__dict__:
            hint = nearest(name, [n for n in self.__dict__ if not n.startswith("_")])
            raise AttributeError(f"{self.__name__} has no switch {name!r}.{hint}")
        super().__setattr__(name, value)


def refuse_unknown(module: str) -> None:
    """Make a misspelt switch of this module raise instead of creating a variable that nobody reads."""
    sys.modules[module].__class__ = _Switches
